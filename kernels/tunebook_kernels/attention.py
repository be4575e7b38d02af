"""Causal attention whose scores may pass a tanh, without ever holding them: forward and backward.

Knows queries, keys and values of packed or padded rows; knows no projections and no rotary tables.
It is for what PyTorch's own kernels cannot do, foremost the softcap of Gemma 2.

Formula (Dao 2023, FlashAttention-2, arXiv:2307.08691, algorithms 1 and 2; the softcap: Gemma 2,
arXiv:2408.00118, section 2). For a query i and the keys j that it may look at:

    s_ij = scale · q_i·k_j       c_ij = cap · tanh(s_ij / cap)       L_i = log Σ_j exp(c_ij)
    p_ij = exp(c_ij - L_i)       o_i  = Σ_j p_ij v_j

    δ_i  = do_i·o_i              g_ij = p_ij (do_i·v_j - δ_i) (1 - (c_ij / cap)²)
    dq_i = scale Σ_j g_ij k_j    dk_j = scale Σ_i g_ij q_i           dv_j = Σ_i p_ij do_i

A program of the forward, and of dq, holds some queries of one head and walks over the keys that any
of them sees; one of dk and dv holds some keys and walks over the queries of all heads that share
them. Nothing is added by two programs, so that a result is the same each time. Products are of the
inputs' dtype and summed in float32.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tunebook_kernels._launch import (
    INTERPRETED,
    can_launch,
    ceil_div,
    has_tensor_cores,
    jit,
    on_device_of,
    power_of_2,
    tl,
)

_LARGEST_HEAD = 256
_SMALLEST_DOT = 16
_LOG2_E = 1.4426950408889634
_LN_2 = 0.6931471805599453
# Differ from batch to batch: a kernel compiled for one value of them would be compiled again.
_VARY = ("length", "window", "documents", "halvings")


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
    """The output, and the logarithm of each row's sum for the backward, without autograd.

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
    tile = forward_tile(head_dim, q.element_size(), _roomy(q.device))
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
    q, k, v, dout = (_with_adjacent_columns(states) for states in (q, k, v, dout.to(q.dtype)))
    batch, heads, length, head_dim = q.shape
    dq, dk, dv = (_heads_inside(states) for states in (q, k, v))
    delta = torch.empty_like(lse)
    limits = *_limits(length, window, starts),
    constants = _constants(q, k, scale, softcap, starts)
    size, roomy = q.element_size(), _roomy(q.device)
    of_q, of_k = (tile(head_dim, size, roomy) for tile in (dq_tile, dk_dv_tile))
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


@cache
def _roomy(device: torch.device) -> bool:
    """Whether a program may use over 160 KiB of shared memory (A100, H100, B200), not only 99."""
    if device.type != "cuda":
        return False
    facts = torch.cuda.get_device_properties(device)
    return int(getattr(facts, "shared_memory_per_block_optin", 0)) >= 160 * 1024


def _tile(head_dim: int, rows: int, cols: int, warps: int, stages: int) -> dict[str, Any]:
    width = max(_SMALLEST_DOT, power_of_2(head_dim))
    if INTERPRETED:  # small, so that small inputs cross the borders of tiles
        rows, cols = 32, 16
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return {"ROWS": rows, "COLS": cols, "BLOCK_D": width, **options}


@cache
def forward_tile(head_dim: int, size: int, roomy: bool) -> dict[str, Any]:
    """Queries (ROWS) and keys (COLS) of the forward's tiles."""
    return _tile(head_dim, 64, 32, 4, 2)


@cache
def dq_tile(head_dim: int, size: int, roomy: bool) -> dict[str, Any]:
    """The same of the program of dq."""
    return _tile(head_dim, 64, 32, 4, 2)


@cache
def dk_dv_tile(head_dim: int, size: int, roomy: bool) -> dict[str, Any]:
    """The same of the program of dk and dv, which holds COLS keys."""
    return _tile(head_dim, 32, 64, 4, 2)


# -------------------------------------------------------------------------------------- kernels


@jit
def document_of(starts_ptr, documents, halvings, at):  # type: ignore[no-untyped-def]
    """The last document that begins at or before each of `at`; `documents` itself after the end."""
    low = at * 0
    high = low + documents + 1
    for _ in range(halvings):
        middle = (low + high) // 2
        begun = tl.load(starts_ptr + middle, mask=middle <= documents, other=2147483647) <= at
        low = tl.where(begun, middle, low)
        high = tl.where(begun, high, middle)
    return low


