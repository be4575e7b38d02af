"""The strategy ladder as a list to read: what each rung saves and costs, and how far it is taken.

Only describes what `ladder` would do; it chooses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tunebook.models.shape import ModelShape
from tunebook.plan.forecast import make_forecast
from tunebook.plan.ladder import rungs_by_batch
from tunebook.plan.nouns import OFFLOADED_WORDS, DataSize, Forecast, Level, Plan, Strategy
from tunebook.recipe import Recipe

_Key = tuple[tuple[str, Any], ...]
_TILES: _Key = (("mlp_tile", None),)

_LEVEL_WORDS = {
    Level.GATE_UP: ("Make the norms again", "Their outputs are not kept; nearly free to redo."),
    Level.ATTENTION: ("Make gate and up again", "The widest activations of a layer are redone."),
    Level.OUTPUT: ("Make q, k and v again", "Their product is redone, attention is not."),
    Level.RESIDUAL: ("Make attention again", "q, k, v and the attention's output are redone."),
    Level.NOTHING: ("Make the sums again", "Only the input of each layer is kept."),
}


class Rung(BaseModel):
    """One stage of the ladder; `saves` and `costs` are against the rung before it."""

    model_config = ConfigDict(frozen=True)

    title: str
    about: str
    steps: int = Field(ge=1, description="Layers that it goes through, or 1.")
    taken: int = Field(ge=0, description="How many of its steps the plan takes.")
    total: int = Field(description="Bytes that a step needs once all of it is taken.")
    seconds: float = Field(description="Of one weight update then.")
    saves: int = 0
    costs: float = Field(default=0.0, description="Seconds; negative where it is faster.")


class StrategyLadder(BaseModel):
    """All rungs from fast to small, and the range of memory that they span."""

    model_config = ConfigDict(frozen=True)

    rungs: list[Rung]
    least: int = Field(description="Bytes of the smallest plan there is.")
    most: int = Field(description="Bytes of the fullest; more than that buys nothing.")

    @property
    def next_rung(self) -> Rung | None:
        """What less memory would lead to: the last rung begun, or the one after it; or None."""
        begun = max(at for at, rung in enumerate(self.rungs) if rung.taken)
        at = begun + (self.rungs[begun].taken == self.rungs[begun].steps)
        return self.rungs[at] if at < len(self.rungs) else None


def describe_ladder(
    plan: Plan, recipe: Recipe, shape: ModelShape, data: DataSize | None = None
) -> StrategyLadder:
    """The ladder that `plan` was chosen from, in the micro-batch that it chose.

    Larger micro-batches count as one rung each, and so do smaller ones, at their smallest.

    Args:
        recipe, shape, data: that the plan was made from.
    """
    strategy = plan.strategy

    def forecast_of(one: Strategy) -> Forecast:
        return make_forecast(recipe, shape, one, plan.hardware, plan.forecast.budget, data)

    ladders = rungs_by_batch(strategy.engine, recipe, shape, plan.hardware, forecast_of, strategy)
    batches = [ladder[0].micro_batch for ladder in ladders]
    at = batches.index(strategy.micro_batch) if strategy.micro_batch in batches else 0
    stages = [_start(ladders[0][0])]
    stages += [_batch_stage(ladder[0], taken=1) for ladder in ladders[1 : at + 1]]
    stages += _stages(ladders[at], strategy)
    stages += [_batch_stage(ladder[-1], taken=0) for ladder in ladders[at + 1 :]]
    rungs: list[Rung] = []
    for stage in stages:
        forecast = forecast_of(stage.end)
        total, seconds = forecast.total, forecast.seconds_per_step
        before = rungs[-1] if rungs else None
        rungs.append(
            Rung(
                title=stage.title,
                about=stage.about,
                steps=stage.steps,
                taken=stage.taken,
                total=total,
                seconds=seconds,
                saves=before.total - total if before else 0,
                costs=seconds - before.seconds if before else 0.0,
            )
        )
    least = min(least_memory(plan, recipe, shape, data), *(rung.total for rung in rungs))
    return StrategyLadder(rungs=rungs, least=least, most=rungs[0].total)


def least_memory(
    plan: Plan, recipe: Recipe, shape: ModelShape, data: DataSize | None = None
) -> int:
    """Bytes of the smallest plan there is; what a plan takes beyond that is spent on speed.

    Args:
        recipe, shape, data: that the plan was made from.
    """

    def forecast_of(one: Strategy) -> Forecast:
        return make_forecast(recipe, shape, one, plan.hardware, plan.forecast.budget, data)

    hardware = plan.hardware
    strategy = plan.strategy.model_copy(update={"offloaded": "inputs"})  # of most layers then
    ladders = rungs_by_batch(strategy.engine, recipe, shape, hardware, forecast_of, strategy)
    smallest = ladders[-1][-1]
    return min(forecast_of(smallest).total, plan.forecast.total)


@dataclass(frozen=True)
class _Stage:
    title: str
    about: str
    steps: int
    taken: int
    end: Strategy


def _start(first: Strategy) -> _Stage:
    words = ", ".join(first.spending())
    title = f"Micro-batch {first.micro_batch}, {words}"
    return _Stage(title, "The fastest way to run it, and the largest.", 1, 1, first)


def _batch_stage(end: Strategy, *, taken: int) -> _Stage:
    steps = end.gradient_accumulation_steps
    about = f"Fewer rows at once, {steps} times an update; what is learnt stays the same."
    return _Stage(f"Micro-batch {end.micro_batch}", about, 1, taken, end)


def _stages(rungs: Sequence[Strategy], chosen: Strategy) -> list[_Stage]:
    """Successive rungs that do the same to one more layer are one stage."""
    rungs = list(rungs)  # the fused engine makes each when it is asked for
    place = _place(rungs, chosen)
    found: list[tuple[_Key, int, int]] = []  # what changes, first and last rung
    for at in range(1, len(rungs)):
        key = _change(rungs[at - 1], rungs[at])
        if not key:
            continue
        if found and found[-1][0] == key and found[-1][2] == at - 1:
            found[-1] = (key, found[-1][1], at)
        else:
            found.append((key, at, at))
    stages = []
    for key, first, last in found:
        steps = last - first + 1
        taken = min(max(_taken(key, chosen, place - first + 1), 0), steps)
        title, about = _words(key, rungs[first - 1], rungs[last])
        stages.append(_Stage(title, about, steps, taken, rungs[last]))
    return stages


def _place(rungs: Sequence[Strategy], chosen: Strategy) -> int:
    """Where the plan stands; a last resort may have made good what earlier rungs gave up."""
    if chosen in rungs:
        return rungs.index(chosen)
    resorts = ("mlp_tile", "offloaded_layers", "host_embedding")
    spared = () if chosen.mlp_tile else ("levels", "resident_layers")
    for at, one in enumerate(rungs):
        same = all(getattr(one, name) == getattr(chosen, name) for name in (*resorts, *spared))
        if same and chosen.loss_chunk in (None, one.loss_chunk):
            return at
    return 0


def _taken(key: _Key, chosen: Strategy, passed: int) -> int:
    """Steps of a stage that the plan takes; `passed` are those that lie before its place."""
    name, value = key[0]
    if chosen.engine == "stock" or key == _TILES:
        return passed
    if name == "levels":
        return sum(level <= value for level in chosen.levels)
    if name == "resident_layers":
        return len(chosen.levels) - chosen.resident_layers
    if name == "offloaded_layers":
        return chosen.offloaded_layers
    if name == "host_embedding":
        return int(chosen.host_embedding)
    return passed if chosen.loss_chunk else 0


def _change(before: Strategy, after: Strategy) -> _Key:
    """The fields that differ, each with what it becomes; layers one by one count as the same."""
    changed = []
    for name in type(after).model_fields:
        if name == "offloaded":  # comes with the first of the layers
            continue
        value = getattr(after, name)
        if value != getattr(before, name):
            if name == "levels":
                value = min(value)
            elif name.endswith("_layers"):
                value = None
            changed.append((name, value))
    return _TILES if changed and after.mlp_tile else tuple(changed)


def _words(key: _Key, before: Strategy, after: Strategy) -> tuple[str, str]:
    name, value = key[0]
    if name == "levels" and value in _LEVEL_WORDS:
        return _LEVEL_WORDS[Level(value)]
    names = {field for field, _ in key}
    if "micro_batch" in names:
        stage = _batch_stage(after, taken=0)
        return stage.title, stage.about
    if name == "offloaded_layers":
        return (
            f"{OFFLOADED_WORDS[after.offloaded].capitalize()} wait in the host's memory",
            "Copied out and back beside the computation, where the link keeps up.",
        )
    if name == "host_embedding":
        return (
            "Input embedding in the host's memory",
            "A batch reads a few of its rows over the link.",
        )
    if name == "resident_layers":
        return "Unpack the weights again", "4-bit weights are unpacked at each use, not once."
    if key == _TILES:
        return (
            "MLP and loss by tiles",
            "A last resort: weights are unpacked for each tile of tokens.",
        )
    if name == "loss_chunk":
        return (
            f"Loss by {value} tokens",
            "The logits of fewer tokens are held at once; costs no time.",
        )
    if name == "gradient_checkpointing":
        return "Recompute activations", "Each layer is computed twice; slower by about a third."
    fresh = [word for word in after.spending() if word not in before.spending()]
    return ", ".join(fresh).capitalize() or name.replace("_", " "), ""
