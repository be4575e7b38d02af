"""Weights that bitsandbytes quantised, 4 bit (NF4, FP4) and 8 bit, back to floating point.

Knows the packed numbers and their scales; what multiplies by the result is others' business, and
bitsandbytes itself is not imported.

Formula (Dettmers et al. 2023, arXiv:2305.14314, section 3; Dettmers et al. 2022, arXiv:2208.07339):

    4 bit   w = code[nibble] · absmax[block]      the high nibble of a byte comes first
            absmax = code2[absmax8] · absmax2[block of blocks] + offset     double quantisation
    8 bit   w = (q · scale[row]) · (1/127)

Each operation is rounded to float32 by itself, and the result once to the dtype of the output:
equal to bitsandbytes to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from tunebook_kernels._launch import (
    can_launch,
    ceil_div,
    jit,
    on_device_of,
    power_of_2,
    tl,
)

_WORDS = 512  # words of 8 weights that a program works on
_TILE = 4096  # 8-bit weights that a program works on
# A product and a sum must stay two roundings.
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


class Nested(NamedTuple):
    """Double quantisation: absmax (uint8) = code2[absmax] · absmax2[block // blocksize] + offset.

    Attributes:
        absmax: (ceil(blocks / blocksize),) float32.
        code: (256,) float32.
        blocksize: how many blocks share one absmax2.
        offset: 0-dimensional float32, on the same device.
    """

    absmax: torch.Tensor
    code: torch.Tensor
    blocksize: int
    offset: torch.Tensor


@dataclass(frozen=True, slots=True)
class Packed4bit:
    """What `dequantize_4bit` takes, read once from a 4-bit parameter of bitsandbytes.

    It shares the parameter's tensors, so read again after the parameter was moved or replaced.
    """

    packed: torch.Tensor
    absmax: torch.Tensor
    code: torch.Tensor
    shape: tuple[int, int]
    dtype: torch.dtype
    blocksize: int
    nested: Nested | None

    @classmethod
    def of(cls, weight: Any) -> Packed4bit:
        """Read `weight` (`Params4bit`, or anything with `.data` and a `.quant_state` like its).

        Raises:
            ValueError: the weight is not quantised yet, or not a matrix, or was repacked for
                inference on a CPU.
        """
        state = getattr(weight, "quant_state", None)
        if state is None:
            raise ValueError("the weight is not quantised yet: move its layer to a device first.")
        if getattr(state, "packing_format_for_cpu", False):
            raise ValueError(
                "the weight was repacked by bitsandbytes for inference on a CPU, which loses "
                "precision: load it again, with `support_avx512bf16_for_cpu` off on its layer."
            )
        if len(state.shape) != 2:
            raise ValueError(f"the weight has the shape {tuple(state.shape)}: not a matrix.")
        packed = weight.data.view(torch.uint8)
        nested = None
        if state.nested:
            inner = state.state2
            offset = torch.as_tensor(state.offset, dtype=torch.float32, device=packed.device)
            nested = Nested(inner.absmax.float(), inner.code.float(), inner.blocksize, offset)
        return cls(
            packed=packed,
            absmax=state.absmax if nested else state.absmax.float(),
            code=state.code.float(),
            shape=(state.shape[0], state.shape[1]),
            dtype=state.dtype,
            blocksize=state.blocksize,
            nested=nested,
        )

    def dequantize(
        self, out: torch.Tensor | None = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """The weight, (rows, cols): into `out`, or new of `dtype` (its own if none is given)."""
        return dequantize_4bit(
            self.packed,
            self.absmax,
            self.code,
            shape=self.shape,
            blocksize=self.blocksize,
            out=out,
            dtype=dtype or self.dtype,
            nested=self.nested,
        )


@dataclass(frozen=True, slots=True)
class Packed8bit:
    """What `dequantize_8bit` takes, read once from an 8-bit layer of bitsandbytes.

    It shares the layer's tensors, so read again after the layer was moved or loaded anew.
    """

    weight: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, layer: Any) -> Packed8bit:
        """Read `layer` (`Linear8bitLt`, which keeps the scales in its weight until its first use).

        Raises:
            ValueError: the weight is not quantised yet, or is kept in 16 bit to be trained.
        """
        weight, state = layer.weight, layer.state
        scale = state.SCB if getattr(weight, "SCB", None) is None else weight.SCB
        if weight.dtype != torch.int8 or scale is None:
            raise ValueError("the weight is not quantised: move its layer to a device first.")
        return cls(weight.data, scale.float())

    def dequantize(
        self, out: torch.Tensor | None = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """The weight, (rows, cols): into `out`, or new of `dtype` (float32 if none is given)."""
        return dequantize_8bit(self.weight, self.scale, out=out, dtype=dtype)


def dequantize_4bit(
    packed: torch.Tensor,
    absmax: torch.Tensor,
    code: torch.Tensor,
    *,
    shape: tuple[int, int],
    blocksize: int,
    out: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
    nested: Nested | tuple[torch.Tensor, torch.Tensor, int, torch.Tensor] | None = None,
) -> torch.Tensor:
    """A 4-bit weight in one launch, without waiting for the device.

    Args:
        packed: uint8, contiguous, two weights a byte in row-major order.
        absmax: (blocks,); float32, or uint8 where it is quantised itself.
        code: (16,) float32, the value of each nibble.
        shape: (rows, cols).
        blocksize: how many consecutive weights share one absmax; a multiple of 8.
        out: where to write: (rows, cols) with adjacent columns, such as rows of a wider buffer.
        dtype: of the output where `out` is not given; float32 by default.
        nested: how to undo the quantisation of absmax; None where it is float32.

    Returns:
        `out`, or a new contiguous tensor.
    """
    rows, cols = shape
    if out is None:
        out = torch.empty(shape, dtype=dtype or torch.float32, device=packed.device)
    # columns in eights: a word of 32 bits must not cross the end of a row
    if cols % 8 or packed.data_ptr() % 4 or packed.numel() >= 1 << 32 or not can_launch(out):
        return out.copy_(_plain_4bit(packed, absmax, code, shape, blocksize, nested))
    absmax2, code2, blocksize2, offset = nested or (absmax, code, 1, code)
    words = rows * cols // 8
    stride = out.stride(0)
    with on_device_of(out):
        dequantize_4bit_kernel[(ceil_div(words, _WORDS),)](
            packed,
            absmax,
            code,
            absmax2,
            code2,
            offset,
            out,
            stride,
            words,
            cols // 8,
            NESTED=nested is not None,
            PER_ABSMAX=blocksize // 8,
            PER_ABSMAX2=blocksize2,
            UNIT=1 if stride % 8 else 8,
            WORDS=_WORDS,
            **_OPTIONS,
        )
    return out


def dequantize_8bit(
    weight: torch.Tensor,
    scale: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """An 8-bit weight (`Int8Params`: CB and SCB) in one launch.

    Args:
        weight: (rows, cols) int8, adjacent columns.
        scale: (rows,) float32, the largest absolute value of each row.
        out: where to write: (rows, cols) with adjacent columns, such as rows of a wider buffer.
        dtype: of the output where `out` is not given; float32 by default.

    Returns:
        `out`, or a new contiguous tensor.
    """
    if out is None:
        out = torch.empty(weight.shape, dtype=dtype or torch.float32, device=weight.device)
    if not can_launch(out):
        return out.copy_(weight * scale[:, None] * (1 / 127))
    rows, cols = weight.shape
    strides = weight.stride(0), out.stride(0)
    grid, height, block = _grid_8bit(rows, cols)
    unit = 1 if (strides[0] | strides[1]) % 8 else 8
    with on_device_of(out):
        dequantize_8bit_kernel[grid](
            weight, scale, out, *strides, rows, cols, unit, height, block, **_OPTIONS
        )
    return out


def _plain_4bit(
    packed: torch.Tensor,
    absmax: torch.Tensor,
    code: torch.Tensor,
    shape: tuple[int, int],
    blocksize: int,
    nested: Nested | tuple[torch.Tensor, torch.Tensor, int, torch.Tensor] | None,
) -> torch.Tensor:
    """The same function in plain torch, float32."""
    if nested is not None:
        absmax2, code2, blocksize2, offset = nested
        scale2 = absmax2.repeat_interleave(blocksize2)[: absmax.numel()]
        absmax = code2[absmax.int()] * scale2 + offset
    count = shape[0] * shape[1]
    nibbles = torch.stack((packed.view(-1) >> 4, packed.view(-1) & 15), dim=-1)
    values = code[nibbles.view(-1)[:count].int()]
    return (values * absmax.repeat_interleave(blocksize)[:count]).view(shape)


@jit
def dequantize_4bit_kernel(  # type: ignore[no-untyped-def]
    packed_ptr,  # (n_words,) of 8 weights, uint8
    absmax_ptr,  # one for PER_ABSMAX words, uint8 if NESTED
    code_ptr,  # (16,), float32
    absmax2_ptr,  # one for PER_ABSMAX2 of absmax, float32
    code2_ptr,  # (256,), float32
    offset_ptr,  # (), float32
    out_ptr,  # (rows, 8 · row_words)
    out_stride,
    n_words,
    row_words,
    NESTED: tl.constexpr,
    PER_ABSMAX: tl.constexpr,
    PER_ABSMAX2: tl.constexpr,
    UNIT: tl.constexpr,  # divides out_stride
    WORDS: tl.constexpr,
):
    word = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    mask = word < n_words
    block = word // PER_ABSMAX
    absmax = tl.load(absmax_ptr + block, mask=mask, other=0)
    if NESTED:
        absmax2 = tl.load(absmax2_ptr + block // PER_ABSMAX2, mask=mask, other=0.0)
        absmax = tl.load(code2_ptr + absmax.to(tl.int32)) * absmax2 + tl.load(offset_ptr)
    eight = tl.load(packed_ptr.to(tl.pointer_type(tl.int32)) + word, mask=mask, other=0)
    lane = tl.arange(0, 8)[None, :]
    nibble = (eight[:, None] >> ((lane * 4) ^ 4)) & 15
    code = tl.load(code_ptr + tl.arange(0, 16))
    value = tl.gather(code, nibble.reshape(WORDS * 8), axis=0).reshape(WORDS, 8)
    weight = value * absmax[:, None]
    row = word // row_words
    col = (word - row * row_words) * 8
    start = row.to(tl.int64) * (out_stride // UNIT * UNIT) + col
    out_at = out_ptr + start[:, None] + lane
    tl.store(out_at, weight.to(out_ptr.dtype.element_ty), mask=mask[:, None])


@jit
def dequantize_8bit_kernel(  # type: ignore[no-untyped-def]
    quantized_ptr,  # (n_rows, n_cols), int8
    scale_ptr,  # (n_rows,), float32
    out_ptr,  # (n_rows, n_cols)
    quantized_stride,
    out_stride,
    n_rows,
    n_cols,
    UNIT: tl.constexpr,  # divides both strides
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    scale = tl.load(scale_ptr + row, mask=row < n_rows, other=0.0)[:, None]
    rows = row.to(tl.int64)[:, None]
    cols = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    mask = (rows < n_rows) & (cols < n_cols)
    quantized_at = quantized_ptr + rows * (quantized_stride // UNIT * UNIT) + cols
    weight = tl.load(quantized_at, mask=mask, other=0).to(tl.float32) * scale * (1 / 127)
    out_at = out_ptr + rows * (out_stride // UNIT * UNIT) + cols
    tl.store(out_at, weight.to(out_ptr.dtype.element_ty), mask=mask)


@lru_cache(maxsize=1024)
def _grid_8bit(n_rows: int, n_cols: int) -> tuple[tuple[int, int], int, int]:
    """The programs, and the rows and columns of each."""
    block = min(_TILE, power_of_2(n_cols))
    height = max(1, _TILE // block)
    return (ceil_div(n_rows, height), ceil_div(n_cols, block)), height, block
