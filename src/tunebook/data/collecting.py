"""Encoded rows gathered into a table of `input_ids` and `labels`, and counted on the way.

This module knows no templates and no files: it is given one encoded row after the other.
"""

from __future__ import annotations

import itertools
import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel

from tunebook.data.masking import MASKED, Encoded
from tunebook.data.packing import suggest_max_length
from tunebook.data.spool import Spool, dataset_of

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 500


class DataStatistics(BaseModel):
    """Figures of the training rows, in tokens after the cut.

    `rows` are those that are trained on; `masked_rows` were left out because nothing in them is
    learnt; `skipped_rows` could not be used; `truncated` were cut; of `hidden_tools` the template
    does not write the tools. `percentiles` maps
    "50", "90", "95" and "99" to lengths; `suggested_max_seq_length` is None where the one in use is good.
    `images` are the pictures of all rows, `image_tokens` what they take of `tokens`, and
    `largest_image` width and height of the one with most pixels, as it is opened.
    """

    rows: int
    eval_rows: int = 0
    skipped_rows: int = 0
    tokens: int
    trained_tokens: int
    truncated: int
    masked_rows: int
    hidden_tools: int = 0
    longest: int
    mean_length: float
    percentiles: dict[str, int]
    suggested_max_seq_length: int | None = None
    images: int = 0
    image_tokens: int = 0
    largest_image: tuple[int, int] | None = None


@dataclass
class RowCollector:
    """Encoded rows on their way into an Arrow table; rows that teach nothing are left out."""

    spool: Spool = field(default_factory=Spool)
    lengths: list[int] = field(default_factory=list)
    uncut: array[int] = field(default_factory=lambda: array("i"))
    cut: int = 0
    trained: int = 0
    truncated: int = 0
    masked: int = 0
    first_masked: int | None = None
    images: int = 0
    image_tokens: int = 0
    largest_image: tuple[int, int] | None = None
    _ids: list[list[int]] = field(default_factory=list)
    _learnt: list[list[tuple[int, int]]] = field(default_factory=list)

    def add(self, number: int, encoded: Encoded) -> None:
        """Take in row `number`, or count it as masked."""
        learnt = encoded.n_trained
        # The first token is never predicted, so a label there alone teaches nothing.
        teaches = learnt > 1 or (learnt == 1 and encoded.learnt[0] != (0, 1))
        length = len(encoded.input_ids)
        if not self.count(number, length, encoded.length, learnt if teaches else 0):
            return
        self._ids.append(encoded.input_ids)
        self._learnt.append(encoded.learnt)
        if len(self._ids) >= BATCH:
            self.flush()

    def count(self, number: int, length: int, uncut: int, learnt: int) -> bool:
        """Count row `number`, of so many tokens after the cut and before it; whether it teaches."""
        self.uncut.append(uncut)
        self.cut += uncut > length
        if not learnt:
            self.masked += 1
            self.first_masked = number if self.first_masked is None else self.first_masked
            return False
        self.trained += learnt
        self.truncated += uncut > length
        self.lengths.append(length)
        return True

    def count_images(self, sizes: list[tuple[int, int]], tokens: int) -> None:
        """Count the pictures of a row that teaches, which take so many tokens."""
        self.images += len(sizes)
        self.image_tokens += tokens
        known = [self.largest_image] if self.largest_image else []
        self.largest_image = max(known + sizes, key=math.prod, default=None)

    def flush(self) -> None:
        """Turn the waiting rows into one Arrow batch."""
        import numpy as np
        import pyarrow as pa

        ends = np.cumsum([0, *map(len, self._ids)], dtype=np.int32)
        ids = np.fromiter(itertools.chain.from_iterable(self._ids), np.int32, int(ends[-1]))
        labels = np.full_like(ids, MASKED)
        for start, ranges in zip(ends.tolist(), self._learnt, strict=False):
            for first, last in ranges:
                labels[start + first : start + last] = ids[start + first : start + last]
        columns = [pa.ListArray.from_arrays(ends, values) for values in (ids, labels)]
        self.spool.add(pa.record_batch(columns, names=["input_ids", "labels"]))
        self._ids, self._learnt = [], []

    def dataset(self) -> Dataset:
        """The table of all rows taken in."""
        self.flush()
        return dataset_of(self.spool.table())

    def statistics(self) -> DataStatistics:
        """Figures of the rows taken in."""
        ordered = sorted(self.lengths)
        count = len(ordered)
        return DataStatistics(
            rows=count,
            tokens=sum(ordered),
            trained_tokens=self.trained,
            truncated=self.truncated,
            masked_rows=self.masked,
            images=self.images,
            image_tokens=self.image_tokens,
            largest_image=self.largest_image,
            longest=ordered[-1] if ordered else 0,
            mean_length=round(sum(ordered) / count, 2) if count else 0.0,
            suggested_max_seq_length=suggest_max_length(self.uncut, self.cut),
            percentiles={
                str(p): ordered[min(count - 1, count * p // 100)] for p in (50, 90, 95, 99) if count
            },
        )
