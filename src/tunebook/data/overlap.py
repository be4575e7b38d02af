"""Conversations that are trained on and measured on: an evaluation of these is learning by heart.

It compares conversations; how rows are loaded and divided is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from tunebook.data.conversations import to_messages
from tunebook.data.duplicates import NearDuplicates, chat_digest
from tunebook.data.formats import detect_for
from tunebook.data.loading import load_rows
from tunebook.data.prepare import divide_rows, eval_part
from tunebook.data.turns import Message
from tunebook.errors import RowInvalid
from tunebook.recipe import Recipe

Likeness = Literal["exact", "near"]


class Overlap(Protocol):
    """Tells of each conversation whether the other side holds it; `where` that is, in words."""

    where: str

    def meets(self, number: int, messages: list[Message], near: int | None) -> Likeness | None:
        """How the other side holds row `number`, given an earlier row that is nearly the same."""


class Measured:
    """Evaluation rows from a source of their own.

    Args:
        conversations: the evaluation rows.
        near: where to keep them to find near-duplicates; None looks for equal ones only.
    """

    where = "`data.eval_source`"

    def __init__(
        self, conversations: Iterable[list[Message]], near: NearDuplicates | None = None
    ) -> None:
        self._near = near
        self._digests = set()
        for number, messages in enumerate(conversations):
            self._digests.add(chat_digest(messages))
            if near is not None:
                near.seen(number, messages)

    def meets(
        self, number: int, messages: list[Message], near: int | None = None
    ) -> Likeness | None:
        """How the evaluation rows hold this conversation."""
        if chat_digest(messages) in self._digests:
            return "exact"
        if self._near is not None and self._near.like(messages) is not None:
            return "near"
        return None


class HeldOut:
    """Evaluation rows held back from the same table.

    Args:
        held: their numbers.
    """

    where = "the part that `data.eval_fraction` holds back"

    def __init__(self, held: Iterable[int]) -> None:
        self._held = frozenset(held)
        self._sides: dict[bytes, set[bool]] = {}

    def meets(
        self, number: int, messages: list[Message], near: int | None = None
    ) -> Likeness | None:
        """How an earlier row of the other side holds this conversation; equal ones tell once."""
        side = number in self._held
        sides = self._sides.setdefault(chat_digest(messages), set())
        known = len(sides)
        sides.add(side)
        if known:
            return "exact" if known == 1 and len(sides) == 2 else None
        return "near" if near is not None and (near in self._held) != side else None


def overlap_of(recipe: Recipe, rows: int, near: NearDuplicates | None = None) -> Overlap | None:
    """What a recipe measures on beside `rows` rows; None if it measures on nothing.

    Raises:
        As `load_rows` and `detect_format` of the evaluation source; DatasetEmpty: too few rows to
        hold some back.
    """
    if recipe.data.eval_source is None:
        held = divide_rows(recipe, rows)[1]
        return HeldOut(held) if held else None
    part = eval_part(recipe.data)
    table = load_rows(part)
    detection = detect_for(part, table)

    def conversations() -> Iterable[list[Message]]:
        for row in table:
            try:
                yield to_messages(row, detection, pictures=True)
            except RowInvalid:
                continue

    return Measured(conversations(), near)
