"""Recognises a SwiGLU block (gate, up, down, SiLU), proves it by running it, and fuses the middle.

Knows no linear layer: the projections may be plain, 4-bit or wrapped by LoRA, and are only called.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tunebook.engine.modules import Leave, ModuleKind, Swap, stand_in
from tunebook_kernels import swiglu, swiglu_reference

_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def examine(module: nn.Module) -> Swap | Leave | None:
    """A fused forward for a SwiGLU block, a reason to leave it, or None for other modules."""
    if {"gate_up_proj", "down_proj"} <= module._modules.keys():
        return Leave("gate and up are one projection; there is no fused forward for that yet")
    if not set(_PROJECTIONS) <= module._modules.keys():
        return None
    activation = getattr(module, "act_fn", None)
    if activation is None or not _is_silu(activation):
        return Leave(f"its activation is {type(activation).__name__}, not SiLU")
    if not _computes_swiglu(module):
        return Leave("its forward is not down(silu(gate) * up)")
    return Swap(forward)


def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    """down(silu(gate(x)) * up(x)); x (..., hidden_size)."""
    hidden: torch.Tensor = self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))
    return hidden


MLP = ModuleKind("swiglu_mlp", examine)


@torch.no_grad()
def _is_silu(activation: Any) -> bool:
    x = torch.linspace(-8, 8, 33)
    try:
        return torch.allclose(activation(x), nn.functional.silu(x))
    except Exception:  # a stranger's activation may want anything; then it is not SiLU
        return False


@torch.no_grad()
def _computes_swiglu(module: nn.Module) -> bool:
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
    ours = small["down_proj"](swiglu_reference(small["gate_proj"](x), small["up_proj"](x)))
    return isinstance(theirs, torch.Tensor) and torch.allclose(theirs, ours)
