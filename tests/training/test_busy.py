"""How busy the GPU is: the union of spans, the step that is taken, and what a failure costs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from transformers import TrainerControl, TrainerState, TrainingArguments

from tunebook.events import BusyEvent, EventLog, WarningEvent
from tunebook.training.busy import (
    BusyMeter,
    DeviceProfile,
    Span,
    covered,
    device_spans,
    measured_step,
)
from tunebook.training.callbacks import EventCallback

GPU = torch.device("cuda")


def spans(*times: tuple[float, float]) -> list[Span]:
    return [Span("kernel", start, end) for start, end in times]


class Recorded(DeviceProfile):
    """A step of 100 microseconds in which the device ran two kernels for 60 of them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def start(self) -> None:
        pass

    def stop(self) -> list[Span]:
        self.seconds = 100e-6
        return spans((0, 50), (40, 60))


class Profiles:
    """Makes `Recorded` and counts how many were begun and ended."""

    def __init__(self, broken: str = "") -> None:
        self.begun = self.ended = 0
        self.broken = broken

    def __call__(self) -> DeviceProfile:
        counts = self

        class Counted(Recorded):
            def start(self) -> None:
                if counts.broken == "start":
                    raise RuntimeError("another profiler is running")
                counts.begun += 1

            def stop(self) -> list[Span]:
                counts.ended += 1
                if counts.broken == "stop":
                    raise RuntimeError("no trace")
                found = super().stop()
                return [] if counts.broken == "empty" else found

        return Counted()


def run(meter: BusyMeter, first: int, last: int) -> dict[int, Any]:
    """What each step's end gave, where it gave something."""
    meter.expect(first, last)
    readings = {}
    for step in range(first, last + 1):
        meter.begin(step)
        if reading := meter.end():
            readings[step] = reading
    return readings


@pytest.mark.parametrize(
    ("times", "length"),
    [
        ([], 0),
        ([(5, 8)], 3),
        ([(0, 4), (6, 7)], 5),  # a gap
        ([(0, 4), (4, 6)], 6),  # end to end
        ([(0, 4), (2, 6)], 6),  # overlapping
        ([(0, 10), (2, 3), (4, 5), (9, 12)], 12),  # nested, and one that reaches out
        ([(8, 9), (0, 2), (1, 3)], 4),  # in no order
    ],
)
def test_time_is_counted_once_however_many_spans_run(
    times: list[tuple[float, float]], length: float
) -> None:
    assert covered(spans(*times)) == length


def test_the_union_is_that_of_the_microseconds_themselves() -> None:
    chance = random.Random(20)
    for _ in range(50):
        starts = [chance.randrange(100) for _ in range(chance.randrange(20))]
        times = [(start, start + chance.randrange(1, 15)) for start in starts]
        ticks = {tick for start, end in times for tick in range(start, end)}
        assert covered(spans(*times)) == len(ticks)


def test_only_what_runs_on_the_device_counts() -> None:
    def event(name: str, device: DeviceType, **more: Any) -> FunctionEvent:
        return FunctionEvent(0, name, 0, 10, 30, device_type=device, **more)

    events = [
        event("gemm", DeviceType.CUDA),
        event("aten::mm", DeviceType.CPU),
        event("forward", DeviceType.CUDA, is_user_annotation=True),
        event("Memcpy HtoD", DeviceType.CUDA),
    ]
    assert device_spans(events) == [Span("gemm", 10, 30), Span("Memcpy HtoD", 10, 30)]


@pytest.mark.parametrize(
    ("first", "last", "step"),
    [
        (1, 1000, 10),
        (1, 11, 10),
        (1, 10, 9),
        (1, 4, 3),
        (1, 3, None),
        (1, 0, None),
        (501, 1000, 510),  # resumed
        (501, 504, 503),
        (998, 1000, None),
    ],
)
def test_the_tenth_step_is_taken_or_the_last_but_one(
    first: int, last: int, step: int | None
) -> None:
    assert measured_step(first, last) == step
    assert list(run(BusyMeter(GPU, profile=Recorded), first, last)) == ([step] if step else [])


