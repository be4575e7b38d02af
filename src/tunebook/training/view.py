"""The picture of a run from its events: progress, curves of bounded size, what was said.

Pure folding of events into plain data; knows no widget, thread or file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tunebook.events import (
    BusyEvent,
    CheckpointEvent,
    EvaluationEvent,
    EventBase,
    FailedEvent,
    FinishedEvent,
    MemoryEvent,
    StartedEvent,
    StepEvent,
    WarningEvent,
)

if TYPE_CHECKING:
    import numpy as np

MOST_POINTS = 2000
MOST_MESSAGES = 100
_SMOOTHING = 0.9
_PACE = 20  # steps over which the time per step is averaged


class RunView:
    """Folds the events of one run, in order; `traits()` says what a panel shows of them."""

    def __init__(self) -> None:
        self.total = 0
        self.device = ""
        self.ended = ""
        self.error: dict[str, str] = {}
        self.dirty = False
        self._steps: list[StepEvent] = []
        self._smooth: list[float] = []
        self._memory: list[MemoryEvent] = []
        self._evaluations: list[EvaluationEvent] = []
        self._busy: BusyEvent | None = None
        self._messages: list[dict[str, Any]] = []
        self._seconds = 0.0

    def add(self, event: EventBase) -> None:
        """Take one event in."""
        self.dirty = True
        if isinstance(event, StepEvent):
            self._add_step(event)
        elif isinstance(event, MemoryEvent):
            self._memory.append(event)
        elif isinstance(event, BusyEvent):
            self._measured(event)
        elif isinstance(event, EvaluationEvent):
            self._evaluations.append(event)
            self._say("evaluation", event.step, f"Evaluation loss {event.loss:.4f}")
        elif isinstance(event, StartedEvent):
            self._start(event)
        elif isinstance(event, WarningEvent):
            self._say("warning", event.step, event.message, event.do)
        elif isinstance(event, CheckpointEvent):
            self._say("checkpoint", event.step, f"Checkpoint written to {event.path}")
        elif isinstance(event, FinishedEvent):
            self._finish(event)
        elif isinstance(event, FailedEvent):
            self.ended, self.error = "failed", dict(event.error)
            self._say("failed", event.step, event.error.get("what", "Training failed."))

    def traits(self) -> dict[str, Any]:
        """Everything that a TrainPanel shows, as values of its traits."""
        self.dirty = False
        last = self._steps[-1] if self._steps else None
        return {
            "step": last.step if last else 0,
            "total": self.total,
            "eta": self._eta(),
            "seconds": self._seconds,
            "device": self.device,
            "first_loss": _finite(self._steps[0].loss) if self._steps else None,
            "last_loss": _finite(last.loss) if last else None,
            "learning_rate": last.learning_rate if last else None,
            "tokens_per_second": self._speed(),
            "peak": max((event.peak for event in self._memory), default=0),
            "gpu_busy": self._busy.words() if self._busy else "",
            "loss_points": self._loss_bytes(),
            "memory_points": self._memory_bytes(),
            "evaluation_points": _pack([(e.step, e.loss) for e in self._evaluations], 2),
            "messages": self._messages[-MOST_MESSAGES:],
        }

    def losses(self) -> list[tuple[int, float, float]]:
        """Step, loss and smoothed loss, all of them."""
        return [(e.step, e.loss, s) for e, s in zip(self._steps, self._smooth, strict=True)]

    def evaluations(self) -> list[tuple[int, float]]:
        """Step and evaluation loss."""
        return [(event.step, event.loss) for event in self._evaluations]

    def memory(self) -> list[tuple[int, int, int]]:
        """Step, bytes in tensors and their peak so far."""
        return [(event.step, event.allocated, event.peak) for event in self._memory]

    def _start(self, event: StartedEvent) -> None:
        self.total, self.device, self.ended, self.error = event.total_steps, event.device, "", {}
        kept = event.resumed_from or 0
        self._steps = [old for old in self._steps if old.step <= kept]
        self._smooth = self._smooth[: len(self._steps)]
        self._evaluations = [old for old in self._evaluations if old.step <= kept]
        self._memory = [old for old in self._memory if old.step <= kept]
        if self._busy is not None and self._busy.step > kept:
            self._busy = None
        again = f"Resumed from step {kept}" if event.resumed_from is not None else "Training began"
        self._say("started", kept, f"{again} on {event.device}")

    def _add_step(self, event: StepEvent) -> None:
        before = self._smooth[-1] if self._smooth else event.loss
        share = min(_SMOOTHING, len(self._smooth) / (len(self._smooth) + 1))
        mean = share * before + (1 - share) * event.loss
        self._steps.append(event)
        self._smooth.append(mean if math.isfinite(mean) else event.loss)
        self._seconds += event.seconds

    def _measured(self, event: BusyEvent) -> None:
        self._busy = event
        if advice := event.advice():
            self._say(
                "advice", event.step, f"The GPU waits for the host: busy {event.words()};", advice
            )

    def _finish(self, event: FinishedEvent) -> None:
        self.ended = event.reason
        word = "completed" if event.reason == "completed" else "stopped, and saved,"
        self._say("finished", event.step, f"Training {word} after {event.step} steps")

    def _say(self, kind: str, step: int, text: str, do: str = "") -> None:
        self._messages.append({"kind": kind, "step": step, "text": text, "do": do})

    def _eta(self) -> float | None:
        recent = self._steps[-_PACE:]
        if not recent or not self.total or self.ended:
            return None
        pace = sum(event.seconds for event in recent) / len(recent)
        return pace * max(0, self.total - recent[-1].step)

    def _speed(self) -> float | None:
        recent = self._steps[-_PACE - 1 :]
        if len(recent) < 2:
            return None
        seconds = sum(event.seconds for event in recent[1:])
        return (recent[-1].tokens - recent[0].tokens) / seconds if seconds > 0 else None

    def _loss_bytes(self) -> bytes:
        rows = self.losses()
        return _pack(rows, 3) if len(rows) <= MOST_POINTS else _thin(rows, 3)

    def _memory_bytes(self) -> bytes:
        rows = self.memory()
        return _pack(rows, 3) if len(rows) <= MOST_POINTS else _thin(rows, 3)


def _pack(rows: Any, width: int) -> bytes:
    """Rows as float32 columns, one after the other: all x, then all of each series."""
    import numpy as np

    table = np.asarray(rows, dtype=np.float32).reshape(-1, width)
    return np.ascontiguousarray(table.T).tobytes()


def _thin(rows: Any, width: int) -> bytes:
    """Like `_pack`, with the lowest and highest row (by column 1) of each of 1000 stretches.

    A spike is never lost to thinning, and a picture never exceeds `MOST_POINTS` points.
    """
    import numpy as np

    table = np.asarray(rows, dtype=np.float64).reshape(-1, width)
    keep: list[np.ndarray] = []
    for stretch in np.array_split(np.arange(len(table)), MOST_POINTS // 2):
        values = np.nan_to_num(table[stretch, 1], nan=0.0)
        keep.append(stretch[[values.argmin(), values.argmax()]])
    chosen = np.unique(np.concatenate(keep))
    return _pack(table[chosen], width)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
