"""Choose how a recipe is run within a budget of memory, and say what to change where nothing fits.

Whatever is chosen changes speed and memory, never what is learnt: the effective batch stays. This
module knows forecasts, not models or tensors.
"""

from __future__ import annotations

import functools
import re
from typing import Literal

from tunebook.errors import DoesNotFit, RecipeInvalid
from tunebook.models.shape import ModelShape
from tunebook.plan.changes import changes_that_fit
from tunebook.plan.forecast import make_forecast
from tunebook.plan.fused_strategy import runs_fused
from tunebook.plan.hardware import GIB, Hardware
from tunebook.plan.ladder import choose_fused, choose_stock
from tunebook.plan.nouns import OFFLOADED_WORDS, DataSize, Forecast, Plan, Strategy, size
from tunebook.plan.optimizers import states_known
from tunebook.recipe import Recipe

_SHARE_OF_FREE = 0.9
_STEP = 0.05
_SMALLEST_STEP = 256 * 2**20
"""How much less memory the next plan takes after an out-of-memory error."""
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def make_plan(
    recipe: Recipe,
    *,
    shape: ModelShape | None = None,
    hardware: Hardware | None = None,
    data: DataSize | None = None,
    engine: Literal["fused", "stock"] | None = None,
) -> Plan:
    """How to run `recipe` here and what it costs; a plan that does not fit is returned and says so.

    Args:
        shape: of the model; None reads it from the catalogue or the model's config.
        hardware: None detects this machine's.
        data: counts of the tokenised rows; None assumes rows as long as the recipe allows.
        engine: None takes the fused one on a GPU for the models that it knows; "stock" is for a
            model that turned out to be left unpatched.

    Raises:
        RecipeInvalid: the memory budget cannot be read.
        ModelMissing, ModelInvalid: the shape cannot be found (see `tunebook.models.loading`).
    """
    if shape is None:
        from tunebook.models.loading import load_shape

        shape = load_shape(recipe.model)
    hardware = hardware or Hardware.detect()
    budget = parse_budget(recipe.training.memory_budget, hardware)
    return _plan_within(budget, recipe, shape, hardware, data, engine)


def step_down(
    plan: Plan, recipe: Recipe, shape: ModelShape, data: DataSize | None = None
) -> Plan | None:
    """The plan for noticeably less memory than `plan` needs, of the same engine and effective batch.

    For the trainer, after the device ran out of memory in spite of the forecast.

    Args:
        recipe, shape, data: that the plan was made from.

    Returns:
        None where nothing smaller is left.
    """
    needed = plan.forecast.total
    less = needed - max(int(needed * _STEP), _SMALLEST_STEP)
    engine = plan.strategy.engine
    smaller = _plan_within(less, recipe, shape, plan.hardware, data, engine, plan.strategy)
    return smaller if smaller.forecast.total < needed else None


def _plan_within(
    budget: int,
    recipe: Recipe,
    shape: ModelShape,
    hardware: Hardware,
    data: DataSize | None,
    engine: Literal["fused", "stock"] | None,
    below: Strategy | None = None,
) -> Plan:
    """The best rung within the budget, of those with no larger micro-batch than `below`."""

    @functools.cache  # ladders share rungs
    def forecast_of(strategy: Strategy) -> Forecast:
        return make_forecast(recipe, shape, strategy, hardware, budget, data)

    engine = engine or ("fused" if runs_fused(shape, recipe, hardware) else "stock")
    choose = choose_fused if engine == "fused" else choose_stock
    largest = below.micro_batch if below else None
    strategy, forecast, rungs = choose(recipe, shape, hardware, forecast_of, largest)
    advice: list[str] = []
    if not forecast.fits:
        found = changes_that_fit(recipe, shape, strategy, hardware, budget, data)
        advice = [change.text for change in found]
    return Plan(
        recipe=_echo(recipe),
        hardware=hardware,
        strategy=strategy,
        forecast=forecast,
        rungs=rungs,
        advice=advice,
        notes=_notes(strategy, forecast),
    )


def require_fit(plan: Plan) -> Plan:
    """The plan itself if it fits.

    Raises:
        DoesNotFit: with the smallest budget that would do, and the changes that would make it fit.
    """
    if plan.fits:
        return plan
    forecast = plan.forecast
    largest = max(forecast.parts, key=lambda name: forecast.parts[name])
    changes = "; or ".join(plan.advice) or "choose a smaller model or a larger device"
    raise DoesNotFit(
        f"{plan.recipe['model']} does not fit into {size(forecast.budget)} "
        f"on {plan.hardware.name}.",
        f"the least that was found needs {size(forecast.total)}, of which {largest} are "
        f"{size(forecast.parts[largest])}; tried: {'; '.join(plan.rungs)}.",
        f'{changes}; or set `training.memory_budget` to "{budget_text(forecast.total)}" '
        "if there is that much.",
    )


def parse_budget(text: str, hardware: Hardware) -> int:
    """Bytes of a budget such as "6.5GiB" or "8 GB"; "auto" is 90 % of what is free.

    Raises:
        RecipeInvalid: the text is neither.
    """
    if text.strip() == "auto":
        return int(hardware.free_memory * _SHARE_OF_FREE)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|B)", text.strip())
    if found is None:
        raise RecipeInvalid(
            f"The memory budget {text!r} cannot be read.",
            "it is neither 'auto' nor a number with a unit (B, KB, MB, GB, KiB, MiB, GiB).",
            'write it such as `training.memory_budget: "6.5GiB"`.',
        )
    return int(float(found[1]) * _UNITS[found[2]])


def budget_text(count: int) -> str:
    """Bytes as a budget is written, rounded up: "3.17GiB", "512MiB"."""
    return f"{-(-count * 100 // GIB) / 100:.2f}GiB" if count >= GIB else f"{-(-count // 2**20)}MiB"


def _notes(strategy: Strategy, forecast: Forecast) -> list[str]:
    notes = []
    if not states_known(strategy.optimizer):
        notes.append(
            f"what {strategy.optimizer} keeps is not known; it is counted as AdamW's two averages"
        )
    if forecast.host:
        words = OFFLOADED_WORDS[strategy.offloaded]
        what = f"{words} of layers" if strategy.offloaded_layers else "the input embedding"
        if strategy.offloaded_layers and strategy.host_embedding:
            what += " and the input embedding"
        verb = "take" if strategy.offloaded_layers else "takes"
        notes.append(f"{what} {verb} {size(forecast.host)} of the computer's own memory")
    return notes


def _echo(recipe: Recipe) -> dict[str, object]:
    """The fields that the arithmetic rests on."""
    return {
        "model": recipe.model.name,
        "max_seq_length": recipe.model.max_seq_length,
        "bits": recipe.quantization.bits,
        "r": recipe.lora.r,
        "adapter_dtype": recipe.lora.adapter_dtype,
        "batch_size": recipe.training.batch_size,
        "gradient_accumulation_steps": recipe.training.gradient_accumulation_steps,
        "packing": recipe.training.packing,
        "gradient_checkpointing": recipe.training.gradient_checkpointing,
        "memory_budget": recipe.training.memory_budget,
    }
