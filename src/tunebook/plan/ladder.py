"""Strategies from fast to small, and which of them is taken: the stock engine's and the fused one's.

Knows the order of rungs and what `auto` means on a device; forecasts come from the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tunebook.errors import RecipeInvalid
from tunebook.models.shape import ModelShape
from tunebook.plan.fused_strategy import fused_ladder, fused_rungs, resolve_attention
from tunebook.plan.hardware import Hardware
from tunebook.plan.nouns import Forecast, Strategy, size
from tunebook.recipe import Recipe

_FEWEST_TOKENS = 1024
_SMALLEST_GAIN = 0.03
"""A smaller micro-batch is taken for speed if it has so many tokens, and is faster by that share."""

Choice = tuple[Strategy, Forecast, list[str]]
"""A strategy, its forecast, and what was tried in words."""


def choose_stock(
    recipe: Recipe,
    shape: ModelShape,
    hardware: Hardware,
    forecast_of: Callable[[Strategy], Forecast],
    largest: int | None = None,
) -> Choice:
    """The first rung that fits, else the last.

    Args:
        largest: micro-batch that may be tried; None is the recipe's.
    """
    rungs: list[str] = []
    for strategy, reason in _stock_ladder(recipe, shape, hardware):
        if largest is not None and strategy.micro_batch > largest:
            continue
        forecast = forecast_of(strategy)
        rungs.append(f"{reason}: {_verdict(forecast)}")
        if forecast.fits:
            break
    return strategy, forecast, rungs


def choose_fused(
    recipe: Recipe,
    shape: ModelShape,
    hardware: Hardware,
    forecast_of: Callable[[Strategy], Forecast],
    largest: int | None = None,
) -> Choice:
    """Of each micro-batch's first rung that fits the fastest, else the smallest rung of all.

    A smaller micro-batch keeps more of each layer and is then often faster than a larger one that
    makes it again, as long as its products are large enough to be efficient. Arguments as for
    `choose_stock`.
    """
    base = _base(recipe, hardware, resolve_attention(shape, recipe, hardware))
    rungs: list[str] = []
    found: tuple[Strategy, Forecast] | None = None
    for batch in (base, *_smaller_batches(base)):
        if largest is not None and batch.micro_batch > largest:
            continue
        tried = fused_rungs(batch, shape, recipe, forecast_of, hardware.pinnable)
        strategy = tried[-1][0]
        forecast = forecast_of(strategy)
        if found is not None and found[1].fits and not _faster(strategy, forecast, found[1]):
            break
        shown = tried[-1:] if found else tried
        rungs += [f"{reason}: {_verdict(forecast_of(one))}" for one, reason in shown]
        found = strategy, forecast
        if forecast.fits and len(tried) == 1:
            break
    assert found is not None
    return *found, rungs


def rungs_by_batch(
    engine: str,
    recipe: Recipe,
    shape: ModelShape,
    hardware: Hardware,
    forecast_of: Callable[[Strategy], Forecast],
    like: Strategy,
) -> list[Sequence[Strategy]]:
    """Every rung from fast to small: the fused engine's of each micro-batch, the stock one's at once.

    Of the fused engine's ladders it is the one that has the rung `like`.

    The fused engine weighs micro-batches against each other, each with a ladder of its own; the
    stock one shrinks them where nothing else is left.
    """
    if engine == "fused":
        base = _base(recipe, hardware, resolve_attention(shape, recipe, hardware))
        batches = (base, *_smaller_batches(base))
        pinnable = hardware.pinnable
        return [fused_ladder(one, shape, recipe, forecast_of, pinnable, like) for one in batches]
    return [[strategy for strategy, _ in _stock_ladder(recipe, shape, hardware)]]


def _faster(strategy: Strategy, forecast: Forecast, than: Forecast) -> bool:
    """Whether a smaller micro-batch is worth it for speed alone."""
    tokens = forecast.tokens_per_step / strategy.gradient_accumulation_steps
    gain = 1 - forecast.seconds_per_step / than.seconds_per_step
    return tokens >= _FEWEST_TOKENS and gain >= _SMALLEST_GAIN


def _base(recipe: Recipe, hardware: Hardware, attention: str) -> Strategy:
    """The recipe's own micro-batch, with what `auto` means here."""
    micro = recipe.training.batch_size
    return Strategy.model_validate(
        {
            "micro_batch": micro,
            "gradient_accumulation_steps": recipe.effective_batch // micro,
            "gradient_checkpointing": recipe.training.gradient_checkpointing == "on",
            "dtype": resolve_dtype(recipe, hardware),
            "optimizer": resolve_optimizer(recipe, hardware),
            "attention": attention,
            "adapter_dtype": resolve_adapter_dtype(recipe, hardware),
        }
    )


