"""Times the steps of a trainer of transformers in two ways, and profiles one more.

Knows trainer callbacks and the device; knows no peer and no model.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from transformers import TrainerCallback

from tunebook.training.busy import DeviceProfile, Span, covered

WARM_UP = 5  # kernels are compiled, a graph is captured
SYNCHRONISED = 10
AHEAD = 12
STEPS = WARM_UP + SYNCHRONISED + AHEAD + 1  # the last is profiled


class Clock(TrainerCallback):
    """Runs beside `STEPS` steps: warm-up, steps that are each waited for, steps that are not.

    A trainer that never waits for the device inside of a step is slowed by a wait at the end of each:
    the second way takes the mean over steps between two waits.
    """

    def __init__(self) -> None:
        self.marks: dict[int, float] = {}
        self.logs: list[dict[str, float]] = []
        self.profile: dict[str, Any] = {}
        self._profiler: DeviceProfile | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The time from which the first step counts."""
        self._mark(0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the profiler before the last step."""
        if state.global_step == STEPS - 1 and torch.cuda.is_available():
            self._profiler = DeviceProfile()
            self._profiler.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the device where the schedule says so."""
        step = state.global_step
        timed = WARM_UP <= step <= WARM_UP + SYNCHRONISED
        if timed or step in (1, STEPS - 1, STEPS):
            self._mark(step)
        if self._profiler is not None:
            self.profile = _busy(self._profiler.stop())
            self._profiler = None

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what the trainer logs of a step."""
        logs = kwargs.get("logs") or {}
        if "loss" in logs:
            self.logs.append({name: float(logs[name]) for name in _LOGGED if name in logs})

    def summary(self) -> dict[str, Any]:
        """Seconds: of the first step, of each synchronised step with quartiles, mean of the others."""
        marks = self.marks
        seconds = [marks[i + 1] - marks[i] for i in range(WARM_UP, WARM_UP + SYNCHRONISED)]
        low, middle, high = statistics.quantiles(seconds, n=4)
        ahead = (marks[STEPS - 1] - marks[WARM_UP + SYNCHRONISED]) / AHEAD
        return {
            "first_step_s": marks[1] - marks[0],
            "steps_s": seconds,
            "synchronised_s": middle,
            "quartiles_s": [low, high],
            "ahead_s": ahead,
            "profile": self.profile,
            "losses": [entry["loss"] for entry in self.logs],
            "grad_norms": [entry.get("grad_norm") for entry in self.logs],
        }

    def _mark(self, step: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks[step] = time.perf_counter()


def _busy(spans: list[Span]) -> dict[str, Any]:
    """Kernels and copies of the profiled step: how many, their union in time, the longest."""
    by_name: dict[str, tuple[int, float]] = {}
    for span in spans:
        calls, total = by_name.get(span.name, (0, 0.0))
        by_name[span.name] = (calls + 1, total + (span.end - span.start) / 1e3)
    longest = sorted(by_name.items(), key=lambda item: -item[1][1])[:20]
    return {
        "kernels": len(spans),
        "busy_ms": covered(spans) / 1e3,
        "longest": [
            {"name": name[:90], "calls": calls, "ms": total} for name, (calls, total) in longest
        ],
    }


_LOGGED = ("loss", "grad_norm")
