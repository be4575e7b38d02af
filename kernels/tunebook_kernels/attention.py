"""Causal attention whose scores may pass a tanh, without ever holding them: forward and backward.

Knows queries, keys and values of packed or padded rows; knows no projections and no rotary tables.
It is for what PyTorch's own kernels cannot do, foremost the softcap of Gemma 2.

Formula (Dao 2023, FlashAttention-2, arXiv:2307.08691, algorithms 1 and 2; the softcap: Gemma 2,
arXiv:2408.00118, section 2). For a query i and the keys j that it may look at:

    s_ij = scale · q_i·k_j       c_ij = cap · tanh(s_ij / cap)       L_i = log Σ_j exp(c_ij)
    p_ij = exp(c_ij - L_i)       o_i  = Σ_j p_ij v_j

    δ_i  = do_i·o_i              g_ij = p_ij (do_i·v_j - δ_i) (1 - (c_ij / cap)²)
    dq_i = scale Σ_j g_ij k_j    dk_j = scale Σ_i g_ij q_i           dv_j = Σ_i p_ij do_i

Products are of the inputs' dtype and summed in float32.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tunebook_kernels._launch import (
    INTERPRETED,
    can_launch,
    ceil_div,
    has_tensor_cores,
    on_device_of,
    power_of_2,
)
from tunebook_kernels.attention_kernels import (
    attention_dk_dv_kernel,
    attention_dq_kernel,
    attention_forward_kernel,
)

_LARGEST_HEAD = 256
_SMALLEST_DOT = 16


def flash_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    window: int | None = None,
    starts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax(cap(q kᵀ · scale)) v over earlier tokens; differentiable.

    Args:
        q: (batch, heads, length, head_dim), any strides.
        k, v: (batch, kv_heads, length, head_dim), of the same dtype; kv_heads divides heads.
        softcap: scores become softcap · tanh(scores / softcap); None leaves them.
        window: how many tokens back one may look, itself included; None for all.
        starts: (documents + 1,) int32, where the documents of every row begin, and the end of the
            last (`cu_seqlens`): none sees another. None where a row is one.

    Returns:
        (batch, heads, length, head_dim); in memory (batch, length, heads, head_dim).
    """
    how: dict[str, Any] = {"scale": scale, "softcap": softcap, "window": window, "starts": starts}
    if not takes_attention(q, k, v):
        return flash_attention_reference(q, k, v, **how)
    result: torch.Tensor = _FlashAttention.apply(q, k, v, how)  # type: ignore[no-untyped-call]
    return result


def flash_attention_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    window: int | None = None,
    starts: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same function in plain torch, with the scores in full."""
    return _in_full(q, k, v, scale, softcap, window, starts)[0].to(q.dtype)


def takes_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether the kernels can take these: Ampere or newer, one dtype, heads of at most 256."""
    return (
        q.shape[-1] <= _LARGEST_HEAD
        and q.dtype == k.dtype == v.dtype
        and can_launch(q, k, v)
        and (INTERPRETED or has_tensor_cores(q.device))
    )


