"""LayerNorm, alone or after a residual addition, with or without parameters.

Knows one operation on (rows, n) matrices; what is added or normalised is others' business.

Formula (Ba, Kiros & Hinton 2016, arXiv:1607.06450, section 3), for each row x of n numbers:

    x    = the input, or input + residual rounded to its dtype
    x̂    = (x - mean) · rstd        rstd = 1 / sqrt(mean((x - mean)^2) + eps)
    y    = x̂ · weight + bias

    m    = dy · weight
    dx   = rstd · (m - mean(m) - x̂ · mean(m · x̂)) + dresidual
    dweight = sum over rows of dy · x̂        dbias = sum over rows of dy

Everything is computed in float32 and rounded once, as `torch.nn.LayerNorm` does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tunebook_kernels._launch import (
    as_rows,
    ceil_div,
    enough_programs,
    jit,
    on_device_of,
    takes_rows,
    tile_of_rows,
    tl,
)


def layer_norm(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """Layer normalisation of the last dimension.

    Args:
        x: (..., n), any strides; float32, float16 or bfloat16 for the kernel.
        weight: (n,), or None for ones; its gradient is computed only if it requires one.
        bias: (n,), or None for zeros; likewise.
        eps: added to the variance.

    Returns:
        (..., n), contiguous, of the dtype of x.
    """
    if not takes_rows(x, *_given(weight, bias)):
        return layer_norm_reference(x, weight, bias, eps)
    result: torch.Tensor = _LayerNorm.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]
    return result


def layer_norm_reference(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """The same function in plain torch: computed in float32 or wider, rounded once."""
    wide = torch.promote_types(x.dtype, torch.float32)
    weight, bias = (None if p is None else p.to(wide) for p in (weight, bias))
    y = torch.nn.functional.layer_norm(x.to(wide), x.shape[-1:], weight, bias, eps)
    return y.type_as(x)


def layer_norm_forward(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    *,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The forward without autograd, for callers that keep what the backward needs themselves.

    Args:
        x: (..., n), any strides.
        weight, bias: (n,) or None.
        residual: added to x first; the same shape and dtype.
        out: (rows, n) with adjacent columns, any row stride: where y is written.

    Returns:
        y (out, or contiguous in the shape of x), what was normalised (x itself without a residual,
        else a new contiguous tensor), mean and rstd, both (rows,), float32.
    """
    n_cols = x.shape[-1]
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out
    if not takes_rows(x, *_given(weight, bias)):
        total = x if residual is None else x + residual
        y.copy_(layer_norm_reference(total, weight, bias, eps).reshape(y.shape))
        wide = total.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, -1, correction=0)
        return y, total, mean.flatten(), torch.rsqrt(variance + eps).flatten()
    rows = as_rows(x)
    n_rows = rows.shape[0]
    total = x if residual is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
    addend = rows if residual is None else as_rows(residual)
    mean = torch.empty(n_rows, dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    tile = tile_of_rows(n_cols)
    with on_device_of(x):
        layer_norm_forward_kernel[(ceil_div(n_rows, tile["ROWS"]),)](
            rows,
            addend,
            rows if weight is None else weight.contiguous(),
            rows if bias is None else bias.contiguous(),
            y,
            total,
            mean,
            rstd,
            rows.stride(0),
            addend.stride(0),
            n_cols if out is None else out.stride(0),
            n_rows,
            n_cols,
            eps,
            HAS_RESIDUAL=residual is not None,
            HAS_WEIGHT=weight is not None,
            HAS_BIAS=bias is not None,
            **tile,
        )
    return y, total, mean, rstd


def layer_norm_backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    *,
    dresidual: torch.Tensor | None = None,
    inplace: bool = False,
    needs_dweight: bool = False,
    needs_dbias: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """The backward without autograd.

    Args:
        dy: (..., n), gradient of y; any strides.
        x: what was normalised, as `layer_norm_forward` returned it.
        mean, rstd: (rows,), from there too.
        dresidual: gradient that reached x by another way, added before the one rounding.
        inplace: whether dx may take the place of dresidual, if its rows have adjacent columns.

    Returns:
        dx, of the shape and dtype of x, and the gradients of weight and bias (float32 or wider)
        where they are needed.
    """
    if not takes_rows(x, *_given(weight)):
        dx, *sums = _backward_in_torch(dy, x, weight, mean, rstd)
        dx = (dx if dresidual is None else dx + dresidual).to(x.dtype)
        dx = dresidual.copy_(dx) if inplace and dresidual is not None else dx
        return dx, sums[0] if needs_dweight else None, sums[1] if needs_dbias else None
    dy, rows = as_rows(dy), as_rows(x)
    n_rows, n_cols = rows.shape
    addend = rows if dresidual is None else as_rows(dresidual)
    in_place = inplace and dresidual is not None
    dx = addend if in_place else torch.empty(x.shape, dtype=x.dtype, device=x.device)
    tile = tile_of_rows(n_cols)
    programs = ceil_div(n_rows, tile["ROWS"])
    summed = needs_dweight or needs_dbias
    if summed:
        programs = min(programs, enough_programs(x.device))
    partial = torch.empty(
        (2, programs if summed else 0, n_cols), dtype=torch.float32, device=x.device
    )
    with on_device_of(x):
        layer_norm_backward_kernel[(programs,)](
            dy,
            rows,
            rows if weight is None else weight.contiguous(),
            mean,
            rstd,
            addend,
            dx,
            partial[0],
            partial[1],
            dy.stride(0),
            rows.stride(0),
            addend.stride(0),
            addend.stride(0) if in_place else n_cols,
            n_rows,
            n_cols,
            HAS_WEIGHT=weight is not None,
            HAS_DRESIDUAL=dresidual is not None,
            NEEDS_DWEIGHT=needs_dweight,
            NEEDS_DBIAS=needs_dbias,
            **tile,
        )
    dweight = partial[0].sum(0) if needs_dweight else None
    return dx.view(x.shape), dweight, partial[1].sum(0) if needs_dbias else None


def _backward_in_torch(
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    mean: torch.Tensor,
    rstd: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """dx, dweight and dbias, not yet rounded."""
    mean, rstd = (value.reshape(*x.shape[:-1], 1) for value in (mean, rstd))
    dy, normed = dy.reshape(x.shape).to(rstd.dtype), (x.to(rstd.dtype) - mean) * rstd
    m = dy if weight is None else dy * weight.to(rstd.dtype)
    centred = m - m.mean(-1, keepdim=True)
    dx = rstd * (centred - normed * (m * normed).mean(-1, keepdim=True))
    return dx, (dy * normed).flatten(0, -2).sum(0), dy.flatten(0, -2).sum(0)


def _given(*parameters: torch.Tensor | None) -> list[torch.Tensor]:
    return [parameter for parameter in parameters if parameter is not None]


@jit
def layer_norm_forward_kernel(  # type: ignore[no-untyped-def]
    x_ptr,  # (n_rows, n_cols)
    residual_ptr,  # (n_rows, n_cols)
    weight_ptr,  # (n_cols,)
    bias_ptr,  # (n_cols,)
    y_ptr,  # (n_rows, n_cols)
    total_ptr,  # (n_rows, n_cols), contiguous
    mean_ptr,  # (n_rows,), float32
    rstd_ptr,  # (n_rows,), float32
    x_stride,
    residual_stride,
    y_stride,
    n_rows,
    n_cols,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = (rows < n_rows)[:, None] & (cols < n_cols)[None, :]
    x = tl.load(x_ptr + rows[:, None] * x_stride + cols[None, :], mask=mask, other=0.0)
    x = x.to(tl.float32)
    if HAS_RESIDUAL:
        residual_at = residual_ptr + rows[:, None] * residual_stride + cols[None, :]
        x += tl.load(residual_at, mask=mask, other=0.0).to(tl.float32)
        total = x.to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + rows[:, None] * n_cols + cols[None, :], total, mask=mask)
        x = total.to(tl.float32)
    mean = tl.sum(x, axis=1) / n_cols
    centred = tl.where(mask, x - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, axis=1) / n_cols + eps)
    y = centred * rstd[:, None]
    if HAS_WEIGHT:
        weight = tl.load(weight_ptr + cols, mask=cols < n_cols, other=0.0)
        y *= weight.to(tl.float32)[None, :]
    if HAS_BIAS:
        bias = tl.load(bias_ptr + cols, mask=cols < n_cols, other=0.0)
        y += bias.to(tl.float32)[None, :]
    tl.store(mean_ptr + rows, mean, mask=rows < n_rows)
    tl.store(rstd_ptr + rows, rstd, mask=rows < n_rows)
    y_at = y_ptr + rows[:, None] * y_stride + cols[None, :]
    tl.store(y_at, y.to(y_ptr.dtype.element_ty), mask=mask)


@jit
def layer_norm_backward_kernel(  # type: ignore[no-untyped-def]
    dy_ptr,  # (n_rows, n_cols)
    x_ptr,  # (n_rows, n_cols)
    weight_ptr,  # (n_cols,)
    mean_ptr,  # (n_rows,), float32
    rstd_ptr,  # (n_rows,), float32
    dresidual_ptr,  # (n_rows, n_cols); may be dx_ptr
    dx_ptr,  # (n_rows, n_cols)
    dweight_ptr,  # (programs, n_cols), float32: one partial sum for each program
    dbias_ptr,  # the same
    dy_stride,
    x_stride,
    dresidual_stride,
    dx_stride,
    n_rows,
    n_cols,
    HAS_WEIGHT: tl.constexpr,
    HAS_DRESIDUAL: tl.constexpr,
    NEEDS_DWEIGHT: tl.constexpr,
    NEEDS_DBIAS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    cols = tl.arange(0, BLOCK)
    dweight = tl.zeros([BLOCK], dtype=tl.float32)
    dbias = tl.zeros([BLOCK], dtype=tl.float32)
    tile = tl.program_id(0)
    while tile * ROWS < n_rows:  # triton 3.6 cannot interpret a range over its own numbers
        rows = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        mask = (rows < n_rows)[:, None] & (cols < n_cols)[None, :]
        dy = tl.load(dy_ptr + rows[:, None] * dy_stride + cols[None, :], mask=mask, other=0.0)
        x = tl.load(x_ptr + rows[:, None] * x_stride + cols[None, :], mask=mask, other=0.0)
        mean = tl.load(mean_ptr + rows, mask=rows < n_rows, other=0.0)[:, None]
        rstd = tl.load(rstd_ptr + rows, mask=rows < n_rows, other=0.0)[:, None]
        dy = dy.to(tl.float32)
        normed = (x.to(tl.float32) - mean) * rstd
        m = dy
        if HAS_WEIGHT:
            weight = tl.load(weight_ptr + cols, mask=cols < n_cols, other=0.0)
            m = dy * weight.to(tl.float32)[None, :]
        projection = tl.sum(m * normed, axis=1) / n_cols
        shift = tl.sum(m, axis=1) / n_cols
        dx = rstd * (m - shift[:, None] - normed * projection[:, None])
        if HAS_DRESIDUAL:
            dresidual_at = dresidual_ptr + rows[:, None] * dresidual_stride + cols[None, :]
            dx += tl.load(dresidual_at, mask=mask, other=0.0).to(tl.float32)
        dx_at = dx_ptr + rows[:, None] * dx_stride + cols[None, :]
        tl.store(dx_at, dx.to(dx_ptr.dtype.element_ty), mask=mask)
        if NEEDS_DWEIGHT:
            dweight += tl.sum(dy * normed, axis=0)
        if NEEDS_DBIAS:
            dbias += tl.sum(dy, axis=0)
        tile += tl.num_programs(0)
    at = tl.program_id(0).to(tl.int64) * n_cols + cols
    if NEEDS_DWEIGHT:
        tl.store(dweight_ptr + at, dweight, mask=cols < n_cols)
    if NEEDS_DBIAS:
        tl.store(dbias_ptr + at, dbias, mask=cols < n_cols)


class _LayerNorm(torch.autograd.Function):
    """Saves x, mean and rstd (two float32 a row); x̂ is made again in the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        y, x, mean, rstd = layer_norm_forward(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, None]:
        _, needs_dweight, needs_dbias, _ = ctx.needs_input_grad
        x, weight, mean, rstd = ctx.saved_tensors
        dx, dweight, dbias = layer_norm_backward(
            dy, x, weight, mean, rstd, needs_dweight=needs_dweight, needs_dbias=needs_dbias
        )
        if dweight is not None:
            dweight = dweight.to(weight.dtype)
        return dx, dweight, None if dbias is None else dbias.to(ctx.bias_dtype), None
