"""The rows of a recipe as the data panel needs them: plain data from the path that training uses.

Reads through `tunebook.data`; knows no widget.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunebook.errors import DatasetUnreadable
from tunebook.recipe import Recipe

FIRST_ROWS = 20  # of a file, before all of it is read
MOST_TOKENS = 3000  # of one row, in the page
MOST_TEXT = 20_000  # characters of one message, in the page
FORMATS = {
    "messages": "Chat: lists of role and content",
    "sharegpt": "Chat: lists of from and value (ShareGPT)",
    "alpaca": "Instruction, input and output (Alpaca)",
    "prompt_completion": "Question and answer",
    "text": "Plain text",
    "preference": "Preference: a chosen and a rejected answer",
    "unpaired_preference": "Answers labelled good or bad",
    "prompt_only": "Questions without an answer to learn",
}
# What the columns mean does not change the rows that are read.
_ANY_MEANING: dict[str, Any] = {
    "format": "auto",
    "columns": None,
    "merged_prompt": None,
    "train_on": "responses",
    "eval_source": None,
    "eval_fraction": 0.0,
}
_PLACING = ("packing", "batch_size", "seed")
NO_ROW: dict[str, Any] = {
    "raw": {},
    "conversation": [],
    "tools": {},
    "text": [],
    "tokens": [],
    "packed": {},
    "counts": {},
}


class RowReader:
    """The rows of one recipe; each is encoded when it is looked at.

    Of a local file only the first rows are read until `read_all`, so that a page shows at once
    however large the file is; `complete` says whether that was done.

    Args:
        tokenizer: the model's, with its own template.
        rows: rows in memory instead of the recipe's source.
        known: another reader; where it has read these rows, they are not read once more.

    Raises:
        SourceMissing, DatasetUnreadable, DatasetEmpty, FormatUnknown, TemplateInvalid: as they say.
    """

    def __init__(
        self, recipe: Recipe, tokenizer: Any, *, rows: Any = None, known: RowReader | None = None
    ):
        from tunebook.data import with_recipe_template
        from tunebook.data.browsing import RowList
        from tunebook.data.formats import detect_for
        from tunebook.data.loading import read_page
        from tunebook.data.prepare import recipe_encoder

        self.recipe, self.complete = recipe, False
        self.places: Any = None
        self._given, self._tokenizer = rows, tokenizer
        dressed = with_recipe_template(tokenizer, recipe)
        self._encoder = recipe_encoder(recipe, dressed, every_turn=True)
        self.all: RowList
        if known is not None and known.complete and self.has_rows_of(known):
            self._take(known._loaded)
        elif rows is None and Path(recipe.data.source).expanduser().is_file():
            try:
                page, head = read_page(recipe.data, 0, FIRST_ROWS)
            except DatasetUnreadable:
                self.read_all()  # the rows around the broken one
            else:
                self.all = RowList(page, detect_for(recipe.data, head))
        else:
            self.read_all()

    def read_all(self) -> None:
        """Read every row that can be read, and detect the format from them."""
        from tunebook.data.checks import read_readable

        self._take(read_readable(self.recipe, self._given))

    def index(self) -> bool:
        """List all rows of a large file at once, before they are read; False where that is no use."""
        from tunebook.data.browsing import RowList
        from tunebook.data.lines import LineIndex, can_index

        data, path = self.recipe.data, Path(self.recipe.data.source).expanduser()
        if self.complete or data.split != "train" or not can_index(path):
            return False
        self.all = RowList(LineIndex(path, data.max_rows), self.all.detection)
        return True

    def sample_lengths(self) -> Any:
        """The lengths of some rows, as `LengthTally`, while not all are counted."""
        from tunebook.data.lengths import sample_lengths

        return sample_lengths(self.all.table, self.all.detection, self._encoder)

    def _take(self, loaded: Any) -> None:
        from tunebook.data.browsing import RowList
        from tunebook.data.formats import detect_for

        self._loaded = loaded
        table = self._loaded.table
        self.all = RowList(table, detect_for(self.recipe.data, table))
        self.complete = True

    def __len__(self) -> int:
        return len(self.all.table)

    @property
    def broken(self) -> int:
        """How many rows were passed over that training would stop at, once all are read."""
        skipped = self._loaded.skipped if self.complete else None
        return skipped.count if skipped is not None and not skipped.allowed else 0

    def format_dict(self) -> dict[str, Any]:
        """What was detected, in words."""
        found = self.all.detection
        words = f"{FORMATS.get(found.format, found.format)}. {found.reason}"
        return {"name": found.format, "words": words, "columns": found.columns}

    def view(self, row: int, values_of: Callable[[int], Sequence[float]] | None) -> dict[str, Any]:
        """All stages of one row, as a DataPanel's traits.

        Args:
            values_of: gives for a row what was measured at each of its tokens.
        """
        from tunebook.data.journey import journey_of

        values = values_of(row) if values_of is not None else ()
        raw, detection = self.all.table[row], self.all.detection
        journey = journey_of(raw, row, detection, self._encoder, self.places, values)
        view = journey.tokens
        return {
            "raw": journey.raw,
            "conversation": [
                {
                    "role": str(item["role"]),
                    "content": _shortened(str(item["content"])),
                    "calls": [_shortened(_json(call)) for call in item.get("tool_calls") or []],
                }
                for item in journey.messages
            ],
            "tools": tool_lists(journey.tools or [], journey.tools_shown),
            "text": [
                [_shortened(piece.text), piece.turn, piece.role, piece.trained]
                for piece in journey.text
            ],
            "tokens": token_lists(view) if view is not None else [],
            "counts": counts_of(view) if view is not None else {},
            "packed": {**journey.packed.model_dump(mode="json"), "words": str(journey.packed)},
            "row_error": {**journey.error, "stage": journey.failed} if journey.error else {},
        }

    def check(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Figures of all rows, and what is wrong with them, worst first."""
        from tunebook.data.checks import check_loaded

        report, marks = check_loaded(self.recipe, self._loaded, self.all.detection, self._tokenizer)
        self.all.marks = marks
        findings = [finding.model_dump(mode="json") for finding in report.findings]
        for finding in findings:
            finding["listed"] = finding["code"] in marks.found
        if report.statistics is None:
            return {}, findings
        self.place_rows(self.recipe)
        statistics = report.statistics.model_dump(mode="json")
        tokens = statistics["tokens"]
        statistics["trained_share"] = statistics["trained_tokens"] / tokens if tokens else 0.0
        return statistics, findings

    def place_rows(self, recipe: Recipe) -> None:
        """Work out where the rows land in training, if all are counted, for a recipe of this data."""
        from tunebook.data.placing import RowPlaces

        self.recipe = recipe
        if self.all.marks.lengths:
            self.places = RowPlaces(recipe, self.all.marks, len(self))

    def lands_elsewhere(self, recipe: Recipe) -> bool:
        """Whether a recipe of the same data packs or batches the rows in another way."""
        now, then = self.recipe.training, recipe.training
        return any(getattr(now, name) != getattr(then, name) for name in _PLACING)

    def has_rows_of(self, other: RowReader) -> bool:
        """Whether both read the same rows from the same place."""
        mine, others = (r.recipe.data.model_copy(update=_ANY_MEANING) for r in (self, other))
        return self._given is other._given and mine == others

    def compare(self, row: int, template: str) -> dict[str, Any]:
        """A row under the recipe's template and another, as the trait `comparison`.

        Raises:
            RowInvalid, TemplateInvalid: as `compare_templates`.
        """
        from tunebook.data import to_messages
        from tunebook.data.comparison import compare_messages

        seen = hasattr(self._tokenizer, "image_processor")
        messages = to_messages(self.all.table[row], self.all.detection, number=row, pictures=seen)
        found = compare_messages(self.recipe, self._tokenizer, messages, template, row=row)
        sides = {"mine": found.mine, "other": found.other}
        return {"template": template, "words": str(found)} | {
            name: {
                "template": side.template,
                "tokens": token_lists(side.view, side.marks) if side.view else [],
                "counts": counts_of(side.view) if side.view else {},
                "error": side.error or {},
            }
            for name, side in sides.items()
        }

    def fixed(self, fix: str) -> Any:
        """The rows after a fix, as `Fixed`; what was read stays as it is."""
        from tunebook.data import apply_fixes

        # The slice was cut when the rows were read, and must not be cut from them once more.
        recipe = self.recipe.with_values({"data.split": "train", "data.max_rows": None})
        special = list(self._encoder.tokenizer.all_special_tokens)
        return apply_fixes(recipe, [fix], rows=self.all.table, special_tokens=special)