def flash_attention_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    window: int | None = None,
    starts: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and log2 of each row's sum of exp(c) for the backward, without autograd.

    Args:
        q, k, v, scale, softcap, window, starts: as of `flash_attention`.

    Returns:
        out: (batch, heads, length, head_dim); in memory (batch, length, heads, head_dim).
        lse: (batch, heads, length) float32.
    """
    if not takes_attention(q, k, v):
        made, lse = _in_full(q, k, v, scale, softcap, window, starts)
        return made.to(q.dtype), lse.float()
    q, k, v = (_with_adjacent_columns(states) for states in (q, k, v))
    batch, heads, length, head_dim = q.shape
    out = _heads_inside(q)
    lse = torch.empty((batch, heads, length), dtype=torch.float32, device=q.device)
    tile = attention_tile("forward", head_dim, q.element_size(), _shared_memory(q.device))
    with on_device_of(q):
        attention_forward_kernel[(ceil_div(length, tile["ROWS"]), batch * heads)](
            q,
            k,
            v,
            _starts_or(starts, lse),
            out,
            lse,
            *_strides(q, k, v, out),
            *_limits(length, window, starts),
            **_constants(q, k, scale, softcap, starts),
            **tile,
        )
    return out, lse


def flash_attention_backward(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    window: int | None = None,
    starts: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v, without autograd.

    Args:
        dout: (batch, heads, length, head_dim), any strides.
        out, lse: from `flash_attention_forward`.

    Returns:
        dq, dk, dv: of the shapes of q, k and v; in memory (batch, length, heads, head_dim).
    """
    if not takes_attention(q, k, v):
        return _backward_in_full(dout, q, k, v, scale, softcap, window, starts)
    q, k, v, out, dout = map(_with_adjacent_columns, (q, k, v, out, dout.to(q.dtype)))
    batch, heads, length, head_dim = q.shape
    dq, dk, dv = (_heads_inside(states) for states in (q, k, v))
    delta = torch.empty_like(lse)
    limits = _limits(length, window, starts)
    constants = _constants(q, k, scale, softcap, starts)
    size, shared = q.element_size(), _shared_memory(q.device)
    of_q, of_k = (attention_tile(of, head_dim, size, shared) for of in ("dq", "dk_dv"))
    with on_device_of(q):
        attention_dq_kernel[(ceil_div(length, of_q["ROWS"]), batch * heads)](
            q, k, v, _starts_or(starts, lse), out, dout, lse, delta, dq,
            *_strides(q, k, v, out, dout, dq), *limits, **constants, **of_q,
        )  # fmt: skip
        attention_dk_dv_kernel[(ceil_div(length, of_k["COLS"]), batch * k.shape[1])](
            q, k, v, _starts_or(starts, lse), dout, lse, delta, dk, dv,
            *_strides(q, k, v, dout, dk, dv), *limits, **constants, **of_k,
        )  # fmt: skip
    return dq, dk, dv


# ------------------------------------------------------------------------------------ arguments


def _with_adjacent_columns(states: torch.Tensor) -> torch.Tensor:
    return states if states.stride(-1) == 1 else states.contiguous()


def _heads_inside(like: torch.Tensor) -> torch.Tensor:
    """(batch, heads, length, head_dim) of undefined content, in memory (batch, length, heads, ...)."""
    batch, heads, length, head_dim = like.shape
    made = torch.empty((batch, length, heads, head_dim), dtype=like.dtype, device=like.device)
    return made.transpose(1, 2)


def _strides(*tensors: torch.Tensor) -> tuple[int, ...]:
    """Of each (batch, heads, length, ·) the first three."""
    return tuple(stride for tensor in tensors for stride in tensor.stride()[:3])


def _starts_or(starts: torch.Tensor | None, other: torch.Tensor) -> torch.Tensor:
    """Something to point at."""
    return other if starts is None else starts


def _limits(
    length: int, window: int | None, starts: torch.Tensor | None
) -> tuple[int, int, int, int]:
    """length, window, documents, and how often halving finds one of them (see `document_of`)."""
    documents = 0 if starts is None else starts.shape[0] - 1
    return length, min(window or length, length), documents, (documents + 1).bit_length()


def _constants(
    q: torch.Tensor,
    k: torch.Tensor,
    scale: float,
    softcap: float | None,
    starts: torch.Tensor | None,
) -> dict[str, Any]:
    return {
        "HEADS": q.shape[1],
        "GROUP": q.shape[1] // k.shape[1],
        "HEAD_DIM": q.shape[-1],
        "SCALE": scale,
        "SOFTCAP": softcap or 0.0,
        "PACKED": starts is not None,
        "EXACT": q.dtype == torch.float32,
    }


# ---------------------------------------------------------------------------------------- tiles

