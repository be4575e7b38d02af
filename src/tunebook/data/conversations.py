"""Turn one row of any known format into a list of chat messages with the roles of today.

This module knows no tokenizer: what a conversation looks like as text is the template's matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tunebook.data.mapping import fill
from tunebook.data.pictures import place_images, require_text
from tunebook.data.tools import Tool, to_tools
from tunebook.data.turns import (
    ROLE_ALIASES as ROLE_ALIASES,
    Message as Message,
    describe,
    standard_role as standard_role,
    to_message,
    wrong,
)
from tunebook.errors import RowInvalid

if TYPE_CHECKING:
    from tunebook.data.finders import Detection

FormatName = Literal[
    "messages",
    "sharegpt",
    "alpaca",
    "prompt_completion",
    "text",
    "preference",
    "unpaired_preference",
    "prompt_only",
]
# Anthropic's helpful-harmless data and its kin: one text with both sides of the talk.
_SPOKEN = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")


class Conversation(list[Message]):
    """Messages, and the tools that the model is offered in them (None: none).

    `images` are the values of the pictures, one for each `IMAGE_MARK` in the contents, in order.
    """

    def __init__(
        self,
        messages: Iterable[Message] = (),
        tools: list[Tool] | None = None,
        images: list[Any] | None = None,
    ) -> None:
        super().__init__(messages)
        self.tools = tools
        self.images = images or []


@dataclass(frozen=True)
class Preference:
    """One question with the answer that is preferred and the one that is not, as messages."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: list[Tool] | None = None


def to_messages(
    row: dict[str, Any],
    detection: Detection,
    *,
    number: int | None = None,
    pictures: bool = False,
) -> Conversation:
    """One row as messages `{"role", "content"}`; plain text is a single message of the role "text".

    Of a preference this is the question with the chosen answer; of a row that is only a prompt,
    the prompt.

    Args:
        row: as the dataset gives it.
        detection: what the columns mean.
        number: the row's number from 0, for the error.
        pictures: the model sees them; what is not looked at here is whether they can be opened.

    Raises:
        RowInvalid: naming the row and the key that is missing or holds the wrong thing.
        ImageInvalid: there are more or fewer pictures than places for them.
        ImagesUnsupported: a turn holds a picture, and the model reads text only.
    """
    columns = detection.columns
    place = place_of(number)
    if detection.format == "text":
        return Conversation([_message("text", _text(row, columns["text"], place))])
    if detection.format == "preference":
        pair = to_preference(row, detection, number=number)
        messages = pair.prompt + pair.chosen
    else:
        messages = _prompt(row, detection, place)
        if "output" in columns:
            messages.append(_message("assistant", _text(row, columns["output"], place)))
        if "completion" in columns:
            messages += _side(row, columns["completion"], "assistant", place)
    messages = _with_system(row, columns, messages, place)
    images: list[Any] = []
    if pictures:
        messages, images = place_images(messages, row, detection.images, place)
    else:
        require_text(messages, place)
    return Conversation(messages, _tools(row, columns, place), images)


def to_preference(
    row: dict[str, Any], detection: Detection, *, number: int | None = None
) -> Preference:
    """A preference row as prompt, chosen and rejected; a prompt that both share is taken out.

    Raises:
        RowInvalid: naming the row and the key.
    """
    columns, place = detection.columns, place_of(number)
    chosen = _spoken(row, columns["chosen"], place)
    rejected = _spoken(row, columns["rejected"], place)
    prompt = _prompt(row, detection, place)
    shared = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        shared += 1
    # Both may repeat the prompt, and two equal answers still leave one message each.
    shared = min(shared, len(chosen) - 1, len(rejected) - 1)
    common = chosen[:shared]
    if common[: len(prompt)] == prompt:
        prompt = common
    elif common:
        prompt = prompt + common
    prompt = _with_system(row, columns, prompt, place) if prompt else prompt
    tools = _tools(row, columns, place)
    return Preference(prompt, chosen[shared:], rejected[shared:], tools)


def to_label(row: dict[str, Any], detection: Detection, *, number: int | None = None) -> bool:
    """Whether the answer of an unpaired preference row is a good one.

    Raises:
        RowInvalid: the label is neither yes nor no.
    """
    value = row.get(detection.columns["label"])
    said = _LABELS.get(str(value).strip().lower())
    if said is None:
        why = f"is {describe(value)}; a label is true or false"
        raise wrong(place_of(number), f"`{detection.columns['label']}`", why)
    return said


