"""The forecast: memory by part, time, and whether it fits, for one strategy on one device.

Pure arithmetic on the model's shape; knows no weights and chooses nothing.
"""

from __future__ import annotations

import math

from tunebook.models.shape import ModelShape
from tunebook.plan.fused_memory import fused_parts, host_bytes
from tunebook.plan.fused_timing import fused_seconds_per_step
from tunebook.plan.hardware import Hardware
from tunebook.plan.memory import Batch, memory_parts
from tunebook.plan.nouns import DataSize, Forecast, Strategy
from tunebook.plan.timing import seconds_per_step
from tunebook.recipe import Recipe


def make_forecast(
    recipe: Recipe,
    shape: ModelShape,
    strategy: Strategy,
    hardware: Hardware,
    budget: int,
    data: DataSize | None = None,
) -> Forecast:
    """Bytes and seconds of `recipe` run by `strategy`.

    Args:
        budget: bytes that may be used.
        data: counts of the tokenised rows; without them every row is taken to be as long as
            allowed, and the number of steps is known only if the recipe fixes it.
    """
    worst = worst_batch(recipe, strategy, data)
    fused = strategy.engine == "fused"
    count = fused_parts if fused else memory_parts
    parts = count(shape, recipe, strategy, worst, hardware.device)
    total = sum(parts.values())
    typical = _typical_batch(recipe, strategy, data)
    situation = (shape, recipe, strategy, typical, hardware)
    if fused:
        seconds = fused_seconds_per_step(*situation, one_shape=_have_one_shape(recipe, data))
    else:
        seconds = seconds_per_step(*situation)
    steps = count_steps(recipe, strategy, data)
    return Forecast(
        parts=parts,
        total=total,
        budget=budget,
        fits=total <= budget,
        host=host_bytes(shape, recipe, strategy, worst) if fused else 0,
        sequence_length=worst.length // (strategy.micro_batch if recipe.training.packing else 1),
        tokens_per_step=round(_mean_length(recipe, data) * strategy.effective_batch),
        seconds_per_step=seconds,
        steps=steps,
        seconds_total=None if steps is None else steps * seconds,
    )


def worst_batch(recipe: Recipe, strategy: Strategy, data: DataSize | None) -> Batch:
    """The micro-batch that needs most memory: all rows padded to the longest.

    Packed rows are laid end to end in one row, whose documents a mask keeps apart.
    """
    limit = recipe.model.max_seq_length
    if recipe.training.packing:
        return Batch(rows=1, length=strategy.micro_batch * limit, masked=True)
    longest = min(limit, data.max_length) if data else limit
    uneven = data is None or data.mean_length < data.max_length
    return Batch(strategy.micro_batch, max(1, longest), masked=strategy.micro_batch > 1 and uneven)


def count_steps(recipe: Recipe, strategy: Strategy, data: DataSize | None) -> int | None:
    """Weight updates of the run, as transformers' Trainer counts them; None without row counts."""
    training = recipe.training
    if training.max_steps is not None:
        return training.max_steps
    if data is None:
        return None
    rows: float = data.rows
    if recipe.data.eval_source is None:
        rows -= math.floor(rows * recipe.data.eval_fraction)
    if training.packing:
        rows = rows * data.mean_length / recipe.model.max_seq_length
    batches = math.ceil(max(1, math.ceil(rows)) / strategy.micro_batch)
    updates = math.ceil(batches / strategy.gradient_accumulation_steps)
    return max(1, math.ceil(updates * training.epochs))


def _mean_length(recipe: Recipe, data: DataSize | None) -> float:
    if data is None or recipe.training.packing:
        return recipe.model.max_seq_length
    return min(data.mean_length, recipe.model.max_seq_length)


def _have_one_shape(recipe: Recipe, data: DataSize | None) -> bool:
    """Whether all rows are known to be of one length."""
    return data is not None and data.mean_length == data.max_length and not recipe.training.packing


def _typical_batch(recipe: Recipe, strategy: Strategy, data: DataSize | None) -> Batch:
    """A micro-batch of usual length: the more rows, the nearer it is padded to the longest."""
    worst = worst_batch(recipe, strategy, data)
    if data is None or recipe.training.packing:
        return worst
    mean = _mean_length(recipe, data)
    padding = 0.5 * (1 - 1 / strategy.micro_batch) * (worst.length - mean)
    return Batch(worst.rows, max(1, round(mean + padding)), worst.masked)
