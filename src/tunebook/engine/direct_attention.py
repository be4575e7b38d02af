"""One attention and its backward called by hand: PyTorch's own operations, without their graph.

Knows the operations' arguments, and proves on each device that they give what SDPA gives; knows
not which attention is right for a shape.

A graph costs the host time, and nobody can move or give up what it holds. By hand the backward
needs the output and each row's log-sum-exp; q, k and v may be made again in between.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch.nn.functional import scaled_dot_product_attention

_WIDEST = 128
"""Largest head_dim that the operations are called with by hand."""


@dataclass(frozen=True)
class Attention:
    """One attention and what its backward needs.

    Attributes:
        output: (batch, heads, length, head_dim).
        q, k, v: leaves of a small autograd graph that ends in `output`. By hand: plain tensors, or
            None until they are made again.
    """

    output: torch.Tensor
    q: torch.Tensor | None
    k: torch.Tensor | None
    v: torch.Tensor | None
    scale: float

    by_hand: ClassVar[bool] = False
    """Whether it is plain tensors and no graph, whose tensors nobody can move."""

    @property
    def inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q, k and v."""
        assert self.q is not None
        assert self.k is not None
        assert self.v is not None
        return self.q, self.k, self.v

    def with_inputs(
        self, q: torch.Tensor | None, k: torch.Tensor | None, v: torch.Tensor | None
    ) -> Attention:
        """The same over q, k and v that were made again, or without any (None)."""
        return replace(self, q=q, k=k, v=v)

    def backward(self, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gradients of q, k and v. upstream: in the shape of `output`."""
        return torch.autograd.grad(self.output, self.inputs, upstream)


@dataclass(frozen=True, kw_only=True)
class Direct(Attention):
    """By an operation that is not public; causal over whole rows.

    Attributes:
        saved: what the operation gave beside the output, log-sum-exp first.
    """

    saved: tuple[Any, ...]

    by_hand: ClassVar[bool] = True

    @staticmethod
    def takes(q: torch.Tensor) -> bool:
        """Whether this operation is the one for q's device, dtype and shape."""
        raise NotImplementedError

    @classmethod
    def run(
        cls, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, *, learns: bool
    ) -> Direct:
        """The forward. `learns`: whether the backward will be called."""
        raise NotImplementedError


class _Cudnn(Direct):
    """By cuDNN, whose plans pay from Hopper on."""

    @staticmethod
    def takes(q: torch.Tensor) -> bool:
        return _in_16_bit(q) and q.shape[2] > 1 and generation(q.device) >= 9

    @classmethod
    def run(
        cls, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, *, learns: bool
    ) -> Direct:
        forward = torch.ops.aten._scaled_dot_product_cudnn_attention
        made = forward(q, k, v, None, learns, 0.0, True, False, scale=scale)
        return cls(made[0], q, k, v, scale, saved=tuple(made[1:8]))

    def backward(self, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
        lse, starts_q, starts_k, longest_q, longest_k, seed, offset = self.saved
        gradients: tuple[torch.Tensor, ...] = (
            torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
                upstream,
                *self.inputs,
                self.output,
                lse,
                seed,
                offset,
                None,
                starts_q,
                starts_k,
                longest_q,
                longest_k,
                0.0,
                True,
                scale=self.scale,
            )
        )
        return gradients


class _Flash(Direct):
    """By PyTorch's flash attention, on Ampere and Ada."""

    @staticmethod
    def takes(q: torch.Tensor) -> bool:
        return _in_16_bit(q) and generation(q.device) == 8

    @classmethod
    def run(
        cls, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, *, learns: bool
    ) -> Direct:
        forward = torch.ops.aten._scaled_dot_product_flash_attention
        made = forward(q, k, v, 0.0, True, False, scale=scale)
        return cls(made[0], q, k, v, scale, saved=tuple(made[1:8]))

    def backward(self, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *rows, seed, offset = self.saved
        backward = torch.ops.aten._scaled_dot_product_flash_attention_backward
        given = (upstream, *self.inputs, self.output, *rows, 0.0, True, seed, offset)
        gradients: tuple[torch.Tensor, ...] = backward(*given, scale=self.scale)
        return gradients


class _OnCPU(Direct):
    """By PyTorch's flash attention for CPUs."""

    @staticmethod
    def takes(q: torch.Tensor) -> bool:
        return q.device.type == "cpu"

    @classmethod
    def run(
        cls, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, *, learns: bool
    ) -> Direct:
        forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output, lse = forward(q, k, v, 0.0, True, scale=scale)
        return cls(output, q, k, v, scale, saved=(lse,))

    def backward(self, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        given = (upstream, *self.inputs, self.output, *self.saved, 0.0, True)
        gradients: tuple[torch.Tensor, ...] = backward(*given, scale=self.scale)
        return gradients


_KERNELS: tuple[type[Direct], ...] = (_Cudnn, _Flash, _OnCPU)


def direct_attention(q: torch.Tensor) -> type[Direct] | None:
    """The operation for plain causal rows of q's shape that may be called by hand; None: use SDPA.

    Args:
        q: (batch, heads, length, head_dim).
    """
    head_dim = q.shape[-1]
    if head_dim % 8 or head_dim > _WIDEST:
        return None
    for kernel in _KERNELS:
        if kernel.takes(q):
            agrees = _agrees(kernel, q.device, head_dim, q.dtype)  # type: ignore[arg-type]  # hashable
            return kernel if agrees else None
    return None


@functools.cache
@torch.no_grad()
def _agrees(kernel: type[Direct], device: torch.device, head_dim: int, dtype: torch.dtype) -> bool:
    """Whether these operations of PyTorch exist in the form used here and give what SDPA gives.

    They are not public; where they change, SDPA serves.
    """
    generator = torch.Generator(device).manual_seed(0)
    q, k, v, upstream = (
        torch.randn((1, 4, 64, head_dim), device=device, generator=generator).to(dtype)
        for _ in range(4)
    )
    k, v = k[:, :2], v[:, :2]
    try:
        made = kernel.run(q, k, v, 0.125, learns=True)
        ours = made.backward(upstream)
    except Exception:  # another signature, no such kernel, no library: then it is not used
        return False
    with torch.enable_grad():
        leaves = [states.float().requires_grad_() for states in (q, k, v)]
        sdpa: Any = scaled_dot_product_attention
        output = sdpa(*leaves, is_causal=True, scale=0.125, enable_gqa=True)
        theirs = torch.autograd.grad(output, leaves, upstream.float())
    pairs = zip((made.output, *ours), (output, *theirs), strict=True)
    return all(
        a.shape == b.shape and bool((a.float() - b).norm() <= 0.03 * b.norm()) for a, b in pairs
    )


def _in_16_bit(q: torch.Tensor) -> bool:
    return q.is_cuda and q.dtype in (torch.float16, torch.bfloat16)


@functools.cache
def generation(device: torch.device) -> int:
    """The first number of a card's compute capability."""
    return torch.cuda.get_device_capability(device)[0]
