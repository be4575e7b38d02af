"""Runs a patched model's layers as a plan's strategy says, and gives up memory when it runs out.

Knows the words of the plan and of the engine, and translates; decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunebook.engine import LayerMemory, fused_layers, spend
from tunebook.engine.decoder import NOTHING, Keep
from tunebook.models.shape import ModelShape
from tunebook.plan import DataSize, Level, Plan, Strategy, step_down
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from tunebook.training.trainer import SFTTrainer

KEEP: dict[int, Keep] = {
    Level.NOTHING: NOTHING,
    Level.RESIDUAL: Keep(attention=False, residual=True, gate_up=False, normed=False),
    Level.ATTENTION: Keep(attention=True, residual=True, gate_up=False, normed=False),
    Level.GATE_UP: Keep(attention=True, residual=True, gate_up=True, normed=False),
    Level.ALL: Keep(attention=True, residual=True, gate_up=True, normed=True),
}
"""What the engine keeps at each level of a plan."""


def layer_memory(strategy: Strategy) -> list[LayerMemory]:
    """How each decoder layer is run; empty for the stock engine."""
    return [
        LayerMemory(KEEP[level], resident=index < strategy.resident_layers)
        for index, level in enumerate(strategy.levels)
    ]


def apply_strategy(model: nn.Module, strategy: Strategy) -> bool:
    """Spend memory as planned; False where the model does not run as the plan assumes.

    A plan knows a model by its config. Where layers were left unpatched after all (an unknown part,
    an adapter that is no plain LoRA, a failed parity check), make one for the stock engine.
    """
    wanted = layer_memory(strategy)
    if not wanted:
        return strategy.engine == "stock"
    if len(fused_layers(model)) != len(wanted):
        return False
    spend(model, wanted)
    return True


class StepDown:
    """`SFTTrainer.step_down` of a run on the fused engine: the next smaller plan, applied.

    Attributes:
        plan: that is in force now.

    Args:
        trainer: its model and its `loss_chunk` are changed.
        plan: that it was started with.
        recipe, shape, data: that the plan was made from.
        tell: is given each new plan.
    """

    def __init__(
        self,
        trainer: SFTTrainer,
        plan: Plan,
        recipe: Recipe,
        shape: ModelShape,
        data: DataSize | None = None,
        tell: Callable[[Plan], None] = lambda plan: None,
    ) -> None:
        self.plan = plan
        self._trainer, self._tell = trainer, tell
        self._made_from = recipe, shape, data
        self._rows = plan.strategy.micro_batch

    def __call__(self) -> int | None:
        """In how many parts a batch is to be run from now on; None if nothing is left to give up."""
        smaller = step_down(self.plan, *self._made_from)
        if smaller is None or smaller.strategy.engine != "fused":
            return None
        if not apply_strategy(self._trainer.model, smaller.strategy):
            return None
        self._trainer.loss_chunk = smaller.strategy.loss_chunk
        self.plan = smaller
        self._tell(smaller)
        return -(-self._rows // smaller.strategy.micro_batch)
