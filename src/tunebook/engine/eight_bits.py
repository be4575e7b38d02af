"""8-bit layers of bitsandbytes as what they stand for: a product with their weights dequantised.

Fused layers compute that. `Linear8bitLt` rounds its inputs to 8 bit as well, row by row (LLM.int8:
Dettmers et al. 2022, arXiv:2208.07339), and lets the gradient pass as if it had not. That noise, of
about a percent at each layer, would hide any mistake when the two are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from tunebook.engine.modules import has_own_forward
from tunebook_kernels import Packed8bit


@contextmanager
def exact_eight_bits(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model's 8-bit layers multiply by their weights without rounding inputs."""
    layers = [module for module in model.modules() if _is_eight_bit(module)]
    try:
        for layer in layers:
            layer.__dict__["forward"] = MethodType(_forward, layer)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _is_eight_bit(module: nn.Module) -> bool:
    """PEFT's wrapper has the same name, but is no linear layer itself."""
    named = type(module).__name__ == "Linear8bitLt" and isinstance(module, nn.Linear)
    return named and not has_own_forward(module)


def _forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = _Product.apply(x, Packed8bit.of(self))  # type: ignore[no-untyped-call]
    return y if self.bias is None else y + self.bias.to(y.dtype)


class _Product(torch.autograd.Function):
    """x Wᵀ; the dequantised W is not kept for the backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Packed8bit) -> torch.Tensor:
        ctx.weight = weight
        return x @ weight.dequantize(dtype=x.dtype).t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None]:
        return dy @ ctx.weight.dequantize(dtype=dy.dtype), None
