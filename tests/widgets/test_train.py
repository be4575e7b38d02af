"""The train panel follows any run through its events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunebook.errors import RunMissing
from tunebook.events import BusyEvent, StartedEvent, StepEvent, WarningEvent
from tunebook.plan import Hardware, make_plan
from tunebook.recipe import Recipe
from tunebook.training.view import MOST_POINTS, RunView
from tunebook.widgets import TrainPanel, watch


def points(data: bytes, width: int = 3) -> np.ndarray:
    return np.frombuffer(data, np.float32).reshape(width, -1)


def step(number: int, loss: float) -> StepEvent:
    return StepEvent(step=number, epoch=0, loss=loss, learning_rate=1, tokens=number, seconds=1)


def test_a_panel_on_a_finished_run_shows_it_whole(fake_run: Any) -> None:
    fake_run.begin(total=3)
    for number, loss in ((1, 3.0), (2, 2.0), (3, 1.0)):
        fake_run.step(number, loss)
    fake_run.finish(3)
    panel = TrainPanel(run=fake_run)
    assert (panel.state, panel.step, panel.total) == ("completed", 3, 3)
    assert (panel.first_loss, panel.last_loss, panel.peak) == (3.0, 1.0, 2000)
    assert points(panel.loss_points)[1].tolist() == [3.0, 2.0, 1.0]
    assert "loss 3.0000 → 1.0000" in panel.as_text()
    panel.close()


def test_a_panel_says_how_busy_the_gpu_is_and_what_the_plan_spends_memory_on(
    fake_run: Any, eventually: Any
) -> None:
    fake_run.plan = make_plan(Recipe.of(model="Llama-3.1-8B-Instruct"), hardware=Hardware.of("L4"))
    fake_run.begin(total=30)
    fake_run.step(1, 3.0)
    panel = TrainPanel(run=fake_run)
    assert panel.gpu_busy == ""
    assert "GPU busy" not in panel.as_text()
    fake_run.measure(10, 0.962, 1414)
    eventually(lambda: panel.gpu_busy == "96 %, 1,414 kernels a step")
    assert [item["kind"] for item in panel.messages] == ["started"]
    assert "GPU busy 96 %, 1,414 kernels a step" in panel.as_text()
    assert fake_run.plan.strategy.spending()
    assert set(fake_run.plan.strategy.spending()) < set(panel.strategy)
    assert ", ".join(panel.strategy) in panel.as_text()
    fake_run.finish(30)
    panel.close()


def test_a_gpu_that_waits_is_told_among_the_events_and_so_is_a_smaller_plan(fake_run: Any) -> None:
    fake_run.begin(total=30)
    fake_run.measure(10, 0.4, 900)
    fake_run.log.append(
        WarningEvent(
            step=12, code="out_of_memory", message="It ran out.", do="close what else runs."
        )
    )
    fake_run.finish(30)
    panel = TrainPanel(run=fake_run)
    advice, warning = panel.messages[1:3]
    assert (advice["step"], advice["kind"]) == (10, "advice")
    assert "40 %" in advice["text"]
    assert "packing" in advice["do"]
    assert warning == {
        "kind": "warning", "step": 12, "text": "It ran out.", "do": "close what else runs.",
    }  # fmt: skip
    assert "step 12: It ran out. close what else runs." in panel.as_text()
    panel.close()


def test_a_measurement_of_steps_that_were_lost_is_not_shown() -> None:
    view = RunView()
    about = {"pid": 1, "process_started": 0.0, "host": "h", "device": "cuda:0", "total_steps": 40}
    begun = StartedEvent(**about, trainable_parameters=1, total_parameters=1, resumed_from=8)
    measured = BusyEvent(step=10, busy=0.9, kernels=1, seconds=1)
    for event, shown in ((measured, True), (begun, False), (measured, True)):
        view.add(event)
        assert bool(view.traits()["gpu_busy"]) is shown


def test_points_arrive_while_the_run_goes_on_and_after_a_resume(
    fake_run: Any, eventually: Any
) -> None:
    fake_run.begin()
    panel = TrainPanel(run=fake_run)
    fake_run.step(1, 3.0)
    eventually(lambda: panel.step == 1)
    fake_run.step(2, 2.5)
    fake_run.finish(2)
    eventually(lambda: panel.state == "completed")
    fake_run.begin(total=20, resumed_from=1)
    fake_run.step(2, 2.25)
    eventually(lambda: panel.total == 20 and panel.last_loss == 2.25)
    assert points(panel.loss_points)[0].tolist() == [1.0, 2.0]
    panel.close()


def test_stop_reaches_the_run_and_shows_at_once(fake_run: Any) -> None:
    fake_run.begin()
    panel = TrainPanel(run=fake_run)
    panel.handle({"type": "stop"})
    assert fake_run.stopped.is_set()
    assert panel.state == "stopping"
    fake_run.finish(0)
    panel.close()


def test_a_failed_run_shows_its_error(fake_run: Any, eventually: Any) -> None:
    from tunebook.errors import DoesNotFit

    fake_run.begin()
    panel = TrainPanel(run=fake_run)
    fake_run.error = DoesNotFit("It does not fit.", "40 GiB needed.", "take a smaller model.")
    fake_run.state = "failed"
    eventually(lambda: panel.error.get("name") == "DoesNotFit")
    panel.close()


def test_a_resumed_run_drops_the_steps_that_were_lost() -> None:
    view = RunView()
    about = {"pid": 1, "process_started": 0.0, "host": "h", "device": "cpu", "total_steps": 9}
    sizes = {"trainable_parameters": 1, "total_parameters": 1}
    view.add(StartedEvent(**about, **sizes))
    for number in range(1, 6):
        view.add(step(number, 5.0 - number))
    view.add(StartedEvent(**about, **sizes, resumed_from=3))
    view.add(step(4, 0.5))
    assert [(at, loss) for at, loss, _ in view.losses()] == [(1, 4.0), (2, 3.0), (3, 2.0), (4, 0.5)]


def test_a_long_run_is_thinned_but_keeps_its_spike() -> None:
    view = RunView()
    for number in range(1, 30_001):
        view.add(step(number, 9.0 if number == 12_345 else 1.0))
    table = points(view.traits()["loss_points"])
    assert table.shape[1] <= MOST_POINTS
    assert table[1].max() == 9.0
    assert (np.diff(table[0]) > 0).all()


def test_a_loss_that_is_not_a_number_does_not_break_the_panel() -> None:
    view = RunView()
    view.add(step(1, float("nan")))
    assert view.traits()["last_loss"] is None


def test_the_figure_holds_the_loss_and_the_memory(fake_run: Any) -> None:
    fake_run.begin()
    fake_run.step(1, 2.0)
    fake_run.finish(1)
    panel = TrainPanel(run=fake_run)
    figure = panel.figure()
    assert list(figure.data[0].y) == [2.0]
    assert {trace.name for trace in figure.data} >= {"loss", "smoothed", "memory peak"}
    panel.close()


def test_watching_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunMissing):
        watch(tmp_path / "nothing")


def test_resume_without_a_run_is_an_error_in_the_panel() -> None:
    panel = TrainPanel()
    panel.handle({"type": "resume"})
    assert panel.error["what"]
