"""What can be done to the method panel, by its buttons and from Python."""

from __future__ import annotations

from typing import Any

import pytest

from tunebook.plan import Hardware
from tunebook.recipe import Recipe
from tunebook.widgets import MethodPanel
from tunebook.widgets._state import Studio


def panel_of(model: str = "Llama-3.1-8B-Instruct", card: str = "T4", **knobs: Any) -> MethodPanel:
    """A panel on a card that this machine may not have."""
    studio = Studio(Recipe.of(model, **knobs))
    studio.hardware = Hardware.of(card)
    studio._replan(None)
    studio.wait_for_plan()
    return MethodPanel(studio=studio)


def test_the_budget_moves_bar_rungs_and_time_together() -> None:
    panel = panel_of()
    before = panel.ladder
    assert before["least"] < before["budget"] < before["most"]
    panel.handle({"type": "budget", "memory": before["least"]})
    after = panel.ladder
    assert after["total"] == panel.forecast["total"] <= after["budget"] < before["budget"]
    assert after["seconds"] > before["seconds"]
    assert not after["is_auto"]
    assert sum(rung["taken"] for rung in after["rungs"]) > sum(
        rung["taken"] for rung in before["rungs"]
    )
    panel.handle({"type": "budget", "memory": "auto"})
    assert panel.recipe.training.memory_budget == "auto"
    assert panel.ladder == before


def test_the_budget_is_at_most_the_card() -> None:
    panel = panel_of()
    panel.set_budget(1e15)
    assert panel.ladder["budget"] == pytest.approx(panel.ladder["card"], rel=1e-3)


def test_targets_are_toggled_and_counted() -> None:
    panel = panel_of()
    whole = panel.layer["trainable"]
    panel.handle({"type": "toggle", "name": "down_proj"})
    (part,) = [part for part in panel.layer["parts"] if part["name"] == "down_proj"]
    assert not part["adapted"]
    assert panel.layer["trainable"] == whole - part["would_train"]
    panel.handle({"type": "targets", "which": "attention"})
    assert [part["adapted"] for part in panel.layer["parts"]] == [True] * 4 + [False] * 3
    panel.handle({"type": "targets", "which": "all"})
    assert panel.layer["trainable"] == whole
    assert "target_modules" not in panel.code_now()["python"]


def test_the_last_target_stays_with_a_message_beside_it() -> None:
    panel = panel_of(target_modules=["q_proj"])
    panel.handle({"type": "toggle", "name": "q_proj"})
    assert panel.recipe.lora.target_modules == ["q_proj"]
    assert "At least one layer" in panel.invalid["lora.target_modules"]["message"]
    panel.handle({"type": "toggle", "name": "v_proj"})
    assert panel.recipe.lora.target_modules == ["q_proj", "v_proj"]
    assert panel.invalid == {}


def test_a_preset_is_shown_taken_and_taken_back() -> None:
    panel = panel_of(r=4)
    before = panel.recipe
    panel.handle({"type": "preview", "key": "best"})
    assert panel.recipe == before
    rows = {row["path"]: (row["before"], row["after"]) for row in panel.preview["changes"]}
    assert rows["lora.r"] == ("4", "64")
    assert "quantization.bits" not in rows, "16 bits do not fit on this card"
    assert panel.preview["total"] > 0
    panel.handle({"type": "apply", "key": "best"})
    assert panel.recipe.lora.r == 64
    assert panel.preview == {}
    assert panel.applied["title"] == "Best quality"
    panel.handle({"type": "set", "path": "training.seed", "value": "7"})
    panel.handle({"type": "undo"})
    assert panel.recipe == before.with_values({"training.seed": 7})
    assert panel.applied == {}


def test_best_quality_stores_16_bits_on_a_card_that_holds_them() -> None:
    panel = panel_of(card="H100")
    panel.apply_preset("best")
    assert panel.recipe.quantization.bits == 16
    assert panel.stored_as == "16"


def test_the_schedule_follows_the_recipe() -> None:
    panel = panel_of(max_steps=40, lr_scheduler_type="cosine", warmup_steps=8)
    assert panel.schedule["known"]
    assert panel.schedule["steps"] == 40
    assert panel.schedule["warmup"] == 8
    assert max(rate for _, rate in panel.schedule["points"]) == panel.recipe.training.learning_rate
    panel.handle({"type": "set", "path": "training.max_steps", "value": ""})
    assert not panel.schedule["known"]


def test_the_weights_are_the_models_own(eventually: Any) -> None:
    panel = panel_of("tunebook-tiny", "cpu")
    eventually(lambda: panel.rounding)
    assert panel.rounding["tensor"].endswith("q_proj.weight")
    assert panel.stored_as == "nf4"
    panel.handle({"type": "set", "path": "quantization.quant_type", "value": "fp4"})
    assert panel.stored_as == "fp4"
    assert panel.rounding["ways"]["fp4"]["error"] > panel.rounding["ways"]["nf4"]["error"]


def test_where_nothing_is_known_the_panel_says_why_and_the_form_still_works() -> None:
    panel = MethodPanel(Recipe.of("./no/such/folder", max_steps=10))
    panel.studio.wait_for_plan()
    assert panel.plan_error["what"]
    assert panel.ladder == {}
    assert panel.layer == {}
    assert panel.schedule["steps"] == 10
    panel.handle({"type": "toggle", "name": "q_proj"})
    panel.handle({"type": "preview", "key": "quick"})
    assert "total" not in panel.preview
    panel.handle({"type": "budget", "memory": 1e9})
    panel.handle({"type": "set", "path": "lora.r", "value": "8"})
    assert panel.recipe.lora.r == 8
