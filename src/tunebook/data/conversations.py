"""Turn one row of any known format into a list of chat messages with the roles of today.

This module knows no tokenizer: what a conversation looks like as text is the template's matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from tunebook.errors import RowInvalid

if TYPE_CHECKING:
    from tunebook.data.formats import Detection

Message = dict[str, Any]
FormatName = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "text"]

ROLE_ALIASES = {
    "system": ["system", "developer"],
    "user": ["user", "human", "prompter", "input"],
    "assistant": ["assistant", "gpt", "chatgpt", "bot", "ai", "model", "output"],
    "tool": ["tool", "function", "observation", "ipython"],
}
_ROLE_OF = {alias: role for role, aliases in ROLE_ALIASES.items() for alias in aliases}
_EXTRA_KEYS = ["name", "tool_calls", "tool_call_id", "reasoning_content", "thinking", "train"]


def to_messages(
    row: dict[str, Any], detection: Detection, *, number: int | None = None
) -> list[Message]:
    """One row as messages `{"role", "content"}`; plain text is a single message of the role "text".

    Args:
        row: as the dataset gives it.
        detection: what the columns mean.
        number: the row's number from 0, for the error.

    Raises:
        RowInvalid: naming the row and the key that is missing or holds the wrong thing.
    """
    columns = detection.columns
    place = "The row" if number is None else f"Row {number} (counted from 0)"
    if detection.format in ("messages", "sharegpt"):
        messages = _chat(row, columns, place)
    elif detection.format == "alpaca":
        question = _text(row, columns["instruction"], place)
        extra = row.get(columns["input"]) if "input" in columns else None
        if extra not in (None, ""):
            question += "\n\n" + _text(row, columns["input"], place)
        answer = _text(row, columns["output"], place)
        messages = [_message("user", question), _message("assistant", answer)]
    elif detection.format == "prompt_completion":
        messages = _side(row, columns["prompt"], "user", place)
        messages += _side(row, columns["completion"], "assistant", place)
    else:
        return [_message("text", _text(row, columns["text"], place))]
    system = row.get(columns["system"]) if "system" in columns else None
    if system not in (None, "") and messages[0]["role"] != "system":
        messages.insert(0, _message("system", _text(row, columns["system"], place)))
    return messages


def to_conversations(rows: Iterable[dict[str, Any]], detection: Detection) -> list[list[Message]]:
    """`to_messages` for every row, in order.

    Raises:
        RowInvalid: at the first row that does not fit.
    """
    return [to_messages(row, detection, number=number) for number, row in enumerate(rows)]


def standard_role(name: Any) -> str | None:
    """The role that an alias such as "human" or "gpt" means; None if it is unknown."""
    return _ROLE_OF.get(name.strip().lower()) if isinstance(name, str) else None


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _chat(row: dict[str, Any], columns: dict[str, str], place: str) -> list[Message]:
    turns = row.get(columns["messages"])
    if not isinstance(turns, list) or not turns:
        raise RowInvalid(
            f"{place} holds no conversation.",
            f"`{columns['messages']}` is {_describe(turns)}.",
            "delete the row, or give it at least one turn.",
        )
    return [_turn(turn, columns, place, index) for index, turn in enumerate(turns)]


def _turn(turn: Any, columns: dict[str, str], place: str, index: int) -> Message:
    role_key, content_key = columns.get("role", "role"), columns.get("content", "content")
    where = f"turn {index} of `{columns.get('messages', 'messages')}`"
    if not isinstance(turn, dict):
        raise _wrong(place, where, f"is {_describe(turn)}, not an object with `{role_key}`")
    if turn.get(role_key) is None:
        raise _wrong(place, where, f"has no `{role_key}`")
    role = standard_role(turn[role_key])
    if role is None:
        known = ", ".join(alias for aliases in ROLE_ALIASES.values() for alias in aliases)
        why = f"has the unknown `{role_key}` {turn[role_key]!r}; known are {known}"
        raise _wrong(place, where, why)
    content = turn.get(content_key)
    extras = {key: turn[key] for key in _EXTRA_KEYS if turn.get(key) is not None}
    if content is None and "tool_calls" in extras:
        content = ""
    if content is None:
        raise _wrong(place, where, f"has no `{content_key}`")
    if isinstance(content, list):
        content = _joined(content, place, f"`{content_key}` in {where}")
    if not isinstance(content, str):
        raise _wrong(place, where, f"has {_describe(content)} as `{content_key}`, not text")
    return {"role": role, "content": content, **extras}


def _joined(parts: list[Any], place: str, where: str) -> str:
    texts = []
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise _wrong(place, where, "holds something that is not text")
        texts.append(part["text"])
    return "".join(texts)


def _side(row: dict[str, Any], key: str, role: str, place: str) -> list[Message]:
    """Prompt or completion: text, or a list of messages as TRL has it."""
    value = row.get(key)
    if isinstance(value, list):
        return _chat(row, {"messages": key, "role": "role", "content": "content"}, place)
    return [_message(role, _text(row, key, place))]


def _text(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if value is None:
        raise _wrong(place, f"`{key}`", "is missing")
    if not isinstance(value, str):
        raise _wrong(place, f"`{key}`", f"is {_describe(value)}, not text")
    return value


def _wrong(place: str, where: str, why: str) -> RowInvalid:
    return RowInvalid(
        f"{place} cannot be turned into a conversation.",
        f"{where} {why}.",
        "mend or delete the row.",
    )


def _describe(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, list | dict | str) and not value:
        return f"an empty {type(value).__name__}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) < 60 else text[:57] + '...'}"
