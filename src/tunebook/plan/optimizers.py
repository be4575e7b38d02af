"""Bytes that an optimizer keeps between steps, by the name that transformers has for it.

Counts the averages of torch's, bitsandbytes' and transformers' own; knows no model and no budget.
"""

from __future__ import annotations

from typing import Literal

_BLOCK = 256
_SMALLEST_8BIT_STATE = 4096
"""Elements: bitsandbytes keeps the averages of smaller tensors in 32 bit."""

_Averages = tuple[int, Literal["own", "8bit", "32bit"]]
_AVERAGES: dict[str, _Averages] = {
    "adamw_torch": (2, "own"),
    "adamw_torch_fused": (2, "own"),
    "adamw_torch_xla": (2, "own"),
    "adamw_torch_npu_fused": (2, "own"),
    "adamw_8bit": (2, "8bit"),
    "adamw_bnb_8bit": (2, "8bit"),
    "paged_adamw_8bit": (2, "8bit"),
    "paged_adamw_32bit": (2, "32bit"),
    "lion_8bit": (1, "8bit"),
    "lion_32bit": (1, "32bit"),
    "paged_lion_8bit": (1, "8bit"),
    "paged_lion_32bit": (1, "32bit"),
    "ademamix": (3, "32bit"),
    "ademamix_8bit": (3, "8bit"),
    "paged_ademamix_8bit": (3, "8bit"),
    "paged_ademamix_32bit": (3, "32bit"),
    "rmsprop_bnb": (1, "32bit"),
    "rmsprop_bnb_8bit": (1, "8bit"),
    "rmsprop_bnb_32bit": (1, "32bit"),
    "rmsprop": (1, "own"),
    "adagrad": (1, "own"),
    "sgd": (0, "own"),
}
_ADAFACTOR = "adafactor"
_TENSOR_BY_TENSOR = ("adamw_torch", "sgd", "rmsprop", "adagrad")


def states_known(optimizer: str) -> bool:
    """Whether its states are counted as its own; those of any other are counted as AdamW's."""
    return optimizer in _AVERAGES or optimizer == _ADAFACTOR


def state_bytes(optimizer: str, rows: int, columns: int, width: int, *, unit: int = 1) -> int:
    """What is kept for a matrix.

    In the parameter's dtype, in 32 bit, or in 8 bit with a float32 scale for each 256 values;
    Adafactor keeps a float32 number for each row and each column (Shazeer and Stern 2018,
    arXiv:1804.04235).

    Args:
        optimizer: a name of transformers, never "auto".
        width: bytes of a number of the parameter.
        unit: tensors are padded to a multiple of so many numbers.
    """
    if optimizer == _ADAFACTOR:
        return 4 * (rows + columns)
    averages, kind = _AVERAGES.get(optimizer, _AVERAGES["adamw_torch"])
    values = -(-rows * columns // unit) * unit
    if kind == "own":
        return averages * values * width
    if kind == "32bit" or rows * columns < _SMALLEST_8BIT_STATE:
        return averages * values * 4
    return averages * (values + 4 * -(-values // _BLOCK))


def makes_a_copy(optimizer: str) -> bool:
    """Whether its update makes one temporary of the size of all parameters."""
    return optimizer in _TENSOR_BY_TENSOR or not states_known(optimizer)
