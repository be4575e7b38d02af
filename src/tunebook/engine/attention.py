"""Causal attention by the fastest kernel that is right for the shape: cuDNN, flash, or our own.

Knows queries, keys and values; knows no projections and no rotary tables. One function serves the
fused decoder layers and, under the name "tunebook" in transformers' registry, any other layer.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from tunebook.engine.softcap import in_full, repeat_heads, with_key_cache
from tunebook_kernels import (
    flash_attention,
    flash_attention_backward,
    flash_attention_forward,
    takes_attention,
)

NAME = "tunebook"

CAUSAL = torch.empty((1, 1, 1, 1), device="meta")
"""Given as `attention_mask`: plain causal rows, or those of `cu_seq_lens_q`; make no mask.

Four dimensions, since transformers passes such a mask on unread, which spares the model's own look
at positions and padding (and the wait for the device that it costs)."""


@dataclass(frozen=True)
class Segments:
    """Documents laid end to end in one row.

    Attributes:
        starts: (documents + 1,) int32, where each begins, and the end of the last (`cu_seqlens`).
        longest: tokens of the longest document.
    """

    starts: torch.Tensor
    longest: int

    @classmethod
    def of(cls, kwargs: dict[str, Any]) -> Segments | None:
        """From the arguments that transformers passes to flash attention, or None."""
        starts = kwargs.get("cu_seq_lens_q")
        if starts is None:
            return None
        return cls(starts, int(kwargs["max_length_q"]))


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    segments: Segments | None = None,
    mask: torch.Tensor | None = None,
    causal: bool = True,
) -> torch.Tensor:
    """Softmax(q kᵀ · scale) v over earlier tokens; differentiable.

    Args:
        q: (batch, heads, length, head_dim). k, v: the same with heads that divide q's.
        window: how many tokens back one may look, itself included; None for all.
        softcap: scores become softcap · tanh(scores / softcap).
        segments: keeps documents of a packed row apart (batch 1).
        mask: instead of all of causal, window and segments: (batch or 1, heads or 1, length, keys),
            True where one may look, or added to the scores.
        causal: False looks at later tokens too, as vision towers do; without window and softcap.

    Returns:
        (batch, heads, length, head_dim), not necessarily contiguous.
    """
    length = q.shape[2]
    if window is not None and window >= length and mask is None:
        window = None
    if softcap is not None:
        if mask is None and takes_attention(q, k, v):
            return flash_attention(q, k, v, **_flash(scale, window, softcap, segments))
        return in_full(q, k, v, scale, softcap, _full_mask(q, window, segments, mask))
    if mask is None and segments is not None and _has_varlen(q):
        return _varlen(q, k, v, scale, window, segments, causal=causal)
    if mask is None and (window is not None or segments is not None):
        mask = _full_mask(q, window, segments, None, causal=causal)
    if mask is not None:
        k, v = repeat_heads(k, q), repeat_heads(v, q)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    if q.is_cuda and _generation(q.device) < 8:  # its kernels take no groups of heads
        k, v = repeat_heads(k, q), repeat_heads(v, q)
    grouped = k.shape[1] != q.shape[1]
    if not q.is_cuda:
        return scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scale, enable_gqa=grouped
        )
    with sdpa_kernel(_order(q), set_priority=True):
        return scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scale, enable_gqa=grouped
        )


@dataclass(frozen=True)
class Attention:
    """One attention and what its backward needs.

    Attributes:
        output: (batch, heads, length, head_dim).
        q, k, v: leaves of a small autograd graph that ends in `output`, or plain tensors.
        saved: of cuDNN: log-sum-exp, then its philox state and lengths; None for a graph.
    """

    output: torch.Tensor
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float
    saved: tuple[Any, ...] | None = None

    def backward(self, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gradients of q, k and v. upstream: in the shape of `output`."""
        if self.saved is None:
            return torch.autograd.grad(self.output, (self.q, self.k, self.v), upstream)
        lse, starts_q, starts_k, longest_q, longest_k, seed, offset = self.saved
        gradients: tuple[torch.Tensor, ...] = (
            torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
                upstream,
                self.q,
                self.k,
                self.v,
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


@dataclass(frozen=True, kw_only=True)
class _Capped(Attention):
    """One by the kernel for softcaps: its rows' sums, and what else it was told."""

    lse: torch.Tensor
    how: dict[str, Any]

    def backward(self, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return flash_attention_backward(
            upstream, self.q, self.k, self.v, self.output, self.lse, **self.how
        )


def attention_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, learns: bool, scale: float, **how: Any
) -> Attention:
    """`attend`, with its backward to be called by hand; gradients may be disabled around it.

    Args:
        learns: whether the backward will be called.
        how: `window`, `softcap`, `segments`, `mask` and `causal`, as of `attend`.
    """
    if _is_plain(q, **how) and _direct_cudnn(q):
        made = torch.ops.aten._scaled_dot_product_cudnn_attention(
            q, k, v, None, learns, 0.0, True, False, scale=scale
        )
        return Attention(made[0], q, k, v, scale, tuple(made[1:8]))
    if how.get("softcap") is not None and how.get("mask") is None and takes_attention(q, k, v):
        flash = _flash(scale, how.get("window"), how["softcap"], how.get("segments"))
        output, lse = flash_attention_forward(q, k, v, **flash)
        return _Capped(output, q, k, v, scale, lse=lse, how=flash)
    with torch.set_grad_enabled(learns):  # a graph of its own: any kernel's backward serves
        q, k, v = (states.detach().requires_grad_(learns) for states in (q, k, v))
        return Attention(attend(q, k, v, scale=scale, **how), q, k, v, scale)


def _flash(
    scale: float, window: int | None, softcap: float | None, segments: Segments | None
) -> dict[str, Any]:
    """Arguments of the kernel for softcaps."""
    starts = None if segments is None else segments.starts
    return {"scale": scale, "softcap": softcap, "window": window, "starts": starts}


def _is_plain(
    q: torch.Tensor,
    window: int | None = None,
    softcap: float | None = None,
    segments: Segments | None = None,
    mask: torch.Tensor | None = None,
    causal: bool = True,
) -> bool:
    """Whether this is causal attention over whole rows and nothing more."""
    if not causal or softcap is not None or segments is not None or mask is not None:
        return False
    return window is None or window >= q.shape[2]


def _direct_cudnn(q: torch.Tensor) -> bool:
    """Whether cuDNN may be called by hand, which spares the host half of the time of a call."""
    return (
        q.is_cuda
        and q.dtype in (torch.float16, torch.bfloat16)
        and q.shape[-1] in (64, 128)
        and q.shape[2] > 1
        and _generation(q.device) >= 9
        and _cudnn_agrees(q.device)
    )


@functools.cache
@torch.no_grad()
def _cudnn_agrees(device: torch.device) -> bool:
    """Whether these operations of PyTorch exist in the form used here and give what SDPA gives.

    They are not public; where they change, SDPA serves.
    """
    generator = torch.Generator(device).manual_seed(0)
    shape = (1, 4, 64, 64)
    q, k, v, upstream = (
        torch.randn(shape, device=device, generator=generator).to(torch.bfloat16) for _ in range(4)
    )
    k, v = k[:, :2], v[:, :2]
    try:
        made = torch.ops.aten._scaled_dot_product_cudnn_attention(
            q, k, v, None, True, 0.0, True, False, scale=0.125
        )
        ours = Attention(made[0], q, k, v, 0.125, tuple(made[1:8])).backward(upstream)
    except Exception:  # another signature, no such kernel, no library: then it is not used
        return False
    with torch.enable_grad():
        leaves = [states.float().requires_grad_() for states in (q, k, v)]
        sdpa: Any = scaled_dot_product_attention
        output = sdpa(*leaves, is_causal=True, scale=0.125, enable_gqa=True)
        theirs = torch.autograd.grad(output, leaves, upstream.float())
    pairs = zip((made[0], *ours), (output, *theirs), strict=True)
    return all(bool((a.float() - b).norm() <= 0.03 * b.norm()) for a, b in pairs)


def registered_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`attend` in the form of transformers' attention functions; (batch, length, heads, head_dim)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    plain = attention_mask is CAUSAL
    if not plain and (query.shape[2] != key.shape[2] or dropout or softcap is None):
        if softcap is not None:
            return with_key_cache(query, key, value, attention_mask, scale, softcap), None
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    output = attend(
        query,
        key,
        value,
        scale=scale,
        window=sliding_window,
        softcap=softcap,
        segments=Segments.of(kwargs) if plain else None,
        mask=None if plain else attention_mask,
    )
    return output.transpose(1, 2), None


def register() -> None:
    """Make the name known to transformers; models that do not ask for it are not affected."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, registered_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _order(q: torch.Tensor) -> list[SDPBackend]:
    """Fastest first. cuDNN's plans pay from Hopper on; measured, see benchmarks/NOTES.md."""
    flash = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return [SDPBackend.CUDNN_ATTENTION, *flash] if _generation(q.device) >= 9 else flash


@functools.cache
def _generation(device: torch.device) -> int:
    return torch.cuda.get_device_capability(device)[0]


def _has_varlen(q: torch.Tensor) -> bool:
    return (
        q.is_cuda
        and q.dtype in (torch.float16, torch.bfloat16)
        and _generation(q.device) >= 8
        and q.shape[-1] <= 256
    )


def _varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    window: int | None,
    segments: Segments,
    *,
    causal: bool,
) -> torch.Tensor:
    """Flash attention over documents end to end; (1, heads, tokens, head_dim) in and out."""
    from torch.nn.attention import varlen

    attention: Any = varlen.varlen_attn
    grouped = _varlen_takes_groups()
    if not grouped:
        k, v = repeat_heads(k, q), repeat_heads(v, q)
    output: torch.Tensor = attention(
        *(states[0].transpose(0, 1) for states in (q, k, v)),
        segments.starts,
        segments.starts,
        segments.longest,
        segments.longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0 if causal else -1),
        **({"enable_gqa": True} if grouped else {}),
    )
    return output.transpose(0, 1)[None]


@functools.cache
def _varlen_takes_groups() -> bool:
    """Whether keys and values may have fewer heads than queries: from torch 2.12 on."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def _full_mask(
    q: torch.Tensor,
    window: int | None,
    segments: Segments | None,
    mask: torch.Tensor | None,
    *,
    causal: bool = True,
) -> torch.Tensor:
    """The mask that is given, or one of causal, window and segments: True where one may look."""
    if mask is not None:
        return mask
    at = torch.arange(q.shape[2], device=q.device)
    back = at[:, None] - at[None, :]
    allowed = back >= 0 if causal else torch.ones_like(back, dtype=torch.bool)
    if window is not None:
        allowed &= back < window
    if segments is not None:
        document = torch.bucketize(at, segments.starts[1:], right=True)
        allowed &= document[:, None] == document[None, :]
    return allowed[None, None]
