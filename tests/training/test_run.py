"""Runs as people use them: started, watched, stopped, killed, resumed, reopened, talked to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from packaging.version import Version

from tunebook.errors import RunBusy, RunMissing
from tunebook.events import (
    BusyEvent,
    CheckpointEvent,
    EvaluationEvent,
    ExportEvent,
    FinishedEvent,
    MemoryEvent,
    StartedEvent,
    StepEvent,
)
from tunebook.recipe import Recipe
from tunebook.training import Run, list_runs, open_run, train

Quick = Callable[..., Recipe]


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for something, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def losses(run: Run) -> dict[int, float]:
    return {event.step: event.loss for event in run.history()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of twelve steps on the demo, with a merged export."""
    recipe = Recipe().with_values(
        {
            "model.max_seq_length": 64,
            "data.eval_fraction": 0.05,
            "training.max_steps": 12,
            "training.batch_size": 4,
            "training.gradient_accumulation_steps": 1,
            "training.learning_rate": 2e-3,
            "training.warmup_steps": 2,
            "training.eval_steps": 6,
            "export.formats": ["adapter", "merged_16bit"],
        }
    )
    return train(recipe, wait=True, root=tmp_path_factory.mktemp("runs"))


def test_a_run_learns_and_says_everything_that_happened(finished: Run) -> None:
    events = finished.log.read()
    assert isinstance(events[0], StartedEvent)
    assert isinstance(events[-1], FinishedEvent)
    assert finished.state == "completed"
    steps = finished.log.of(StepEvent)
    assert [event.step for event in steps] == list(range(1, 13))
    assert steps[-1].loss < steps[0].loss - 0.5
    assert all(0 < event.trained_tokens < event.tokens for event in steps)
    assert [event.step for event in finished.log.read() if event.kind == "evaluation"] == [6, 12]
    assert {event.format for event in finished.log.of(ExportEvent)} == {"adapter", "merged_16bit"}
    assert events[0].trainable_parameters == 466_944  # r 16 on all seven linears of six layers


@pytest.mark.skipif(
    Version(version("trl")) < Version("1.16"),
    reason="the forecast counts the tiles of today's TRL; on a CPU older ones hold all logits",
)
def test_the_forecast_is_near_what_was_measured(finished: Run) -> None:
    measured = finished.log.of(MemoryEvent)[-1].peak
    assert finished.plan is not None
    assert abs(finished.plan.forecast.total / measured - 1) < 0.15


def test_a_run_on_a_gpu_says_once_how_busy_it_is(finished: Run) -> None:
    measured = finished.log.of(BusyEvent)
    assert len(measured) == torch.cuda.is_available()
    assert all(event.step >= 10 and 0 < event.busy <= 1 for event in measured)


def test_a_run_is_reopened_by_its_path(finished: Run) -> None:
    again = Run(
        finished.folder, Recipe.load(finished.folder.recipe_file)
    )  # as another process would
    assert again.state == "completed"
    assert again.recipe == finished.recipe
    assert losses(again) == losses(finished)
    question = "What is the capital of France?"
    assert again.answer(question) == finished.answer(question)
    assert "Paris" in again.answer(question, adapter=False)


def test_runs_are_listed_newest_first(finished: Run) -> None:
    assert finished.path in [run.path for run in list_runs(finished.path.parent)]
    assert list_runs(finished.path.parent / "nothing") == []


def test_a_finished_run_is_exported_again_where_asked(finished: Run, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    (path,) = finished.export(["merged_16bit"], folder=tmp_path)
    assert [event.step for event in finished.log.of(ExportEvent)] == [12, 12, 12]
    assert path == tmp_path / "merged_16bit"
    AutoModelForCausalLM.from_pretrained(path)


def test_a_stop_takes_effect_after_the_step_and_the_rest_is_the_same_to_the_bit(
    quick: Quick, tmp_path: Path
) -> None:
    whole = train(quick(), wait=True, root=tmp_path / "whole")
    run = Run.create(quick(), root=tmp_path / "halved").start()
    until(lambda: len(run.history()) >= 2)
    done = len(run.history())
    run.stop()
    run.wait()
    assert run.state == "stopped"
    stopped_at = len(run.history())
    assert stopped_at <= done + 1
    assert run.folder.last_checkpoint() == run.folder.checkpoints / f"checkpoint-{stopped_at}"
    run.resume().wait()
    assert run.state == "completed"
    assert losses(run) == losses(whole)
    assert run.history()[-1].tokens == whole.history()[-1].tokens


def test_a_killed_process_is_seen_and_its_run_resumed_to_the_same_curve(
    quick: Quick, tmp_path: Path
) -> None:
    recipe = quick(training__max_steps=8, training__save_steps=2)
    whole = train(recipe, wait=True, root=tmp_path / "whole")
    recipe.save(tmp_path / "recipe.yaml")
    code = "import sys, tunebook; tunebook.train(sys.argv[1], wait=True, root=sys.argv[2])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "recipe.yaml"), str(tmp_path / "killed")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(
            lambda: any(len(r.log.of(CheckpointEvent)) >= 2 for r in list_runs(tmp_path / "killed"))
        )
        (run,) = list_runs(tmp_path / "killed")
        assert run.state == "running"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run.state == "interrupted"
    run.resume().wait()
    assert run.state == "completed"
    assert losses(run) == losses(whole)


