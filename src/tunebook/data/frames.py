"""What a chat template writes around answers, learnt once from a conversation of marks.

This module compares texts; how they are rendered, and which words are learnt, it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Private-use characters: no template changes their case, trims or splits them.
SENTINEL = "\ue0a7\ue0b3\ue0c9"
_SAID = ["\ue0a7\ue0b1", "\ue0a7\ue0b2", "\ue0a7\ue0b4", "\ue0a7\ue0b5"]
_TAG = re.compile(r"\s*<[^<>\s][^<>]{0,60}>")


@dataclass(frozen=True)
class Frame:
    """The constant texts of a template.

    Attributes:
        asked: behind a question's words, up to where the model begins to answer.
        headers: what the model can be given before an answer, longest first: a past answer may have
            a shorter one, without the thought that a prompt opens.
        between: from an answer's last character to the next question's first.
        tail: behind the last answer, to the end of the text.
        middle: the part of `between` that the model says to end its turn.
        final: the part of `tail` that the model says to end its turn.
    """

    asked: str
    headers: tuple[str, ...]
    between: str
    tail: str
    middle: str
    final: str

    def ending(self, *, is_last: bool) -> str:
        """What the model says to end a turn."""
        return self.final if is_last else self.middle

    def rest(self, *, is_last: bool) -> str:
        """What stands behind that."""
        return self.tail[len(self.final) :] if is_last else self.between[len(self.middle) :]


def learn_frame(render: Callable[..., str]) -> Frame:
    """A template's frame; empty where its texts cannot be told.

    Args:
        render: from messages, and `generation_prompt`, to text.

    Raises:
        TemplateInvalid: the template refuses even four plain turns.
    """
    roles = ["user", "assistant", "user", "assistant"]
    probe: list[dict[str, Any]] = [
        {"role": role, "content": said} for role, said in zip(roles, _SAID, strict=True)
    ]
    text = render(probe)
    places = [text.find(said) for said in _SAID]
    if -1 in places or places != sorted(places):
        return Frame("", (), "", "", "", "")
    ends = [place + len(said) for place, said in zip(places, _SAID, strict=True)]
    between, tail = text[ends[1] : places[2]], text[ends[3] :]
    plain, asked = render(probe[:1]), render(probe[:1], generation_prompt=True)
    prompt = asked[common(plain, asked) :]
    openings = (text[ends[0] : places[1]], text[ends[2] : places[3]])
    headers = sorted({_begun(opening, prompt) for opening in openings} - {""}, key=len)
    middle, final = _endings(between, tail, text[: places[0]])
    behind = asked.partition(_SAID[0])[2]
    return Frame(behind, tuple(headers[::-1]), between, tail, middle, final)


def _begun(opening: str, prompt: str) -> str:
    """How much of a generation prompt stands before an answer, in whole marks."""
    parts = (prompt[:length] for length in range(len(prompt), 0, -1))
    return next((part for part in parts if part in opening and whole_tags(part) == part), "")


def _endings(between: str, tail: str, opening: str) -> tuple[str, str]:
    """(what ends a turn amid others, what ends the last one).

    Amid others the next header follows; it is told apart by the end of the text, where none does,
    or by the first question, before which it stands as well.
    """
    same = whole_tags(between[: common(between, tail)])
    tags = list(_TAG.finditer(same))
    if len(tags) > 1 and _TAG.match(between[len(same) :]) and _TAG.match(tail[len(same) :]):
        # The text ends in a header without being asked for one (Command R7B).
        same = same[: tags[-1].start()]
    ending = same.rstrip() or same
    if ending:
        return ending, ending
    first, last = _TAG.match(between), _TAG.match(tail)
    if tail.strip():
        # gpt-oss: turns end in <|end|>, the last one in <|return|>.
        return (first.group() if first and last else ""), (last.group() if last else tail.rstrip())
    shared = common(between[::-1], opening[::-1])
    ending = between[: len(between) - shared]
    if whole_tags(ending) != ending:
        ending = between[: between.index(">", len(ending)) + 1]
    return ending.rstrip(), ""


def common(one: str, other: str) -> int:
    """How many characters two texts share at the start."""
    if one.startswith(other):
        return len(other)
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def whole_tags(text: str) -> str:
    """The text, cut back to before a mark that has only just begun, such as `<|im_`."""
    opened = text.rfind("<")
    unfinished = opened > text.rfind(">") and len(text) - opened < 60
    return text[:opened] if unfinished else text


def header_end(before: str, headers: tuple[str, ...], place: int) -> int:
    """Where an answer begins, given the text before its words and the end of the turn before.

    The model can be given less than that text (an empty thought stands there too).
    """
    place = before.find(headers[-1], place) if headers else -1
    if place == -1:
        return len(before)
    return next(place + len(header) for header in headers if before.startswith(header, place))


def last_tag(text: str) -> str:
    """The mark, such as `<|im_end|>`, that a text ends in; empty if it ends in none."""
    tags = list(_TAG.finditer(text))
    return tags[-1].group() if tags and tags[-1].end() == len(text.rstrip()) else ""
