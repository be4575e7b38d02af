"""How long the rows are, and what every maximum length would cut off of them: exact counts.

Pure arithmetic on lengths and on where the learnt tokens stand; it knows no text and no tokenizer.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tunebook.data.conversations import to_label, to_messages
from tunebook.data.vision import VisionEncoder
from tunebook.data.vision_prepare import ImageCosts, sized_row
from tunebook.errors import TunebookError

if TYPE_CHECKING:
    import numpy as np

    from tunebook.data.formats import Detection
    from tunebook.data.prepare import AnyEncoder

BINS = 40
STOPS = 160
SAMPLE = 1000
_SPREAD = 6  # a longest row that is so many times the median asks for a logarithmic axis
_NEVER = 2**31 - 1


class LengthCut(BaseModel):
    """What one maximum length does to the rows; `rows` teach something and are trained on.

    `cut` rows lose their ends, `left_out` of them have nothing learnt before the cut; `lost` and
    `lost_trained` are the tokens cut off, and those of them that would be learnt.
    """

    limit: int
    rows: int
    cut: int
    left_out: int
    lost: int
    lost_trained: int
    mean_length: float
    longest: int


class LengthView(BaseModel):
    """A histogram of lengths with the cost of the limits that a person may choose between.

    `bins` are (from, to, rows): a row of `to` tokens lies in the next bin. `stops` ascend and hold
    `limit`. `of` is the number of all rows where only a sample of them was counted, else None.
    """

    rows: int
    of: int | None = None
    tokens: int
    trained: int
    longest: int
    limit: int
    logarithmic: bool
    bins: list[tuple[int, int, int]]
    stops: list[LengthCut]


class LengthTally:
    """Rows counted by their length before any cut, and tokens by their place and whether learnt."""

    def __init__(self) -> None:
        self.lengths = array("i")
        self.firsts = array("i")  # of each row, the place of the first token that teaches something
        self._steps = array(
            "q"
        )  # at each place, how many learnt ranges begin there less those that end

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, length: int, learnt: Iterable[tuple[int, int]]) -> None:
        """Count a row of `length` tokens, those in the ranges [first, last) learnt."""
        if len(self._steps) <= length:
            self._steps.frombytes(bytes(8 * (length + 1 - len(self._steps))))
        useful = _NEVER
        for first, last in learnt:
            self._steps[first] += 1
            self._steps[last] -= 1
            if last > max(first, 1):  # nothing predicts the very first token
                useful = min(useful, max(first, 1))
        self.lengths.append(length)
        self.firsts.append(useful)
        self.__dict__.pop("_sums", None)

    def cut_at(self, limit: int) -> LengthCut:
        """What a maximum length of `limit` tokens would do."""
        import numpy as np

        lengths, before, firsts, trained = self._sums
        whole = int(np.searchsorted(lengths, limit, "right"))
        cut = len(lengths) - whole
        kept = int(before[whole]) + limit * cut
        rows = int(np.searchsorted(firsts, limit))  # ascending: those that begin before the limit
        return LengthCut(
            limit=limit,
            rows=rows,
            cut=cut,
            left_out=len(lengths) - rows,
            lost=int(before[-1]) - kept,
            lost_trained=int(trained[-1] - trained[min(limit, len(trained) - 1)]),
            mean_length=round(kept / len(lengths), 2) if len(lengths) else 0.0,
            longest=min(limit, int(lengths[-1])) if len(lengths) else 0,
        )

    def view(self, limit: int, *, least: int = 8, of: int | None = None) -> LengthView | None:
        """The histogram and what the limits around these lengths cost; None without rows.

        Args:
            limit: the one in use.
            least: no smaller limit is offered.
            of: the number of all rows, if these are a sample of them.
        """
        if not self.lengths:
            return None
        lengths, before, _, trained = self._sums
        longest = int(lengths[-1])
        middle = int(lengths[len(lengths) // 2])
        logarithmic = max(longest, limit) > _SPREAD * max(1, middle)
        edges = _edges(int(lengths[0]), longest, logarithmic)
        stops = {limit, *_limits(least, max(longest, limit))}
        return LengthView(
            rows=len(lengths),
            of=of,
            tokens=int(before[-1]),
            trained=int(trained[-1]),
            longest=longest,
            limit=limit,
            logarithmic=logarithmic,
            bins=_bins(lengths, edges),
            stops=[self.cut_at(stop) for stop in sorted(stops)],
        )

    @cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Lengths ascending, their sums, first useful places ascending, learnt tokens up to a place."""
        import numpy as np

        lengths = np.sort(np.array(self.lengths, np.int64))
        firsts = np.sort(np.array(self.firsts, np.int64))
        learning = np.cumsum(
            np.array(self._steps, np.int64)
        )  # rows that learn a token at each place
        before = np.concatenate([[0], np.cumsum(lengths)])
        return lengths, before, firsts, np.concatenate([[0], np.cumsum(learning)])


def sample_lengths(
    table: Any, detection: Detection, encoder: AnyEncoder, most: int = SAMPLE
) -> LengthTally:
    """The lengths of rows spread evenly over a table; rows that cannot be used are passed over."""
    tally = LengthTally()
    step = max(1, len(table) // most)
    sees = isinstance(encoder, VisionEncoder)
    costs = ImageCosts(encoder) if isinstance(encoder, VisionEncoder) else None
    for number in range(0, len(table), step):
        try:
            messages = to_messages(table[number], detection, number=number, pictures=sees)
            labelled = detection.format == "unpaired_preference"
            if labelled and not to_label(table[number], detection, number=number):
                continue  # nobody learns it
            if isinstance(encoder, VisionEncoder) and costs is not None:
                encoded = sized_row(messages, "", encoder, costs, encoder.folder).encoded
            else:
                encoded = encoder(messages)
        except TunebookError:
            continue
        tally.add(encoded.length, encoded.would_learn)
    return tally


def _edges(shortest: int, longest: int, logarithmic: bool) -> list[int]:
    """Ascending edges of at most `BINS` bins that hold every length."""
    if logarithmic:
        low = math.log(max(1, shortest))
        step = (math.log(longest + 1) - low) / BINS
        inner = [round(math.exp(low + step * at)) for at in range(1, BINS)]
        return sorted({shortest, *inner, longest + 1})
    width = max(1, -(-(longest + 1 - shortest) // BINS))
    width = next(nice for nice in _nice_steps() if nice >= width)
    first = shortest // width * width
    return list(range(first, longest + 1 + width, width))


def _bins(lengths: np.ndarray, edges: list[int]) -> list[tuple[int, int, int]]:
    import numpy as np

    places = np.searchsorted(lengths, edges)
    counts = np.diff(places).tolist()
    return list(zip(edges[:-1], edges[1:], counts, strict=True))


def _limits(least: int, most: int) -> list[int]:
    """Limits to choose between, `STOPS` or so, closer together where they are small."""
    found = {least}
    at = float(least)
    while at < most:
        at = max(at + 8, at * (most / least) ** (1 / STOPS))
        grain = 8 if at < 1024 else 64 if at < 8192 else 256
        found.add(int(-(-at // grain) * grain))
    return sorted(found)


def _nice_steps() -> Iterable[int]:
    size = 1
    while True:
        yield from (size, 2 * size, 5 * size)
        size *= 10
