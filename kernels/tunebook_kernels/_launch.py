"""Decides whether Triton can work on a tensor, and holds what every launch needs.

Importable without a GPU and without triton; knows none of the operations.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # platforms without triton: the references serve
    triton = None
    tl = None

__all__ = [
    "FUNCTIONS",
    "INTERPRETED",
    "as_rows",
    "can_launch",
    "ceil_div",
    "enough_programs",
    "has_tensor_cores",
    "jit",
    "on_device_of",
    "options_for",
    "power_of_2",
    "takes_rows",
    "tile_of_rows",
    "tl",
    "triton",
    "triton_runs_on",
]

_TILE = 4096  # elements that a program holds at once, if a row is no longer than that
_LONGEST = 65536  # columns of a row that a program can still hold
_PROGRAMS_PER_MULTIPROCESSOR = 4
_NOTHING = nullcontext()
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Read once, as triton does: a kernel is bound to the interpreter when it is decorated, and the
# functions of `triton.language` when triton is imported.
INTERPRETED = triton is not None and bool(triton.knobs.runtime.interpret)


FUNCTIONS: list[Any] = []
"""All that `jit` made."""


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """`triton.jit`, or the function unchanged where there is no triton."""
    if triton is None:
        return function
    made = triton.jit(function, **options)
    FUNCTIONS.append(made)
    return made


def triton_runs_on(device: torch.device) -> bool:
    """Whether kernels can be launched for tensors of this device (any device when interpreted)."""
    return triton is not None and (device.type == "cuda" or INTERPRETED)


def can_launch(*tensors: torch.Tensor) -> bool:
    """Whether a kernel can take all these tensors: one device, supported dtypes, not empty.

    The interpreter stores bfloat16 as integers and computes garbage, so there bfloat16 is refused.
    """
    first = tensors[0]
    if not triton_runs_on(first.device):
        return False
    dtypes = _DTYPES[:2] if INTERPRETED else _DTYPES
    return all(t.device == first.device and t.dtype in dtypes and t.numel() > 0 for t in tensors)


@cache
def has_tensor_cores(device: torch.device) -> bool:
    """Whether `tl.dot` is one of matrices there: triton has no tensor cores before Ampere."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def as_rows(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` (..., n) as (rows, n) with adjacent columns; copies only if no view can do it."""
    if tensor.dim() == 2 and tensor.stride(1) == 1:
        return tensor
    rows = tensor.reshape(-1, tensor.shape[-1])
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def on_device_of(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Makes the tensor's GPU the current one: triton launches on the current device."""
    if tensor.device.type != "cuda" or _only_device() or INTERPRETED:
        return _NOTHING
    return torch.cuda.device(tensor.device)


@cache
def _only_device() -> bool:
    """With one GPU there is nothing to choose, and the choice costs as much as a launch."""
    return torch.cuda.device_count() == 1


def power_of_2(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()


def ceil_div(number: int, divisor: int) -> int:
    """`number / divisor`, rounded up."""
    return -(-number // divisor)


def options_for(elements: int) -> dict[str, Any]:
    """Launch options for a program that holds this many elements at once.

    Fusing of multiply and add is named because its default differs between releases of triton.
    """
    return {"num_warps": max(1, min(16, elements // 512)), "enable_fp_fusion": True}


@cache
def tile_of_rows(n_cols: int) -> dict[str, Any]:
    """ROWS and BLOCK (columns, padded) of a program that holds whole rows, with its options."""
    block = power_of_2(n_cols)
    rows = max(1, min(16, _TILE // block))
    return {"ROWS": rows, "BLOCK": block, **options_for(block * rows)}


def takes_rows(*tensors: torch.Tensor) -> bool:
    """Whether a kernel whose programs hold whole rows can take these tensors (..., n)."""
    return tensors[0].shape[-1] <= _LONGEST and can_launch(*tensors)


@cache
def enough_programs(device: torch.device) -> int:
    """Programs that fill the device: more of them would only make more partial sums."""
    if device.type != "cuda":
        return 8
    count = torch.cuda.get_device_properties(device).multi_processor_count
    return int(count) * _PROGRAMS_PER_MULTIPROCESSOR
