"""How busy the GPU is: in which share of a step's wall time a kernel or a copy ran on it.

Knows torch's profiler and the numbers of steps; knows no trainer, no event and no run.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

logger = logging.getLogger(__name__)

_WARM = 10  # the step that is measured: kernels are compiled, graphs captured
_FEWEST = 4  # steps of a run that is measured at all
_TRIES = 5


@dataclass(frozen=True)
class Span:
    """A kernel or a copy on the device, in microseconds of the profiler's clock."""

    name: str
    start: float
    end: float


def covered(spans: Iterable[Span]) -> float:
    """Microseconds in which at least one of `spans` ran: the length of their union."""
    total, until = 0.0, -math.inf
    for span in sorted(spans, key=lambda span: span.start):
        total += max(0.0, span.end - max(span.start, until))
        until = max(until, span.end)
    return total


def device_spans(events: Iterable[Any]) -> list[Span]:
    """Kernels and copies among a profiler's `FunctionEvent`s, without annotations of the user."""
    return [
        Span(event.name, event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
    ]


class DeviceProfile:
    """What the CUDA device does between `start` and `stop`; both wait until it has nothing to do.

    Attributes:
        seconds: wall time between the two.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0
        self._profiler: Any = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CUDA]
        )

    def start(self) -> None:
        """Begin to record."""
        torch.cuda.synchronize()
        self._profiler.start()
        self._began = time.perf_counter()

    def stop(self) -> list[Span]:
        """End recording; what ran."""
        torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._began
        self._profiler.stop()
        return device_spans(self._profiler.events())


@dataclass(frozen=True)
class BusyReading:
    """Of one step: the share of its wall time in which the device worked, and on how much."""

    busy: float
    kernels: int
    seconds: float


def measured_step(first: int, last: int) -> int | None:
    """Which of the steps `first` to `last` is measured: the 10th, else the last but one.

    None for fewer than four steps, of which none is like those of a longer run.
    """
    steps = last - first + 1
    return first + min(_WARM, steps - 1) - 1 if steps >= _FEWEST else None


class BusyMeter:
    """Measures one step of a run on a CUDA device, and nothing on others.

    A step that prepared later ones (a graph was captured) is unlike them: the next one is taken, up
    to five times. What the profiler raises is logged, and costs the figure alone.

    Args:
        device: where the model is.
        prepared: how often something was prepared for later steps so far.
        profile: makes what records a step.
    """

    def __init__(
        self,
        device: torch.device,
        prepared: Callable[[], int] = lambda: 0,
        profile: Callable[[], DeviceProfile] = DeviceProfile,
    ) -> None:
        self._on_gpu = device.type == "cuda"
        self._prepared = prepared
        self._new_profile = profile
        self._running: DeviceProfile | None = None
        self._due: int | None = None
        self._last = self._tries = self._before = 0

    def expect(self, first: int, last: int) -> None:
        """Say which steps are about to be run."""
        self._due = measured_step(first, last) if self._on_gpu else None
        self._last, self._tries = last, 0

    def begin(self, step: int) -> None:
        """Before a step; starts to record if it is the one."""
        if step != self._due:
            return
        self._before = self._prepared()
        try:
            profile = self._new_profile()
            profile.start()
        except Exception as error:
            self._give_up(error)
        else:
            self._running = profile

    def end(self) -> BusyReading | None:
        """After a step; what was measured, at the end of the step that counts."""
        spans, seconds = self._stop()
        if self._due is None or not seconds:
            return None
        self._tries += 1
        again = self._prepared() != self._before and self._tries < _TRIES
        if again and self._due < self._last:
            self._due += 1
            return None
        self._due = None
        if not spans:
            logger.warning("The profiler saw no kernel; how busy the GPU is stays unknown.")
            return None
        return BusyReading(min(1.0, covered(spans) / 1e6 / seconds), len(spans), seconds)

    def cancel(self) -> None:
        """Measure nothing any more; ends a recording that a step that raised left running."""
        self._due = None
        self._stop()

    def _stop(self) -> tuple[list[Span], float]:
        """Spans and seconds of the recording that runs; 0 seconds without one."""
        profile, self._running = self._running, None
        if profile is not None:
            try:
                return profile.stop(), profile.seconds
            except Exception as error:
                self._give_up(error)
        return [], 0.0

    def _give_up(self, error: Exception) -> None:
        self._due = None
        logger.warning("How busy the GPU is could not be measured: %s", error)
