"""The guide's overview says how far each step is and which one is next."""

from __future__ import annotations

from typing import Any

import ipywidgets

from tunebook.plan import DataSize
from tunebook.widgets import Guide


def states(guide: Guide) -> list[str]:
    return [step["state"] for step in guide.children[0].steps]


def test_a_new_guide_leads_from_the_data_to_training(eventually: Any) -> None:
    guide = Guide()
    first = ["done", "open", "done", "open", "waiting", "waiting"]
    eventually(lambda: states(guide) == first)
    overview = guide.children[0]
    assert overview.next_step == 2
    guide._studio.data_size = DataSize(rows=10, mean_length=20, max_length=30)
    eventually(lambda: overview.next_step == 4)
    assert "Press Start" in overview.hint
    assert overview.steps[4]["note"] == "after training"


def test_during_training_the_later_steps_wait_and_then_open(fake_run: Any, eventually: Any) -> None:
    guide = Guide()
    fake_run.begin()
    guide._studio.run = fake_run
    overview = guide.children[0]
    assert states(guide)[3:] == ["busy", "waiting", "waiting"]
    fake_run.step(1, 1.0)
    fake_run.finish(1)
    eventually(lambda: states(guide)[3:] == ["done", "open", "open"])
    eventually(lambda: overview.next_step == 5)
    guide.panels["try"].ask("x")
    guide.panels["takeaway"].save()
    assert states(guide)[3:] == ["done"] * 3
    assert (overview.next_step, overview.hint[:8]) == (0, "All six ")


def test_a_problem_comes_before_everything_else(fake_run: Any, eventually: Any) -> None:
    guide = Guide()
    eventually(lambda: guide.plan is not None)
    guide._studio.plan, guide._studio.plan_error = None, {"what": "no"}
    overview = guide.children[0]
    assert states(guide)[:3] == ["problem", "open", "waiting"]
    assert overview.next_step == 1
    assert "says why" in overview.hint
    guide.recipe = guide.recipe.with_values({"training.memory_budget": "1MiB"})
    eventually(lambda: states(guide)[:3] == ["done", "open", "problem"])


def test_a_failed_run_needs_the_user(fake_run: Any) -> None:
    guide = Guide()
    fake_run.state = "failed"
    guide._studio.run = fake_run
    assert states(guide)[3] == "problem"


def test_a_changed_field_sends_each_panel_what_changed_and_the_forecast_first(
    eventually: Any, monkeypatch: Any
) -> None:
    guide = Guide()
    guide.panels["method"].studio.wait_for_plan()
    sent: list[tuple[str, set[str]]] = []
    for panel in guide.children:
        monkeypatch.setattr(
            panel,
            "_send",
            lambda message, buffers=None, of=panel.module: sent.append((of, set(message["state"]))),
        )
    guide.panels["model"].in_sight = False  # else its verdicts may come in between
    eventually(lambda: guide.panels["model"].models[0]["verdict"], 30)
    sent.clear()
    guide.panels["method"].handle({"type": "set", "path": "lora.r", "value": "32"})
    assert [of for of, _ in sent] == ["method", "method", "model", "takeaway", "guide"]
    assert sent[0][1] == {"forecast", "summary"}
    assert "values" in sent[1][1]
    assert not any("code" in names for _, names in sent)
    guide.panels["train"].code_open = True
    guide.panels["method"].handle({"type": "set", "path": "lora.r", "value": "64"})
    assert "r=64" in guide.panels["train"].code["python"]
    guide.panels["train"].code_open = False
    assert guide.panels["train"].code == {}


def test_the_model_step_keeps_its_verdict_after_a_change_elsewhere() -> None:
    guide = Guide()
    guide.panels["model"].studio.wait_for_plan()
    guide.recipe = guide.recipe.with_values({"lora.r": 8})
    assert "fits" in guide.panels["model"].summary
    guide.recipe = guide.recipe.with_values({"model.name": "./no/such"})
    assert guide.panels["model"].summary.startswith("./no/such")


def test_a_guide_stands_in_other_widgets() -> None:
    guide = Guide(layout=ipywidgets.Layout(width="600px"))
    box = ipywidgets.Tab([guide, ipywidgets.HTML("beside")])
    assert box.children[0] is guide
    assert "tunebook-guide" in guide._dom_classes
    guide.close()
