"""The numbers of a run as columns that grow: losses, rates, speed, memory, and which points to draw.

Folds the log of any run, 100,000 steps in a fraction of a second, and then only what is new. Knows
events and numpy; knows neither torch nor who draws.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tunebook.events import EventBase, StartedEvent, typed_event

MOST_POINTS = 2000
SMOOTHING = 0.9
_PACE = 20  # steps over which tokens a second are taken

Array = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.intp]]


class Table:
    """Rows of numbers, the first of each the step, in columns that grow without being copied much."""

    def __init__(self, *names: str) -> None:
        self.names = ("step", *names)
        self._data: Array = np.empty((len(self.names), 256))
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> Array:
        return self._data[self.names.index(name), : self._length]

    def extend(self, rows: Sequence[Sequence[float]] | Array) -> None:
        """Add rows at the end."""
        if not len(rows):
            return
        new = np.asarray(rows, dtype=np.float64).T
        end = self._length + new.shape[1]
        if end > self._data.shape[1]:
            grown = np.empty((len(self.names), max(end, 2 * self._data.shape[1])))
            grown[:, : self._length] = self._data[:, : self._length]
            self._data = grown
        self._data[:, self._length : end] = new
        self._length = end

    def cut(self, step: int) -> None:
        """Forget all rows behind `step`."""
        self._length = int(np.searchsorted(self["step"], step, side="right"))


class Thinning:
    """Chooses which rows of a growing curve are drawn, `most` at the most.

    Of each stretch of rows the lowest, the highest and the one that spans the largest triangle with
    the means of its neighbours are kept, so that neither a spike nor a bend is lost (largest triangle,
    three buckets: Steinarsson 2013). Stretches are powers of two of rows: what was chosen stays
    chosen while the curve grows, and only new rows are looked at.
    """

    def __init__(self, most: int = MOST_POINTS) -> None:
        self._most = most
        self._stretch, self._done = 1, 0
        self._kept: list[Indices] = []

    def rows(self, y: Array) -> Indices:
        """Indices of the rows to draw, ascending; all of them while they are few."""
        if len(y) <= self._most:
            self._forget(1)
            return np.arange(len(y))
        stretch = 2 ** math.ceil(math.log2(3 * len(y) / (self._most - 8)))
        if stretch != self._stretch or self._done > len(y):
            self._forget(stretch)
        whole = len(y) // stretch * stretch
        if whole > self._done:
            self._kept.append(_choose(y, self._done, whole, stretch))
            self._done = whole
        rest = len(y) - whole
        tail = [_choose(y, whole, len(y), rest)] if rest else []
        ends = np.array([0, len(y) - 1])
        return np.unique(np.concatenate([*self._kept, *tail, ends]))

    def _forget(self, stretch: int) -> None:
        self._stretch, self._done = stretch, 0
        self._kept = []


def _choose(y: Array, first: int, end: int, stretch: int) -> Indices:
    """Three rows of each stretch in [first, end), whose length is a multiple of `stretch`."""
    values = y[first:end].reshape(-1, stretch)
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    means = filled.sum(1) / np.maximum(known.sum(1), 1)
    after = y[end : end + stretch]
    behind = float(np.mean(after[np.isfinite(after)])) if np.isfinite(after).any() else means[-1]
    left = np.concatenate([means[:1], means[:-1]])[:, None]
    right = np.append(means[1:], behind)[:, None]
    # twice the triangle's area, its corners one and a half stretches apart: the height over the chord
    place = (np.arange(stretch) + 0.5 + stretch) / (3 * stretch)
    bend = np.abs(filled - (left + (right - left) * place))
    offset = first + stretch * np.arange(len(values))
    chosen = [
        np.where(known, values, np.inf).argmin(1),
        np.where(known, values, -np.inf).argmax(1),
        np.where(known, bend, -1.0).argmax(1),
    ]
    return np.unique(np.concatenate([offset + rows for rows in chosen]))


def smooth(losses: Iterable[float], smoothing: float = SMOOTHING) -> list[float]:
    """The exponential mean with weight `smoothing` on the past; the plain mean while rows are few.

    What is not a number is passed over: the mean stays where it was.
    """
    mean, seen, means = math.nan, 0, []
    for loss in losses:
        if math.isfinite(loss):
            share = min(smoothing, seen / (seen + 1))
            mean = loss if seen == 0 else share * mean + (1 - share) * loss
            seen += 1
        means.append(mean)
    return means


class Curves:
    """All curves of one run, folded from its log.

    Attributes:
        steps: loss, learning_rate, grad_norm, tokens, seconds, clock (seconds so far),
            tokens_per_second, and sum and number of the finite losses so far.
        memory: allocated and peak, in bytes.
        evaluations: loss on the evaluation rows.
    """

    def __init__(self) -> None:
        self.steps = Table(
            "loss",
            "learning_rate",
            "grad_norm",
            "tokens",
            "seconds",
            "clock",
            "tokens_per_second",
            "loss_sum",
            "losses",
        )
        self.memory = Table("allocated", "peak")
        self.evaluations = Table("loss")
        self._thin: dict[str, Thinning] = {}

    def fold(self, records: Iterable[dict[str, Any]]) -> list[EventBase]:
        """Take in records of a log (`EventLog.records`); returns the events that are no numbers."""
        steps: list[tuple[Any, ...]] = []
        memory: list[tuple[float, float, float]] = []
        others: list[EventBase] = []

        def flush() -> None:
            self._add_steps(steps)
            self.memory.extend(memory)
            steps.clear()
            memory.clear()

        for record in records:
            kind = record.get("kind")
            try:
                if kind == "step":
                    steps.append(tuple(map(record.get, _STEP)))
                    continue
                if kind == "memory":
                    memory.append((record["step"], record["allocated"], record["peak"]))
                    continue
            except KeyError:
                continue
            event = typed_event(record)
            if event is None:
                continue
            if isinstance(event, StartedEvent):
                flush()
                self._cut(event.resumed_from or 0)
            if kind == "evaluation":
                self.evaluations.extend([(event.step, float(record["loss"]))])
            others.append(event)
        flush()
        return others

    def points(
        self, table: str, column: str, *, window: tuple[float, float] | None = None
    ) -> Indices:
        """Which rows of `steps` or `memory` to draw of a column; in `window` as many again.

        Args:
            window: first and last step that are looked at more closely.
        """
        rows: Table = getattr(self, table)
        y = rows[column]
        drawn = self._thin.setdefault(f"{table}.{column}", Thinning()).rows(y)
        if window is None or len(drawn) == len(y):
            return drawn
        low, high = np.searchsorted(rows["step"], [window[0], window[1]])
        low, high = max(0, int(low) - 1), min(len(y), int(high) + 2)
        inside = low + Thinning().rows(y[low:high])
        return np.unique(np.concatenate([drawn[(drawn < low) | (drawn >= high)], inside]))

    def loss_rows(self, drawn: Indices) -> list[Array]:
        """Step, loss, and mean and number of the losses since the row drawn before: all of them count.

        A smoothed curve can be drawn from these whatever was left out.
        """
        table = self.steps
        counts = np.diff(table["losses"][drawn], prepend=0.0)
        sums = np.diff(table["loss_sum"][drawn], prepend=0.0)
        means = np.divide(sums, counts, out=np.full(len(drawn), np.nan), where=counts > 0)
        return [table["step"][drawn], table["loss"][drawn], means, counts]

    def csv(self) -> str:
        """Every step as a line of comma-separated values, with what was measured at it."""
        table = self.steps
        evaluated = dict(zip(self.evaluations["step"], self.evaluations["loss"], strict=True))
        memory = {
            row[0]: row[1:] for row in zip(*map(self.memory.__getitem__, _MEMORY), strict=True)
        }
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*_CSV, "smoothed", "evaluation_loss", "memory_allocated", "memory_peak"])
        smoothed = smooth(table["loss"])
        for at, row in enumerate(zip(*map(table.__getitem__, _CSV), strict=True)):
            step = row[0]
            extra = (smoothed[at], evaluated.get(step), *memory.get(step, (None, None)))
            writer.writerow([_written(value) for value in (*row, *extra)])
        return out.getvalue()

    def _cut(self, step: int) -> None:
        for table in (self.steps, self.memory, self.evaluations):
            table.cut(step)
        self._thin.clear()

    def _add_steps(self, rows: list[tuple[Any, ...]]) -> None:
        if not rows:
            return
        table, before = self.steps, len(self.steps)
        given = np.array(rows, dtype=np.float64)  # where None and the text "NaN" are not a number
        step, loss, rate, norm, tokens, seconds = given.T
        finite = np.isfinite(loss)
        last = {n: table[n][-1] if before else 0.0 for n in ("clock", "loss_sum", "losses")}
        clock = last["clock"] + np.cumsum(seconds)
        sums = last["loss_sum"] + np.cumsum(np.where(finite, loss, 0.0))
        counts = last["losses"] + np.cumsum(finite)
        speed = self._speeds(tokens, clock)
        columns = (step, loss, rate, norm, tokens, seconds, clock, speed, sums, counts)
        table.extend(np.stack(columns, axis=1))

    def _speeds(self, tokens: Array, clock: Array) -> Array:
        """Tokens a second over the last steps; not a number for the first."""
        kept = min(_PACE, len(self.steps))
        start = len(self.steps) - kept
        tokens = np.concatenate([self.steps["tokens"][start:], tokens])
        clock = np.concatenate([self.steps["clock"][start:], clock])
        at = np.arange(kept, len(tokens))
        since = np.maximum(at - _PACE, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            speed = (tokens[at] - tokens[since]) / (clock[at] - clock[since])
        return np.where(np.isfinite(speed), speed, np.nan)


_STEP = ("step", "loss", "learning_rate", "grad_norm", "tokens", "seconds")
_MEMORY = ("step", "allocated", "peak")
_CSV = ("step", "loss", "learning_rate", "grad_norm", "tokens", "seconds", "tokens_per_second")


def packed(columns: Sequence[Array]) -> bytes:
    """Columns as float32, one after the other: all x, then all of each series."""
    return np.ascontiguousarray(np.stack(list(columns)), dtype=np.float32).tobytes()


def _written(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return str(int(value)) if value == int(value) else repr(float(value))
