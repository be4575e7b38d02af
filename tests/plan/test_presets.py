"""Presets set fields and nothing else."""

from __future__ import annotations

import pytest

from tunebook.errors import RecipeInvalid
from tunebook.models.catalog import find
from tunebook.plan import PRESETS, Hardware, make_plan, preset_changes
from tunebook.recipe import Recipe

KEYS = [preset.key for preset in PRESETS]


@pytest.mark.parametrize("key", KEYS)
def test_a_preset_makes_a_valid_recipe_and_is_then_done(key):
    recipe = Recipe.of("Qwen3-4B", r=3, batch_size=3, max_steps=77, gradient_checkpointing="off")
    changed = recipe.with_values(preset_changes(key, recipe))
    assert preset_changes(key, changed) == {}
    assert changed.model.name == "Qwen3-4B"
    assert changed.data == recipe.data


def test_the_defaults_are_balanced():
    assert preset_changes("balanced", Recipe()) == {}


def test_a_quick_look_is_short():
    assert preset_changes("quick", Recipe())["training.max_steps"] == 30


def test_best_quality_takes_16_bits_only_where_they_fit():
    wide, narrow = (
        preset_changes("best", Recipe.of(bits=8), lambda _recipe, fit=fit: fit)
        for fit in (True, False)
    )
    assert wide["quantization.bits"] == 16
    assert narrow["quantization.bits"] == 4


def test_smallest_memory_keeps_the_effective_batch_and_is_the_smallest():
    recipe, entry = Recipe.of("Llama-3.1-8B-Instruct", batch_size=4), find("Llama-3.1-8B-Instruct")
    assert entry is not None
    need = {}
    for key in KEYS:
        changed = recipe.with_values(preset_changes(key, recipe))
        plan = make_plan(changed, shape=entry.shape, hardware=Hardware.of("H100"))
        need[key] = plan.forecast.total
        if key == "smallest":
            assert changed.effective_batch == recipe.effective_batch
            assert changed.training.learning_rate == recipe.training.learning_rate
            assert changed.training.max_steps == recipe.training.max_steps
    assert min(need, key=lambda key: need[key]) == "smallest"


def test_an_unknown_preset_is_refused_with_the_names_of_the_others():
    with pytest.raises(RecipeInvalid) as caught:
        preset_changes("fastest", Recipe())
    assert "balanced" in caught.value.why
