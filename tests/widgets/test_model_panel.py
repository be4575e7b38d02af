"""Verdicts, comparison and models of this disk in the model panel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunebook.models.loading import EMBEDDED
from tunebook.plan import Hardware
from tunebook.recipe import Recipe
from tunebook.widgets import ModelPanel
from tunebook.widgets._state import Studio


@pytest.fixture(autouse=True)
def empty_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def panel_on(card: str, **knobs: Any) -> ModelPanel:
    """A panel on a card that this machine may not have."""
    studio = Studio(Recipe.of(**knobs))
    studio.hardware = Hardware.of(card)
    return ModelPanel(studio=studio)


def row_of(panel: ModelPanel, name: str) -> dict[str, Any]:
    return next(row for row in panel.models if row["name"] == name)


def test_what_does_not_fit_says_what_would_and_does_it(eventually: Any) -> None:
    panel = panel_on("RTX 4090", bits=16)
    eventually(lambda: row_of(panel, "Qwen2.5-14B-Instruct")["verdict"])
    row = row_of(panel, "Qwen2.5-14B-Instruct")
    assert row["verdict"] == "no"
    assert "4 bit weights" in row["cure"]
    panel.handle({"type": "make_fit", "name": "Qwen2.5-14B-Instruct"})
    assert panel.recipe.model.name == "Qwen2.5-14B-Instruct"
    assert panel.recipe.quantization.bits == 4
    assert panel.studio.wait_for_plan().fits


def test_verdicts_follow_the_recipe(eventually: Any) -> None:
    panel = panel_on("RTX 4090", bits=16)
    eventually(lambda: row_of(panel, "Qwen2.5-14B-Instruct")["verdict"] == "no")
    panel.recipe = panel.recipe.with_values({"quantization.bits": 4})
    eventually(lambda: row_of(panel, "Qwen2.5-14B-Instruct")["verdict"] == "fits")


def test_a_folder_and_a_broken_one_stand_in_the_list(eventually: Any, tmp_path: Path) -> None:
    config = json.loads((EMBEDDED / "config.json").read_text())
    odd = {"model_type": "mamba", "hidden_size": 4}
    for name, content in {"mine": config, "odd": odd}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(content))
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    panel = panel_on("RTX 4090")
    eventually(lambda: any(row["name"] == "./mine" and row["verdict"] for row in panel.models))
    assert row_of(panel, "./mine")["source"] == "folder"
    assert row_of(panel, "./odd")["verdict"] == ""
    assert "its config has no" in row_of(panel, "./odd")["why"]


def test_three_side_by_side_at_most() -> None:
    panel = panel_on("RTX 4090")
    for name in ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B"):
        panel.handle({"type": "compare", "name": name, "on": True})
    assert panel.compared == ["Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B"]
    panel.compare(*panel.compared, "Qwen3-8B")
    assert panel.compared == ["Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B"]
    panel.handle({"type": "compare", "name": "Qwen3-4B", "on": False})
    assert panel.compared == ["Qwen3-1.7B", "Qwen3-8B"]


def test_rows_are_data_that_a_page_can_take() -> None:
    panel = panel_on("RTX 4090")
    rows = json.loads(json.dumps(panel.models))
    assert {row["source"] for row in rows} == {"catalogue"}
    assert any("image" in row["modality"] for row in rows)
    assert all(row["licence"] and row["context"] for row in rows)


def test_verdicts_out_of_sight_wait_until_they_are_looked_at(eventually: Any) -> None:
    panel = ModelPanel()
    panel.studio.wait_for_plan()
    eventually(lambda: panel.models[0]["verdict"] and not panel._judging, 30)
    panel.in_sight = False
    before = panel.models
    panel.recipe = panel.recipe.with_values({"training.memory_budget": "1GiB"})
    assert not panel._judging
    panel.in_sight = True
    eventually(lambda: panel.models != before, 30)
    assert panel.models[-1]["verdict"] == "no"
