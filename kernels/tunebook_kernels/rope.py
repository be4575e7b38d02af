"""Rotary position embedding of all the heads of Q and K in one launch, forward and backward.

Knows packed projections (rows of q heads, k heads, v heads) and (batch, heads, seq, head_dim)
tensors; how positions become angles, and attention, are others' business.

Formula (Su et al. 2021, arXiv:2104.09864, section 3.4.2, in the half-split layout of Hugging
Face's `apply_rotary_pos_emb`). With x1, x2 the two halves of the first rotary_dim numbers of a
head, and c1, c2, s1, s2 those of cos and sin at its position:

    y1  = x1 · c1 - x2 · s1             y2  = x2 · c2 + x1 · s2
    dx1 = dy1 · c1 + dy2 · s2           dx2 = dy2 · c2 - dy1 · s1

The rest of the head passes through. Computed in float32 and rounded once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tunebook_kernels._launch import (
    as_rows,
    can_launch,
    ceil_div,
    jit,
    on_device_of,
    options_for,
    power_of_2,
    tl,
)

_TILE = 1024  # pairs of numbers that a program rotates


def apply_rope(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Q and K rotated by their positions.

    Args:
        q: (batch, q_heads, seq, head_dim), any strides.
        k: (batch, kv_heads, seq, head_dim), of the same dtype.
        cos, sin: (seq, rotary_dim), (1, seq, rotary_dim) or (batch, seq, rotary_dim), any float
            dtype, with rotary_dim <= head_dim; they get no gradient.

    Returns:
        Both rotated, of the shapes and dtype of q and k; in memory (batch, seq, heads, head_dim).
    """
    angles_learn = cos.requires_grad or sin.requires_grad
    if q.dtype != k.dtype or angles_learn or not can_launch(q, k, cos, sin):
        return apply_rope_reference(q, k, cos, sin)
    result: tuple[torch.Tensor, torch.Tensor] = _RoPE.apply(q, k, cos, sin)  # type: ignore[no-untyped-call]
    return result


