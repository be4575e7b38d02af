"""Brings a model with adapters and a plan together: patched, checked, and run as the plan says.

Knows plans and the engine; knows no trainer, no data and no run folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from tunebook.engine import Report, has_fused_head, patch_checked
from tunebook.models.shape import ModelShape
from tunebook.plan import DataSize, Plan, make_plan, step_down
from tunebook.recipe import Recipe
from tunebook.training.spend import apply_strategy

if TYPE_CHECKING:
    import torch
    from torch import nn


def set_up(
    model: nn.Module,
    plan: Plan,
    recipe: Recipe,
    shape: ModelShape,
    data: DataSize | None,
    input_ids: torch.Tensor,
    labels: torch.Tensor | None = None,
    inputs: Mapping[str, Any] | None = None,
    *,
    device: Literal["auto", "any"] = "auto",
) -> tuple[Plan, Report]:
    """Patch the model, prove it on a few tokens, and spend memory as planned.

    Args:
        plan: made from `recipe`, `shape` and `data`.
        input_ids, labels: (1, length), what the patched model is checked on.
        inputs: what belongs to the tokens beside them, such as `pixel_values`.
        device: as of `engine.patch`.

    Returns:
        The plan that holds (another one where the model is not run fused after all), and what was
        swapped.
    """
    swaps = patch_checked(model, input_ids, labels, inputs, device=device)
    if plan.strategy.engine == "stock":
        return plan, swaps
    if has_fused_head(model) and apply_strategy(model, plan.strategy):
        return plan, swaps
    other = make_plan(recipe, shape=shape, hardware=plan.hardware, data=data, engine="stock")
    return other, swaps


def give_up_memory(
    model: nn.Module, plan: Plan, recipe: Recipe, shape: ModelShape, data: DataSize | None
) -> Callable[[], Plan | None]:
    """What to call when the device ran out of memory: each call takes the next smaller plan.

    It returns the plan that the model now follows, or None where nothing is left to give up.
    """
    current = plan

    def smaller() -> Plan | None:
        nonlocal current
        found = step_down(current, recipe, shape, data)
        if found is None or not apply_strategy(model, found.strategy):
            return None
        current = found
        return found

    return smaller