def test_the_share_is_of_the_wall_time() -> None:
    (reading,) = run(BusyMeter(GPU, profile=Recorded), 1, 20).values()
    assert reading.busy == pytest.approx(0.6)
    assert (reading.kernels, reading.seconds) == (2, 100e-6)


def test_nothing_is_measured_on_a_cpu() -> None:
    profiles = Profiles()
    assert run(BusyMeter(torch.device("cpu"), profile=profiles), 1, 100) == {}
    assert profiles.begun == 0


@pytest.mark.parametrize(
    ("until", "last", "step"),
    [
        (11, 1000, 12),  # the first that prepares nothing
        (1000, 1000, 14),  # five tries at most
        (1000, 11, 11),  # nothing comes after
    ],
)
def test_a_step_that_captures_a_graph_is_passed_over(until: int, last: int, step: int) -> None:
    captures = 0
    meter = BusyMeter(GPU, lambda: captures, Recorded)
    meter.expect(1, last)
    found = []
    for number in range(1, last + 1):
        meter.begin(number)
        captures += number <= until
        if meter.end():
            found.append(number)
    assert found == [step]


@pytest.mark.parametrize("broken", ["start", "stop", "empty"])
def test_a_profiler_that_fails_is_logged_once_and_not_tried_again(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    profiles = Profiles(broken)
    assert run(BusyMeter(GPU, profile=profiles), 1, 30) == {}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert profiles.begun == profiles.ended == (broken != "start")


def test_a_recording_ends_with_a_step_that_raises() -> None:
    profiles = Profiles()
    meter = BusyMeter(GPU, profile=profiles)
    meter.expect(1, 30)
    meter.begin(10)
    meter.cancel()
    assert (profiles.begun, profiles.ended) == (1, 1)
    meter.begin(10)
    assert profiles.begun == 1


@pytest.fixture
def steps(tmp_path: Path) -> Callable[[int, int], EventLog]:
    """Tells a callback of the steps of a run that ends at `last`; its events."""

    def tell(done: int, last: int) -> EventLog:
        model = torch.nn.Linear(2, 2)
        log = EventLog(tmp_path / "events.jsonl")
        callback = EventCallback(log, model, lambda: False)
        callback.busy = BusyMeter(GPU, profile=Recorded)
        told = TrainingArguments(output_dir=str(tmp_path), use_cpu=True), TrainerControl()
        state = TrainerState(global_step=done, max_steps=last)
        callback.on_train_begin(told[0], state, told[1])
        for _ in range(done, last):
            callback.on_step_begin(told[0], state, told[1])
            state.global_step += 1
            callback.on_step_end(told[0], state, told[1])
        assert not callback._locked
        return log

    return tell


def test_a_run_says_once_how_busy_the_gpu_is(steps: Callable[[int, int], EventLog]) -> None:
    log = steps(0, 25)
    (event,) = log.of(BusyEvent)
    assert (event.step, event.kernels, event.seconds) == (10, 2, 100e-6)
    assert event.busy == pytest.approx(0.6)
    assert log.of(WarningEvent) == []


def test_a_resumed_run_is_measured_anew_and_a_short_one_never(
    steps: Callable[[int, int], EventLog],
) -> None:
    assert steps(40, 43).of(BusyEvent) == []
    assert [event.step for event in steps(40, 80).of(BusyEvent)] == [50]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="about a CUDA device")
def test_a_profile_sees_the_kernels_of_a_replayed_graph_and_leaves_it_usable() -> None:
    x = torch.randn(512, 512, device="cuda")
    (x @ x).relu()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = (x @ x).relu()
    for _ in range(2):
        profile = DeviceProfile()
        profile.start()
        graph.replay()
        found = profile.stop()
        assert len(found) >= 2
        assert 0 < covered(found) / 1e6 < profile.seconds
    x.fill_(1.0)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.all(y == 512)
