"""The event log: what is written is read back, whatever a crash left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tunebook.events import (
    BusyEvent,
    CheckpointEvent,
    EventLog,
    FinishedEvent,
    SampleEvent,
    StepEvent,
    WarningEvent,
    parse_event,
)


def step(number: int, loss: float = 1.0) -> StepEvent:
    return StepEvent(
        step=number, epoch=0.1, loss=loss, learning_rate=1e-4, tokens=10 * number, seconds=0.1
    )


def test_events_come_back_typed_and_in_order(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    written = [
        step(1),
        WarningEvent(code="x", message="y"),
        BusyEvent(step=10, busy=0.96, kernels=1414, seconds=0.25),
        CheckpointEvent(path="checkpoints/1"),
    ]
    for event in written:
        log.append(event)
    assert log.read() == written
    assert log.of(StepEvent) == [written[0]]


def test_a_log_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert EventLog(tmp_path / "none" / "events.jsonl").read() == []


def test_a_line_cut_off_by_a_crash_is_passed_over_and_the_next_one_is_whole(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append(step(1))
    with log.path.open("ab") as file:
        file.write(b'{"kind":"step","st')
    assert log.read() == [log.of(StepEvent)[0]]
    log.append(step(2))
    assert [event.step for event in log.read()] == [1, 2]
    assert log.skipped == 1


def test_an_event_of_a_later_version_is_passed_over(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.path.write_text('{"kind":"telepathy","step":1}\n')
    log.append(step(1))
    assert len(log.read()) == 1


def test_a_gpu_that_waits_is_told_what_to_do_and_a_busy_one_is_not() -> None:
    busy, idle = (BusyEvent(busy=share, kernels=1414, seconds=0.1) for share in (0.962, 0.31))
    assert (busy.words(), busy.advice()) == ("96 %, 1,414 kernels a step", "")
    assert idle.words() == "31 %, 1,414 kernels a step"
    assert "training.packing" in idle.advice()


@given(text=st.text())
def test_any_text_survives(text: str) -> None:
    event = SampleEvent(prompt=text, answer=text[::-1])
    line = event.model_dump_json()
    assert "\n" not in line
    assert parse_event(line) == event


def test_a_loss_that_is_not_a_number_survives(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append(step(1, loss=float("nan")))
    log.append(step(2, loss=float("inf")))
    first, second = log.of(StepEvent)
    assert first.loss != first.loss
    assert second.loss == float("inf")


def test_following_sees_what_is_written_later_and_ends(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append(step(1))
    done = threading.Event()

    def write() -> None:
        for number in range(2, 6):
            log.append(step(number))
        log.append(FinishedEvent(step=5, reason="completed"))
        done.set()

    writer = threading.Thread(target=write)
    followed = log.follow(poll=0.01, until=done.is_set)
    seen = [next(followed)]
    writer.start()
    seen += followed
    writer.join()
    assert [event.step for event in seen] == [1, 2, 3, 4, 5, 5]


def test_writers_in_several_threads_do_not_mix_lines(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    threads = [
        threading.Thread(target=lambda: [log.append(step(n)) for n in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.read()) == 200
    assert log.skipped == 0


def test_passes_of_measuring_are_events_as_they_begin_and_every_few_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunebook.events import MeasuringEvent
    from tunebook.export.progress import Progress
    from tunebook.training import worker

    log, heard = EventLog(tmp_path / "events.jsonl"), []
    progress = Progress(measuring=worker.measuring_events(log, 7, heard.append))
    progress.plan(["reading", "trying"])
    progress.begin_pass("reading", 3)
    progress.step()
    progress.begin_pass("trying", 2)
    monkeypatch.setattr(worker, "_MEASURING_EVERY", -1.0)
    progress.step(2)
    events = log.of(MeasuringEvent)
    told = [(e.step, e.title, e.number, e.of, e.done, e.total) for e in events]
    assert told == [
        (7, "reading", 1, 2, 0, 3),
        (7, "trying", 2, 2, 0, 2),
        (7, "trying", 2, 2, 2, 2),
    ]
    assert events[-1].seconds_left == 0
    assert len(heard) == 4
    progress.begin(10)
    progress.add(10)
    progress.step()  # writing is no pass
    assert len(heard) == 4
