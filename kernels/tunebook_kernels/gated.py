"""The elementwise part of a gated MLP, act(gate) · up, forward and backward in one pass each.

Knows two equally shaped tensors and three activations; the projections around them are others'
business.

Formula (Shazeer 2020, arXiv:2002.05202, section 2; Hendrycks & Gimpel 2016, arXiv:1606.08415):

    h    = act(gate) · up
    d_up = dh · act(gate)          d_gate = dh · up · act'(gate)

    silu       act(x) = x · s                     act'(x) = s · (1 + x · (1 - s)),  s = sigmoid(x)
    gelu       act(x) = x · Φ(x)                  act'(x) = Φ(x) + x · φ(x)
    gelu_tanh  act(x) = x · (1 + tanh(u)) / 2 = x · s,  s = sigmoid(2u),  u = √(2/π)(x + 0.044715 x³)
               act'(x) = s + x · s · (1 - s) · 2u'

Computed in float32; act(gate) is rounded to the dtype of gate before it is multiplied, as
`act_fn(gate_proj(x)) * up_proj(x)` does in Hugging Face models.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, silu

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

Activation = Literal["silu", "gelu", "gelu_tanh"]

_TILE = 2048  # elements that a program works on
FORWARD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": partial(gelu, approximate="tanh"),
}
BACKWARD: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "silu": torch.ops.aten.silu_backward,
    "gelu": torch.ops.aten.gelu_backward,
    "gelu_tanh": partial(torch.ops.aten.gelu_backward, approximate="tanh"),
}


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) · up.

    Args:
        gate: (..., n), any strides (halves of one projection need no copy).
        up: the same shape and dtype.

    Returns:
        (..., n), contiguous, of the same dtype.
    """
    return _gated(gate, up, "silu")


