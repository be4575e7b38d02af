"""A run in a list: a few numbers and a small curve, from the lines of its log."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tunebook.events import FailedEvent, MemoryEvent, StartedEvent, StepEvent
from tunebook.server.summary import CURVE_POINTS, RunSummary, Sketch


def fed(*events: Any) -> RunSummary:
    summary = RunSummary()
    for event in events:
        summary.add(event if isinstance(event, bytes) else event.model_dump_json().encode())
    return summary


def started(total: int = 100, **values: Any) -> StartedEvent:
    return StartedEvent(
        pid=1, process_started=1.0, host="h", device="cpu", total_steps=total,
        trainable_parameters=1, total_parameters=2, **values,
    )  # fmt: skip


def step(number: int, loss: float = 1.0) -> StepEvent:
    return StepEvent(
        step=number, epoch=0, loss=loss, learning_rate=1e-3, tokens=number, seconds=2.0
    )


def test_the_numbers_of_a_run() -> None:
    shown = fed(
        started(10), step(1, 3.0), step(2, 2.0), MemoryEvent(device="cpu", allocated=1, peak=7)
    ).shown(live=True)
    assert (shown["step"], shown["total"], shown["peak"]) == (2, 10, 7)
    assert (shown["first_loss"], shown["loss"], shown["eta"]) == (3.0, 2.0, 16.0)
    assert shown["curve"] == [3.0, 2.0]


def test_a_run_that_nobody_works_on_has_no_time_left() -> None:
    assert fed(started(), step(1)).shown(live=False)["eta"] is None


def test_a_resumed_run_forgets_what_it_does_again() -> None:
    summary = fed(started(), *(step(n, n) for n in range(1, 6)), started(resumed_from=2))
    shown = summary.shown(live=True)
    assert shown["step"] == 2
    assert shown["curve"] == [1.0, 2.0]


def test_a_resumed_run_forgets_why_it_failed() -> None:
    failed = FailedEvent(error={"what": "No.", "why": "w", "do": "d", "traceback": "secret"})
    assert fed(started(), failed).shown(live=False)["failure"] == {
        "what": "No.", "why": "w", "do": "d",
    }  # fmt: skip
    assert fed(started(), failed, started()).shown(live=True)["failure"] == {}


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"[]", b"null", b'{"kind": 7}', b'{"kind": "step"}', b"\x00\xff",
        b'{"kind": "step", "step": "many", "loss": 1}', b'{"kind": "started", "pid": "x"}',
        b'{"kind": "memory", "peak": null}', b'{"kind": "of tomorrow", "time": 1}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_event_is_passed_over(line: bytes) -> None:
    assert fed(started(), step(1), line, step(2)).shown(live=True)["step"] == 2


def test_a_loss_that_is_not_finite_is_no_number() -> None:
    shown = fed(started(), step(1, 1.0), step(2, math.nan), step(3, math.inf)).shown(live=True)
    assert shown["loss"] is None
    assert shown["curve"] == [1.0]


def test_a_sketch_is_bounded_and_keeps_the_shape() -> None:
    sketch = Sketch()
    for number in range(100_000):
        sketch.add(number, 100_000 - number)
    values = sketch.values()
    assert CURVE_POINTS / 2 < len(values) <= CURVE_POINTS
    assert values == sorted(values, reverse=True)
    assert values[0] > 95_000
    assert values[-1] < 5_000
