"""The picture of a run from its log: progress, curves of bounded size, answers, what was said.

Folds records into plain data; knows no widget and no thread.
"""

from __future__ import annotations

import math
from typing import Any

from tunebook.curves import Curves, packed
from tunebook.events import (
    BusyEvent,
    CheckpointEvent,
    ContinuedEvent,
    EvaluationEvent,
    EventBase,
    EventLog,
    ExportEvent,
    FailedEvent,
    FinishedEvent,
    PausedEvent,
    SampleEvent,
    StartedEvent,
    WarningEvent,
)
from tunebook.words import duration_text

MOST_MESSAGES = 100
MOST_ANSWERS = 40  # of one prompt; the first one is always kept
_PACE = 20  # steps over which the time per step is averaged


class RunView:
    """Follows the log of one run; `traits()` says what a panel shows of it.

    Args:
        log: the run's events.

    Attributes:
        offset: bytes of the log that were read.
    """

    def __init__(self, log: EventLog) -> None:
        self.curves = Curves()
        self.total = 0
        self.device = ""
        self.ended = ""
        self.error: dict[str, str] = {}
        self.resting = False
        self._log = log
        self.offset = 0
        self._peak = 0.0
        self._busy: BusyEvent | None = None
        self._messages: list[dict[str, Any]] = []
        self._samples: dict[str, dict[str, Any]] = {}

    def read(self) -> bool:
        """Take in what is new in the log; whether there was anything."""
        records, self.offset = self._log.records(self.offset)
        for event in self.curves.fold(records):
            self._take(event)
        return bool(records)

    def traits(self, window: tuple[float, float] | None = None) -> dict[str, Any]:
        """Everything that a TrainPanel shows, as values of its traits.

        Args:
            window: steps that the page looks at closely.
        """
        steps, memory = self.curves.steps, self.curves.memory
        last = len(steps) - 1
        return {
            "step": int(steps["step"][last]) if last >= 0 else 0,
            "total": self.total,
            "eta": self._eta(),
            "seconds": float(steps["clock"][last]) if last >= 0 else 0.0,
            "device": self.device,
            "first_loss": _finite(steps["loss"][0]) if last >= 0 else None,
            "last_loss": _finite(steps["loss"][last]) if last >= 0 else None,
            "learning_rate": _finite(steps["learning_rate"][last]) if last >= 0 else None,
            "gradient_norm": _finite(steps["grad_norm"][last]) if last >= 0 else None,
            "tokens_per_second": _finite(steps["tokens_per_second"][last]) if last >= 0 else None,
            "peak": int(memory["peak"].max()) if len(memory) else 0,
            "gpu_busy": self._busy.words() if self._busy else "",
            "messages": self._messages[-MOST_MESSAGES:],
            "samples": self.samples(),
            **self.points(window),
        }

    def points(self, window: tuple[float, float] | None = None) -> dict[str, bytes]:
        """The curves as float32 columns."""
        curves = self.curves
        steps, memory = curves.steps, curves.memory
        loss = curves.points("steps", "loss", window=window)
        shown = {"loss_points": packed(curves.loss_rows(loss))}
        for name, column in _PLOTS.items():
            rows = curves.points("steps", column, window=window)
            shown[name] = packed([steps["step"][rows], steps[column][rows]])
        rows = curves.points("memory", "allocated", window=window)
        shown["memory_points"] = packed(
            [memory["step"][rows], memory["allocated"][rows], memory["peak"][rows]]
        )
        evaluated = curves.evaluations
        shown["evaluation_points"] = packed([evaluated["step"], evaluated["loss"]])
        return shown

    def samples(self) -> list[dict[str, Any]]:
        """Each prompt with its answers, the newest first: prompt, expected, answers of step and text."""
        return [
            {**about, "answers": list(reversed(about["answers"]))}
            for about in self._samples.values()
        ]

    def _take(self, event: EventBase) -> None:
        if isinstance(event, BusyEvent):
            self._measured(event)
        elif isinstance(event, SampleEvent):
            self._sampled(event)
        elif isinstance(event, EvaluationEvent):
            self._say("evaluation", event.step, f"Evaluation loss {event.loss:.4f}")
        elif isinstance(event, StartedEvent):
            self._start(event)
        elif isinstance(event, PausedEvent):
            self.resting = True
            self._say("paused", event.step, "Paused; everything stays in memory")
        elif isinstance(event, ContinuedEvent):
            self.resting = False
            rest = duration_text(event.seconds)
            self._say("continued", event.step, f"The pause ended after {rest}")
        elif isinstance(event, WarningEvent):
            self._say("warning", event.step, event.message, event.do)
        elif isinstance(event, CheckpointEvent):
            self._say("checkpoint", event.step, f"Checkpoint written to {event.path}")
        elif isinstance(event, ExportEvent) and event.format != "adapter":
            self._say("checkpoint", event.step, f"{event.format} written to {event.path}")
        elif isinstance(event, FinishedEvent):
            self.ended = event.reason
            word = "completed" if event.reason == "completed" else "stopped, and saved,"
            self._say("finished", event.step, f"Training {word} after {event.step} steps")
        elif isinstance(event, FailedEvent):
            self.ended, self.error = "failed", dict(event.error)
            self._say("failed", event.step, event.error.get("what", "Training failed."))

    def _start(self, event: StartedEvent) -> None:
        self.total, self.device, self.ended = event.total_steps, event.device, ""
        self.error, self.resting = {}, False
        kept = event.resumed_from or 0
        if self._busy is not None and self._busy.step > kept:
            self._busy = None
        for about in self._samples.values():
            about["answers"] = [a for a in about["answers"] if a["step"] <= kept]
        again = f"Resumed from step {kept}" if event.resumed_from is not None else "Training began"
        self._say("started", kept, f"{again} on {event.device}")

    def _measured(self, event: BusyEvent) -> None:
        self._busy = event
        if advice := event.advice():
            text = f"The GPU waits for the host: busy {event.words()};"
            self._say("advice", event.step, text, advice)

    def _sampled(self, event: SampleEvent) -> None:
        about = self._samples.setdefault(
            event.prompt, {"prompt": event.prompt, "expected": event.expected, "answers": []}
        )
        answers = [a for a in about["answers"] if a["step"] != event.step]
        answers.append({"step": event.step, "text": event.answer})
        about["answers"] = answers[:1] + answers[1:][-MOST_ANSWERS:]

    def _say(self, kind: str, step: int, text: str, do: str = "") -> None:
        self._messages.append({"kind": kind, "step": step, "text": text, "do": do})

    def _eta(self) -> float | None:
        steps = self.curves.steps
        if not len(steps) or not self.total or self.ended:
            return None
        pace = float(steps["seconds"][-_PACE:].mean())
        left = max(0, self.total - int(steps["step"][-1]))
        return _finite(pace * left)


_PLOTS = {
    "rate_points": "learning_rate",
    "gradient_points": "grad_norm",
    "speed_points": "tokens_per_second",
}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
