"""Which rows have which finding and how long each row is, small enough to keep for a million rows.

A review fills it in; it judges nothing itself, and knows no text.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass, field

from tunebook.data.lengths import LengthTally

UNKNOWN = -1
CUT = ("truncated", "answer_cut")
UNUSABLE = ("invalid_row", "mixed_formats", "template_refuses", "masked_row")


def _numbers() -> array[int]:
    return array("i")


@dataclass
class RowMarks:
    """What a check found, row by row.

    `found` maps the code of a finding to the numbers of its rows in ascending order; `lengths`
    holds each row's tokens before the cut, -1 where it could not be encoded; `passed` are the rows
    whose answer is labelled bad, so that nobody learns them; `tally` counts what each maximum length
    would cost.
    """

    found: dict[str, array[int]] = field(default_factory=dict)
    lengths: array[int] = field(default_factory=_numbers)
    passed: array[int] = field(default_factory=_numbers)
    tally: LengthTally = field(default_factory=LengthTally)

    def mark(self, code: str, number: int) -> None:
        """Note that a row has a finding; the rows of one code come in ascending order."""
        self.found.setdefault(code, _numbers()).append(number)

    def measured(self, number: int, length: int) -> None:
        """Note how many tokens a row has."""
        missing = number + 1 - len(self.lengths)
        if missing > 0:
            self.lengths.extend([UNKNOWN] * missing)
        self.lengths[number] = length

    def length(self, number: int) -> int | None:
        """The row's tokens before the cut, if they were counted."""
        known = number < len(self.lengths) and self.lengths[number] != UNKNOWN
        return self.lengths[number] if known else None

    def codes(self, number: int) -> list[str]:
        """The findings that a row has."""
        return [code for code, numbers in self.found.items() if holds(numbers, number)]

    def rows(self, only: str) -> array[int]:
        """The numbers, ascending, of the rows that a filter lets through.

        Args:
            only: "finding" (any), "cut", "unusable", or the code of one finding.
        """
        kinds = {"finding": tuple(self.found), "cut": CUT, "unusable": UNUSABLE}
        codes = [code for code in kinds.get(only, (only,)) if code in self.found]
        if len(codes) == 1:
            return self.found[codes[0]]
        return array("i", sorted({number for code in codes for number in self.found[code]}))


def holds(numbers: array[int], number: int) -> bool:
    """Whether ascending numbers hold this one."""
    place = bisect_left(numbers, number)
    return place < len(numbers) and numbers[place] == number
