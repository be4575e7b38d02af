"""Starting points: each sets some fields of a recipe and does nothing else.

Pure functions from a recipe to changed fields; whether something fits is asked of the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunebook.errors import RecipeInvalid
from tunebook.recipe import ALL_LINEAR, Recipe

Fits = Callable[[Recipe], bool]


@dataclass(frozen=True)
class Preset:
    """A name for some values of fields."""

    key: str
    title: str
    about: str
    values: dict[str, Any]


_BALANCED: dict[str, Any] = {
    "lora.r": 16,
    "lora.alpha": 16,
    "lora.dropout": 0.0,
    "lora.target_modules": ALL_LINEAR,
    "lora.use_rslora": False,
    "quantization.bits": 4,
    "training.max_steps": None,
    "training.epochs": 1.0,
    "training.learning_rate": 2e-4,
    "training.lr_scheduler_type": "linear",
    "training.warmup_steps": 5,
    "training.gradient_checkpointing": "auto",
    "training.memory_budget": "auto",
}

PRESETS: tuple[Preset, ...] = (
    Preset(
        "quick",
        "Quick look",
        "Thirty steps with a small adapter, to see whether the data teaches what you want.",
        {**_BALANCED, "lora.r": 8, "lora.alpha": 8, "training.max_steps": 30},
    ),
    Preset(
        "balanced",
        "Balanced",
        "Once over all rows, with the settings that suit most data.",
        _BALANCED,
    ),
    Preset(
        "best",
        "Best quality",
        "A larger adapter, twice over the rows, a gentler rate; 16-bit weights where they fit.",
        {
            **_BALANCED,
            "lora.r": 64,
            "lora.alpha": 64,
            "training.epochs": 2.0,
            "training.learning_rate": 1e-4,
            "training.lr_scheduler_type": "cosine",
            "training.warmup_steps": 10,
        },
    ),
    Preset(
        "smallest",
        "Smallest memory",
        "One row at a time and everything computed twice: slow, and it fits where little else does.",
        {
            "lora.r": 8,
            "lora.alpha": 8,
            "lora.dropout": 0.0,
            "quantization.bits": 4,
            "quantization.double_quant": True,
            "training.gradient_checkpointing": "on",
        },
    ),
)


def find_preset(key: str) -> Preset:
    """The preset of that name.

    Raises:
        RecipeInvalid: there is none.
    """
    for preset in PRESETS:
        if preset.key == key:
            return preset
    known = ", ".join(preset.key for preset in PRESETS)
    raise RecipeInvalid(
        f"There is no preset {key!r}.", f"the presets are {known}.", "choose one of them."
    )


def preset_changes(key: str, recipe: Recipe, fits: Fits | None = None) -> dict[str, Any]:
    """The fields that the preset would change, by dotted name.

    Args:
        fits: whether a recipe fits this machine; None takes it that 16-bit weights do not.
    """
    values = dict(find_preset(key).values)
    if key == "smallest":
        values |= _one_row_at_a_time(recipe)
    if key == "best" and fits is not None:
        sixteen = recipe.with_values({**values, "quantization.bits": 16})
        values["quantization.bits"] = 16 if fits(sixteen) else 4
    return {path: value for path, value in values.items() if recipe.get(path) != value}


def _one_row_at_a_time(recipe: Recipe) -> dict[str, Any]:
    """A batch of one row, with the same rows per update, and no long rows."""
    return {
        "training.batch_size": 1,
        "training.gradient_accumulation_steps": recipe.effective_batch,
        "model.max_seq_length": min(recipe.model.max_seq_length, 1024),
    }
