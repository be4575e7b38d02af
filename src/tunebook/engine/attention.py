"""Causal attention by the fastest kernel that is right for the shape: cuDNN, flash, or PyTorch's own.

Knows queries, keys and values; knows no projections and no rotary tables. One function serves the
fused decoder layers and, under the name "tunebook" in transformers' registry, any other layer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

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
        return _eager(q, k, v, scale, softcap, _full_mask(q, k, window, segments, mask))
    if mask is None and segments is not None and _has_varlen(q):
        return _varlen(q, k, v, scale, window, segments)
    if mask is None and (window is not None or segments is not None):
        mask = _full_mask(q, k, window, segments, None)
    if mask is not None:
        k, v = repeat_heads(k, q), repeat_heads(v, q)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    grouped = k.shape[1] != q.shape[1]
    if not q.is_cuda:
        return scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=grouped
        )
    with sdpa_kernel(_order(q), set_priority=True):
        return scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=grouped
        )


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
            return _softcapped(query, key, value, attention_mask, scale, softcap), None
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


def repeat_heads(states: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Keys or values once for each query head that reads them."""
    times = like.shape[1] // states.shape[1]
    return states if times == 1 else states.repeat_interleave(times, dim=1)


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
) -> torch.Tensor:
    """Flash attention over documents end to end; (1, heads, tokens, head_dim) in and out."""
    from torch.nn.attention.varlen import varlen_attn

    rows = [states[0].transpose(0, 1) for states in (q, repeat_heads(k, q), repeat_heads(v, q))]
    output: Any = varlen_attn(
        *rows,
        segments.starts,
        segments.starts,
        segments.longest,
        segments.longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
    )
    return output.transpose(0, 1)[None]


def _full_mask(
    q: torch.Tensor,
    k: torch.Tensor,
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


def _eager(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    softcap: float,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Scores in full, for what no kernel computes (softcap); as transformers' eager attention."""
    k, v = repeat_heads(k, q), repeat_heads(v, q)
    scores = torch.tanh(q @ k.transpose(2, 3) * scale / softcap) * softcap
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask
    wide = torch.promote_types(torch.float32, scores.dtype)
    return torch.softmax(scores, dim=-1, dtype=wide).to(q.dtype) @ v


def _softcapped(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """Softcap with a key cache: fewer queries than keys, the mask as transformers made it."""
    if mask is None:
        length, keys = q.shape[2], k.shape[2]
        mask = torch.ones((length, keys), dtype=torch.bool, device=q.device).tril(keys - length)
    return _eager(q, k, v, scale, softcap, mask).transpose(1, 2)