# Shared memory (KiB) that a program must have, queries and keys of a tile, warps, stages of loads:
# the first that fits is taken. By what is computed and the padded width of a head of 2-byte
# numbers. Chosen among what triton 3.9 compiles for sm80, 89, 90 and 100 with the fewest registers
# spilled; a card has 99 (sm86, 89, 120), 163 (sm80) or 227 (sm90, 100).
_TILES: dict[str, dict[int, list[tuple[int, int, int, int, int]]]] = {
    "forward": {
        64: [(0, 128, 64, 8, 3)],
        128: [(0, 128, 64, 8, 2)],
        256: [(200, 128, 64, 8, 2), (160, 64, 64, 8, 2), (0, 64, 32, 8, 2)],
    },
    "dq": {
        64: [(0, 128, 64, 8, 2)],
        128: [(120, 64, 64, 8, 2), (0, 64, 32, 4, 2)],
        256: [(200, 128, 32, 8, 2), (160, 64, 32, 8, 2), (0, 32, 32, 4, 2)],
    },
    "dk_dv": {
        64: [(0, 32, 128, 8, 2)],
        128: [(0, 32, 64, 8, 2)],
        256: [(160, 32, 64, 8, 2), (0, 32, 32, 8, 2)],
    },
}
_OF_FLOAT32 = 16, 16, 8, 1  # no tensor cores: registers hold both factors


@cache
def _shared_memory(device: torch.device) -> int:
    """KiB that a program may use."""
    if device.type != "cuda":
        return 0
    facts = torch.cuda.get_device_properties(device)
    return int(getattr(facts, "shared_memory_per_block_optin", 0)) // 1024


@cache
def attention_tile(of: str, head_dim: int, size: int, shared: int) -> dict[str, Any]:
    """Queries (ROWS) and keys (COLS) of a program's tiles, with its options.

    Args:
        of: "forward", "dq" or "dk_dv".
        size: bytes of a number.
        shared: KiB of shared memory that a program may use.
    """
    width = max(_SMALLEST_DOT, power_of_2(head_dim))
    fitting = [tile for need, *tile in _TILES[of][max(width, 64)] if need <= shared]
    rows, cols, warps, stages = fitting[0] if size == 2 else _OF_FLOAT32
    if INTERPRETED:  # small, so that small inputs cross the borders of tiles
        rows, cols = 32, 16
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return {"ROWS": rows, "COLS": cols, "BLOCK_D": width, **options}


# ------------------------------------------------------------------------------------- autograd


class _FlashAttention(torch.autograd.Function):
    """Saves its inputs, the output and the rows' sums."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: dict[str, Any]
    ) -> torch.Tensor:
        out, lse = flash_attention_forward(q, k, v, **how)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.how = how
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return *flash_attention_backward(dout, *ctx.saved_tensors, **ctx.how), None


# --------------------------------------------------------------------------------- plain torch


def _in_full(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    softcap: float | None,
    window: int | None,
    starts: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and log2 of the rows' sums, at least in float32."""
    wide = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[1] // k.shape[1]
    q = q.to(wide)
    k, v = (states.to(wide).repeat_interleave(group, 1) for states in (k, v))
    scores = q @ k.transpose(2, 3) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    at = torch.arange(q.shape[2], device=q.device)
    back = at[:, None] - at[None, :]
    seen = (back >= 0) & (back < (window or q.shape[2]))
    if starts is not None:
        document = torch.bucketize(at, starts[1:], right=True)
        seen &= document[:, None] == document[None, :]
    scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(-1) @ v, scores.logsumexp(-1) * math.log2(math.e)


def _backward_in_full(
    dout: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *how: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    with torch.enable_grad():
        q, k, v = (states.detach().requires_grad_() for states in (q, k, v))
        output, _ = _in_full(q, k, v, *how)
        dq, dk, dv = torch.autograd.grad(output, (q, k, v), dout.to(output.dtype))
    return dq, dk, dv
