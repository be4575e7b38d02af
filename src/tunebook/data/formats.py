"""What the columns of a dataset mean: chat messages, ShareGPT, Alpaca, prompt and completion, text.

This module looks at names and at the first rows; it knows no tokenizer and no template.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, Field

from tunebook.data.conversations import FormatName, to_messages
from tunebook.errors import FormatUnknown, RowInvalid

SAMPLE = 100
_CHAT_COLUMNS = ["messages", "conversations", "conversation", "chat", "dialogue", "dialog", "turns"]
_ITEM_KEYS: dict[Literal["messages", "sharegpt"], tuple[str, str]] = {
    "messages": ("role", "content"),
    "sharegpt": ("from", "value"),
}
_PAIRS = [
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("instruction", "response"),
]
_ALPACA_ANSWERS = ["output", "response"]
KNOWN = (
    "`messages` (list of role/content), `conversations` (list of from/value), "
    "`instruction`/`input`/`output`, `prompt`/`completion`, `question`/`answer`, `text`"
)


class Detection(BaseModel):
    """What a dataset's columns mean and how sure that is.

    `columns` gives, for each part of the format, the column (or key) that holds it; `confidence`
    is the share of the sampled rows that agree, lowered where a column's name had to be guessed.
    """

    format: FormatName
    confidence: float = Field(ge=0.0, le=1.0)
    columns: dict[str, str]
    reason: str
    disagreeing: list[int] = []


def detect_format(rows: Any, format: str = "auto") -> Detection:
    """Find out what the columns mean from their names and the first 100 rows.

    Args:
        rows: a `datasets.Dataset` or a list of dicts, with at least one row.
        format: a format's name, to be taken without looking further; "auto" tries all.

    Raises:
        FormatUnknown: no format fits, or the one named needs columns that are not there.
    """
    sample = [rows[index] for index in range(min(SAMPLE, len(rows)))]
    named = getattr(rows, "column_names", None)
    names: list[str] = list(named or dict.fromkeys(key for row in sample for key in row))
    for finder in _FINDERS if format == "auto" else _FINDER_OF[format]:
        found = finder(names, sample)
        if found is not None:
            return _compare(found, sample)
    listed = ", ".join(f"`{name}`" for name in names) or "none"
    if format == "auto":
        raise FormatUnknown(
            "The format of the dataset is not known.",
            f"its columns are {listed}; known are {KNOWN}.",
            "rename the columns to one of these, or set `data.format`.",
        )
    raise FormatUnknown(
        f"The dataset is not in the format `{format}`.",
        f"its columns are {listed}; known are {KNOWN}.",
        'set `data.format` to "auto", or rename the columns.',
    )


def _compare(found: Detection, sample: list[dict[str, Any]]) -> Detection:
    disagreeing = []
    for number, row in enumerate(sample):
        try:
            to_messages(row, found, number=number)
        except RowInvalid:
            disagreeing.append(number)
    share = 1 - len(disagreeing) / max(1, len(sample))
    reason = found.reason
    if disagreeing:
        reason += f" {len(disagreeing)} of the first {len(sample)} rows do not fit."
    confidence = round(found.confidence * share, 3)
    return found.model_copy(
        update={"disagreeing": disagreeing, "confidence": confidence, "reason": reason}
    )


def _find_chat(
    kind: Literal["messages", "sharegpt"],
    names: list[str],
    sample: list[dict[str, Any]],
    among: list[str],
) -> Detection | None:
    role, content = _ITEM_KEYS[kind]
    for name in among:
        item = _first_item(row.get(name) for row in sample)
        if item is None or role not in item or content not in item:
            continue
        columns = {"messages": name, "role": role, "content": content}
        if "system" in names and isinstance(sample[0].get("system"), str | None):
            columns["system"] = "system"
        return Detection(
            format=kind,
            confidence=1.0 if name in _CHAT_COLUMNS else 0.8,
            columns=columns,
            reason=f"The column `{name}` holds lists of turns with `{role}` and `{content}`.",
        )
    return None


def _first_item(values: Iterable[Any]) -> dict[str, Any] | None:
    for value in values:
        if isinstance(value, list) and value:
            return value[0] if isinstance(value[0], dict) else None
    return None


def _known(names: list[str]) -> list[str]:
    return [name for name in _CHAT_COLUMNS if name in names]


def _find_messages(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    return _find_chat("messages", names, sample, _known(names))


def _find_sharegpt(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    return _find_chat("sharegpt", names, sample, _known(names))


def _guess_messages(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    return _find_chat("messages", names, sample, names)


def _guess_sharegpt(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    return _find_chat("sharegpt", names, sample, names)


def _find_alpaca(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    answer = next((name for name in _ALPACA_ANSWERS if name in names), None)
    if "instruction" not in names or answer is None:
        return None
    columns = {"instruction": "instruction", "output": answer}
    columns |= {name: name for name in ("input", "system") if name in names}
    listed = ", ".join(f"`{name}`" for name in columns.values())
    reason = f"The columns {listed} are those of instruction data."
    return Detection(format="alpaca", confidence=1.0, columns=columns, reason=reason)


def _find_pair(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    for prompt, completion in _PAIRS:
        if prompt in names and completion in names:
            columns = {"prompt": prompt, "completion": completion}
            columns |= {"system": "system"} if "system" in names else {}
            return Detection(
                format="prompt_completion",
                confidence=1.0,
                columns=columns,
                reason=f"The column `{prompt}` is a question and `{completion}` its answer.",
            )
    return None


def _find_text(names: list[str], sample: list[dict[str, Any]]) -> Detection | None:
    if "text" in names:
        reason = "The column `text` is plain text, learnt from the first to the last word."
        return Detection(format="text", confidence=1.0, columns={"text": "text"}, reason=reason)
    if len(names) == 1 and isinstance(sample[0].get(names[0]), str):
        reason = f"The only column, `{names[0]}`, holds text."
        return Detection(format="text", confidence=0.6, columns={"text": names[0]}, reason=reason)
    return None


_FINDER_OF = {
    "messages": [_find_messages, _guess_messages],
    "sharegpt": [_find_sharegpt, _guess_sharegpt],
    "alpaca": [_find_alpaca],
    "prompt_completion": [_find_pair],
    "text": [_find_text],
}
# A chat column of an unknown name is guessed only where nothing better fits.
_FINDERS = [found[0] for found in _FINDER_OF.values()] + [_guess_messages, _guess_sharegpt]
