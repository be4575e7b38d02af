"""Safe changes that remove findings: asked for by name, written to a new table, never in place.

Each fix drops rows or changes texts; what it did is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.checks import recipe_of
from tunebook.data.conversations import to_messages
from tunebook.data.duplicates import NearDuplicates, chat_digest, row_digest
from tunebook.data.formats import Detection, detect_for, look_at
from tunebook.data.frames import common
from tunebook.data.images import open_image
from tunebook.data.loading import read_rows
from tunebook.data.overlap import Measured, overlap_of
from tunebook.data.spool import RowSpool, Skipped
from tunebook.data.suspects import hidden, mended, token_pattern
from tunebook.data.vision_prepare import picture_folder
from tunebook.errors import FolderExists, RecipeInvalid, RowInvalid
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset

FIXES = {
    "drop_invalid": "leave out rows that cannot be read, or turned into a conversation, or whose "
    "pictures cannot be opened",
    "drop_empty_answers": "leave out rows with an empty answer",
    "drop_duplicates": "keep the first of rows that are the same",
    "drop_near_duplicates": "keep the first of rows that are nearly the same",
    "drop_eval_overlap": "leave out conversations that are in the evaluation data too (where that is "
    "held back from the same rows: keep the first of equal conversations)",
    "strip_special_tokens": "take the text of special tokens out of messages",
    "mend_encoding": "mend wrongly read UTF-8 and take control characters out",
    "hide_personal_data": "replace keys, e-mail addresses and account numbers by their kind",
}
_EXCERPT = 240  # characters
_STARTS = ("<s>", "<bos>", "<|begin_of_text|>")


@dataclass(frozen=True)
class Change:
    """What a fix does to one row, by its number from 0; `after` is None where it is left out."""

    row: int
    before: dict[str, Any]
    after: dict[str, Any] | None

    def excerpt(self) -> tuple[str, str, str]:
        """Where the row changes first (such as `messages[1].content`), and the text before and after.

        Of a row that is left out: nothing, its longest text, nothing.
        """
        if self.after is None:
            texts = [text for _, text in _leaves(self.before)]
            return "", max(texts, key=len, default="")[:_EXCERPT], ""
        pairs = zip(_leaves(self.before), _leaves(self.after), strict=True)
        for (place, before), (_, after) in pairs:
            if before != after:
                start = max(0, common(before, after) - _EXCERPT // 4)
                lead = "…" if start else ""
                cut = slice(start, start + _EXCERPT)
                return place, lead + before[cut], lead + after[cut]
        return "", "", ""


@dataclass
class Fixed:
    """The rows after the fixes; `changed` counts for each fix the rows it dropped or changed.

    `examples` holds for each fix the first change that it made.
    """

    table: Dataset
    changed: dict[str, int] = field(default_factory=dict)
    examples: dict[str, Change] = field(default_factory=dict)


def apply_fixes(
    recipe_or_rows: Any,
    fixes: list[str],
    *,
    rows: Any = None,
    special_tokens: list[str] | None = None,
) -> Fixed:
    """A new table with the fixes applied in the order given; what was read stays as it is.

    Args:
        recipe_or_rows: a Recipe, a path or dataset id, or rows in memory.
        fixes: names of `FIXES`.
        rows: in-memory data instead of the recipe's source.
        special_tokens: of the model, besides those of the best known families.

    Raises:
        RecipeInvalid: a fix has no such name, or no evaluation data is named for its overlap.
        ExtraMissing: near-duplicates need a package that is not installed.
        SourceMissing, DatasetUnreadable, DatasetEmpty, FormatUnknown: as in loading.
    """
    for name in fixes:
        if name not in FIXES:
            raise RecipeInvalid(
                f"There is no fix `{name}`.", "a fix has a name.", f"use one of {', '.join(FIXES)}."
            )
    recipe, rows = recipe_of(recipe_or_rows, None, rows)
    part = recipe.data
    if "drop_invalid" in fixes:
        part = part.model_copy(update={"on_bad_rows": "skip"})
    loaded = read_rows(part, rows=rows)
    table = loaded.table
    detection = detect_for(part, table)
    tokens = special_tokens or []
    steps = [(name, _step(name, recipe, detection, tokens, len(table))) for name in fixes]
    fixed = Fixed(table, dict.fromkeys(fixes, 0))
    if "drop_invalid" in fixes:
        fixed.changed["drop_invalid"] = loaded.skipped.count
    spool = RowSpool("the mended rows", Skipped())
    for number, row in enumerate(table):
        kept = _through(number, row, steps, fixed)
        if kept is not None:
            spool.add(number, kept)
    fixed.table = spool.dataset()
    return fixed


def write_rows(table: Dataset, path: Path | str) -> Path:
    """Write a table to a new JSON lines, JSON, CSV or Parquet file, by its ending.

    Raises:
        FolderExists: the file is there already.
        RecipeInvalid: the ending is none of these.
    """
    import datasets

    path = Path(path)
    if path.exists():
        raise FolderExists(
            f"The file {path} exists already.",
            "data is never changed in place.",
            "name another file, or delete that one first.",
        )
    temporary = path.with_name(f".{path.name}.part")
    ending = path.suffix.lower()
    datasets.disable_progress_bars()
    try:
        if ending in (".jsonl", ".ndjson"):
            table.to_json(temporary, lines=True, force_ascii=False)
        elif ending == ".json":
            table.to_json(temporary, lines=False, force_ascii=False)
        elif ending == ".csv":
            table.to_csv(temporary, index=False)
        elif ending == ".parquet":
            table.to_parquet(temporary)
        else:
            raise RecipeInvalid(
                f"The file {path} cannot be written.",
                f"its name ends in `{ending}`.",
                "end it in .jsonl, .json, .csv or .parquet.",
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


Step = Callable[[int, Any], "dict[str, Any] | None"]


def _through(
    number: int, row: dict[str, Any], steps: list[tuple[str, Step]], fixed: Fixed
) -> dict[str, Any] | None:
    """One row after all steps, which are counted; None where one leaves it out."""
    for name, step in steps:
        after = step(number, row)
        if after != row:
            fixed.changed[name] += 1
            fixed.examples.setdefault(name, Change(number, row, after))
        if after is None:
            return None
        row = after
    return row


def _step(name: str, recipe: Recipe, detection: Detection, tokens: list[str], rows: int) -> Step:
    """What one fix does to one row: the row as it is, changed, or None to drop it."""
    if name == "drop_invalid":
        folder = picture_folder(recipe.data)
        return lambda number, row: row if _seen(row, detection, folder) else None
    if name == "drop_empty_answers":
        return lambda number, row: None if _says_nothing(row, detection) else row
    if name == "drop_duplicates":
        seen: set[bytes] = set()
        return lambda number, row: row if _new(seen, row_digest(row)) else None
    if name == "drop_near_duplicates":
        near = NearDuplicates()
        return lambda number, row: None if _near(near, number, row, detection) else row
    if name == "drop_eval_overlap":
        return _not_measured(recipe, detection, rows)
    if name == "strip_special_tokens":
        return lambda number, row: _stripped(row, detection, tokens)
    change = mended if name == "mend_encoding" else hidden
    return lambda number, row: _mapped(row, change)


def _valid(row: dict[str, Any], detection: Detection) -> bool:
    try:
        look_at(row, detection)
    except RowInvalid:
        return False
    return True


def _seen(row: dict[str, Any], detection: Detection, folder: Path | None) -> bool:
    """Whether a row is valid and its pictures can be opened."""
    try:
        for value in to_messages(row, detection, pictures=True).images:
            open_image(value, folder=folder)
    except RowInvalid:
        return False
    return _valid(row, detection)


def _says_nothing(row: dict[str, Any], detection: Detection) -> bool:
    if not _valid(row, detection):
        return False
    answers = [
        m for m in to_messages(row, detection, pictures=True) if m["role"] in ("assistant", "text")
    ]
    return any(not m["content"].strip() and "tool_calls" not in m for m in answers)


def _new(seen: set[bytes], digest: bytes) -> bool:
    known = digest in seen
    seen.add(digest)
    return not known


def _near(near: NearDuplicates, number: int, row: dict[str, Any], detection: Detection) -> bool:
    if not _valid(row, detection):
        return False
    return near.seen(number, to_messages(row, detection, pictures=True)) is not None


def _not_measured(recipe: Recipe, detection: Detection, rows: int) -> Step:
    overlap = overlap_of(recipe, rows)
    if overlap is None:
        raise RecipeInvalid(
            "The overlap with the evaluation data cannot be removed.",
            "`data.eval_source` is empty and `data.eval_fraction` is 0.",
            "name the evaluation data there.",
        )
    seen: set[bytes] = set()

    def step(number: int, row: Any) -> dict[str, Any] | None:
        if _valid(row, detection):
            messages = to_messages(row, detection, pictures=True)
            if isinstance(overlap, Measured):
                return None if overlap.meets(number, messages) == "exact" else row
            # Fewer rows are divided in another way: only one of each is sure to stand on one side.
            return row if _new(seen, chat_digest(messages)) else None
        return dict(row)

    return step


def _stripped(row: dict[str, Any], detection: Detection, tokens: list[str]) -> dict[str, Any]:
    """Plain text loses start tokens at its beginning only; messages lose every special token."""
    if detection.format == "text":
        column = detection.columns["text"]
        text = row[column]
        starts = tuple({*_STARTS, *tokens})
        while isinstance(text, str) and text.startswith(starts):
            text = text[max(len(s) for s in starts if text.startswith(s)) :]
        return {**row, column: text}
    pattern = token_pattern(tokens)
    stripped: dict[str, Any] = _mapped(row, lambda text: pattern.sub("", text) if pattern else text)
    return stripped


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a value with the place where it stands; `_mapped` keeps their number."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{place}[{number}]")


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _mapped(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    return value
