"""A run is paused, saved and asked while it goes on, from here and from another process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tunebook.errors import RunBusy
from tunebook.events import CheckpointEvent, ContinuedEvent, FinishedEvent, PausedEvent, SampleEvent
from tunebook.recipe import Recipe
from tunebook.training import Run, list_runs, open_run, train
from tunebook.training.controls import Controls
from tunebook.training.folder import RunFolder
from tunebook.training.setup import set_up

Quick = Callable[..., Recipe]


def until(condition: Callable[[], Any], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def losses(run: Run) -> list[tuple[int, float]]:
    return [(event.step, event.loss) for event in run.history()]


@pytest.fixture
def long(quick: Quick, tmp_path: Path) -> Iterator[Run]:
    """A run that goes on until it is stopped."""
    run = Run.create(quick(training__max_steps=2000, training__save_steps=2000), root=tmp_path)
    run.start()
    until(lambda: len(run.history()) >= 2)
    yield run
    run.stop()
    run.wait()


def test_a_pause_saves_answers_goes_on_and_changes_nothing(quick: Quick, tmp_path: Path) -> None:
    whole = train(quick(), wait=True, root=tmp_path / "whole")
    run = Run.create(quick(), root=tmp_path / "paused").start()
    run.pause()  # while it is still preparing: after the first step
    until(lambda: run.state == "paused")
    assert run.requests == {"pause"}
    assert RunFolder(run.path).state() == "paused"  # as another process sees it
    rested_at = len(run.history())
    run.save_now()
    until(lambda: run.log.of(CheckpointEvent))
    assert run.folder.last_checkpoint() == run.folder.checkpoints / f"checkpoint-{rested_at}"
    run.sample_now()
    until(lambda: len(run.log.of(SampleEvent)) == 3)
    time.sleep(0.3)
    assert len(run.history()) == rested_at
    run.unpause()
    run.wait()
    assert losses(run) == losses(whole)
    (rest,) = run.log.of(ContinuedEvent)
    assert [event.step for event in run.log.of(PausedEvent)] == [rested_at]
    assert rest.seconds > 0.3
    assert sum(event.seconds for event in run.history()) < run.log.of(FinishedEvent)[0].seconds + 1


def test_a_stop_ends_a_pause_with_a_checkpoint(long: Run) -> None:
    long.pause()
    until(lambda: long.state == "paused")
    step = len(long.history())
    long.stop()
    long.wait()
    assert long.state == "stopped"
    assert len(long.history()) == step
    assert long.folder.last_checkpoint() == long.folder.checkpoints / f"checkpoint-{step}"
    assert long.log.of(FinishedEvent)[0].reason == "stopped"


def test_saving_now_writes_one_checkpoint_of_a_step_in_between(long: Run) -> None:
    long.save_now()
    until(lambda: long.log.of(CheckpointEvent))
    (saved,) = long.log.of(CheckpointEvent)
    assert (long.path / saved.path / "trainer_state.json").is_file()
    assert long.requests == frozenset()


def test_a_pause_under_deferred_logging_and_accumulation_shows_its_last_step(
    quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunebook.training.trainer import SFTTrainer

    monkeypatch.setattr("tunebook.training.worker.set_up", partial(set_up, device="any"))
    monkeypatch.setattr(SFTTrainer, "_may_log_later", lambda self, loss: True)
    recipe = quick(training__gradient_accumulation_steps=3, training__max_steps=5)
    whole = train(recipe, wait=True, root=tmp_path / "whole")
    run = Run.create(recipe, root=tmp_path / "paused").start()
    run.pause()
    until(lambda: run.state == "paused")
    assert [event.step for event in run.history()] == [run.log.of(PausedEvent)[0].step]
    run.unpause()
    run.wait()
    assert losses(run) == losses(whole)


def test_samples_come_at_their_steps_and_change_nothing_that_is_learnt(
    quick: Quick, tmp_path: Path
) -> None:
    plain = train(quick(), wait=True, root=tmp_path / "plain")
    asking = quick(samples__sample_steps=4, samples__sample_rows=2, samples__sample_tokens=8)
    run = train(asking, wait=True, root=tmp_path / "asking")
    samples = run.log.of(SampleEvent)
    assert [event.step for event in samples] == [0, 0, 4, 4, 6, 6]
    assert losses(run) == losses(plain)
    first = samples[0]
    assert first.expected
    assert first.prompt
    assert not any(mark in first.prompt + first.answer for mark in ("<|", "|>", "user\n"))
    assert len({event.prompt for event in samples}) == 2


def test_own_prompts_are_asked_in_place_of_rows(quick: Quick, tmp_path: Path) -> None:
    asked = ["What is the capital of France?"]
    recipe = quick(
        samples__sample_steps=100, samples__sample_prompts=asked, samples__sample_tokens=4,
        training__max_steps=2,
    )  # fmt: skip
    run = train(recipe, wait=True, root=tmp_path)
    assert [(e.step, e.prompt, e.expected) for e in run.log.of(SampleEvent)] == [
        (0, asked[0], None), (2, asked[0], None),
    ]  # fmt: skip


def test_a_run_of_another_process_is_paused_and_continued_by_path(
    quick: Quick, tmp_path: Path
) -> None:
    quick(training__max_steps=2000).save(tmp_path / "recipe.yaml")
    code = "import sys, tunebook; tunebook.train(sys.argv[1], wait=True, root=sys.argv[2])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "recipe.yaml"), str(tmp_path / "runs")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: any(run.history() for run in list_runs(tmp_path / "runs")))
        run = open_run(list_runs(tmp_path / "runs")[0].path)
        run.pause()
        until(lambda: run.state == "paused", 30)
        run.sample_now()
        until(lambda: run.log.of(SampleEvent), 30)
        step = len(run.history())
        run.unpause()
        until(lambda: len(run.history()) > step, 30)
        assert run.state == "running"
        run.stop()
        process.wait(timeout=60)
    finally:
        process.kill()
    assert run.state == "stopped"
    assert not any(run.folder.request_file(name).exists() for name in ("pause", "save", "sample"))


def test_what_does_not_train_cannot_be_paused(quick: Quick, tmp_path: Path) -> None:
    run = train(quick(training__max_steps=1), wait=True, root=tmp_path)
    for ask in (run.pause, run.unpause, run.save_now, run.sample_now):
        with pytest.raises(RunBusy, match="completed"):
            ask()
    assert run.requests == frozenset()


def test_a_request_is_a_file_that_any_process_may_make_or_take_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    controls = Controls(folder)
    controls.ask("pause")  # before there is a folder to write it into
    assert controls.asked == {"pause"}
    assert folder.requests() == frozenset()
    Recipe().save(folder.recipe_file)
    until(lambda: controls.asked and folder.requests() == {"pause"}, 5)
    folder.request_file("pause").unlink()  # as another process continues it
    until(lambda: not controls.asked, 5)
    controls.ask("save")
    assert controls.take("save")
    assert not controls.take("save")
    folder.request_file("sample").touch()
    until(lambda: controls.take("sample"), 5)
    assert not folder.request_file("sample").exists()
    assert controls.asked == frozenset()
