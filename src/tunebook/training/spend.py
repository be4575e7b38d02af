"""Runs a patched model's layers as a plan's strategy says.

Knows the words of the plan and of the engine, and translates; decides nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tunebook.engine import LayerMemory, fused_layers, place_embedding, spend
from tunebook.engine.decoder import ALL, NOTHING, Keep
from tunebook.plan import Level, Strategy

if TYPE_CHECKING:
    from torch import nn

KEEP: dict[int, Keep] = {
    Level.NOTHING: NOTHING,
    Level.RESIDUAL: Keep(attention=False, output=False, gate_up=False, normed=False),
    Level.OUTPUT: Keep(attention=False, gate_up=False, normed=False),
    Level.ATTENTION: Keep(gate_up=False, normed=False),
    Level.GATE_UP: Keep(normed=False),
    Level.ALL: ALL,
}
"""What the engine keeps at each level of a plan."""


def layer_memory(strategy: Strategy) -> list[LayerMemory]:
    """How each decoder layer is run; empty for the stock engine."""
    return [
        LayerMemory(
            replace(KEEP[level], tile=strategy.mlp_tile),
            resident=index < strategy.resident_layers,
            offload=strategy.offloaded if index < strategy.offloaded_layers else "nothing",
        )
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
    place_embedding(model, on_host=strategy.host_embedding)
    return True
