"""Where each row lands in training: in which packed sequence, beside which rows, or left out.

Works on lengths and on what a check found; it reads no row and knows no tokenizer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Literal

from pydantic import BaseModel

from tunebook.data.marks import UNUSABLE, RowMarks, holds
from tunebook.data.packing import best_fit_decreasing
from tunebook.data.prepare import divide_rows
from tunebook.errors import DatasetEmpty
from tunebook.recipe import Recipe

LEFT_OUT = {
    "invalid_row": "it cannot be turned into a conversation",
    "mixed_formats": "it is written in another format than the other rows",
    "template_refuses": "the chat template refuses it",
    "masked_row": "nothing in it is learnt",
}
BAD_ANSWER = "its answer is labelled bad"
_MOST_NEIGHBOURS = 200


class Neighbour(BaseModel):
    """A row in a packed sequence, by the number of the row, its first place and its tokens."""

    row: int
    start: int
    length: int


class Placement(BaseModel):
    """Where one row lands.

    packed: in sequence `sequence` (from 0) of `sequences`, of `capacity` tokens, of which `used`
    are; `rows` are those in it, in order, and `start` is this row's place.
    batched: in a batch drawn by chance, with rows up to `capacity` tokens long; `padded` is how many
    tokens the row takes there with its padding, in the mean.
    evaluation: held back to measure on.
    left_out: for the reason `why`.
    unknown: not every row has been looked at yet.
    """

    state: Literal["packed", "batched", "evaluation", "left_out", "unknown"]
    length: int = 0
    why: str = ""
    sequence: int | None = None
    sequences: int | None = None
    start: int = 0
    used: int = 0
    capacity: int = 0
    rows: list[Neighbour] = []
    batch_size: int = 0
    padded: float | None = None

    def __str__(self) -> str:
        if self.state == "left_out":
            return f"Left out of training: {self.why}."
        if self.state == "evaluation":
            return f"Held back to measure on: its {self.length:,} tokens are not learnt."
        if self.state == "packed" and self.sequence is not None:
            return self._packed_words(self.sequence + 1, len(self.rows) - 1)
        if self.state == "batched":
            return self._batched_words()
        return "Known once all rows have been read and counted."

    def _packed_words(self, sequence: int, others: int) -> str:
        beside = f"{others:,} other rows" if others != 1 else "one other row"
        shared = f"with {beside}, none of which sees this one" if others else "alone"
        return (
            f"In sequence {sequence:,} of {self.sequences:,}, {shared}: tokens {self.start + 1:,} "
            f"to {self.start + self.length:,} of {self.capacity:,}. "
            f"{self.capacity - self.used:,} places stay empty."
        )

    def _batched_words(self) -> str:
        if self.batch_size == 1:
            return f"{self.length:,} tokens, in a batch of its own: nothing is filled up."
        return (
            f"{self.length:,} tokens. The {self.batch_size:,} rows of a batch are drawn by chance "
            f"and filled up to the longest of them: this row takes {self.padded:,} places in the "
            f"mean, {self.capacity:,} at most. With `training.packing` nothing is filled up."
        )


class RowPlaces:
    """The places of all rows of a table, worked out at once.

    Args:
        recipe: its packing, batch size, length, share held back and seed are used.
        marks: of a check of all rows.
        rows: how many there are.
    """

    def __init__(self, recipe: Recipe, marks: RowMarks, rows: int) -> None:
        self._marks = marks
        self._limit = recipe.model.max_seq_length
        self._batch = recipe.training.batch_size
        try:
            trained, measured = divide_rows(recipe, rows)
        except DatasetEmpty:
            trained, measured = list(range(rows)), []
        self._measured = set(measured)
        self._numbers = [number for number in trained if self._why_not(number) is None]
        self._lengths = [self._length(number) for number in self._numbers]
        self._packs: list[list[int]] | None = None
        self._pack_of: dict[int, int] = {}
        if recipe.training.packing:
            self._packs = best_fit_decreasing(self._lengths, self._limit)
            self._pack_of = {i: at for at, pack in enumerate(self._packs) for i in pack}
        self._counts = sorted(Counter(self._lengths).items())

    def of(self, row: int) -> Placement:
        """Where a row lands, by its number from 0."""
        why = self._why_not(row)
        if why is not None:
            return Placement(state="left_out", why=why)
        length = self._length(row)
        if row in self._measured:
            return Placement(state="evaluation", length=length)
        if self._packs is not None:
            return self._packed(bisect_left(self._numbers, row), self._packs)
        return Placement(
            state="batched",
            length=length,
            batch_size=self._batch,
            capacity=self._counts[-1][0],
            padded=round(self._padded(length), 1),
        )

    def _why_not(self, row: int) -> str | None:
        for code in UNUSABLE:
            numbers = self._marks.found.get(code)
            if numbers is not None and holds(numbers, row):
                return LEFT_OUT[code]
        if holds(self._marks.passed, row):
            return BAD_ANSWER
        return None

    def _length(self, row: int) -> int:
        return min(self._limit, self._marks.length(row) or 0)

    def _packed(self, index: int, packs: list[list[int]]) -> Placement:
        at = self._pack_of[index]
        start, rows = 0, []
        for i in packs[at]:
            rows.append(Neighbour(row=self._numbers[i], start=start, length=self._lengths[i]))
            start += self._lengths[i]
        own = next(item for item in rows if item.row == self._numbers[index])
        place = max(0, rows.index(own) - _MOST_NEIGHBOURS // 2)
        return Placement(
            state="packed",
            length=own.length,
            sequence=at,
            sequences=len(packs),
            start=own.start,
            used=start,
            capacity=self._limit,
            rows=rows[place : place + _MOST_NEIGHBOURS],
        )

    def _padded(self, length: int) -> float:
        """The mean length of a batch that holds this row, its others drawn without replacement.

        With n others of which k are at most l long, all b - 1 drawn are with the chance
        prod_(j < b-1) (k - j) / (n - j).
        """
        others = len(self._lengths) - 1
        drawn = min(self._batch - 1, others)
        mean, before, at_most = 0.0, 0.0, 0
        for value, count in self._counts:
            at_most += count - (value == length)
            chance = 1.0
            for j in range(drawn):
                chance *= max(0, at_most - j) / (others - j)
            mean += max(value, length) * (chance - before)
            before = chance
        return mean
