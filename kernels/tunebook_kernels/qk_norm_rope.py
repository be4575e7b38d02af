"""RMSNorm of every head of Q and K followed by their rotation, in one launch each way.

Knows packed projections (rows of q heads, k heads, v heads); composes `rms_norm` and `rope`, whose
formulas it uses. Attention and the projection are others' business.

Computed in float32. The normed heads are rounded where the norm's own module rounds them (see
`rms_norm`: offset 0 is Llama's and Qwen3's convention, 1 is Gemma3's), then rotated and rounded
once. The backward first turns the gradient back, then goes through the norm, and rounds once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tunebook_kernels._launch import (
    as_rows,
    can_launch,
    enough_programs,
    jit,
    on_device_of,
    tl,
)
from tunebook_kernels.rms_norm import normalise, normalise_backward, rms_norm_reference
from tunebook_kernels.rope import (
    angles_of_rows,
    apply_rope_reference,
    head_sources,
    load_heads,
    rotate,
    rotate_in_torch,
    rows_of,
    split_heads,
    tile_of_heads,
)


def qk_norm_rope(
    qkv: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    eps: float,
    *,
    offset: float = 0.0,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
) -> torch.Tensor:
    """A packed projection with its q and k heads normalised and rotated, its v heads as they are.

    Args:
        qkv: (batch, seq, (q_heads + 2 kv_heads) head_dim), any strides.
        q_weight, k_weight: (head_dim,), of the dtype of qkv; they get gradients only if they
            require them.
        cos, sin: (seq, rotary_dim), (1, seq, rotary_dim) or (batch, seq, rotary_dim), any float
            dtype, with rotary_dim <= head_dim; they get no gradient.
        eps: added to the mean square of a head.
        offset: 0 for the Llama convention, 1 for Gemma's.

    Returns:
        (batch, seq, (q_heads + 2 kv_heads) head_dim), contiguous, of the dtype of qkv.
    """
    how = {"offset": offset, "q_heads": q_heads, "kv_heads": kv_heads, "head_dim": head_dim}
    tensors = (qkv, q_weight, k_weight, cos, sin)
    angles_learn = cos.requires_grad or sin.requires_grad
    same_dtype = qkv.dtype == q_weight.dtype == k_weight.dtype
    if angles_learn or not same_dtype or not can_launch(*tensors):
        return qk_norm_rope_reference(*tensors, eps, **how)  # type: ignore[arg-type]
    result: torch.Tensor = _QKNormRoPE.apply(*tensors, eps, how)  # type: ignore[no-untyped-call]
    return result


def qk_norm_rope_reference(
    qkv: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    eps: float,
    *,
    offset: float = 0.0,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
) -> torch.Tensor:
    """The same function in plain torch: the references of its two parts, one after the other."""
    q, k, v = (part.transpose(1, 2) for part in split_heads(qkv, q_heads, kv_heads, head_dim))
    q = rms_norm_reference(q, q_weight, eps, offset=offset).type_as(qkv)
    k = rms_norm_reference(k, k_weight, eps, offset=offset).type_as(qkv)
    turned = torch.cat((*apply_rope_reference(q, k, cos, sin), v), 1)
    return turned.transpose(1, 2).flatten(2)


def qk_norm_rope_forward(
    qkv: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    eps: float,
    *,
    offset: float = 0.0,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The forward without autograd.

    Args:
        qkv: (rows, at least (q_heads + 2 kv_heads) head_dim) with adjacent columns, any row stride.
        q_weight, k_weight: (head_dim,), any float dtype.
        cos, sin: (..., rotary_dim) with as many rows as qkv, or with one sequence's rows, which
            are then used again for each sequence.

    Returns:
        (rows, (q_heads + 2 kv_heads) head_dim), contiguous, of the dtype of qkv, and rstd
        (rows, q_heads + kv_heads), float32.
    """
    cos, sin = as_rows(cos), as_rows(sin)
    n_rows, heads = qkv.shape[0], q_heads + 2 * kv_heads
    out = torch.empty((n_rows, heads * head_dim), dtype=qkv.dtype, device=qkv.device)
    if not can_launch(qkv, q_weight, k_weight, cos, sin):
        q, k, v = split_heads(qkv, q_heads, kv_heads, head_dim)
        angles = angles_of_rows(cos, sin, qkv)
        q, q_rstd = normalise(q, q_weight, eps, offset)
        k, k_rstd = normalise(k, k_weight, eps, offset)
        turned = [rotate_in_torch(part.type_as(qkv), *angles) for part in (q, k)]
        out.copy_(torch.cat((*turned, v), 1).flatten(1))
        return out, torch.cat((q_rstd, k_rstd), 1).squeeze(2)
    rstd = torch.empty((n_rows, q_heads + kv_heads), dtype=torch.float32, device=qkv.device)
    tile = tile_of_heads(heads, head_dim, cos.shape[1])
    with on_device_of(qkv):
        qk_norm_rope_forward_kernel[(n_rows * tile["TILES"],)](
            qkv,
            q_weight.contiguous(),
            k_weight.contiguous(),
            cos,
            sin,
            out,
            rstd,
            qkv.stride(0),
            cos.stride(0),
            sin.stride(0),
            cos.shape[0],
            eps,
            OFFSET=offset,
            Q_HEADS=q_heads,
            KV_HEADS=kv_heads,
            **tile,
        )
    return out, rstd