def swiglu_reference(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """The same function in plain torch."""
    return silu(gate) * up


def geglu(
    gate: torch.Tensor, up: torch.Tensor, *, approximate: Literal["none", "tanh"] = "none"
) -> torch.Tensor:
    """gelu(gate) · up.

    Args:
        gate: (..., n), any strides (halves of one projection need no copy).
        up: the same shape and dtype.
        approximate: "none" takes the error function, "tanh" its approximation, as
            `torch.nn.functional.gelu` does.

    Returns:
        (..., n), contiguous, of the same dtype.
    """
    return _gated(gate, up, "gelu" if approximate == "none" else "gelu_tanh")


def geglu_reference(
    gate: torch.Tensor, up: torch.Tensor, *, approximate: Literal["none", "tanh"] = "none"
) -> torch.Tensor:
    """The same function in plain torch."""
    return gelu(gate, approximate=approximate) * up


def gated_forward(
    gate: torch.Tensor, up: torch.Tensor, activation: Activation, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """act(gate) · up, without autograd.

    Args:
        gate, up: (rows, n) of one dtype and device; any row strides, adjacent columns.
        activation: "silu", "gelu" or "gelu_tanh".
        out: where to write, (rows, n) with adjacent columns; may be gate or up itself.

    Returns:
        `out`, or a new contiguous tensor.
    """
    if not can_launch(gate):
        return torch.mul(FORWARD[activation](gate), up, out=out)
    if out is None:
        out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    n_rows, n_cols = gate.shape
    strides = gate.stride(0), up.stride(0), out.stride(0)
    grid, tile = grid_of(n_rows, n_cols)
    with on_device_of(gate):
        gated_forward_kernel[grid](
            gate, up, out, *strides, n_rows, n_cols, activation, unit_of(*strides), **tile
        )
    return out


def gated_backward(
    dh: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    activation: Activation,
    *,
    dgate: torch.Tensor,
    dup: torch.Tensor,
    h: torch.Tensor | None = None,
) -> None:
    """The gradients of `gated_forward`, and its output once more, without autograd.

    Args:
        dh, gate, up: (rows, n) of one dtype and device; any row strides, adjacent columns.
        activation: "silu", "gelu" or "gelu_tanh".
        dgate, dup: where to write, (rows, n) with adjacent columns.
        h: where to write act(gate) · up, if it is wanted.

    Each output may be any one of the inputs itself, but not overlap it shifted.
    """
    if not can_launch(gate):
        _backward_reference(dh, gate, up, activation, dgate, dup, h)
        return
    n_rows, n_cols = gate.shape
    h_or_any = dgate if h is None else h
    tensors = (dh, gate, up, dgate, dup, h_or_any)
    strides = [tensor.stride(0) for tensor in tensors]
    grid, tile = grid_of(n_rows, n_cols)
    with on_device_of(gate):
        gated_backward_kernel[grid](
            *tensors, *strides, n_rows, n_cols, activation, h is not None, unit_of(*strides), **tile
        )


def _backward_reference(
    dh: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    activation: str,
    dgate: torch.Tensor,
    dup: torch.Tensor,
    h: torch.Tensor | None,
) -> None:
    wide = torch.promote_types(gate.dtype, torch.float32)
    rebuilt = None if h is None else FORWARD[activation](gate) * up
    wide_dh, wide_gate = dh.to(wide), gate.to(wide)
    gradient_of_up = wide_dh * FORWARD[activation](wide_gate)
    gradient_of_gate = BACKWARD[activation](wide_dh * up.to(wide), wide_gate)
    # all of them before the first is written: outputs may be inputs
    dgate.copy_(gradient_of_gate)
    dup.copy_(gradient_of_up)
    if h is not None and rebuilt is not None:
        h.copy_(rebuilt)


@jit
def value_and_slope(x, ACTIVATION: tl.constexpr):  # type: ignore[no-untyped-def]
    """act(x) and act'(x) of float32."""
    if ACTIVATION == "silu":
        s = tl.sigmoid(x)
        value = x * s
        slope = s * (1.0 + x * (1.0 - s))
    elif ACTIVATION == "gelu":
        cdf = 0.5 * (1.0 + tl.math.erf(x * 0.7071067811865476))
        value = x * cdf
        slope = cdf + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    elif ACTIVATION == "quick_gelu":
        s = tl.sigmoid(1.702 * x)
        value = x * s
        slope = s + 1.702 * value * (1.0 - s)
    else:
        # tanh by a sigmoid: its exponential may reach infinity, and the quotient is then 0
        s = tl.sigmoid(1.5957691216057308 * x * (1.0 + 0.044715 * x * x))
        value = x * s
        slope = s + value * (1.0 - s) * 1.5957691216057308 * (1.0 + 0.134145 * x * x)
    return value, slope


@jit
def gated_forward_kernel(  # type: ignore[no-untyped-def]
    gate_ptr,  # (n_rows, n_cols)
    up_ptr,  # (n_rows, n_cols)
    h_ptr,  # (n_rows, n_cols)
    gate_stride,
    up_stride,
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
    gate = tl.load(gate_ptr + rows * (gate_stride // UNIT * UNIT) + cols, mask=mask, other=0.0)
    up = tl.load(up_ptr + rows * (up_stride // UNIT * UNIT) + cols, mask=mask, other=0.0)
    value, _ = value_and_slope(gate.to(tl.float32), ACTIVATION)
    h = value.to(gate_ptr.dtype.element_ty).to(tl.float32) * up.to(tl.float32)
    h_at = h_ptr + rows * (h_stride // UNIT * UNIT) + cols
    tl.store(h_at, h.to(h_ptr.dtype.element_ty), mask=mask)


@jit
def gated_backward_kernel(  # type: ignore[no-untyped-def]
    dh_ptr,  # (n_rows, n_cols), as all the others
    gate_ptr,
    up_ptr,
    dgate_ptr,
    dup_ptr,
    h_ptr,
    dh_stride,
    gate_stride,
    up_stride,
    dgate_stride,
    dup_stride,
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
    gate = tl.load(gate_ptr + rows * (gate_stride // UNIT * UNIT) + cols, mask=mask, other=0.0)
    up = tl.load(up_ptr + rows * (up_stride // UNIT * UNIT) + cols, mask=mask, other=0.0)
    # Outputs may be inputs, and another thread may store an element than the one that loaded it.
    tl.debug_barrier()
    dh, up = dh.to(tl.float32), up.to(tl.float32)
    value, slope = value_and_slope(gate.to(tl.float32), ACTIVATION)
    dgate_at = dgate_ptr + rows * (dgate_stride // UNIT * UNIT) + cols
    tl.store(dgate_at, (dh * up * slope).to(dgate_ptr.dtype.element_ty), mask=mask)
    dup_at = dup_ptr + rows * (dup_stride // UNIT * UNIT) + cols
    tl.store(dup_at, (dh * value).to(dup_ptr.dtype.element_ty), mask=mask)
    if REBUILD:
        h = value.to(gate_ptr.dtype.element_ty).to(tl.float32) * up
        h_at = h_ptr + rows * (h_stride // UNIT * UNIT) + cols
        tl.store(h_at, h.to(h_ptr.dtype.element_ty), mask=mask)


class _Gated(torch.autograd.Function):
    """Saves gate and up; the activation is made again in the backward."""

    @staticmethod
    def forward(
        ctx: Any, gate: torch.Tensor, up: torch.Tensor, activation: Activation
    ) -> torch.Tensor:
        shape = gate.shape
        gate, up = as_rows(gate), as_rows(up)
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return gated_forward(gate, up, activation).view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        gate, up = ctx.saved_tensors
        dgate = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
        dup = torch.empty_like(dgate)
        gated_backward(as_rows(dh), gate, up, ctx.activation, dgate=dgate, dup=dup)
        return dgate.view(dh.shape), dup.view(dh.shape), None


def _gated(gate: torch.Tensor, up: torch.Tensor, activation: Activation) -> torch.Tensor:
    if gate.shape != up.shape or gate.dtype != up.dtype or not can_launch(gate, up):
        return FORWARD[activation](gate) * up
    result: torch.Tensor = _Gated.apply(gate, up, activation)  # type: ignore[no-untyped-call]
    return result


def unit_of(*strides: int) -> int:
    """The largest of 8 and 1 that divides all strides: what the compiler may take as alignment.

    It finds multiples of 16 by itself, but 8 are enough for loads of 16 bytes, and a buffer is
    wider than its matrix by the rank of an adapter.
    """
    together = 0
    for stride in strides:
        together |= stride
    return 1 if together % 8 else 8


@lru_cache(maxsize=1024)
def grid_of(n_rows: int, n_cols: int) -> tuple[tuple[int, int], dict[str, Any]]:
    """The programs, and the rows and columns of each with its launch options."""
    block = min(_TILE, power_of_2(n_cols))
    height = max(1, min(16, _TILE // block))
    tile = {"ROWS": height, "BLOCK": block, **options_for(height * block)}
    return (ceil_div(n_rows, height), ceil_div(n_cols, block)), tile