def line_lists(lines: list[Any]) -> list[list[Any]]:
    """Lines of a `RowList` for the page: row, words, tokens, marks as [words, severity]."""
    from tunebook.data.findings import TEXTS

    return [
        [
            line.row,
            line.words,
            line.tokens,
            [[code.replace("_", " "), TEXTS[code][0]] for code in line.marks],
        ]
        for line in lines
    ]


def tool_lists(tools: list[dict[str, Any]], shown: bool | None) -> dict[str, Any]:
    """The offered tools for the page: `offered` as [name, description, schema], and words on them."""
    from tunebook.data.tools import about

    if not tools:
        return {}
    words = "Tools that the model may call."
    if shown is False:
        words += " The chat template does not write them: the model knows what the messages say."
    return {"words": words, "offered": [[_shortened(t) for t in about(tool)] for tool in tools]}


def token_lists(view: Any, marks: Sequence[str] = ()) -> list[list[Any]]:
    """Tokens for the page: text, id, kinds, turn, value."""
    return [
        [cell.text, cell.id, _kind(cell, *marks[at : at + 1]), cell.turn, cell.value]
        for at, cell in enumerate(view.tokens[:MOST_TOKENS])
    ]


def counts_of(view: Any) -> dict[str, Any]:
    """Figures of one row's tokens, with the lowest and highest value measured at them."""
    values = [cell.value for cell in view.tokens if cell.value is not None]
    return {
        "tokens": view.n_tokens,
        "trained": view.n_trained,
        "truncated": view.truncated,
        "cut": view.n_cut,
        "shown": min(view.n_tokens, MOST_TOKENS),
        "values": [min(values), max(values)] if values else [],
    }


def head_rows(recipe: Recipe, rows: Any = None) -> list[dict[str, Any]]:
    """The first rows, whatever their columns mean.

    Raises:
        SourceMissing, DatasetUnreadable, DatasetEmpty: as `read_page`.
    """
    from tunebook.data.loading import read_page

    return read_page(recipe.data, 0, FIRST_ROWS, rows=rows)[1]


def data_size(statistics: dict[str, Any]) -> Any:
    """The plan's `DataSize` from figures, or None while nothing is counted."""
    from tunebook.plan import DataSize

    if not statistics.get("rows") or not statistics.get("tokens"):
        return None
    return DataSize(
        rows=statistics["rows"],
        mean_length=statistics["mean_length"],
        max_length=statistics["longest"],
    )


def _kind(cell: Any, *more: str) -> str:
    kinds = ["trained" if cell.trained else "masked", *more]
    kinds += ["special"] * cell.special + ["continues"] * cell.continues
    return " ".join(kinds)


def _json(call: dict[str, Any]) -> str:
    return json.dumps(call.get("function", call), ensure_ascii=False)


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} …"
