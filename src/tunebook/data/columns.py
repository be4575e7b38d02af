"""Which column is which: what the columns hold, what they are taken for, and a row made with that.

For a person who looks at a mapping or makes one; training takes the same path through `formats`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from tunebook.data.conversations import to_messages
from tunebook.data.formats import SAMPLE, detect_for
from tunebook.data.mapping import PARTS
from tunebook.data.spool import kind_of
from tunebook.data.turns import Message
from tunebook.errors import RecipeInvalid, TunebookError
from tunebook.recipe import DataPart

_EXAMPLE = 80  # characters
# kind: title, parts that it needs, parts that it may have
KINDS: dict[str, tuple[str, list[str], list[str]]] = {
    "messages": ("Conversations", ["messages"], ["system", "tools"]),
    "prompt_completion": ("Questions and answers", ["prompt", "completion"], ["system", "tools"]),
    "alpaca": ("Instructions", ["instruction", "output"], ["input", "system"]),
    "text": ("Plain text", ["text"], []),
    "preference": ("A better and a worse answer", ["chosen", "rejected"], ["prompt", "system"]),
    "unpaired_preference": ("Answers marked good or bad", ["prompt", "completion", "label"], []),
    "prompt_only": ("Questions alone", ["prompt"], ["reference", "system"]),
}
ABOUT_PARTS = {
    "messages": "a list of turns with role and content",
    "prompt": "what is asked",
    "completion": "what it learns to answer",
    "instruction": "what is to be done",
    "input": "what it is to be done with",
    "output": "what it learns to answer",
    "system": "what is said before the conversation",
    "tools": "what the model may call",
    "text": "learnt from the first word to the last",
    "chosen": "the better answer",
    "rejected": "the worse answer",
    "label": "true where the answer is good",
    "reference": "what an answer is compared with",
}
_NAMED_FORMATS = ("preference", "unpaired_preference")
_ASKED = (
    *("prompt", "question", "query", "instruction", "user", "human", "ask", "problem"),
    *("input", "source", "context", "article", "document", "title", "request", "src"),
)
_ANSWERED = (
    *("completion", "answer", "response", "output", "assistant", "reply", "solution"),
    *("target", "summary", "gpt", "bot", "result", "translation", "tgt", "code"),
)


class Column(BaseModel):
    """One column: what kind of value it holds, and the beginning of the first that is not empty."""

    name: str
    kind: str
    example: str


class ColumnView(BaseModel):
    """The columns of some rows and what they are taken for.

    `kind` is a key of `KINDS`, `chosen` maps its parts to columns. `how` says where that comes from:
    "detected", "mapped" by hand, or "guessed" where nothing could be detected; `why` says more.
    """

    columns: list[Column]
    kind: str
    chosen: dict[str, str]
    how: str
    why: str
    confidence: float = 0.0


class MappedRow(BaseModel):
    """One row under a mapping: its messages, or in three parts why there are none."""

    messages: list[Message] = []
    error: dict[str, str] = {}


def column_view(rows: Any, part: DataPart) -> ColumnView:
    """What the columns of some rows hold and are taken for; never raises for the data's sake.

    Args:
        rows: a `datasets.Dataset` or list of dicts; the first 100 are looked at.
    """
    sample = [rows[number] for number in range(min(SAMPLE, len(rows)))]
    columns = [
        _column(name, sample) for name in dict.fromkeys(key for row in sample for key in row)
    ]
    try:
        found = detect_for(part, rows)
    except TunebookError as error:
        kind, chosen = guess_columns(columns)
        return ColumnView(
            columns=columns,
            kind=kind,
            chosen=chosen,
            how="guessed",
            why=f"{error.what} {error.why}",
        )
    names = {column.name for column in columns}
    kind = "messages" if found.format == "sharegpt" else found.format
    taken = dict(found.columns)
    if kind != "messages" and "messages" in taken:
        taken.setdefault("prompt", taken["messages"])
    parts = [*KINDS[kind][1], *KINDS[kind][2]]
    return ColumnView(
        columns=columns,
        kind=kind,
        chosen={p: c for p, c in taken.items() if p in parts and c in names},
        how="mapped" if part.columns else "detected",
        why=found.reason,
        confidence=found.confidence,
    )


def guess_columns(columns: list[Column]) -> tuple[str, dict[str, str]]:
    """The likeliest kind and mapping of columns whose names are not known."""
    lists = [column.name for column in columns if column.kind == "a list of objects"]
    if lists:
        return "messages", {"messages": lists[0]}
    texts = [column.name for column in columns if column.kind == "text"]
    if len(texts) < 2:
        return "text", {"text": texts[0]} if texts else {}
    answer = _alike(texts, _ANSWERED) or texts[-1]
    asked = _alike([name for name in texts if name != answer], _ASKED)
    return "prompt_completion", {
        "prompt": asked or next(name for name in texts if name != answer),
        "completion": answer,
    }


def mapping_values(kind: str, chosen: dict[str, str]) -> dict[str, Any]:
    """The recipe's fields that a mapping means.

    Raises:
        RecipeInvalid: a part that the kind needs has no column, or the kind is not known.
    """
    if kind not in KINDS:
        raise RecipeInvalid(
            f"There is no kind of rows called `{kind}`.",
            f"kinds are {', '.join(KINDS)}.",
            "choose one of these.",
        )
    title, needed, more = KINDS[kind]
    columns = {part: chosen[part] for part in (*needed, *more) if chosen.get(part)}
    missing = [part for part in needed if part not in columns]
    if missing:
        raise RecipeInvalid(
            f"{title} need a column for {' and '.join(f'`{part}`' for part in missing)}.",
            "none is chosen: " + "; ".join(f"`{p}` is {ABOUT_PARTS[p]}" for p in missing) + ".",
            "choose the column that holds it, or another kind of rows.",
        )
    named = kind if kind in _NAMED_FORMATS else "auto"
    return {"data.columns": columns, "data.format": named, "data.merged_prompt": None}


def mapped_row(rows: Any, part: DataPart, number: int = 0) -> MappedRow:
    """A row as messages under the mapping of a data part."""
    try:
        found = detect_for(part, rows)
        return MappedRow(
            messages=list(to_messages(rows[number], found, number=number, pictures=True))
        )
    except TunebookError as error:
        return MappedRow(error=error.to_dict())


def _column(name: str, sample: list[dict[str, Any]]) -> Column:
    held = [row.get(name) for row in sample]
    value = next((v for v in held if v not in (None, "", [])), None)
    kind = kind_of(value)
    if isinstance(value, list) and value:
        inside = {"str": "texts", "dict": "objects"}.get(type(value[0]).__name__, "values")
        kind = f"a list of {inside}"
    text = " ".join(str(value)[: 4 * _EXAMPLE].split())
    return Column(name=name, kind=kind, example=text[:_EXAMPLE] + "…" * (len(text) > _EXAMPLE))


def _alike(names: list[str], words: tuple[str, ...]) -> str | None:
    """The name that is most like one of the words: the same, or holding it."""
    for word in words:
        for name in names:
            if word in name.lower():
                return name
    return None


assert set(ABOUT_PARTS) == set(PARTS)
