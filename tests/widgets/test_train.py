"""The train panel follows any run through its events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunebook.errors import RunMissing
from tunebook.events import StartedEvent, StepEvent
from tunebook.widgets import TrainPanel, watch
from tunebook.widgets._follow import MOST_POINTS, RunView


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