def test_a_run_of_another_process_is_stopped_by_path(quick: Quick, tmp_path: Path) -> None:
    quick(training__max_steps=500).save(tmp_path / "recipe.yaml")
    code = "import sys, tunebook; tunebook.train(sys.argv[1], wait=True, root=sys.argv[2])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "recipe.yaml"), str(tmp_path / "runs")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: any(run.history() for run in list_runs(tmp_path / "runs")))
        (run,) = list_runs(tmp_path / "runs")
        run.stop()
        process.wait(timeout=60)
    finally:
        process.kill()
    assert run.state == "stopped"
    assert not run.folder.stop_file.exists()


def test_starting_returns_at_once_and_the_page_can_follow(quick: Quick, tmp_path: Path) -> None:
    began = time.monotonic()
    run = Run.create(quick(), root=tmp_path).start()
    assert time.monotonic() - began < 1.0
    assert run.state in ("preparing", "running")
    assert open_run(run.path) is run  # while it lives, a path means this very run
    seen = [event.kind for event in run.log.follow(until=lambda: not run.alive)]
    assert seen[0] == "started"
    assert seen[-1] == "finished"


def test_what_a_state_forbids_is_said(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(RunBusy, match="cannot be started"):
        finished.start()
    with pytest.raises(RunBusy, match="completed all its steps"):
        finished.resume()
    with pytest.raises(RunMissing):
        open_run(tmp_path)


def test_an_interrupt_stops_gracefully(quick: Quick, tmp_path: Path) -> None:
    quick(training__max_steps=500).save(tmp_path / "recipe.yaml")
    code = (
        "import signal, sys, tunebook\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # also below `make test &`
        "run = tunebook.train(sys.argv[1], wait=True, root=sys.argv[2])\n"
        "print(run.state, flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "recipe.yaml"), str(tmp_path / "runs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    until(lambda: any(run.history() for run in list_runs(tmp_path / "runs")))
    os.kill(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert printed.strip() == "stopped"


def test_adapters_train_in_float32_over_four_bit_weights(finished: Run) -> None:
    import torch

    kinds = {p.dtype for p in finished.model.parameters() if p.requires_grad}
    assert kinds == {torch.float32}


def test_packing_trains_every_token_of_the_same_rows(quick: Quick, tmp_path: Path) -> None:
    epoch = {"training__max_steps": None, "data__eval_fraction": 0.1}
    alone = train(quick(**epoch), wait=True, root=tmp_path)
    packed = train(quick(**epoch, training__packing=True), wait=True, root=tmp_path)
    assert packed.history()[-1].tokens == alone.history()[-1].tokens
    assert packed.history()[-1].trained_tokens == alone.history()[-1].trained_tokens
    assert len(packed.history()) < len(alone.history())
    first = [run.log.of(EvaluationEvent)[0].loss for run in (alone, packed)]
    assert first[0] == pytest.approx(first[1], rel=0.2)


@pytest.mark.parametrize("tokenizer", ["qwen2.5", "llama-3.1"])
@pytest.mark.parametrize("data", ["alpaca", "sharegpt"])
def test_real_rows_and_real_tokenizers(
    tokenizer: str,
    data: str,
    quick: Quick,
    tmp_path: Path,
    shared_data: Path,
    random_model: Callable[[str], Path],
) -> None:
    recipe = quick(
        model__name=str(random_model(tokenizer)),
        data__source=str(shared_data / "datasets" / f"{data}.jsonl"),
        data__max_rows=60,
        model__max_seq_length=256,
        training__learning_rate=5e-3,
        training__max_steps=8,
    )
    run = train(recipe, wait=True, root=tmp_path / "runs")
    assert run.state == "completed"
    history = run.history()
    assert history[-1].loss < history[0].loss
    first = json.loads((run.path / "events.jsonl").read_text().splitlines()[0])
    assert first["kind"] == "started"