def apply_rope_reference(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same function in plain torch, rounding where `apply_rotary_pos_emb` does."""
    cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
    return rotate_in_torch(q, cos, sin).type_as(q), rotate_in_torch(k, cos, sin).type_as(k)


def rope_forward(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
) -> torch.Tensor:
    """Rotates the q and k parts of a packed projection in place, without autograd.

    Args:
        qkv: (rows, at least (q_heads + 2 kv_heads) head_dim) with adjacent columns, any row stride;
            each row holds its q heads, then its k heads, then its v heads.
        cos, sin: (..., rotary_dim) with as many rows as qkv, or with one sequence's rows, which
            are then used again for each sequence.

    Returns:
        qkv.
    """
    cos, sin = as_rows(cos), as_rows(sin)
    if can_launch(qkv, cos, sin):
        heads, strides = q_heads + kv_heads, (0, head_dim, qkv.stride(0))
        tile = tile_of_heads(heads, head_dim, cos.shape[1], copies=False)
        _launch((qkv,) * 3, strides * 3, (heads, 0, 0), qkv.shape[0], cos, sin, qkv, tile)
        return qkv
    angles = angles_of_rows(cos, sin, qkv)
    for part in split_heads(qkv, q_heads, kv_heads, head_dim)[:2]:
        part.copy_(rotate_in_torch(part, *angles))
    return qkv


def rope_backward(
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    out: torch.Tensor,
) -> torch.Tensor:
    """Writes the gradient of a packed projection whose q and k parts were rotated.

    Args:
        dq: (batch, q_heads, seq, head_dim), gradient of the rotated q; any strides.
        dk, dv: (batch, kv_heads, seq, head_dim), of the dtype of dq.
        cos, sin: as for `rope_forward`.
        out: (batch · seq, at least (q_heads + 2 kv_heads) head_dim) with adjacent columns, any row
            stride; columns beyond the heads are left alone.

    Returns:
        out.
    """
    return _rotate_into(out, dq, dk, dv, as_rows(cos), as_rows(sin), inverse=True)


def _rotate_into(
    out: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    inverse: bool,
) -> torch.Tensor:
    """Packs q, k and perhaps v (batch, heads, seq, head_dim) into `out`, q and k rotated."""
    counts = (q.shape[1], k.shape[1], 0 if v is None else v.shape[1])
    seq, head_dim = q.shape[2:]
    if can_launch(q, k, cos, sin, out):
        tile = tile_of_heads(sum(counts), head_dim, cos.shape[1])
        sources, strides = head_sources(q, k, k if v is None else v)
        _launch(sources, strides, counts, seq, cos, sin, out, tile, inverse=inverse)
        return out
    angles = angles_of_rows(cos, sin, out)
    rows = [rotate_in_torch(rows_of(part), *angles, inverse=inverse) for part in (q, k)]
    rows += [] if v is None else [rows_of(v)]
    out[:, : sum(counts) * head_dim] = torch.cat(rows, 1).flatten(1)
    return out


def head_sources(
    *tensors: torch.Tensor,
) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...]]:
    """(batch, heads, seq, head_dim) tensors with adjacent columns, and their first three strides."""
    sources = tuple(t if t.stride(3) == 1 else t.contiguous() for t in tensors)
    return sources, tuple(stride for t in sources for stride in t.stride()[:3])


def split_heads(
    packed: torch.Tensor, q_heads: int, kv_heads: int, head_dim: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k and v (..., heads, head_dim) of a packed projection (..., columns), as views."""
    k_heads = q_heads + kv_heads
    columns = packed[..., : (k_heads + kv_heads) * head_dim]
    heads = columns.view(*packed.shape[:-1], k_heads + kv_heads, head_dim)
    return heads[..., :q_heads, :], heads[..., q_heads:k_heads, :], heads[..., k_heads:, :]


def rows_of(heads: torch.Tensor) -> torch.Tensor:
    """(batch, heads, seq, head_dim) as (batch · seq, heads, head_dim)."""
    return heads.transpose(1, 2).flatten(0, 1)


def angles_of_rows(
    cos: torch.Tensor, sin: torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin (positions, rotary_dim) of each of `rows`, (rows, 1, rotary_dim), wide."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    at = torch.arange(rows.shape[0], device=rows.device) % cos.shape[0]
    return cos[at].unsqueeze(1).to(wide), sin[at].unsqueeze(1).to(wide)


def rotate_in_torch(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, inverse: bool = False
) -> torch.Tensor:
    """The rotation of x (..., head_dim), or its transpose, in the promoted dtype of x and cos."""
    turned, passed = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    if inverse:
        first, second = (turned * sin).chunk(2, -1)
        turned = turned * cos + torch.cat((second, -first), -1)
    else:
        first, second = turned.chunk(2, -1)
        turned = turned * cos + torch.cat((-second, first), -1) * sin
    return torch.cat((turned, passed), -1)


def _launch(
    sources: tuple[torch.Tensor, ...],
    strides: tuple[int, ...],
    counts: tuple[int, int, int],
    seq: int,
    cos: torch.Tensor,
    sin: torch.Tensor,
    out: torch.Tensor,
    tile: dict[str, Any],
    *,
    inverse: bool = False,
) -> None:
    with on_device_of(out):
        rope_kernel[(out.shape[0] * tile["TILES"],)](
            *sources,
            cos,
            sin,
            out,
            *strides,
            cos.stride(0),
            sin.stride(0),
            out.stride(0),
            seq,
            cos.shape[0],
            Q_HEADS=counts[0],
            K_HEADS=counts[1],
            V_HEADS=counts[2],
            INVERSE=inverse,
            **tile,
        )


@cache
def tile_of_heads(
    heads: int, head_dim: int, rotary_dim: int, *, copies: bool = True
) -> dict[str, Any]:
    """What a program works on, with its options.

    HEADS of the heads of one row, which has TILES of them; HALF pairs (BLOCK when padded) of each
    head, and the REST of its HEAD_DIM numbers, which is not rotated but perhaps copied.
    """
    block, rest = power_of_2(rotary_dim // 2), head_dim - rotary_dim if copies else 0
    largest = max(1, min(power_of_2(heads), _TILE // block))
    height = min((largest, max(1, largest // 2)), key=lambda h: (ceil_div(heads, h) * h, -h))
    return {
        "HEADS": height,
        "TILES": ceil_div(heads, height),
        "HEAD_DIM": head_dim,
        "HALF": rotary_dim // 2,
        "BLOCK": block,
        "REST": rest,
        "REST_BLOCK": power_of_2(rest),
        **options_for(2 * height * block),
    }


@jit
def load_heads(  # type: ignore[no-untyped-def]
    q_at, k_at, v_at, heads, cols, mask, Q_HEADS: tl.constexpr, K_HEADS: tl.constexpr
):
    """Columns of a tile of heads, of which some are in q, some in k and some in v; float32."""
    # One load through selected pointers would be shorter, but triton 3.9 does not vectorise it.
    x = tl.load(q_at + cols, mask=mask & (heads < Q_HEADS), other=0.0)
    if K_HEADS > 0:
        is_k = (heads >= Q_HEADS) & (heads < Q_HEADS + K_HEADS)
        is_v = heads >= Q_HEADS + K_HEADS
        x = tl.where(is_k, tl.load(k_at + cols, mask=mask & is_k, other=0.0), x)
        x = tl.where(is_v, tl.load(v_at + cols, mask=mask & is_v, other=0.0), x)
    return x.to(tl.float32)


@jit
def rotate(  # type: ignore[no-untyped-def]
    first, second, cos_ptr, sin_ptr, pairs, mask, HALF: tl.constexpr, INVERSE: tl.constexpr
):
    """Both halves of a tile of heads, rotated by the angles of one row."""
    cos_1 = tl.load(cos_ptr + pairs, mask=mask, other=0.0).to(tl.float32)
    cos_2 = tl.load(cos_ptr + HALF + pairs, mask=mask, other=0.0).to(tl.float32)
    sin_1 = tl.load(sin_ptr + pairs, mask=mask, other=0.0).to(tl.float32)
    sin_2 = tl.load(sin_ptr + HALF + pairs, mask=mask, other=0.0).to(tl.float32)
    if INVERSE:
        turned_1 = first * cos_1 + second * sin_2
        turned_2 = second * cos_2 - first * sin_1
    else:
        turned_1 = first * cos_1 - second * sin_1
        turned_2 = second * cos_2 + first * sin_2
    return turned_1, turned_2


@jit
def rope_kernel(  # type: ignore[no-untyped-def]
    q_ptr,  # (batch, Q_HEADS, seq, HEAD_DIM)
    k_ptr,  # (batch, K_HEADS, seq, HEAD_DIM)
    v_ptr,  # (batch, V_HEADS, seq, HEAD_DIM); not rotated
    cos_ptr,  # (positions, 2 · HALF)
    sin_ptr,  # (positions, 2 · HALF)
    out_ptr,  # (batch · seq, heads · HEAD_DIM); may be q_ptr
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    cos_stride,
    sin_stride,
    out_stride,
    seq,
    positions,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    V_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    REST_BLOCK: tl.constexpr,
    INVERSE: tl.constexpr,
    TILES: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) // TILES
    heads = (tl.program_id(0) % TILES * HEADS + tl.arange(0, HEADS)).to(tl.int64)[:, None]
    batch, step = (row // seq).to(tl.int64), (row % seq).to(tl.int64)
    position = (row % positions).to(tl.int64)
    q_at = q_ptr + batch * q_batch + step * q_row + heads * q_head
    k_at = k_ptr + batch * k_batch + step * k_row + (heads - Q_HEADS) * k_head
    v_at = v_ptr + batch * v_batch + step * v_row + (heads - Q_HEADS - K_HEADS) * v_head
    # Pairs for each head, not once for all: the angles are then loaded as the heads need them.
    pairs = tl.broadcast_to(tl.arange(0, BLOCK)[None, :], (HEADS, BLOCK))
    exists = heads < Q_HEADS + K_HEADS + V_HEADS
    mask = exists & (pairs < HALF)
    first = load_heads(q_at, k_at, v_at, heads, pairs, mask, Q_HEADS, K_HEADS)
    second = load_heads(q_at, k_at, v_at, heads, HALF + pairs, mask, Q_HEADS, K_HEADS)
    cos_ptr += position * cos_stride
    sin_ptr += position * sin_stride
    turned_1, turned_2 = rotate(first, second, cos_ptr, sin_ptr, pairs, mask, HALF, INVERSE)
    if V_HEADS > 0:
        is_v = heads >= Q_HEADS + K_HEADS
        turned_1 = tl.where(is_v, first, turned_1)
        turned_2 = tl.where(is_v, second, turned_2)
    dtype = out_ptr.dtype.element_ty
    out_at = out_ptr + row.to(tl.int64) * out_stride + heads * HEAD_DIM
    tl.store(out_at + pairs, turned_1.to(dtype), mask=mask)
    tl.store(out_at + HALF + pairs, turned_2.to(dtype), mask=mask)
    if REST > 0:
        rest = 2 * HALF + tl.arange(0, REST_BLOCK)[None, :]
        mask = exists & (rest < HEAD_DIM)
        passed = load_heads(q_at, k_at, v_at, heads, rest, mask, Q_HEADS, K_HEADS)
        tl.store(out_at + rest, passed.to(dtype), mask=mask)


class _RoPE(torch.autograd.Function):
    """Saves cos and sin only."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = as_rows(cos), as_rows(sin)
        ctx.save_for_backward(cos, sin)
        return _rotated(q, k, cos, sin, inverse=False)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dq: torch.Tensor, dk: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        return *_rotated(dq, dk, *ctx.saved_tensors, inverse=True), None, None


def _rotated(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, inverse: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, q_heads, seq, head_dim = q.shape
    heads = q_heads + k.shape[1]
    out = torch.empty((batch * seq, heads * head_dim), dtype=q.dtype, device=q.device)
    _rotate_into(out, q, k, None, cos, sin, inverse=inverse)
    packed = out.view(batch, seq, heads, head_dim).transpose(1, 2)
    return packed[:, :q_heads], packed[:, q_heads:]
