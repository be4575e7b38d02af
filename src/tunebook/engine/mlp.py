"""Recognises a gated MLP (gate, up, down), proves it by running it, and fuses the middle.

Knows no linear layer: the projections may be plain, 4-bit or wrapped by LoRA, and are only called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from tunebook.engine.activation import Activation, activation_of
from tunebook.engine.modules import Leave, ModuleKind, Swap, stand_in
from tunebook_kernels import geglu, geglu_reference, swiglu, swiglu_reference

Operation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
_OPERATIONS: dict[Activation, tuple[Operation, Operation]] = {  # fused, and in plain torch
    "silu": (swiglu, swiglu_reference),
    "gelu": (geglu, geglu_reference),
    "gelu_tanh": (
        partial(geglu, approximate="tanh"),
        partial(geglu_reference, approximate="tanh"),
    ),
}


def examine(module: nn.Module) -> Swap | Leave | None:
    """A fused forward for a gated MLP, a reason to leave it, or None for other modules."""
    if {"gate_up_proj", "down_proj"} <= module._modules.keys():
        return Leave("gate and up are one projection; there is no fused forward for that yet")
    if not set(_PROJECTIONS) <= module._modules.keys():
        return None
    function = getattr(module, "act_fn", None)
    activation = activation_of(function)
    if activation is None:
        return Leave(f"its activation is {type(function).__name__}, not SiLU or GELU")
    fused, reference = _OPERATIONS[activation]
    if not _computes(module, reference):
        return Leave(f"its forward is not down({activation}(gate) * up)")
    return Swap(_forward_with(fused))


MLP = ModuleKind("gated_mlp", examine)


def _forward_with(fused: Operation) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        """down(act(gate(x)) * up(x)); x (..., hidden_size)."""
        hidden: torch.Tensor = self.down_proj(fused(self.gate_proj(x), self.up_proj(x)))
        return hidden

    return forward


@torch.no_grad()
def _computes(module: nn.Module, reference: Operation) -> bool:
    """Whether the module's own code, run with three small matrices, gives our result."""
    generator = torch.Generator().manual_seed(0)
    small = {}
    for name, (width, height) in zip(_PROJECTIONS, [(8, 12), (8, 12), (12, 8)], strict=True):
        small[name] = nn.Linear(width, height, bias=False)
        small[name].weight.copy_(torch.randn((height, width), generator=generator))
    x = torch.randn((2, 3, 8), generator=generator)
    try:
        theirs = stand_in(module, modules=small).forward(x)
    except Exception:  # anything may fail in a stranger's forward; then it is not ours
        return False
    ours = small["down_proj"](reference(small["gate_proj"](x), small["up_proj"](x)))
    return isinstance(theirs, torch.Tensor) and torch.allclose(theirs, ours)
