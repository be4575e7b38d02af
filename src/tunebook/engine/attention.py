"""Causal attention by the fastest kernel that is right for the shape: cuDNN, flash, or our own.

Knows queries, keys and values; knows no projections and no rotary tables. One function serves the
fused decoder layers and, under the name "tunebook" in transformers' registry, any other layer.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from tunebook.engine.direct_attention import Attention, direct_attention, generation
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
) -> torch.Tensor:
    """Softmax(q kᵀ · scale) v over earlier tokens; differentiable.

    Args:
        q: (batch, heads, length, head_dim). k, v: the same with heads that divide q's.
        window: how many tokens back one may look, itself included; None for all.
        softcap: scores become softcap · tanh(scores / softcap).
        segments: keeps documents of a packed row apart (batch 1).
        mask: instead of all of causal, window and segments: (batch or 1, heads or 1, length, keys),
            True where one may look, or added to the scores.

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
        return _varlen(q, k, v, scale, window, segments)
    if mask is None and (window is not None or segments is not None):
        mask = _full_mask(q, window, segments, None)
    if mask is not None:
        k, v = repeat_heads(k, q), repeat_heads(v, q)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    if q.is_cuda and generation(q.device) < 8:  # its kernels take no groups of heads
        k, v = repeat_heads(k, q), repeat_heads(v, q)
    grouped = k.shape[1] != q.shape[1]
    if not q.is_cuda:
        return scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=grouped
        )
    with sdpa_kernel(_order(q), set_priority=True):
        return scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=grouped
        )


@dataclass(frozen=True, kw_only=True)
class _Capped(Attention):
    """One by the kernel for softcaps: its rows' sums, and what else it was told."""

    lse: torch.Tensor
    how: dict[str, Any]

    by_hand: ClassVar[bool] = True

    def backward(self, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return flash_attention_backward(upstream, *self.inputs, self.output, self.lse, **self.how)


def attention_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, learns: bool, scale: float, **how: Any
) -> Attention:
    """`attend`, with its backward to be called by hand; gradients may be disabled around it.

    Args:
        learns: whether the backward will be called.
        how: `window`, `softcap`, `segments` and `mask`, as of `attend`.
    """
    direct = direct_attention(q) if _is_plain(q, **how) else None
    if direct is not None:
        return direct.run(q, k, v, scale, learns=learns)
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
) -> bool:
    """Whether this is causal attention over whole rows and nothing more."""
    if softcap is not None or segments is not None or mask is not None:
        return False
    return window is None or window >= q.shape[2]


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
    return [SDPBackend.CUDNN_ATTENTION, *flash] if generation(q.device) >= 9 else flash


def _has_varlen(q: torch.Tensor) -> bool:
    return (
        q.is_cuda
        and q.dtype in (torch.float16, torch.bfloat16)
        and generation(q.device) >= 8
        and q.shape[-1] <= 256
    )


def _varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    window: int | None,
    segments: Segments,
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
        window_size=(-1 if window is None else window - 1, 0),
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
) -> torch.Tensor:
    """The mask that is given, or one of causal, window and segments: True where one may look."""
    if mask is not None:
        return mask
    at = torch.arange(q.shape[2], device=q.device)
    back = at[:, None] - at[None, :]
    allowed = back >= 0
    if window is not None:
        allowed &= back < window
    if segments is not None:
        document = torch.bucketize(at, segments.starts[1:], right=True)
        allowed &= document[:, None] == document[None, :]
    return allowed[None, None]