def _smaller_batches(base: Strategy) -> Iterator[Strategy]:
    """The same with the micro-batch halved, and again, as far as the effective batch divides."""
    micro, effective = base.micro_batch, base.effective_batch
    while micro > 1:
        micro = next(rows for rows in range(max(1, micro // 2), 0, -1) if effective % rows == 0)
        changed = {"micro_batch": micro, "gradient_accumulation_steps": effective // micro}
        yield base.model_copy(update=changed)


def _stock_ladder(
    recipe: Recipe, shape: ModelShape, hardware: Hardware
) -> Iterator[tuple[Strategy, str]]:
    """Strategies from fast to small, with reasons: recompute, then halve the micro-batch."""
    choice = recipe.training.gradient_checkpointing
    base = _base(recipe, hardware, "eager" if shape.attention_softcap else "sdpa")
    micro = base.micro_batch
    yield base, f"micro-batch {micro}, activations {'recomputed' if choice == 'on' else 'kept'}"
    if choice == "auto":
        base = base.model_copy(update={"gradient_checkpointing": True})
        yield (
            base,
            f"micro-batch {micro}, activations recomputed, which is slower by about a third",
        )
    for smaller in _smaller_batches(base):
        yield (
            smaller,
            f"micro-batch {smaller.micro_batch} with {smaller.gradient_accumulation_steps} "
            f"accumulation steps ({smaller.effective_batch} rows an update)",
        )


def resolve_dtype(recipe: Recipe, hardware: Hardware) -> str:
    """The recipe's dtype, else bfloat16 where fast, float16 on older GPUs, float32 on CPUs."""
    if recipe.model.dtype != "auto":
        return recipe.model.dtype
    if hardware.device == "cpu":
        return "float32"
    return "bfloat16" if hardware.supports_bf16 else "float16"


def resolve_adapter_dtype(recipe: Recipe, hardware: Hardware) -> str:
    """The recipe's dtype of the adapter, else float32.

    Raises:
        RecipeInvalid: bfloat16 beside float16, whose loss scaling knows no bfloat16 gradients.
    """
    wanted = recipe.lora.adapter_dtype
    if wanted == "bfloat16" and resolve_dtype(recipe, hardware) == "float16":
        raise RecipeInvalid(
            "The adapter cannot be bfloat16 where the arithmetic is float16.",
            "float16 needs its loss scaled, and bfloat16 gradients cannot be scaled back.",
            'set `lora.adapter_dtype` to "auto", or `model.dtype` to "bfloat16" or "float32".',
        )
    return "float32" if wanted == "auto" else wanted


def resolve_optimizer(recipe: Recipe, hardware: Hardware) -> str:
    """The recipe's optimizer, else 8-bit AdamW on a GPU and torch's AdamW on a CPU."""
    if recipe.training.optimizer != "auto":
        return recipe.training.optimizer
    return "adamw_torch" if hardware.device == "cpu" else "adamw_8bit"


def _verdict(forecast: Forecast) -> str:
    relation = "fits" if forecast.fits else "is too much for"
    return f"{size(forecast.total)} {relation} {size(forecast.budget)}"