def qk_norm_rope_backward(
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    qkv: torch.Tensor,
    rstd: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    out: torch.Tensor,
    *,
    offset: float = 0.0,
    needs_dweight: bool = False,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Writes the gradient of the packed projection into `out`, without autograd.

    Args:
        dq: (batch, q_heads, seq, head_dim), gradient of the rotated q; any strides.
        dk, dv: (batch, kv_heads, seq, head_dim), of the dtype of dq.
        qkv, q_weight, k_weight, cos, sin: as for the forward.
        rstd: as the forward returned it.
        out: (batch · seq, at least (q_heads + 2 kv_heads) head_dim) with adjacent columns, any row
            stride; may be qkv itself. Columns beyond the heads are left alone.

    Returns:
        The gradients of q_weight and k_weight, in their dtypes, if they are needed.
    """
    cos, sin = as_rows(cos), as_rows(sin)
    _, q_heads, seq, head_dim = dq.shape
    kv_heads = dk.shape[1]
    if not can_launch(dq, dk, dv, qkv, q_weight, k_weight, cos, sin, out):
        norms = (q_weight, k_weight, rstd, offset)
        sums = _backward_in_torch((dq, dk, dv), qkv, *norms, *angles_of_rows(cos, sin, qkv), out)
        return sums if needs_dweight else None
    sources, strides = head_sources(dq, dk, dv)
    tile = tile_of_heads(q_heads + 2 * kv_heads, head_dim, cos.shape[1])
    programs = qkv.shape[0] * tile["TILES"]
    if needs_dweight:
        programs = min(programs, enough_programs(qkv.device))
    partial = torch.empty(
        (programs if needs_dweight else 0, 2, head_dim), dtype=torch.float32, device=qkv.device
    )
    with on_device_of(qkv):
        qk_norm_rope_backward_kernel[(programs,)](
            *sources,
            qkv,
            rstd,
            q_weight.contiguous(),
            k_weight.contiguous(),
            cos,
            sin,
            out,
            partial,
            *strides,
            qkv.stride(0),
            cos.stride(0),
            sin.stride(0),
            out.stride(0),
            qkv.shape[0],
            seq,
            cos.shape[0],
            OFFSET=offset,
            NEEDS_DWEIGHT=needs_dweight,
            Q_HEADS=q_heads,
            KV_HEADS=kv_heads,
            **tile,
        )
    if not needs_dweight:
        return None
    dq_weight, dk_weight = partial.sum(0)
    return dq_weight.to(q_weight.dtype), dk_weight.to(k_weight.dtype)


def _backward_in_torch(
    gradients: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    qkv: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    rstd: torch.Tensor,
    offset: float,
    cos: torch.Tensor,
    sin: torch.Tensor,
    out: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes into `out`; returns the gradients of both weights."""
    dq, dk, dv = (rows_of(part) for part in gradients)
    q_heads, kv_heads, head_dim = dq.shape[1], dk.shape[1], dq.shape[2]
    q, k, _ = split_heads(qkv, q_heads, kv_heads, head_dim)
    dq, dk = (rotate_in_torch(part, cos, sin, inverse=True) for part in (dq, dk))
    dq, dq_weight = normalise_backward(dq, q, q_weight, rstd[:, :q_heads], offset)
    dk, dk_weight = normalise_backward(dk, k, k_weight, rstd[:, q_heads:], offset)
    packed = torch.cat((dq, dk, dv), 1).flatten(1)
    out[:, : packed.shape[1]] = packed
    return dq_weight.to(q_weight.dtype), dk_weight.to(k_weight.dtype)


@jit
def head_weights(  # type: ignore[no-untyped-def]
    q_weight_ptr, k_weight_ptr, cols, mask, is_q, OFFSET: tl.constexpr
):
    """Columns of the scale of each head of a tile: q's or k's; float32."""
    q_weight = tl.load(q_weight_ptr + cols, mask=mask & is_q, other=0.0)
    k_weight = tl.load(k_weight_ptr + cols, mask=mask & ~is_q, other=0.0)
    return tl.where(is_q, q_weight.to(tl.float32), k_weight.to(tl.float32)) + OFFSET


@jit
def scale_heads(x, rstd, weight, dtype: tl.constexpr, OFFSET: tl.constexpr):  # type: ignore[no-untyped-def]
    """Columns of normed heads, rounded as the norm's module rounds them; float32."""
    normed = x * rstd
    if OFFSET == 0.0:
        normed = normed.to(dtype).to(tl.float32)
    return (normed * weight).to(dtype).to(tl.float32)


@jit
def qk_norm_rope_forward_kernel(  # type: ignore[no-untyped-def]
    qkv_ptr,  # (rows, heads · HEAD_DIM)
    q_weight_ptr,  # (HEAD_DIM,)
    k_weight_ptr,  # (HEAD_DIM,)
    cos_ptr,  # (positions, 2 · HALF)
    sin_ptr,  # (positions, 2 · HALF)
    out_ptr,  # (rows, heads · HEAD_DIM), contiguous
    rstd_ptr,  # (rows, Q_HEADS + KV_HEADS), float32
    qkv_stride,
    cos_stride,
    sin_stride,
    positions,
    eps,
    OFFSET: tl.constexpr,
    Q_HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    REST_BLOCK: tl.constexpr,
    TILES: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) // TILES
    heads = (tl.program_id(0) % TILES * HEADS + tl.arange(0, HEADS))[:, None]
    position = (row % positions).to(tl.int64)
    row = row.to(tl.int64)
    exists = heads < Q_HEADS + 2 * KV_HEADS
    is_q = heads < Q_HEADS
    is_qk = heads < Q_HEADS + KV_HEADS
    dtype: tl.constexpr = out_ptr.dtype.element_ty

    pairs = tl.broadcast_to(tl.arange(0, BLOCK)[None, :], (HEADS, BLOCK))
    mask = exists & (pairs < HALF)
    at = heads * HEAD_DIM + pairs
    qkv_ptr += row * qkv_stride
    first = tl.load(qkv_ptr + at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(qkv_ptr + HALF + at, mask=mask, other=0.0).to(tl.float32)
    squares = tl.sum(first * first + second * second, axis=1, keep_dims=True)
    if REST > 0:
        rest = 2 * HALF + tl.arange(0, REST_BLOCK)[None, :]
        rest_mask = exists & (rest < HEAD_DIM)
        rest_at = heads * HEAD_DIM + rest
        passed = tl.load(qkv_ptr + rest_at, mask=rest_mask, other=0.0).to(tl.float32)
        squares += tl.sum(passed * passed, axis=1, keep_dims=True)
    rstd = tl.rsqrt(squares / HEAD_DIM + eps)
    tl.store(rstd_ptr + row * (Q_HEADS + KV_HEADS) + heads, rstd, mask=is_qk)

    weight_1 = head_weights(q_weight_ptr, k_weight_ptr, pairs, mask, is_q, OFFSET)
    weight_2 = head_weights(q_weight_ptr, k_weight_ptr, HALF + pairs, mask, is_q, OFFSET)
    scaled_1 = scale_heads(first, rstd, weight_1, dtype, OFFSET)
    scaled_2 = scale_heads(second, rstd, weight_2, dtype, OFFSET)
    cos_ptr += position * cos_stride
    sin_ptr += position * sin_stride
    turned_1, turned_2 = rotate(scaled_1, scaled_2, cos_ptr, sin_ptr, pairs, mask, HALF, False)
    out_ptr += row * (Q_HEADS + 2 * KV_HEADS) * HEAD_DIM
    tl.store(out_ptr + at, tl.where(is_qk, turned_1, first).to(dtype), mask=mask)
    tl.store(out_ptr + HALF + at, tl.where(is_qk, turned_2, second).to(dtype), mask=mask)
    if REST > 0:
        weight = head_weights(q_weight_ptr, k_weight_ptr, rest, rest_mask, is_q, OFFSET)
        scaled = scale_heads(passed, rstd, weight, dtype, OFFSET)
        tl.store(out_ptr + rest_at, tl.where(is_qk, scaled, passed).to(dtype), mask=rest_mask)


@jit
def store_sums(ptr, tile, first: tl.constexpr, number: tl.constexpr):  # type: ignore[no-untyped-def]
    """The sum over a tile's heads, written as `number` columns from `first` on."""
    cols = tl.arange(0, tile.shape[1])
    tl.store(ptr + first + cols, tl.sum(tile, axis=0), mask=cols < number)


@jit
def qk_norm_rope_backward_kernel(  # type: ignore[no-untyped-def]
    dq_ptr,  # (batch, Q_HEADS, seq, HEAD_DIM)
    dk_ptr,  # (batch, KV_HEADS, seq, HEAD_DIM)
    dv_ptr,  # (batch, KV_HEADS, seq, HEAD_DIM)
    qkv_ptr,  # (rows, heads · HEAD_DIM)
    rstd_ptr,  # (rows, Q_HEADS + KV_HEADS), float32
    q_weight_ptr,  # (HEAD_DIM,)
    k_weight_ptr,  # (HEAD_DIM,)
    cos_ptr,  # (positions, 2 · HALF)
    sin_ptr,  # (positions, 2 · HALF)
    out_ptr,  # (rows, heads · HEAD_DIM); may be qkv_ptr
    dweight_ptr,  # (programs, 2, HEAD_DIM), float32: one partial sum for each program
    dq_batch,
    dq_head,
    dq_row,
    dk_batch,
    dk_head,
    dk_row,
    dv_batch,
    dv_head,
    dv_row,
    qkv_stride,
    cos_stride,
    sin_stride,
    out_stride,
    n_rows,
    seq,
    positions,
    OFFSET: tl.constexpr,
    NEEDS_DWEIGHT: tl.constexpr,
    Q_HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    REST_BLOCK: tl.constexpr,
    TILES: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = out_ptr.dtype.element_ty
    pairs = tl.broadcast_to(tl.arange(0, BLOCK)[None, :], (HEADS, BLOCK))
    rest = 2 * HALF + tl.arange(0, REST_BLOCK)[None, :]
    dq_weight_1 = tl.zeros([HEADS, BLOCK], dtype=tl.float32)
    dq_weight_2 = tl.zeros([HEADS, BLOCK], dtype=tl.float32)
    dk_weight_1 = tl.zeros([HEADS, BLOCK], dtype=tl.float32)
    dk_weight_2 = tl.zeros([HEADS, BLOCK], dtype=tl.float32)
    dq_weight_rest = tl.zeros([HEADS, REST_BLOCK], dtype=tl.float32)
    dk_weight_rest = tl.zeros([HEADS, REST_BLOCK], dtype=tl.float32)
    tile = tl.program_id(0)
    while tile < n_rows * TILES:  # triton 3.6 cannot interpret a range over its own numbers
        row = tile // TILES
        heads = (tile % TILES * HEADS + tl.arange(0, HEADS)).to(tl.int64)[:, None]
        batch, step = (row // seq).to(tl.int64), (row % seq).to(tl.int64)
        position = (row % positions).to(tl.int64)
        row = row.to(tl.int64)
        exists = heads < Q_HEADS + 2 * KV_HEADS
        is_q = heads < Q_HEADS
        is_qk = heads < Q_HEADS + KV_HEADS
        mask = exists & (pairs < HALF)

        dq_at = dq_ptr + batch * dq_batch + step * dq_row + heads * dq_head
        dk_at = dk_ptr + batch * dk_batch + step * dk_row + (heads - Q_HEADS) * dk_head
        dv_at = dv_ptr + batch * dv_batch + step * dv_row + (heads - Q_HEADS - KV_HEADS) * dv_head
        first = load_heads(dq_at, dk_at, dv_at, heads, pairs, mask, Q_HEADS, KV_HEADS)
        second = load_heads(dq_at, dk_at, dv_at, heads, HALF + pairs, mask, Q_HEADS, KV_HEADS)
        cos_at = cos_ptr + position * cos_stride
        sin_at = sin_ptr + position * sin_stride
        dy_1, dy_2 = rotate(first, second, cos_at, sin_at, pairs, mask, HALF, True)

        x_at = qkv_ptr + row * qkv_stride + heads * HEAD_DIM
        rstd_at = rstd_ptr + row * (Q_HEADS + KV_HEADS) + heads
        rstd = tl.load(rstd_at, mask=is_qk, other=0.0)
        normed_1 = tl.load(x_at + pairs, mask=mask & is_qk, other=0.0).to(tl.float32) * rstd
        normed_2 = tl.load(x_at + HALF + pairs, mask=mask & is_qk, other=0.0).to(tl.float32) * rstd
        weight_1 = head_weights(q_weight_ptr, k_weight_ptr, pairs, mask, is_q, OFFSET)
        weight_2 = head_weights(q_weight_ptr, k_weight_ptr, HALF + pairs, mask, is_q, OFFSET)
        m_1, m_2 = dy_1 * weight_1, dy_2 * weight_2
        projection = tl.sum(m_1 * normed_1 + m_2 * normed_2, axis=1, keep_dims=True)
        if REST > 0:
            rest_mask = exists & (rest < HEAD_DIM)
            dy = load_heads(dq_at, dk_at, dv_at, heads, rest, rest_mask, Q_HEADS, KV_HEADS)
            normed = tl.load(x_at + rest, mask=rest_mask & is_qk, other=0.0).to(tl.float32) * rstd
            m = dy * head_weights(q_weight_ptr, k_weight_ptr, rest, rest_mask, is_q, OFFSET)
            projection += tl.sum(m * normed, axis=1, keep_dims=True)
        projection /= HEAD_DIM

        out_at = out_ptr + row * out_stride + heads * HEAD_DIM
        dx_1 = tl.where(is_qk, rstd * (m_1 - normed_1 * projection), first)
        dx_2 = tl.where(is_qk, rstd * (m_2 - normed_2 * projection), second)
        tl.store(out_at + pairs, dx_1.to(dtype), mask=mask)
        tl.store(out_at + HALF + pairs, dx_2.to(dtype), mask=mask)
        if REST > 0:
            dx = tl.where(is_qk, rstd * (m - normed * projection), dy)
            tl.store(out_at + rest, dx.to(dtype), mask=rest_mask)
        if NEEDS_DWEIGHT:  # normed is 0 in the heads of v
            dq_weight_1 += tl.where(is_q, dy_1 * normed_1, 0.0)
            dq_weight_2 += tl.where(is_q, dy_2 * normed_2, 0.0)
            dk_weight_1 += tl.where(is_q, 0.0, dy_1 * normed_1)
            dk_weight_2 += tl.where(is_q, 0.0, dy_2 * normed_2)
            if REST > 0:
                dq_weight_rest += tl.where(is_q, dy * normed, 0.0)
                dk_weight_rest += tl.where(is_q, 0.0, dy * normed)
        tile += tl.num_programs(0)
    if NEEDS_DWEIGHT:
        dweight_ptr += tl.program_id(0).to(tl.int64) * 2 * HEAD_DIM
        store_sums(dweight_ptr, dq_weight_1, 0, HALF)
        store_sums(dweight_ptr, dq_weight_2, HALF, HALF)
        store_sums(dweight_ptr, dk_weight_1, HEAD_DIM, HALF)
        store_sums(dweight_ptr, dk_weight_2, HEAD_DIM + HALF, HALF)
        if REST > 0:
            store_sums(dweight_ptr, dq_weight_rest, 2 * HALF, REST)
            store_sums(dweight_ptr, dk_weight_rest, HEAD_DIM + 2 * HALF, REST)


class _QKNormRoPE(torch.autograd.Function):
    """Saves the projection and rstd (one float32 a head)."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: torch.Tensor,
        q_weight: torch.Tensor,
        k_weight: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        eps: float,
        how: dict[str, Any],
    ) -> torch.Tensor:
        rows = as_rows(qkv)
        out, rstd = qk_norm_rope_forward(rows, q_weight, k_weight, cos, sin, eps, **how)
        ctx.save_for_backward(rows, rstd, q_weight, k_weight, cos, sin)
        ctx.offset = how["offset"]
        ctx.sizes = how["q_heads"], how["kv_heads"], how["head_dim"]
        return out.view(qkv.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        dq, dk, dv = (part.transpose(1, 2) for part in split_heads(dout, *ctx.sizes))
        qkv, rstd, q_weight, k_weight, cos, sin = ctx.saved_tensors
        dqkv = torch.empty(dout.shape, dtype=dout.dtype, device=dout.device)
        dweights = qk_norm_rope_backward(
            dq,
            dk,
            dv,
            qkv,
            rstd,
            q_weight,
            k_weight,
            cos,
            sin,
            dqkv.view(-1, dqkv.shape[-1]),
            offset=ctx.offset,
            needs_dweight=any(ctx.needs_input_grad[1:3]),
        )
        return dqkv, *(dweights or (None, None)), None, None, None, None
