"""What a template writes between the turns of conversations of one shape: the same list of roles.

This module compares texts; a shape is proved, and a conversation rendered, by the renderer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

# Private-use characters, one of which stands for the turn's number.
_FIRST, _LAST = 0xE100, 0xF8FF


@dataclass(frozen=True)
class Shape:
    """The constant texts of a shape.

    Attributes:
        gaps: before the first turn's words, between turns, and behind the last turn's words.
        reaches: for each answer, how many characters of its span lie before its words and behind.
        searched: words without any of these are copied between the gaps as they are; None if the
            template must be rendered to know.
    """

    gaps: tuple[str, ...]
    reaches: dict[int, tuple[int, int]]
    searched: frozenset[str] | None = None

    def text(self, contents: list[str]) -> str:
        """The gaps and the contents."""
        return "".join(self._pieces(contents))

    def copies(self, contents: list[str]) -> bool:
        """Whether the template is known to write these contents as `text` does."""
        if self.searched is None:
            return False
        everything = "\0".join(contents)
        return not any(text in everything for text in self.searched)

    def places(self, contents: list[str], turns: list[int]) -> list[tuple[int, int]] | None:
        """The spans of those turns in `text`; None if one of them was not proved."""
        if any(turn not in self.reaches for turn in turns):
            return None
        ends = list(accumulate(map(len, self._pieces(contents))))
        found = []
        for turn in turns:
            before, behind = self.reaches[turn]
            found.append((ends[2 * turn] - before, ends[2 * turn + 1] + behind))
        return found

    def _pieces(self, contents: list[str]) -> list[str]:
        pieces = [self.gaps[0]]
        for content, gap in zip(contents, self.gaps[1:], strict=True):
            pieces += (content, gap)
        return pieces


def probe_of(roles: tuple[str, ...], times: int = 1) -> list[dict[str, Any]] | None:
    """A conversation of that shape whose words occur nowhere else; None if it is too long.

    Args:
        times: how often each content says its words: another number makes another probe.
    """
    if len(roles) > _LAST - _FIRST:
        return None
    return [
        {"role": role, "content": f"\ue0a7{chr(_FIRST + turn)}\ue0b6" * times}
        for turn, role in enumerate(roles)
    ]


def shape_of(
    text: str, probe: list[dict[str, Any]], spans: dict[int, tuple[int, int]]
) -> Shape | None:
    """The shape of a probe that was rendered as `text`, with the spans proved of its answers.

    None if the words do not stand in it once each and in order, or a span holds more than its own.
    """
    gaps, ends, place = [], [], 0
    for message in probe:
        words = message["content"]
        start = text.find(words)
        if start < place or text.count(words) != 1:
            return None
        gaps.append(text[place:start])
        place = start + len(words)
        ends.append((start, place))
    gaps.append(text[place:])
    reaches = {}
    for turn, (start, end) in spans.items():
        before, behind = ends[turn][0] - start, end - ends[turn][1]
        if not (0 <= before <= len(gaps[turn]) and 0 <= behind <= len(gaps[turn + 1])):
            return None
        reaches[turn] = (before, behind)
    return Shape(tuple(gaps), reaches)


def plain_contents(messages: list[dict[str, Any]], marks: Iterable[str]) -> list[str] | None:
    """The turns' words, if a template has no reason to treat them unlike a probe's; else None.

    It has one where a turn holds more than words, none at all, blanks at an end (which it may trim),
    or one of `marks`: the texts, such as `</think>`, that the template could look for.
    """
    contents = []
    for message in messages:
        content = message.get("content")
        if len(message) != 2 or type(content) is not str or not content:
            return None
        if content[0].isspace() or content[-1].isspace():
            return None
        contents.append(content)
    everything = "\0".join(contents)
    return None if any(mark in everything for mark in marks) else contents
