"""RMSNorm, alone or after a residual addition, in the two roundings that Hugging Face models use.

Knows one operation on (rows, n) matrices; what is added or normalised is others' business.

Formula (Zhang & Sennrich 2019, arXiv:1910.07467, equation 4), for each row x of n numbers:

    x    = the input, or input + residual rounded to its dtype
    rstd = 1 / sqrt(mean(x^2) + eps)        x̂ = x · rstd
    y    = x̂ · (weight + offset)

    m    = dy · (weight + offset)
    dx   = rstd · (m - x̂ · mean(m · x̂)) + dresidual
    dweight = sum over rows of dy · x̂

Everything is computed in float32. offset = 0 is the Llama convention: x̂ is rounded to the dtype of
x before it is multiplied. Any other offset (Gemma: 1) multiplies in float32 and rounds once.
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


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, *, offset: float = 0.0
) -> torch.Tensor:
    """Root-mean-square normalisation of the last dimension.

    Args:
        x: (..., n), any strides; float32, float16 or bfloat16 for the kernel.
        weight: (n,); its gradient is computed only if it requires one.
        eps: added to the mean square.
        offset: 0 for the Llama convention, 1 for Gemma's.

    Returns:
        (..., n), contiguous; of the promoted dtype of x and weight (Llama) or of x (Gemma).
    """
    if not takes_rows(x, weight):
        return rms_norm_reference(x, weight, eps, offset=offset)
    result: torch.Tensor = _RMSNorm.apply(x, weight, eps, offset)  # type: ignore[no-untyped-call]
    return result


def rms_norm_reference(
    x: torch.Tensor, weight: torch.Tensor, eps: float, *, offset: float = 0.0
) -> torch.Tensor:
    """The same function in plain torch, rounding where `LlamaRMSNorm` and `Gemma2RMSNorm` do."""
    return normalise(x, weight, eps, offset)[0]


def add_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    offset: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`rms_norm(x + residual)` and the sum itself, in one pass.

    Args:
        x: (..., n), any strides.
        residual: the same shape and dtype.
        weight, eps, offset: as for `rms_norm`.

    Returns:
        The normalised sum, and the sum rounded to the dtype of x; both (..., n), contiguous.
    """
    alike = x.shape == residual.shape and x.dtype == residual.dtype
    if not alike or not takes_rows(x, weight, residual):
        return add_rms_norm_reference(x, residual, weight, eps, offset=offset)
    result: tuple[torch.Tensor, torch.Tensor] = _AddRMSNorm.apply(x, residual, weight, eps, offset)  # type: ignore[no-untyped-call]
    return result


