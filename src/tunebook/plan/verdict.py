"""Whether a model can be fine-tuned here by a recipe, and what would let it fit if it cannot.

Makes plans and compares them; knows no catalogue and no panel.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunebook.models.shape import ModelShape
from tunebook.plan.changes import changes_that_fit
from tunebook.plan.hardware import Hardware, cards
from tunebook.plan.nouns import DataSize, Plan, size
from tunebook.plan.rungs import least_memory
from tunebook.plan.strategy import make_plan
from tunebook.recipe import Recipe

TIGHT = 0.85
"""Share of the budget above which the smallest plan fits only just; more is spent on speed anyway."""


class Verdict(BaseModel):
    """What a recipe needs here, and what would let it fit."""

    model_config = ConfigDict(frozen=True)

    word: Literal["fits", "tight", "no"]
    total: int = Field(description="Bytes of the plan, which spends what is left on speed.")
    least: int = Field(description="Bytes of the smallest plan.")
    budget: int
    seconds_per_step: float
    seconds_total: float | None = None
    change: dict[str, Any] = Field(
        default_factory=dict, description="The first change of fields with which it fits."
    )
    total_then: int | None = Field(default=None, description="Bytes with that change.")
    card: str = Field(default="", description="The smallest card that it fits on unchanged.")

    @property
    def cure(self) -> str:
        """In a sentence, what would make it fit; empty where it does."""
        if self.word != "no":
            return ""
        if self.change:
            return f"fits with {_said(self.change)} ({size(self.total_then or 0)})"
        if self.card:
            return f"fits on one {self.card}"
        return "too large for one card"


def judge(
    recipe: Recipe, shape: ModelShape, hardware: Hardware, data: DataSize | None = None
) -> Verdict:
    """The verdict on `recipe` run with a model of this shape on this hardware."""
    plan = make_plan(recipe, shape=shape, hardware=hardware, data=data)
    forecast = plan.forecast
    least = least_memory(plan, recipe, shape, data)
    verdict = Verdict(
        word=fit_word(least, forecast.budget),
        total=forecast.total,
        least=least,
        budget=forecast.budget,
        seconds_per_step=forecast.seconds_per_step,
        seconds_total=forecast.seconds_total,
    )
    return verdict if plan.fits else verdict.model_copy(update=_cure(recipe, shape, plan, data))


def fit_word(least: int, budget: int) -> Literal["fits", "tight", "no"]:
    """Whether the smallest plan fits into the budget, and how well."""
    if least > budget:
        return "no"
    return "tight" if least > TIGHT * budget else "fits"


def _cure(recipe: Recipe, shape: ModelShape, plan: Plan, data: DataSize | None) -> dict[str, Any]:
    if recipe.training.memory_budget != "auto":
        free = recipe.with_values({"training.memory_budget": "auto"})
        whole = make_plan(free, shape=shape, hardware=plan.hardware, data=data)
        if whole.fits:
            change = {"training.memory_budget": "auto"}
            return {"change": change, "total_then": whole.forecast.total}
    budget = plan.forecast.budget
    found = changes_that_fit(recipe, shape, plan.strategy, plan.hardware, budget, data)
    if found:
        return {"change": found[0].values, "total_then": found[0].total}
    free = recipe.with_values({"training.memory_budget": "auto"})
    return {"card": _smallest_card(free, shape, data)}


def _smallest_card(recipe: Recipe, shape: ModelShape, data: DataSize | None) -> str:
    """Of the cards that people name, the first that holds it."""
    for name in _by_memory():
        if make_plan(recipe, shape=shape, hardware=Hardware.of(name), data=data).fits:
            return f"{name} ({cards()[name]['memory_gib']} GB)"
    return ""


@functools.cache
def _by_memory() -> list[str]:
    """One card of each size, ascending: the fastest of those that hold as much."""
    fastest: dict[int, str] = {}
    for name, facts in cards().items():
        room = int(facts["memory_gib"])
        if room not in fastest or facts["tflops"] > cards()[fastest[room]]["tflops"]:
            fastest[room] = name
    return [fastest[room] for room in sorted(fastest)]


def _said(change: dict[str, Any]) -> str:
    words = {
        "quantization.bits": "{} bit weights",
        "model.max_seq_length": "rows of {} tokens",
        "training.gradient_checkpointing": "activations recomputed",
        "training.memory_budget": "all free memory",
    }
    return " and ".join(words.get(path, path).format(value) for path, value in change.items())
