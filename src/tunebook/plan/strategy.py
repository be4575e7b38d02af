"""Choose how a recipe is run: the first rung of a ladder whose forecast stays within the budget.

Each rung gives up speed for memory and never changes what is learnt: the effective batch stays.
This module knows forecasts, not models or tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal

from tunebook.errors import DoesNotFit, RecipeInvalid
from tunebook.models.shape import ModelShape
from tunebook.plan.forecast import make_forecast
from tunebook.plan.fused_strategy import fused_rungs, resolve_attention, runs_fused
from tunebook.plan.hardware import GIB, Hardware
from tunebook.plan.nouns import DataSize, Forecast, Level, Plan, Strategy, size
from tunebook.plan.optimizers import states_known
from tunebook.recipe import Recipe

_SHARE_OF_FREE = 0.9
_FEWEST_TOKENS = 1024
_SMALLEST_GAIN = 0.03
"""A smaller micro-batch is taken for speed if it has so many tokens, and is faster by that share."""
_STEP = 0.05
_SMALLEST_STEP = 256 * 2**20
"""How much less memory the next plan takes after an out-of-memory error."""
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_ADVICE_LENGTHS = (4096, 2048, 1024, 512, 256, 128)


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

    def forecast_of(strategy: Strategy) -> Forecast:
        return make_forecast(recipe, shape, strategy, hardware, budget, data)

    engine = engine or ("fused" if runs_fused(shape, recipe, hardware) else "stock")
    if engine == "fused":
        base = _base(recipe, hardware, resolve_attention(shape, recipe, hardware))
        batches = (base, *_smaller_batches(base))
        ladders = [
            partial(fused_rungs, one, shape, recipe)
            for one in batches
            if below is None or one.micro_batch <= below.micro_batch
        ]
        strategy, forecast, rungs = _fastest(ladders, forecast_of)
    else:
        ladder = _ladder(recipe, shape, hardware)
        strategy, forecast, rungs = _first_fitting(ladder, forecast_of)
    advice = [] if forecast.fits else _advice(recipe, shape, strategy, hardware, budget, data)
    return Plan(
        recipe=_echo(recipe),
        hardware=hardware,
        strategy=strategy,
        forecast=forecast,
        rungs=rungs,
        advice=advice,
        notes=_notes(strategy),
    )


def _first_fitting(
    ladder: Iterable[tuple[Strategy, str]], forecast_of: Callable[[Strategy], Forecast]
) -> tuple[Strategy, Forecast, list[str]]:
    """The first rung that fits, else the last, its forecast, and what was tried."""
    rungs: list[str] = []
    for strategy, reason in ladder:
        forecast = forecast_of(strategy)
        rungs.append(f"{reason}: {_verdict(forecast)}")
        if forecast.fits:
            break
    return strategy, forecast, rungs


def _fastest(
    ladders: Iterable[Callable[..., list[tuple[Strategy, str]]]],
    forecast_of: Callable[[Strategy], Forecast],
) -> tuple[Strategy, Forecast, list[str]]:
    """The fastest of each micro-batch's first rung that fits, else the smallest rung of all.

    A smaller micro-batch keeps more of each layer and is then often faster than a larger one that
    makes it again, as long as its products are large enough to be efficient.
    """
    rungs: list[str] = []
    found: tuple[Strategy, Forecast] | None = None
    for ladder in ladders:
        tried = ladder(lambda one: forecast_of(one).fits)
        strategy = tried[-1][0]
        forecast = forecast_of(strategy)
        if found is not None and found[1].fits:
            tokens = forecast.tokens_per_step / strategy.gradient_accumulation_steps
            gain = 1 - forecast.seconds_per_step / found[1].seconds_per_step
            if tokens < _FEWEST_TOKENS or gain < _SMALLEST_GAIN:
                break
        shown = tried[-1:] if found else tried
        rungs += [f"{reason}: {_verdict(forecast_of(one))}" for one, reason in shown]
        found = strategy, forecast
        if forecast.fits and len(tried) == 1:
            break
    assert found is not None
    return *found, rungs


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
        f'{changes}; or set `training.memory_budget` to "{_round_up(forecast.total)}" '
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
    wanted = recipe.lora.dtype
    if wanted == "bfloat16" and resolve_dtype(recipe, hardware) == "float16":
        raise RecipeInvalid(
            "The adapter cannot be bfloat16 where the arithmetic is float16.",
            "float16 needs its loss scaled, and bfloat16 gradients cannot be scaled back.",
            'set `lora.dtype` to "auto", or `model.dtype` to "bfloat16" or "float32".',
        )
    return "float32" if wanted == "auto" else wanted


def resolve_optimizer(recipe: Recipe, hardware: Hardware) -> str:
    """The recipe's optimizer, else 8-bit AdamW on a GPU and torch's AdamW on a CPU."""
    if recipe.training.optimizer != "auto":
        return recipe.training.optimizer
    return "adamw_torch" if hardware.device == "cpu" else "adamw_8bit"


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


def _ladder(
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


def _verdict(forecast: Forecast) -> str:
    relation = "fits" if forecast.fits else "is too much for"
    return f"{size(forecast.total)} {relation} {size(forecast.budget)}"


def _advice(
    recipe: Recipe,
    shape: ModelShape,
    strategy: Strategy,
    hardware: Hardware,
    budget: int,
    data: DataSize | None,
) -> list[str]:
    """Changes of the recipe that would make it fit, in words, the mildest first."""
    longest = min(
        recipe.model.max_seq_length, data.max_length if data else recipe.model.max_seq_length
    )
    tries: list[list[tuple[str, dict[str, object]]]] = [
        [("turn on `training.gradient_checkpointing`", {"gradient_checkpointing": "auto"})],
        [("set `quantization.bits` to 4", {"quantization.bits": 4})],
        [
            (f"set `model.max_seq_length` to {length}", {"model.max_seq_length": length})
            for length in _ADVICE_LENGTHS
            if length < longest
        ],
        [
            ("set `quantization.bits` to 4 and `model.max_seq_length` to 512",
             {"quantization.bits": 4, "model.max_seq_length": min(512, longest)}),
        ],
    ]  # fmt: skip
    found: list[str] = []
    for alternatives in tries:
        for words, values in alternatives:
            other = recipe.with_values(dict(values))
            if other == recipe or (found and " and " in words):
                continue
            small = _recomputing(strategy) if "gradient" in words else strategy
            forecast = make_forecast(other, shape, small, hardware, budget, data)
            if forecast.fits:
                found.append(f"{words} ({size(forecast.total)})")
                break
    return found


def _notes(strategy: Strategy) -> list[str]:
    if states_known(strategy.optimizer):
        return []
    return [f"what {strategy.optimizer} keeps is not known; it is counted as AdamW's two averages"]


def _recomputing(strategy: Strategy) -> Strategy:
    if strategy.engine == "stock":
        return strategy.model_copy(update={"gradient_checkpointing": True})
    return strategy.model_copy(update={"levels": (Level.NOTHING,) * len(strategy.levels)})


def _round_up(count: int) -> str:
    return f"{-(-count * 100 // GIB) / 100:.2f}GiB" if count >= GIB else f"{-(-count // 2**20)}MiB"


def _echo(recipe: Recipe) -> dict[str, object]:
    """The fields that the arithmetic rests on."""
    return {
        "model": recipe.model.name,
        "max_seq_length": recipe.model.max_seq_length,
        "bits": recipe.quantization.bits,
        "r": recipe.lora.r,
        "lora_dtype": recipe.lora.dtype,
        "batch_size": recipe.training.batch_size,
        "gradient_accumulation_steps": recipe.training.gradient_accumulation_steps,
        "packing": recipe.training.packing,
        "gradient_checkpointing": recipe.training.gradient_checkpointing,
        "memory_budget": recipe.training.memory_budget,
    }
