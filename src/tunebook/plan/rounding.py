"""What storing weights in few bits does to them: levels, how often each is used, and the error.

The arithmetic of bitsandbytes in numpy, on a sample of weights; knows no model and no device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Floats = npt.NDArray[np.float32]

BLOCK = 64
"""Weights that share one scale in 4 bit."""
BINS = 96

# QLoRA, appendix E: quantiles of the normal distribution, with an exact zero
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
# a sign, two bits of exponent, one of mantissa, divided by the largest
_FP4_HALF = (0.0, 0.0052083333, 0.16666667, 0.25, 0.33333333, 0.5, 0.66666667, 1.0)
FP4 = tuple(sorted({*_FP4_HALF, *(-value for value in _FP4_HALF)}))


class Rounding(BaseModel):
    """One way to store the weights."""

    model_config = ConfigDict(frozen=True)

    name: str
    bits: float = Field(description="Of one weight, its share of the scales included.")
    error: float = Field(description="Size of what is lost, as a share of the weights' own size.")
    scale: str = Field(description="What the horizontal axis is divided by, in words.")
    histogram: list[float] = Field(description="Weights by bin over [-1, 1], as shares.")
    levels: list[float] = Field(description="The values there are, if they can be told apart.")
    used: list[float] = Field(description="Share of the weights at each of the levels.")


def roundings(weights: Floats) -> dict[str, Rounding]:
    """Each way of storing these weights, by name: nf4, fp4, int8, 16.

    Args:
        weights: (rows, columns), rows whole, so that blocks are those of the stored matrix.
    """
    blocks = weights.reshape(-1)[: weights.size // BLOCK * BLOCK].reshape(-1, BLOCK)
    scaled, absmax = _scaled(blocks)
    by_row, row_absmax = _scaled(weights)
    shared = f"largest of its block of {BLOCK}"
    four = _histogram(scaled)
    return {
        "nf4": _four_bit("nf4", NF4, scaled, absmax, four, shared),
        "fp4": _four_bit("fp4", FP4, scaled, absmax, four, shared),
        "int8": _eight_bit(by_row, row_absmax),
        "16": Rounding(
            name="bfloat16",
            bits=16,
            error=_relative(weights, _bfloat16(weights)),
            scale=shared,
            histogram=four,
            levels=[],
            used=[],
        ),
    }


def rounding_key(bits: int, quant_type: str) -> str:
    """Which of `roundings` a recipe's quantization means."""
    return {4: quant_type, 8: "int8"}.get(bits, "16")


def dequantized(scaled: Floats, levels: tuple[float, ...]) -> tuple[Floats, npt.NDArray[Any]]:
    """The nearest level of each value in [-1, 1], and its index."""
    grid = np.asarray(levels, dtype=np.float32)
    index = np.searchsorted((grid[1:] + grid[:-1]) / 2, scaled)
    return grid[index], index


def _four_bit(
    name: str,
    levels: tuple[float, ...],
    scaled: Floats,
    absmax: Floats,
    histogram: list[float],
    scale: str,
) -> Rounding:
    near, index = dequantized(scaled, levels)
    return Rounding(
        name=name.upper(),
        bits=4 + 8 / BLOCK + 32 / (BLOCK * 256),
        error=_relative(scaled * absmax, near * absmax),
        scale=scale,
        histogram=histogram,
        levels=list(levels),
        used=(np.bincount(index.reshape(-1), minlength=len(levels)) / scaled.size).tolist(),
    )


def _eight_bit(scaled: Floats, absmax: Floats) -> Rounding:
    near = (np.round(scaled * 127) / 127).astype(np.float32)
    return Rounding(
        name="int8",
        bits=8 + 32 / scaled.shape[1],
        error=_relative(scaled * absmax, near * absmax),
        scale="largest of its row",
        histogram=_histogram(scaled),
        levels=[level / 127 for level in range(-127, 128)],
        used=[],
    )


def _scaled(groups: Floats) -> tuple[Floats, Floats]:
    """Each group divided by its largest magnitude, and that."""
    absmax = np.abs(groups).max(axis=1, keepdims=True)
    absmax[absmax == 0] = 1
    return groups / absmax, absmax


def _histogram(scaled: Floats) -> list[float]:
    counts, _ = np.histogram(scaled, bins=BINS, range=(-1, 1))
    shares: list[float] = (counts / scaled.size).round(5).tolist()
    return shares


def _bfloat16(weights: Floats) -> Floats:
    """Rounded to the nearest, halves to even."""
    bits = weights.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    result: Floats = rounded.astype(np.uint32).view(np.float32)
    return result


def _relative(exact: Floats, stored: Floats) -> float:
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(exact - stored)) / size if size else 0.0
