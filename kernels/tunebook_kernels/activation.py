"""The activation of an MLP without a gate, act(x), forward and backward in one pass each.

Knows one tensor and four activations; the projections around it are others' business.

Formula (Hendrycks & Gimpel 2016, arXiv:1606.08415, with `quick_gelu` its section 2 by a sigmoid):

    h = act(x)          dx = dh · act'(x)

    quick_gelu  act(x) = x · s,  s = sigmoid(1.702 x)       act'(x) = s + 1.702 · x · s · (1 - s)

The other three stand in `gated.py`. Computed in float32 and rounded once.
"""

from __future__ import annotations

from typing import Literal

import torch

from tunebook_kernels._launch import can_launch, jit, on_device_of, tl
from tunebook_kernels.gated import BACKWARD, FORWARD, grid_of, unit_of, value_and_slope

Activation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu"]

_SHARPNESS = 1.702


def activation_reference(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    """act(x) in plain torch."""
    if activation == "quick_gelu":
        return x * torch.sigmoid(_SHARPNESS * x)
    return FORWARD[activation](x)


def activation_forward(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    """act(x), contiguous, without autograd.

    Args:
        x: (rows, n), any row stride, adjacent columns.
        activation: "silu", "gelu", "gelu_tanh" or "quick_gelu".
    """
    if not can_launch(x):
        return activation_reference(x, activation).contiguous()
    h = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    n_rows, n_cols = x.shape
    strides = x.stride(0), h.stride(0)
    grid, tile = grid_of(n_rows, n_cols)
    with on_device_of(x):
        activation_forward_kernel[grid](
            x, h, *strides, n_rows, n_cols, activation, unit_of(*strides), **tile
        )
    return h


def activation_backward(
    dh: torch.Tensor,
    x: torch.Tensor,
    activation: Activation,
    *,
    dx: torch.Tensor,
    h: torch.Tensor | None = None,
) -> None:
    """The gradient of `activation_forward`, and its output once more, without autograd.

    Args:
        dh, x: (rows, n) of one dtype and device; any row strides, adjacent columns.
        activation: as of `activation_forward`.
        dx: where to write, (rows, n) with adjacent columns.
        h: where to write act(x), if it is wanted.

    Each output may be one of the inputs itself, but not overlap it shifted.
    """
    if not can_launch(x):
        _backward_reference(dh, x, activation, dx, h)
        return
    n_rows, n_cols = x.shape
    tensors = (dh, x, dx, dx if h is None else h)
    strides = [tensor.stride(0) for tensor in tensors]
    grid, tile = grid_of(n_rows, n_cols)
    with on_device_of(x):
        activation_backward_kernel[grid](
            *tensors, *strides, n_rows, n_cols, activation, h is not None, unit_of(*strides), **tile
        )


def _backward_reference(
    dh: torch.Tensor,
    x: torch.Tensor,
    activation: Activation,
    dx: torch.Tensor,
    h: torch.Tensor | None,
) -> None:
    wide = torch.promote_types(x.dtype, torch.float32)
    rebuilt = None if h is None else activation_reference(x, activation)
    wide_dh, wide_x = dh.to(wide), x.to(wide)
    if activation == "quick_gelu":
        s = torch.sigmoid(_SHARPNESS * wide_x)
        gradient = wide_dh * (s + _SHARPNESS * wide_x * s * (1 - s))
    else:
        gradient = BACKWARD[activation](wide_dh, wide_x)
    dx.copy_(gradient)
    if h is not None and rebuilt is not None:
        h.copy_(rebuilt)


@jit
def activation_forward_kernel(  # type: ignore[no-untyped-def]
    x_ptr,  # (n_rows, n_cols)
    h_ptr,  # (n_rows, n_cols)
    x_stride,
    h_stride,
    n_rows,
    n_cols,
    ACTIVATION: tl.constexpr,
    UNIT: tl.constexpr,  # divides every stride
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    cols = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    mask = (rows < n_rows) & (cols < n_cols)
    x = tl.load(x_ptr + rows * (x_stride // UNIT * UNIT) + cols, mask=mask, other=0.0)
    value, _ = value_and_slope(x.to(tl.float32), ACTIVATION)
    h_at = h_ptr + rows * (h_stride // UNIT * UNIT) + cols
    tl.store(h_at, value.to(h_ptr.dtype.element_ty), mask=mask)


@jit
def activation_backward_kernel(  # type: ignore[no-untyped-def]
    dh_ptr,  # (n_rows, n_cols), as all the others
    x_ptr,
    dx_ptr,
    h_ptr,
    dh_stride,
    x_stride,
    dx_stride,
    h_stride,
    n_rows,
    n_cols,
    ACTIVATION: tl.constexpr,
    REBUILD: tl.constexpr,  # whether h is written
    UNIT: tl.constexpr,  # divides every stride
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    cols = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    mask = (rows < n_rows) & (cols < n_cols)
    dh = tl.load(dh_ptr + rows * (dh_stride // UNIT * UNIT) + cols, mask=mask, other=0.0)
    x = tl.load(x_ptr + rows * (x_stride // UNIT * UNIT) + cols, mask=mask, other=0.0)
    # Outputs may be inputs, and another thread may store an element than the one that loaded it.
    tl.debug_barrier()
    value, slope = value_and_slope(x.to(tl.float32), ACTIVATION)
    dx_at = dx_ptr + rows * (dx_stride // UNIT * UNIT) + cols
    tl.store(dx_at, (dh.to(tl.float32) * slope).to(dx_ptr.dtype.element_ty), mask=mask)
    if REBUILD:
        h_at = h_ptr + rows * (h_stride // UNIT * UNIT) + cols
        tl.store(h_at, value.to(h_ptr.dtype.element_ty), mask=mask)
