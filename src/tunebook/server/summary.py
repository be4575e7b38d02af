"""One run in a list: its events folded into a few numbers and a small curve, in constant memory.

Knows the log's lines and nothing of files, HTTP or processes.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from pydantic import ValidationError

from tunebook.events import EventBase, FailedEvent, StartedEvent, parse_event
from tunebook.server.lines import parsed

CURVE_POINTS = 48
_PACE = 20  # steps over which the time per step is averaged
_FREQUENT = frozenset(
    {"step", "memory", "evaluation", "sample", "busy"}
)  # say nothing of the state


class Sketch:
    """A curve of ever more points in at most `most` of them: neighbours are merged to their mean."""

    def __init__(self, most: int = CURVE_POINTS) -> None:
        self._most = most
        self._stride = 1
        self._points: list[tuple[int, float, int]] = []  # step, sum, number of values

    def add(self, step: int, value: float) -> None:
        """Take in the next value."""
        if self._points and self._points[-1][2] < self._stride:
            _, total, number = self._points.pop()
            self._points.append((step, total + value, number + 1))
            return
        if len(self._points) == self._most:
            self._halve()
        self._points.append((step, value, 1))

    def forget_after(self, step: int) -> None:
        """Drop what came after a step: a resumed run does it again."""
        self._points = [point for point in self._points if point[0] <= step]

    def values(self) -> list[float]:
        """The points, to four figures."""
        return [float(f"{total / number:.4g}") for _, total, number in self._points]

    def _halve(self) -> None:
        pairs = zip(self._points[::2], self._points[1::2], strict=True)
        self._points = [(b[0], a[1] + b[1], a[2] + b[2]) for a, b in pairs]
        self._stride *= 2


class RunSummary:
    """What a list shows of a run. Feed it every line of the log, in order."""

    def __init__(self) -> None:
        self.total = self.step = self.peak = 0
        self.began = self.updated = self.seconds = 0.0
        self.first_loss: float | None = None
        self.loss: float | None = None
        self.device = self.host = ""
        self.failure: dict[str, str] = {}
        self._curve = Sketch()
        self._pace: deque[float] = deque(maxlen=_PACE)
        self._last_of_kind: dict[str, EventBase] = {}

    def add(self, line: bytes) -> None:
        """Take in one line; what is no event of a run is passed over."""
        event = parsed(line)
        if event is None:
            return
        kind = event["kind"]
        try:
            self.updated = float(event.get("time", self.updated))
            if kind == "step":
                self._add_step(event)
            elif kind == "memory":
                self.peak = max(self.peak, int(event["peak"]))
            elif kind not in _FREQUENT:
                self._add_mark(kind, line)
        except (KeyError, TypeError, ValueError):  # not of this schema
            return

    def events(self) -> list[EventBase]:
        """The last event of each kind that tells the state, in order, and the newest of any."""
        return [*self._last_of_kind.values(), EventBase(time=self.updated, step=self.step)]

    def shown(self, *, live: bool) -> dict[str, Any]:
        """The numbers as plain data; the time left only of a live run."""
        return {
            "step": self.step,
            "total": self.total,
            "loss": self.loss,
            "first_loss": self.first_loss,
            "eta": self._eta() if live else None,
            "seconds": self.seconds,
            "peak": self.peak,
            "began": self.began,
            "updated": self.updated,
            "device": self.device,
            "host": self.host,
            "failure": self.failure,
            "curve": self._curve.values(),
        }

    def _add_step(self, event: dict[str, Any]) -> None:
        self.step = int(event["step"])
        seconds = float(event.get("seconds", 0.0))
        self._pace.append(seconds)
        self.seconds += seconds
        loss = float(event["loss"])
        self.loss = loss if math.isfinite(loss) else None
        if self.loss is not None:
            self.first_loss = self.loss if self.first_loss is None else self.first_loss
            self._curve.add(self.step, self.loss)

    def _add_mark(self, kind: str, line: bytes) -> None:
        try:
            event = parse_event(line)
        except ValidationError:
            return  # of a later version
        self._last_of_kind.pop(kind, None)
        self._last_of_kind[kind] = event
        if isinstance(event, StartedEvent):
            self._start(event)
        elif isinstance(event, FailedEvent):
            told = event.error.items()
            self.failure = {part: text for part, text in told if part != "traceback"}

    def _start(self, event: StartedEvent) -> None:
        self.began, self.total = event.time, event.total_steps
        self.device, self.host, self.failure = event.device, event.host, {}
        self.step = event.resumed_from or 0
        self._curve.forget_after(self.step)
        self._pace.clear()

    def _eta(self) -> float | None:
        if not self._pace or not self.total:
            return None
        return sum(self._pace) / len(self._pace) * max(0, self.total - self.step)