@jit
def first_key(  # type: ignore[no-untyped-def]
    rows, starts_ptr, length, window, documents, halvings, PACKED: tl.constexpr
):
    """The first key that each query sees."""
    first = tl.maximum(rows - window + 1, 0)
    if PACKED:
        document = document_of(starts_ptr, documents, halvings, tl.minimum(rows, length - 1))
        first = tl.maximum(first, tl.load(starts_ptr + document))
    return first


@jit
def end_of_queries(  # type: ignore[no-untyped-def]
    cols, starts_ptr, length, window, documents, halvings, PACKED: tl.constexpr
):
    """The first query after each key that does not see it."""
    end = tl.minimum(cols + window, length)
    if PACKED:
        document = document_of(starts_ptr, documents, halvings, tl.minimum(cols, length - 1))
        after = tl.load(starts_ptr + document + 1, mask=document < documents, other=length)
        end = tl.minimum(end, after)
    return end


@jit
def capped(product, SCALE: tl.constexpr, SOFTCAP: tl.constexpr, EXACT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The scores of a tile of products q·k, as powers of 2, and the derivative of the softcap."""
    if SOFTCAP == 0.0:
        return product * (SCALE * 1.4426950408889634), 1.0
    x = product * (SCALE / SOFTCAP)
    tanh = 1.0 - 2.0 / (1.0 + tl.exp2(x * 2.8853900817779268))
    if EXACT:  # near zero the difference above loses digits that float32 has (polynomial: Cephes)
        z = x * x
        p = -5.70498872745e-3 * z + 2.06390887954e-2
        p = (p * z - 5.37397155531e-2) * z + 1.33314422036e-1
        p = (p * z - 3.33332819422e-1) * z
        tanh = tl.where(z < 0.390625, x + x * p, tanh)
    return tanh * (SOFTCAP * 1.4426950408889634), 1.0 - tanh * tanh


@jit
def load_tile(  # type: ignore[no-untyped-def]
    ptr, start, stride, length, COUNT: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr
):
    """(COUNT, BLOCK_D) rows of a head from `start` on; zero beyond its length and width."""
    at = tl.arange(0, COUNT)[:, None]
    dims = tl.arange(0, BLOCK_D)[None, :]
    mask = at < length - start
    if HEAD_DIM < BLOCK_D:
        mask = mask & (dims < HEAD_DIM)
    return tl.load(ptr + tl.cast(start, tl.int64) * stride + at * stride + dims, mask=mask, other=0.0)


@jit
def store_tile(  # type: ignore[no-untyped-def]
    ptr,
    tile,
    start,
    stride,
    length,
    COUNT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The counterpart of `load_tile`."""
    at = tl.arange(0, COUNT)[:, None]
    dims = tl.arange(0, BLOCK_D)[None, :]
    mask = (at < length - start) & (dims < HEAD_DIM)
    out_at = ptr + tl.cast(start, tl.int64) * stride + at * stride + dims
    tl.store(out_at, tile.to(ptr.dtype.element_ty), mask=mask)


@partial(jit, do_not_specialize=_VARY)
def attention_forward_kernel(  # type: ignore[no-untyped-def]
    q_ptr,  # (batch, HEADS, length, HEAD_DIM)
    k_ptr,  # (batch, HEADS / GROUP, length, HEAD_DIM)
    v_ptr,  # the same
    starts_ptr,  # (documents + 1,), int32, if PACKED
    out_ptr,  # (batch, HEADS, length, HEAD_DIM)
    lse_ptr,  # (batch, HEADS, length), float32
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    out_batch,
    out_head,
    out_row,
    length,
    window,
    documents,
    halvings,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SCALE: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PACKED: tl.constexpr,
    EXACT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS  # those with most keys first
    batch, head = (tl.program_id(1) // HEADS).to(tl.int64), (tl.program_id(1) % HEADS).to(tl.int64)
    k_ptr += batch * k_batch + head // GROUP * k_head
    v_ptr += batch * v_batch + head // GROUP * v_head
    rows = start + tl.arange(0, ROWS)
    first = first_key(rows, starts_ptr, length, window, documents, halvings, PACKED)
    q = load_tile(
        q_ptr + batch * q_batch + head * q_head, start, q_row, length, ROWS, HEAD_DIM, BLOCK_D
    )
    out = tl.zeros((ROWS, BLOCK_D), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    largest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    # As a number, not as the least of `first`: triton 3.9 would not prefetch in such a loop.
    low = first_key(start, starts_ptr, length, window, documents, halvings, PACKED)
    for key in range(low // COLS * COLS, tl.minimum(start + ROWS, length), COLS):
        k = load_tile(k_ptr, key, k_row, length, COLS, HEAD_DIM, BLOCK_D)
        product = tl.dot(q, tl.trans(k), input_precision="ieee")
        score, _ = capped(product, SCALE, SOFTCAP, EXACT)
        cols = (key + tl.arange(0, COLS))[None, :]
        seen = (cols <= rows[:, None]) & (cols >= first[:, None])
        score = tl.where(seen, score, float("-inf"))
        before, largest = largest, tl.maximum(largest, tl.max(score, 1))
        shift = tl.where(largest == float("-inf"), 0.0, largest)  # nothing seen so far
        p = tl.exp2(score - shift[:, None])
        keep = tl.exp2(before - shift)
        total = total * keep + tl.sum(p, 1)
        v = load_tile(v_ptr, key, v_row, length, COLS, HEAD_DIM, BLOCK_D)
        out = tl.dot(p.to(v.dtype), v, out * keep[:, None], input_precision="ieee")
    total = tl.where(total == 0.0, 1.0, total)  # of rows beyond the last
    out = out / total[:, None]
    store_tile(
        out_ptr + batch * out_batch + head * out_head,
        out,
        start,
        out_row,
        length,
        ROWS,
        HEAD_DIM,
        BLOCK_D,
    )
    lse_at = lse_ptr + (batch * HEADS + head) * length + rows
    tl.store(lse_at, (largest + tl.log2(total)) * 0.6931471805599453, mask=rows < length)


@partial(jit, do_not_specialize=_VARY)
def attention_dq_kernel(  # type: ignore[no-untyped-def]
    q_ptr,  # as of the forward
    k_ptr,
    v_ptr,
    starts_ptr,
    out_ptr,  # (batch, HEADS, length, HEAD_DIM)
    dout_ptr,  # the same
    lse_ptr,  # (batch, HEADS, length), float32
    delta_ptr,  # the same, is written
    dq_ptr,  # (batch, HEADS, length, HEAD_DIM), is written
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    out_batch,
    out_head,
    out_row,
    dout_batch,
    dout_head,
    dout_row,
    dq_batch,
    dq_head,
    dq_row,
    length,
    window,
    documents,
    halvings,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SCALE: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PACKED: tl.constexpr,
    EXACT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS
    batch, head = (tl.program_id(1) // HEADS).to(tl.int64), (tl.program_id(1) % HEADS).to(tl.int64)
    q_ptr += batch * q_batch + head * q_head
    k_ptr += batch * k_batch + head // GROUP * k_head
    v_ptr += batch * v_batch + head // GROUP * v_head
    out_ptr += batch * out_batch + head * out_head
    dout_ptr += batch * dout_batch + head * dout_head
    dq_ptr += batch * dq_batch + head * dq_head
    rows = start + tl.arange(0, ROWS)
    first = first_key(rows, starts_ptr, length, window, documents, halvings, PACKED)
    dout = load_tile(dout_ptr, start, dout_row, length, ROWS, HEAD_DIM, BLOCK_D)
    out = load_tile(out_ptr, start, out_row, length, ROWS, HEAD_DIM, BLOCK_D)
    delta = tl.sum(dout.to(tl.float32) * out.to(tl.float32), 1)
    of_row = (batch * HEADS + head) * length + rows
    tl.store(delta_ptr + of_row, delta, mask=rows < length)
    lse = tl.load(lse_ptr + of_row, mask=rows < length, other=0.0) * 1.4426950408889634
    q = load_tile(q_ptr, start, q_row, length, ROWS, HEAD_DIM, BLOCK_D)
    dq = tl.zeros((ROWS, BLOCK_D), dtype=tl.float32)
    # As a number, not as the least of `first`: triton 3.9 would not prefetch in such a loop.
    low = first_key(start, starts_ptr, length, window, documents, halvings, PACKED)
    for key in range(low // COLS * COLS, tl.minimum(start + ROWS, length), COLS):
        k = load_tile(k_ptr, key, k_row, length, COLS, HEAD_DIM, BLOCK_D)
        v = load_tile(v_ptr, key, v_row, length, COLS, HEAD_DIM, BLOCK_D)
        product = tl.dot(q, tl.trans(k), input_precision="ieee")
        score, slope = capped(product, SCALE, SOFTCAP, EXACT)
        cols = (key + tl.arange(0, COLS))[None, :]
        seen = (cols <= rows[:, None]) & (cols >= first[:, None])
        p = tl.where(seen, tl.exp2(score - lse[:, None]), 0.0)
        dp = tl.dot(dout, tl.trans(v), input_precision="ieee")
        dproduct = p * (dp - delta[:, None]) * slope
        dq = tl.dot(dproduct.to(k.dtype), k, dq, input_precision="ieee")
    store_tile(dq_ptr, dq * SCALE, start, dq_row, length, ROWS, HEAD_DIM, BLOCK_D)


@partial(jit, do_not_specialize=_VARY)
def attention_dk_dv_kernel(  # type: ignore[no-untyped-def]
    q_ptr,  # as of the forward
    k_ptr,
    v_ptr,
    starts_ptr,
    dout_ptr,  # (batch, HEADS, length, HEAD_DIM)
    lse_ptr,  # (batch, HEADS, length), float32
    delta_ptr,  # the same, as the program of dq wrote it
    dk_ptr,  # (batch, HEADS / GROUP, length, HEAD_DIM), is written
    dv_ptr,  # the same
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    dout_batch,
    dout_head,
    dout_row,
    dk_batch,
    dk_head,
    dk_row,
    dv_batch,
    dv_head,
    dv_row,
    length,
    window,
    documents,
    halvings,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SCALE: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PACKED: tl.constexpr,
    EXACT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    start = tl.program_id(0) * COLS  # those with most queries first
    kv_heads: tl.constexpr = HEADS // GROUP
    batch = (tl.program_id(1) // kv_heads).to(tl.int64)
    kv_head = (tl.program_id(1) % kv_heads).to(tl.int64)
    q_ptr += batch * q_batch
    dout_ptr += batch * dout_batch
    cols = start + tl.arange(0, COLS)
    end = end_of_queries(cols, starts_ptr, length, window, documents, halvings, PACKED)
    k_ptr += batch * k_batch + kv_head * k_head
    v_ptr += batch * v_batch + kv_head * v_head
    k = load_tile(k_ptr, start, k_row, length, COLS, HEAD_DIM, BLOCK_D)
    v = load_tile(v_ptr, start, v_row, length, COLS, HEAD_DIM, BLOCK_D)
    dk = tl.zeros((COLS, BLOCK_D), dtype=tl.float32)
    dv = tl.zeros((COLS, BLOCK_D), dtype=tl.float32)
    last = end_of_queries(
        start + COLS - 1, starts_ptr, length, window, documents, halvings, PACKED
    )
    for member in range(GROUP):
        head = kv_head * GROUP + member
        of_head = (batch * HEADS + head) * length
        for query in range(start // ROWS * ROWS, last, ROWS):
            rows = query + tl.arange(0, ROWS)
            q = load_tile(
                q_ptr + head * q_head, query, q_row, length, ROWS, HEAD_DIM, BLOCK_D
            )
            product = tl.dot(k, tl.trans(q), input_precision="ieee")
            score, slope = capped(product, SCALE, SOFTCAP, EXACT)
            lse = tl.load(lse_ptr + of_head + rows, mask=rows < length, other=0.0)
            seen = (rows[None, :] >= cols[:, None]) & (rows[None, :] < end[:, None])
            p = tl.exp2(score - lse[None, :] * 1.4426950408889634)
            p = tl.where(seen, p, 0.0)
            dout = load_tile(
                dout_ptr + head * dout_head, query, dout_row, length, ROWS, HEAD_DIM, BLOCK_D
            )
            dv = tl.dot(p.to(dout.dtype), dout, dv, input_precision="ieee")
            delta = tl.load(delta_ptr + of_head + rows, mask=rows < length, other=0.0)
            dp = tl.dot(v, tl.trans(dout), input_precision="ieee")
            dproduct = p * (dp - delta[None, :]) * slope
            dk = tl.dot(dproduct.to(q.dtype), q, dk, input_precision="ieee")
    dk_ptr += batch * dk_batch + kv_head * dk_head
    dv_ptr += batch * dv_batch + kv_head * dv_head
    store_tile(dk_ptr, dk * SCALE, start, dk_row, length, COLS, HEAD_DIM, BLOCK_D)
    store_tile(dv_ptr, dv, start, dv_row, length, COLS, HEAD_DIM, BLOCK_D)


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
    """The output and the logarithms of the rows' sums, at least in float32."""
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
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def _backward_in_full(
    dout: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *how: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    with torch.enable_grad():
        leaves = [states.detach().requires_grad_() for states in (q, k, v)]
        output, _ = _in_full(*leaves, *how)
        dq, dk, dv = torch.autograd.grad(output, leaves, dout.to(output.dtype))
    return dq, dk, dv