def add_rms_norm_reference(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    offset: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same function in plain torch."""
    total = x + residual
    return rms_norm_reference(total, weight, eps, offset=offset), total


def rms_norm_forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    offset: float = 0.0,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The forward without autograd, for callers that keep what the backward needs themselves.

    Args:
        x: (..., n), any strides.
        weight: (n,).
        residual: added to x first; the same shape and dtype.
        out: (rows, n) with adjacent columns, any row stride: where y is written.

    Returns:
        y (out, or contiguous in the shape of x), what was normalised (x itself without a residual,
        else a new contiguous tensor) and rstd (rows,), float32.
    """
    n_cols = x.shape[-1]
    y = out
    if y is None:
        dtype = torch.promote_types(x.dtype, weight.dtype) if offset == 0.0 else x.dtype
        y = torch.empty(x.shape, dtype=dtype, device=x.device)
    if not takes_rows(x, weight):
        total = x if residual is None else x + residual
        normed, rstd = normalise(total, weight, eps, offset)
        y.copy_(normed.reshape(y.shape))
        return y, total, rstd.flatten()
    rows = as_rows(x)
    n_rows = rows.shape[0]
    total = x if residual is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
    addend = rows if residual is None else as_rows(residual)
    rstd = torch.empty(n_rows, dtype=torch.float32, device=x.device)
    tile = tile_of_rows(n_cols)
    with on_device_of(x):
        rms_norm_forward_kernel[(ceil_div(n_rows, tile["ROWS"]),)](
            rows,
            addend,
            weight.contiguous(),
            y,
            total,
            rstd,
            rows.stride(0),
            addend.stride(0),
            n_cols if out is None else out.stride(0),
            n_rows,
            n_cols,
            eps,
            OFFSET=offset,
            HAS_RESIDUAL=residual is not None,
            **tile,
        )
    return y, total, rstd


def rms_norm_backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    rstd: torch.Tensor,
    *,
    offset: float = 0.0,
    dresidual: torch.Tensor | None = None,
    inplace: bool = False,
    needs_dweight: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The backward without autograd.

    Args:
        dy: (..., n), gradient of y; any strides.
        x: what was normalised, as `rms_norm_forward` returned it.
        rstd: (rows,), from there too.
        dresidual: gradient that reached x by another way, added before the one rounding.
        inplace: whether dx may take the place of dresidual, if its rows have adjacent columns.

    Returns:
        dx, of the shape and dtype of x, and the gradient of the weight if it is needed.
    """
    if not takes_rows(x, weight):
        dx, dweight = normalise_backward(dy, x, weight, rstd, offset)
        dx = (dx if dresidual is None else dx + dresidual).to(x.dtype)
        dx = dresidual.copy_(dx) if inplace and dresidual is not None else dx
        return dx, dweight.to(weight.dtype) if needs_dweight else None
    dy, rows = as_rows(dy), as_rows(x)
    n_rows, n_cols = rows.shape
    addend = rows if dresidual is None else as_rows(dresidual)
    in_place = inplace and dresidual is not None
    dx = addend if in_place else torch.empty(x.shape, dtype=x.dtype, device=x.device)
    tile = tile_of_rows(n_cols)
    programs = ceil_div(n_rows, tile["ROWS"])
    if needs_dweight:
        programs = min(programs, enough_programs(x.device))
    partial = torch.empty(
        (programs if needs_dweight else 0, n_cols), dtype=torch.float32, device=x.device
    )
    with on_device_of(x):
        rms_norm_backward_kernel[(programs,)](
            dy,
            rows,
            weight.contiguous(),
            rstd,
            addend,
            dx,
            partial,
            dy.stride(0),
            rows.stride(0),
            addend.stride(0),
            addend.stride(0) if in_place else n_cols,
            n_rows,
            n_cols,
            OFFSET=offset,
            HAS_DRESIDUAL=dresidual is not None,
            NEEDS_DWEIGHT=needs_dweight,
            **tile,
        )
    return dx.view(x.shape), partial.sum(0).to(weight.dtype) if needs_dweight else None


def normalise(
    x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """y and rstd (..., 1) in plain torch."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    rstd = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    normed = wide * rstd
    if offset == 0.0:
        return weight * normed.to(x.dtype), rstd
    return (normed * (offset + weight.to(wide.dtype))).type_as(x), rstd


def normalise_backward(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, rstd: torch.Tensor, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """dx and dweight in plain torch, not yet rounded; rstd has one number for each row of x."""
    rstd = rstd.reshape(*x.shape[:-1], 1)
    dy, normed = dy.reshape(x.shape).to(rstd.dtype), x.to(rstd.dtype) * rstd
    m = dy * (weight.to(rstd.dtype) + offset)
    dx = rstd * (m - normed * (m * normed).mean(-1, keepdim=True))
    return dx, (dy * normed).flatten(0, -2).sum(0)


@jit
def rms_norm_forward_kernel(  # type: ignore[no-untyped-def]
    x_ptr,  # (n_rows, n_cols)
    residual_ptr,  # (n_rows, n_cols)
    weight_ptr,  # (n_cols,)
    y_ptr,  # (n_rows, n_cols)
    total_ptr,  # (n_rows, n_cols), contiguous
    rstd_ptr,  # (n_rows,), float32
    x_stride,
    residual_stride,
    y_stride,
    n_rows,
    n_cols,
    eps,
    OFFSET: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
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
    weight = tl.load(weight_ptr + cols, mask=cols < n_cols, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(x * x, axis=1) / n_cols + eps)
    normed = x * rstd[:, None]
    if OFFSET == 0.0:
        normed = normed.to(x_ptr.dtype.element_ty).to(tl.float32)
    y = normed * (weight + OFFSET)[None, :]
    tl.store(rstd_ptr + rows, rstd, mask=rows < n_rows)
    y_at = y_ptr + rows[:, None] * y_stride + cols[None, :]
    tl.store(y_at, y.to(y_ptr.dtype.element_ty), mask=mask)


@jit
def rms_norm_backward_kernel(  # type: ignore[no-untyped-def]
    dy_ptr,  # (n_rows, n_cols)
    x_ptr,  # (n_rows, n_cols)
    weight_ptr,  # (n_cols,)
    rstd_ptr,  # (n_rows,), float32
    dresidual_ptr,  # (n_rows, n_cols); may be dx_ptr
    dx_ptr,  # (n_rows, n_cols)
    dweight_ptr,  # (programs, n_cols), float32: one partial sum for each program
    dy_stride,
    x_stride,
    dresidual_stride,
    dx_stride,
    n_rows,
    n_cols,
    OFFSET: tl.constexpr,
    HAS_DRESIDUAL: tl.constexpr,
    NEEDS_DWEIGHT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    cols = tl.arange(0, BLOCK)
    weight = tl.load(weight_ptr + cols, mask=cols < n_cols, other=0.0).to(tl.float32)
    dweight = tl.zeros([BLOCK], dtype=tl.float32)
    tile = tl.program_id(0)
    while tile * ROWS < n_rows:  # triton 3.6 cannot interpret a range over its own numbers
        rows = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        mask = (rows < n_rows)[:, None] & (cols < n_cols)[None, :]
        dy = tl.load(dy_ptr + rows[:, None] * dy_stride + cols[None, :], mask=mask, other=0.0)
        x = tl.load(x_ptr + rows[:, None] * x_stride + cols[None, :], mask=mask, other=0.0)
        rstd = tl.load(rstd_ptr + rows, mask=rows < n_rows, other=0.0)[:, None]
        dy = dy.to(tl.float32)
        normed = x.to(tl.float32) * rstd
        m = dy * (weight + OFFSET)[None, :]
        projection = tl.sum(m * normed, axis=1) / n_cols
        dx = rstd * (m - normed * projection[:, None])
        if HAS_DRESIDUAL:
            dresidual_at = dresidual_ptr + rows[:, None] * dresidual_stride + cols[None, :]
            dx += tl.load(dresidual_at, mask=mask, other=0.0).to(tl.float32)
        dx_at = dx_ptr + rows[:, None] * dx_stride + cols[None, :]
        tl.store(dx_at, dx.to(dx_ptr.dtype.element_ty), mask=mask)
        if NEEDS_DWEIGHT:
            dweight += tl.sum(dy * normed, axis=0)
        tile += tl.num_programs(0)
    if NEEDS_DWEIGHT:
        at = dweight_ptr + tl.program_id(0).to(tl.int64) * n_cols + cols
        tl.store(at, dweight, mask=cols < n_cols)


class _RMSNorm(torch.autograd.Function):
    """Saves x and rstd (one float32 a row); x̂ is made again in the backward."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float
    ) -> torch.Tensor:
        y, x, rstd = rms_norm_forward(x, weight, eps, offset=offset)
        ctx.save_for_backward(x, weight, rstd)
        ctx.offset = offset
        return y

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        needs_dweight = ctx.needs_input_grad[1]
        gradients = rms_norm_backward(
            dy, *ctx.saved_tensors, offset=ctx.offset, needs_dweight=needs_dweight
        )
        return *gradients, None, None


class _AddRMSNorm(torch.autograd.Function):
    """Saves the sum and rstd; the gradient of the sum joins inside the backward kernel."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        offset: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y, total, rstd = rms_norm_forward(x, weight, eps, offset=offset, residual=residual)
        ctx.save_for_backward(total, weight, rstd)
        ctx.offset = offset
        ctx.set_materialize_grads(False)
        return y, total

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: torch.Tensor | None, dtotal: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, None, None]:
        if dy is None:  # only the sum was used
            return dtotal, dtotal, None, None, None
        dx, dweight = rms_norm_backward(
            dy,
            *ctx.saved_tensors,
            offset=ctx.offset,
            dresidual=dtotal,
            needs_dweight=ctx.needs_input_grad[2],
        )
        return dx, dx, dweight, None, None
