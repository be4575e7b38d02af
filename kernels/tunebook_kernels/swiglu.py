"""SwiGLU's elementwise part, silu(gate) · up, forward and backward in one pass each.

Knows two equally shaped tensors; the projections before and after are others' business.

Formula (Shazeer 2020, arXiv:2002.05202, section 2), with s = sigmoid(gate):

    h     = gate · s · up
    d_up  = dh · gate · s          d_gate = dh · up · s · (1 + gate · (1 - s))

Computed in float32; silu(gate) is rounded to the dtype of gate before it is multiplied, as
`act_fn(gate_proj(x)) * up_proj(x)` does in Hugging Face models.
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

_TILE = 2048  # elements that a program works on


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) · up.

    Args:
        gate: (..., n), any strides (halves of one projection need no copy).
        up: the same shape and dtype.

    Returns:
        (..., n), contiguous, of the same dtype.
    """
    if gate.shape != up.shape or gate.dtype != up.dtype or not can_launch(gate, up):
        return swiglu_reference(gate, up)
    result: torch.Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return result


def swiglu_reference(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """The same function in plain torch."""
    return torch.nn.functional.silu(gate) * up


@jit
def swiglu_forward_kernel(  # type: ignore[no-untyped-def]
    gate_ptr,  # (n_rows, n_cols)
    up_ptr,  # (n_rows, n_cols)
    h_ptr,  # (n_rows, n_cols), contiguous
    gate_stride,
    up_stride,
    n_rows,
    n_cols,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    cols = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    mask = (rows < n_rows) & (cols < n_cols)
    gate = tl.load(gate_ptr + rows * gate_stride + cols, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + rows * up_stride + cols, mask=mask, other=0.0).to(tl.float32)
    silu = (gate * tl.sigmoid(gate)).to(h_ptr.dtype.element_ty).to(tl.float32)
    tl.store(h_ptr + rows * n_cols + cols, (silu * up).to(h_ptr.dtype.element_ty), mask=mask)


@jit
def swiglu_backward_kernel(  # type: ignore[no-untyped-def]
    dh_ptr,  # (n_rows, n_cols)
    gate_ptr,  # (n_rows, n_cols)
    up_ptr,  # (n_rows, n_cols)
    dgate_ptr,  # (n_rows, n_cols), contiguous
    dup_ptr,  # (n_rows, n_cols), contiguous
    dh_stride,
    gate_stride,
    up_stride,
    n_rows,
    n_cols,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    cols = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    mask = (rows < n_rows) & (cols < n_cols)
    dh = tl.load(dh_ptr + rows * dh_stride + cols, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + rows * gate_stride + cols, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + rows * up_stride + cols, mask=mask, other=0.0).to(tl.float32)
    s = tl.sigmoid(gate)
    dup = dh * gate * s
    dgate = dh * up * s * (1.0 + gate * (1.0 - s))
    tl.store(dgate_ptr + rows * n_cols + cols, dgate.to(dgate_ptr.dtype.element_ty), mask=mask)
    tl.store(dup_ptr + rows * n_cols + cols, dup.to(dup_ptr.dtype.element_ty), mask=mask)


class _SwiGLU(torch.autograd.Function):
    """Saves gate and up; silu is made again in the backward."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        shape = gate.shape
        gate, up = as_rows(gate), as_rows(up)
        h = torch.empty(shape, dtype=gate.dtype, device=gate.device)
        grid, tile = _grid(gate)
        with on_device_of(gate):
            swiglu_forward_kernel[grid](
                gate,
                up,
                h,
                gate.stride(0),
                up.stride(0),
                *gate.shape,
                **tile,
            )
        ctx.save_for_backward(gate, up)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        shape = dh.shape
        dh = as_rows(dh)
        dgate = torch.empty(shape, dtype=gate.dtype, device=gate.device)
        dup = torch.empty_like(dgate)
        grid, tile = _grid(gate)
        with on_device_of(gate):
            swiglu_backward_kernel[grid](
                dh,
                gate,
                up,
                dgate,
                dup,
                dh.stride(0),
                gate.stride(0),
                up.stride(0),
                *gate.shape,
                **tile,
            )
        return dgate, dup


def _grid(rows: torch.Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """The programs, and the rows and columns of each with its launch options."""
    n_rows, n_cols = rows.shape
    block = min(_TILE, power_of_2(n_cols))
    height = max(1, min(16, _TILE // block))
    tile = {"ROWS": height, "BLOCK": block, **options_for(height * block)}
    return (ceil_div(n_rows, height), ceil_div(n_cols, block)), tile
