"""Recognises an RMSNorm by its structure, proves its convention by running it, and fuses it.

Knows no model family: what matters is what the forward computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tunebook.engine.modules import Leave, ModuleKind, Swap, facts_of, stand_in
from tunebook_kernels import rms_norm, rms_norm_reference

_CONVENTIONS = {"Llama": 0.0, "Gemma": 1.0}
_EPS_NAMES = ("variance_epsilon", "eps")
_KNOWN: dict[tuple[Any, ...], float | None] = {}
# (dtype of the input, dtype of the weight): rounding is told apart only where there is some.
_PROBES = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
]


def examine(module: nn.Module) -> Swap | Leave | None:
    """A fused forward for an RMSNorm, a reason to leave it, or None for other modules."""
    eps_name = _eps_name(module)
    if eps_name is None:
        return None
    if not isinstance(getattr(module, eps_name), float):
        return Leave(f"its {eps_name} is not a number")
    offset = _offset_of(module, eps_name)
    if offset is None:
        return Leave(f"it does not compute RMSNorm as {' or '.join(_CONVENTIONS)} does")
    return Swap(_forward(eps_name, offset))


NORM = ModuleKind("rms_norm", examine)


def convention_of(module: nn.Module) -> tuple[float, float] | None:
    """eps and offset of an RMSNorm of a known convention, or None; each is proved by running it."""
    eps_name = _eps_name(module)
    eps = None if eps_name is None else getattr(module, eps_name)
    if eps_name is None or not isinstance(eps, float):
        return None
    offset = _offset_of(module, eps_name)
    return None if offset is None else (eps, offset)


def _eps_name(module: nn.Module) -> str | None:
    """What a module that is laid out as an RMSNorm calls its eps; None for other modules."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.dim() != 1:
        return None
    if getattr(module, "bias", None) is not None or module._modules:
        return None
    return next((name for name in _EPS_NAMES if hasattr(module, name)), None)


def _offset_of(module: Any, eps_name: str) -> float | None:
    """The offset with which it computes ours, or None; modules that say the same are tried once."""
    size = module.weight.numel()
    key = (type(module), size, facts_of(module))
    if key not in _KNOWN:
        found = (o for o in _CONVENTIONS.values() if _computes(module, size, eps_name, o))
        _KNOWN[key] = next(found, None)
    return _KNOWN[key]


def _forward(eps_name: str, offset: float) -> Callable[..., torch.Tensor]:
    def forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        return rms_norm(hidden_states, self.weight, getattr(self, eps_name), offset=offset)

    return forward


@torch.no_grad()
def _computes(module: nn.Module, size: int, eps_name: str, offset: float) -> bool:
    """Whether the module's own code gives our reference's result, rounding included."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(size, generator=generator)
    x = torch.randn((4, size), generator=generator)
    x[2:] *= 1e-3  # rows where eps counts
    for x_dtype, weight_dtype in _PROBES:
        probe = stand_in(module, parameters={"weight": weight.to(weight_dtype)})
        try:
            theirs = probe.forward(x.to(x_dtype))
        except Exception:  # anything may fail in a stranger's forward; then it is not ours
            return False
        eps = getattr(module, eps_name)
        ours = rms_norm_reference(x.to(x_dtype), weight.to(weight_dtype), eps, offset=offset)
        if not isinstance(theirs, torch.Tensor) or theirs.dtype != ours.dtype:
            return False
        if theirs.shape != ours.shape or not _same(theirs, ours):
            return False
    return True


def _same(theirs: torch.Tensor, ours: torch.Tensor) -> bool:
    """Close everywhere, and in a rounded dtype equal but for rare ties."""
    if not torch.allclose(theirs, ours, rtol=1e-2, atol=1e-6):
        return False
    if ours.dtype == torch.float32:
        return float((theirs - ours).abs().max()) <= 1e-2 * float(ours.abs().max())
    return float((theirs != ours).float().mean()) < 0.01
