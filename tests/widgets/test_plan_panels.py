"""The model and method panels show what the plan says, soon after each change."""

from __future__ import annotations

from typing import Any

from tunebook.plan import Hardware, make_plan
from tunebook.recipe import Recipe
from tunebook.widgets import MethodPanel, ModelPanel, forecast
from tunebook.widgets._forecasting import forecast_dict


def test_the_forecast_is_there_and_follows_the_recipe() -> None:
    panel = MethodPanel()
    panel.studio.wait_for_plan()
    before = panel.forecast
    assert sum(part["bytes"] for part in before["parts"]) == before["total"]
    panel.handle({"type": "set", "path": "lora.r", "value": "256"})
    adapters = {part["key"]: part["bytes"] for part in panel.forecast["parts"]}["adapters"]
    assert adapters > {part["key"]: part["bytes"] for part in before["parts"]}["adapters"]


def test_every_optimizer_can_be_chosen_and_one_that_is_not_counted_says_so() -> None:
    panel = MethodPanel(Recipe.of(optimizer="adamw_torch"))
    (field,) = [field for field in panel.fields if field["path"] == "training.optimizer"]
    assert {"auto", "sgd", "galore_adamw_8bit_layerwise"} < set(field["choices"])
    panel.studio.wait_for_plan()
    counted = panel.forecast
    panel.handle({"type": "set", "path": "training.optimizer", "value": "grokadamw"})
    panel.studio.wait_for_plan()
    assert panel.forecast["parts"] == counted["parts"]
    assert "grokadamw" in panel.forecast["advice"][-1]
    panel.handle({"type": "set", "path": "training.optimizer", "value": "sgd"})
    panel.studio.wait_for_plan()
    sizes = {part["key"]: part["bytes"] for part in panel.forecast["parts"]}
    assert sizes["optimizer"] == 0
    assert panel.forecast["advice"] == []


def test_a_model_that_is_not_there_gives_an_error_and_no_forecast() -> None:
    panel = MethodPanel(Recipe.of(model="./no/such/folder"))
    assert panel.studio.wait_for_plan() is None
    assert panel.plan_error["name"] == "ModelMissing"
    assert panel.forecast == {}


def test_the_catalogue_gets_its_verdicts(eventually: Any) -> None:
    panel = ModelPanel()
    panel.studio.wait_for_plan()
    eventually(lambda: panel.models[0]["verdict"])
    names = {row["name"] for row in panel.models}
    assert "tunebook-tiny" in names
    assert {row["verdict"] for row in panel.models} <= {"fits", "tight", "no"}
    panel.handle({"type": "choose", "name": panel.models[-1]["name"]})
    assert panel.recipe.model.name == panel.models[-1]["name"]


def test_the_verdicts_come_although_the_hardware_is_known_late(eventually: Any) -> None:
    panel = ModelPanel()
    panel.studio.data_size = None
    panel._judge_soon()
    panel.studio.wait_for_plan()
    eventually(lambda: panel.models[0]["verdict"], 30)


def test_forecast_is_ready_when_it_returns() -> None:
    bar = forecast(Recipe.of(r=64))
    assert bar.forecast["total"] > 0
    assert "Weights" in bar.as_text()


def test_the_words_below_the_bar_say_what_memory_is_spent_on() -> None:
    plan = make_plan(Recipe.of("Llama-3.2-1B-Instruct"), hardware=Hardware.of("H100"))
    words = forecast_dict(plan)["strategy"]
    assert "keeps everything" in words
    assert "weights stay unpacked" in words
