"""What the method panel draws, as plain data: ladder, layer, schedule, rounding, presets.

Asks the plan and the model's shape; knows no widget.
"""

from __future__ import annotations

from typing import Any

from tunebook.fields import recipe_fields
from tunebook.models.anatomy import layer_anatomy
from tunebook.models.weight_sample import sample_weights
from tunebook.plan import PRESETS, Hardware, Plan, budget_text, describe_ladder, parse_budget
from tunebook.plan.rounding import rounding_key, roundings
from tunebook.plan.schedule import schedule_points, warmup_of
from tunebook.recipe import ModelPart, Recipe

_STEPS_UNKNOWN = 100


def ladder_dict(plan: Plan, recipe: Recipe, shape: Any, data: Any) -> dict[str, Any]:
    """The rungs with how far each is taken, and the range of the budget's slider, in bytes."""
    ladder = describe_ladder(plan, recipe, shape, data)
    return {
        "rungs": [rung.model_dump() for rung in ladder.rungs],
        "least": ladder.least,
        "most": ladder.most,
        "card": plan.hardware.total_memory,
        "auto": parse_budget("auto", plan.hardware),
        "budget": plan.forecast.budget,
        "is_auto": recipe.training.memory_budget.strip() == "auto",
        "seconds": plan.forecast.seconds_per_step,
        "total": plan.forecast.total,
    }


def layer_dict(recipe: Recipe, shape: Any) -> dict[str, Any]:
    """One layer of this model, with what the adapters train of it."""
    anatomy = layer_anatomy(shape, recipe.lora)
    return {**anatomy.model_dump(mode="json"), "share": anatomy.share, "rank": recipe.lora.r}


def schedule_dict(recipe: Recipe, plan: Plan | None) -> dict[str, Any]:
    """The learning rate over the steps; where their number is not known yet, over a hundred."""
    training = recipe.training
    known = training.max_steps if plan is None else plan.forecast.steps
    steps = known or _STEPS_UNKNOWN
    return {
        "points": [list(point) for point in schedule_points(training, steps)],
        "steps": steps,
        "known": known is not None,
        "warmup": warmup_of(training, steps),
        "peak": training.learning_rate,
        "kind": training.lr_scheduler_type,
    }


def rounding_ways(part: ModelPart) -> dict[str, Any]:
    """What each way of storing does to this model's own weights; reads one slice of a file."""
    sample = sample_weights(part)
    ways = {
        name: {key: _rounded(value) for key, value in way.model_dump().items()}
        for name, way in roundings(sample.weights).items()
    }
    return {"tensor": sample.tensor, "why": sample.why, "ways": ways}


def rounding_choice(recipe: Recipe) -> str:
    """The way that the recipe chose."""
    return rounding_key(recipe.quantization.bits, recipe.quantization.quant_type)


def preset_dicts() -> list[dict[str, str]]:
    """The presets' names and sentences."""
    return [{"key": one.key, "title": one.title, "about": one.about} for one in PRESETS]


def change_rows(recipe: Recipe, changes: dict[str, Any]) -> list[dict[str, str]]:
    """Changed fields in words: title, before, after."""
    titles = {info.path: info for info in recipe_fields()}
    return [
        {
            "path": path,
            "title": titles[path].title,
            "before": _said(recipe.get(path)),
            "after": _said(value),
        }
        for path, value in changes.items()
    ]


def budget_within(recipe: Recipe, count: float, hardware: Hardware) -> Recipe:
    """The recipe with a budget of so many bytes, of what the machine has at most."""
    size = max(1, min(int(count), hardware.total_memory))
    return recipe.with_values({"training.memory_budget": budget_text(size)})


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [round(item, 5) for item in value]
    return value


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(name.removesuffix("_proj") for name in map(str, value))
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
