"""The state that panels share, without a page."""

from __future__ import annotations

from tunebook.data.demo import demo_recipe
from tunebook.recipe import Recipe
from tunebook.widgets._state import Studio


def test_the_demos_knobs_do_not_follow_to_other_data() -> None:
    studio = Studio()
    assert studio.recipe == demo_recipe()
    studio.recipe = studio.recipe.with_values({"lora.r": 32, "training.max_steps": 77})
    studio.recipe = studio.recipe.with_values({"data.source": "rows.jsonl"})
    assert studio.recipe.training.learning_rate == Recipe().training.learning_rate
    assert studio.recipe.training.max_steps == 77
    assert studio.recipe.lora.r == 32
