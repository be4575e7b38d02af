"""The train panel follows any run through its events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunebook.curves import MOST_POINTS
from tunebook.errors import RunMissing
from tunebook.events import (
    BusyEvent,
    ContinuedEvent,
    EvaluationEvent,
    EventBase,
    EventLog,
    PausedEvent,
    SampleEvent,
    StartedEvent,
    StepEvent,
    WarningEvent,
)
from tunebook.plan import Hardware, make_plan
from tunebook.recipe import Recipe
from tunebook.training.view import RunView
from tunebook.widgets import TrainPanel, watch


def points(data: bytes, width: int = 4) -> np.ndarray:
    return np.frombuffer(data, np.float32).reshape(width, -1)


def step(number: int, loss: float) -> StepEvent:
    return StepEvent(step=number, epoch=0, loss=loss, learning_rate=1, tokens=number, seconds=1)


@pytest.fixture
def view(tmp_path: Path) -> Any:
    """A view of events that are given by hand: `view(event, ...)` is what it shows after them."""
    log = EventLog(tmp_path / "events.jsonl")
    shown = RunView(log)

    def after(*events: EventBase) -> dict[str, Any]:
        for event in events:
            log.append(event)
        shown.read()
        return shown.traits()

    return after


ABOUT = {
    "pid": 1, "process_started": 0.0, "host": "h", "device": "cpu", "total_steps": 40,
    "trainable_parameters": 1, "total_parameters": 1,
}  # fmt: skip


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


def test_a_measurement_of_steps_that_were_lost_is_not_shown(view: Any) -> None:
    begun = StartedEvent(**ABOUT, resumed_from=8)
    measured = BusyEvent(step=10, busy=0.9, kernels=1, seconds=1)
    for event, shown in ((measured, True), (begun, False), (measured, True)):
        assert bool(view(event)["gpu_busy"]) is shown


def test_answers_stand_under_their_prompt_newest_first_and_lost_ones_go(view: Any) -> None:
    def asked(step: int, answer: str) -> SampleEvent:
        return SampleEvent(step=step, prompt="Who?", answer=answer, expected="Me.")

    (about,) = view(StartedEvent(**ABOUT), asked(0, "?"), asked(5, "I"), asked(9, "Me"))["samples"]
    assert (about["prompt"], about["expected"]) == ("Who?", "Me.")
    assert [(a["step"], a["text"]) for a in about["answers"]] == [(9, "Me"), (5, "I"), (0, "?")]
    (about,) = view(StartedEvent(**ABOUT, resumed_from=6))["samples"]
    assert [a["step"] for a in about["answers"]] == [5, 0]


def test_a_pause_is_told_and_does_not_count(view: Any) -> None:
    before = view(StartedEvent(**ABOUT), step(1, 2.0), step(2, 2.0))
    shown = view(PausedEvent(step=2), ContinuedEvent(step=2, seconds=500.0), step(3, 2.0))
    assert (before["eta"], shown["eta"]) == (38.0, 37.0)
    assert shown["seconds"] == 3.0
    assert [m["kind"] for m in shown["messages"]] == ["started", "paused", "continued"]
    assert "8 min 20 s" in shown["messages"][-1]["text"]


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


def test_a_long_run_is_thinned_and_a_window_of_it_is_not(view: Any, fake_run: Any) -> None:
    fake_run.begin(total=30_000)
    lines = [step(n, 9.0 if n == 12_345 else 1.0).model_dump_json() for n in range(1, 30_001)]
    with fake_run.log.path.open("a") as file:
        file.write("\n".join(lines) + "\n")
    fake_run.finish(30_000)
    panel = TrainPanel(run=fake_run)
    table = points(panel.loss_points)
    assert table.shape[1] <= MOST_POINTS
    assert table[1].max() == 9.0
    assert table[3].sum() == 30_000
    panel.window = [20_000, 20_500]
    steps = points(panel.loss_points)[0]
    assert ((steps >= 20_000) & (steps <= 20_500)).sum() == 501
    panel.close()


def test_a_loss_that_is_not_a_number_does_not_break_the_panel(view: Any) -> None:
    shown = view(StartedEvent(**ABOUT), step(1, float("nan")))
    assert shown["last_loss"] is None


def test_buttons_ask_the_run_and_what_is_asked_for_shows(fake_run: Any) -> None:
    fake_run.begin()
    panel = TrainPanel(run=fake_run)
    for name, asked in (("pause", "pause"), ("save_now", "save"), ("sample_now", "sample")):
        panel.handle({"type": name})
        assert asked in panel.requests
    panel.handle({"type": "unpause"})
    assert panel.requests == ["sample", "save"]
    fake_run.requests.clear()
    fake_run.finish(0)
    panel.close()


def test_every_step_is_sent_as_a_table_when_asked(fake_run: Any) -> None:
    fake_run.begin(total=2)
    fake_run.step(1, 3.0)
    fake_run.log.append(EvaluationEvent(step=1, loss=2.5))
    fake_run.finish(1)
    panel = TrainPanel(run=fake_run)
    sent: list[Any] = []
    panel.send = lambda content, buffers=None: sent.append((content, buffers))  # type: ignore[method-assign]
    panel.handle({"type": "csv"})
    ((content, (table,)),) = sent
    assert content == {"type": "csv", "name": "fake.csv"}
    assert table.decode().splitlines()[1].startswith("1,3,0.0001,,100,0.5,,3,2.5,1000,2000")
    panel.close()


def test_other_runs_are_laid_over_with_what_differs(fake_run: Any, tmp_path: Path) -> None:
    from tunebook.widgets._state import Studio

    for name, rank in (("first", 8), ("second", 64)):
        other = type(fake_run)(tmp_path / "runs" / name, Recipe.of(r=rank))
        other.recipe.save(other.path / "recipe.yaml")
        other.begin()
        other.step(1, 2.0)
        other.step(2, float(rank))
        other.finish(2)
    fake_run.begin()
    fake_run.finish(0)
    studio = Studio(fake_run.recipe, root=str(tmp_path / "runs"))
    panel = TrainPanel(run=fake_run, studio=studio)
    panel.handle({"type": "list_runs"})
    assert {item["name"] for item in panel.others} == {"first", "second"}
    panel.handle({"type": "overlay", "names": ["first", "second"]})
    assert panel.overlays == [{"name": "first", "points": 2}, {"name": "second", "points": 2}]
    assert np.frombuffer(panel.overlay_points, np.float32)[8:].reshape(4, 2)[1].tolist() == [2, 64]
    assert panel.differences == [{"path": "lora.r", "title": "Rank", "values": ["16", "8", "64"]}]
    panel.handle({"type": "overlay", "names": ["../../etc"]})
    assert panel.error["name"] == "RunMissing"
    panel.close()


def test_runs_are_compared_by_their_folders(fake_run: Any, tmp_path: Path) -> None:
    import tunebook

    made = []
    for name, rank in (("a <b>", 8), ("b", 64)):
        run = type(fake_run)(tmp_path / name, Recipe.of(r=rank))
        run.recipe.save(run.path / "recipe.yaml")
        run.begin()
        run.step(1, 2.0)
        run.finish(1)
        made.append(run.path)
    both = tunebook.compare(made)
    assert both.differences() == {"lora.r": [8, 64]}
    assert [trace.name for trace in both.figure().data] == ["a <b>", "b"]
    assert [row["lora.r"] for row in both.table()] == [8, 64]
    bundle = both._repr_mimebundle_()
    assert "a &lt;b&gt;" in bundle["text/html"]
    assert "lora.r" in bundle["text/plain"]
    assert bundle["application/vnd.plotly.v1+json"]["data"]
    with pytest.raises(RunMissing):
        tunebook.compare([])


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


def test_the_static_view_below_a_panel_follows_the_run_to_its_end(
    fake_run: Any, eventually: Any
) -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import display
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    try:
        with capture_output() as got:
            panel = TrainPanel(run=fake_run)
            display(panel)
            fake_run.begin()
            fake_run.step(1, 2.0)
            fake_run.step(2, 1.0)
            fake_run.finish(2)
            eventually(lambda: panel.state == "completed" and len(got.outputs) == 3)
    finally:
        InteractiveShell.clear_instance()
    live, first, last = got.outputs
    assert "application/vnd.jupyter.widget-view+json" in live.data
    assert "text/html" not in live.data
    assert "<svg" not in first.data["text/html"]
    assert "<polyline" in last.data["text/html"]
    assert "Completed" in last.data["text/plain"]
    assert last.update
    assert last.transient["display_id"] == first.transient["display_id"]
