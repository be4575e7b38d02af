"""From one written form of conversations to another: merged prompts, ShareGPT, ChatML text.

Rows and texts only: no tokenizer, no template and no table library is known here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from tunebook.data.conversations import Message, standard_role
from tunebook.errors import RowInvalid

_TURN = re.compile(r"<\|im_start\|>([^\n<]*)\n(.*?)<\|im_end\|>", re.DOTALL)
_MARKS = ("<|im_start|>", "<|im_end|>")
SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def stitched(rows: int, extension: int, seed: int) -> list[list[int]]:
    """For every row the numbers of the rows that make up its conversation.

    The first is the row itself; the others are drawn from independent shuffles of all rows, so
    each row stands once in every place.
    """
    draws = [list(range(rows))]
    for number in range(1, max(1, extension)):
        order = list(range(rows))
        random.Random(f"{seed} {number}").shuffle(order)
        draws.append(order)
    return [list(places) for places in zip(*draws, strict=True)]


def to_turns(questions: Sequence[str], answers: Sequence[str]) -> list[dict[str, str]]:
    """ShareGPT turns from questions and their answers, in order."""
    turns = []
    for question, answer in zip(questions, answers, strict=True):
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return turns


def to_sharegpt_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as `from`/`value` turns."""
    return [
        {"from": SHAREGPT_ROLES.get(message["role"], message["role"]), "value": message["content"]}
        for message in messages
    ]


def from_sharegpt_turns(turns: Sequence[dict[str, str]]) -> list[Message]:
    """`from`/`value` turns as messages.

    Raises:
        RowInvalid: naming a role that is unknown.
    """
    return [
        {"role": _role(turn.get("from"), number), "content": turn.get("value") or ""}
        for number, turn in enumerate(turns)
    ]


def to_chatml(messages: Sequence[Message]) -> str:
    """ChatML text.

    Raises:
        RowInvalid: a text or role holds ChatML's own marks, so that it could not be read back.
    """
    for number, message in enumerate(messages):
        if any(mark in message["content"] + message["role"] for mark in _MARKS):
            raise RowInvalid(
                f"Turn {number} cannot be written as ChatML.",
                "it holds <|im_start|> or <|im_end|> itself.",
                "take the marks out of the text.",
            )
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)


def from_chatml(text: str) -> list[Message]:
    """Messages from ChatML text; the last turn may be unfinished, as in a prompt.

    Raises:
        RowInvalid: there is text outside of the turns, or a role is unknown.
    """
    messages: list[Message] = []
    place = 0
    for match in _TURN.finditer(text):
        _nothing_between(text, place, match.start())
        messages.append({"role": _role(match.group(1), len(messages)), "content": match.group(2)})
        place = match.end()
    rest = text[place:]
    opened = re.fullmatch(r"\s*<\|im_start\|>([^\n<]*)\n(.*)", rest, re.DOTALL)
    if opened:
        role = _role(opened.group(1), len(messages))
        if opened.group(2):
            messages.append({"role": role, "content": opened.group(2)})
    else:
        _nothing_between(text, place, len(text))
    return messages


def _nothing_between(text: str, start: int, end: int) -> None:
    stray = text[start:end].strip()
    if stray:
        raise RowInvalid(
            "The text is not ChatML.",
            f"{stray[:60]!r} stands outside of <|im_start|>role ... <|im_end|> at character {start}.",
            "give text in which every turn stands between these marks.",
        )


def _role(name: Any, number: int) -> str:
    role = standard_role(name)
    if role is None:
        raise RowInvalid(
            f"Turn {number} has an unknown role.",
            f"it is {name!r}.",
            "use system, user, assistant or tool, or a known alias such as human and gpt.",
        )
    return role
