"""Tells by its values which activation function an MLP uses.

Knows no module that holds one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch.nn import functional

Activation = Literal["silu", "gelu", "gelu_tanh"]
LoneActivation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu"]
"""Of an MLP without a gate."""
_KNOWN: dict[LoneActivation, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


def activation_of(function: Any) -> Activation | None:
    """The name of the function that this computes, or None; for an MLP with a gate."""
    found = lone_activation_of(function)
    return None if found == "quick_gelu" else found


@torch.no_grad()
def lone_activation_of(function: Any) -> LoneActivation | None:
    """The name of the function that this computes, or None."""
    x = torch.linspace(-8, 8, 65, dtype=torch.float64)
    try:
        values = function(x)
    except Exception:  # a stranger's activation may want anything; then it is none of these
        return None
    if not isinstance(values, torch.Tensor) or values.shape != x.shape:
        return None
    for name, known in _KNOWN.items():
        if torch.allclose(values, known(x), rtol=1e-6, atol=1e-6):
            return name
    return None
