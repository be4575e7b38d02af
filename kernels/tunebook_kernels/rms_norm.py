"""RMSNorm, forward and backward, in the two roundings that Hugging Face models use.

Knows one operation on (rows, n) matrices; residual additions and models are others' business.

Formula (Zhang & Sennrich 2019, arXiv:1910.07467, equation 4), for each row x of n numbers:

    rstd = 1 / sqrt(mean(x^2) + eps)        x̂ = x · rstd
    y    = x̂ · (weight + offset)

    m    = dy · (weight + offset)
    dx   = rstd · (m - x̂ · mean(m · x̂))     dweight = sum over rows of dy · x̂

Everything is computed in float32. offset = 0 is the Llama convention: x̂ is rounded to the dtype of
x before it is multiplied. Any other offset (Gemma: 1) multiplies in float32 and rounds once.
"""

from __future__ import annotations

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

_TILE = 4096  # elements that a program holds at once, if a row is no longer than that
_LONGEST = 65536
_PROGRAMS_PER_MULTIPROCESSOR = 4


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
    if x.shape[-1] > _LONGEST or not can_launch(x, weight):
        return rms_norm_reference(x, weight, eps, offset=offset)
    result: torch.Tensor = _RMSNorm.apply(x, weight, eps, offset)  # type: ignore[no-untyped-call]
    return result


def rms_norm_reference(
    x: torch.Tensor, weight: torch.Tensor, eps: float, *, offset: float = 0.0
) -> torch.Tensor:
    """The same function in plain torch, rounding where `LlamaRMSNorm` and `Gemma2RMSNorm` do."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    if offset == 0.0:
        return weight * normed.to(x.dtype)
    return (normed * (offset + weight.to(wide.dtype))).type_as(x)


@jit
def rms_norm_forward_kernel(  # type: ignore[no-untyped-def]
    x_ptr,  # (n_rows, n_cols)
    weight_ptr,  # (n_cols,)
    y_ptr,  # (n_rows, n_cols), contiguous
    rstd_ptr,  # (n_rows,), float32
    x_stride,
    n_rows,
    n_cols,
    eps,
    OFFSET: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = (rows < n_rows)[:, None] & (cols < n_cols)[None, :]
    x = tl.load(x_ptr + rows[:, None] * x_stride + cols[None, :], mask=mask, other=0.0)
    x = x.to(tl.float32)
    weight = tl.load(weight_ptr + cols, mask=cols < n_cols, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(x * x, axis=1) / n_cols + eps)
    normed = x * rstd[:, None]
    if OFFSET == 0.0:
        normed = normed.to(x_ptr.dtype.element_ty).to(tl.float32)
    y = normed * (weight + OFFSET)[None, :]
    tl.store(rstd_ptr + rows, rstd, mask=rows < n_rows)
    y_at = y_ptr + rows[:, None] * n_cols + cols[None, :]
    tl.store(y_at, y.to(y_ptr.dtype.element_ty), mask=mask)


@jit
def rms_norm_backward_kernel(  # type: ignore[no-untyped-def]
    dy_ptr,  # (n_rows, n_cols)
    x_ptr,  # (n_rows, n_cols)
    weight_ptr,  # (n_cols,)
    rstd_ptr,  # (n_rows,), float32
    dx_ptr,  # (n_rows, n_cols), contiguous
    dweight_ptr,  # (programs, n_cols), float32: one partial sum for each program
    dy_stride,
    x_stride,
    n_rows,
    n_cols,
    OFFSET: tl.constexpr,
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
        dx_at = dx_ptr + rows[:, None] * n_cols + cols[None, :]
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
        rows, weight = as_rows(x), weight.contiguous()
        n_rows, n_cols = rows.shape
        dtype = torch.promote_types(x.dtype, weight.dtype) if offset == 0.0 else x.dtype
        y = torch.empty(x.shape, dtype=dtype, device=x.device)
        rstd = torch.empty(n_rows, dtype=torch.float32, device=x.device)
        block, tile_rows = _tile(n_cols)
        with on_device_of(x):
            rms_norm_forward_kernel[(ceil_div(n_rows, tile_rows),)](
                rows,
                weight,
                y,
                rstd,
                rows.stride(0),
                n_rows,
                n_cols,
                eps,
                OFFSET=offset,
                ROWS=tile_rows,
                BLOCK=block,
                **options_for(block * tile_rows),
            )
        ctx.save_for_backward(rows, weight, rstd)
        ctx.offset = offset
        ctx.shape = x.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        rows, weight, rstd = ctx.saved_tensors
        dy = as_rows(dy)
        n_rows, n_cols = rows.shape
        needs_dweight = ctx.needs_input_grad[1]
        block, tile_rows = _tile(n_cols)
        programs = ceil_div(n_rows, tile_rows)
        if needs_dweight:
            programs = min(programs, _enough_programs(rows.device))
        dx = torch.empty(ctx.shape, dtype=rows.dtype, device=rows.device)
        partial = torch.empty(
            (programs if needs_dweight else 0, n_cols), dtype=torch.float32, device=rows.device
        )
        with on_device_of(rows):
            rms_norm_backward_kernel[(programs,)](
                dy,
                rows,
                weight,
                rstd,
                dx,
                partial,
                dy.stride(0),
                rows.stride(0),
                n_rows,
                n_cols,
                OFFSET=ctx.offset,
                NEEDS_DWEIGHT=needs_dweight,
                ROWS=tile_rows,
                BLOCK=block,
                **options_for(block * tile_rows),
            )
        dweight = partial.sum(0).to(weight.dtype) if needs_dweight else None
        return dx, dweight, None, None


def _tile(n_cols: int) -> tuple[int, int]:
    """Columns (padded) and rows that one program works on."""
    block = power_of_2(n_cols)
    return block, max(1, min(16, _TILE // block))


def _enough_programs(device: torch.device) -> int:
    if device.type != "cuda":
        return 8
    count = torch.cuda.get_device_properties(device).multi_processor_count
    return int(count) * _PROGRAMS_PER_MULTIPROCESSOR