def to_reference(row: dict[str, Any], detection: Detection) -> str | None:
    """The reference answer of a prompt-only row, or None."""
    name = detection.columns.get("reference")
    value = row.get(name) if name else None
    return None if value is None else str(value)


def to_conversations(rows: Iterable[dict[str, Any]], detection: Detection) -> list[Conversation]:
    """`to_messages` for every row, in order.

    Raises:
        RowInvalid: at the first row that does not fit.
    """
    return [to_messages(row, detection, number=number) for number, row in enumerate(rows)]


def place_of(number: int | None) -> str:
    """How an error names a row."""
    return "The row" if number is None else f"Row {number} (counted from 0)"


_LABELS = dict.fromkeys(["true", "1", "1.0", "yes", "good", "desirable", "chosen"], True)
_LABELS |= dict.fromkeys(["false", "0", "0.0", "-1", "no", "bad", "undesirable", "rejected"], False)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _prompt(row: dict[str, Any], detection: Detection, place: str) -> list[Message]:
    """What stands before the answer; a whole conversation where the format has one."""
    columns = detection.columns
    if detection.merged_prompt:
        return [_message("user", fill(detection.merged_prompt, row, place))]
    if "messages" in columns:
        return _chat(row, columns, place)
    if "instruction" in columns:
        question = _text(row, columns["instruction"], place)
        extra = row.get(columns["input"]) if "input" in columns else None
        if extra not in (None, ""):
            question += "\n\n" + _text(row, columns["input"], place)
        return [_message("user", question)]
    if "prompt" in columns:
        return _side(row, columns["prompt"], "user", place)
    return []


def _with_system(
    row: dict[str, Any], columns: dict[str, str], messages: list[Message], place: str
) -> list[Message]:
    system = row.get(columns["system"]) if "system" in columns else None
    if system in (None, "") or (messages and messages[0]["role"] == "system"):
        return messages
    return [_message("system", _text(row, columns["system"], place)), *messages]


def _tools(row: dict[str, Any], columns: dict[str, str], place: str) -> list[Tool] | None:
    name = columns.get("tools")
    return to_tools(row.get(name), place, name) if name is not None else None


def _chat(row: dict[str, Any], columns: dict[str, str], place: str) -> list[Message]:
    turns = row.get(columns["messages"])
    if not isinstance(turns, list) or not turns:
        raise RowInvalid(
            f"{place} holds no conversation.",
            f"`{columns['messages']}` is {describe(turns)}.",
            "delete the row, or give it at least one turn.",
        )
    role, content = columns.get("role", "role"), columns.get("content", "content")
    where = f"of `{columns['messages']}`"
    return [
        to_message(turn, place, f"turn {index} {where}", role_key=role, content_key=content)
        for index, turn in enumerate(turns)
    ]


def _side(row: dict[str, Any], key: str, role: str, place: str) -> list[Message]:
    """Prompt, completion or answer: text, one message, or a list of messages as TRL has it."""
    value = row.get(key)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return [_message(role, _text(row, key, place))]
    item = value[0] if value and isinstance(value[0], dict) else {}
    keys = ("from", "value") if "from" in item and "value" in item else ("role", "content")
    columns = {"messages": key, "role": keys[0], "content": keys[1]}
    return _chat({key: value}, columns, place)


def _spoken(row: dict[str, Any], key: str, place: str) -> list[Message]:
    """A chosen or rejected side; one text may hold a talk of `Human:` and `Assistant:`."""
    messages = _side(row, key, "assistant", place)
    text = messages[0]["content"]
    if len(messages) > 1 or not isinstance(row.get(key), str) or not text.startswith("\n\nHuman:"):
        return messages
    pieces = _SPOKEN.split(text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(pieces[::2], pieces[1::2], strict=False)
    return [_message(roles[who], said.strip("\n")) for who, said in pairs]


def _text(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if value is None:
        raise wrong(place, f"`{key}`", "is missing")
    if not isinstance(value, str):
        raise wrong(place, f"`{key}`", f"is {describe(value)}, not text")
    return value
