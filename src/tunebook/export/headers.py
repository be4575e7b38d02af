"""What a model file says of itself, its header, and how safetensors writes it; never its tensors.

Knows the layout (safetensors' README) and nothing of models.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunebook.errors import FileInvalid

_MOST_HEADER = 100_000_000  # bytes; safetensors' own limit
_SAFETENSORS_BITS = {
    **{"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8},
    **{"F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32},
    **{"U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64},
}


@dataclass(frozen=True)
class Array:
    """An array of a header: how many items, of which type, and the first few."""

    type: str
    count: int
    sample: tuple[Any, ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor as the header names it: its shape (rows first, as torch), and its bytes in the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int
    start: int = 0
    """Where in the file it begins; known of GGUF."""

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass
class Header:
    """What a file says of itself: values by key with their types, and its tensors."""

    format: str
    values: dict[str, Any] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)

    def add(self, key: str, kind: str, value: Any) -> None:
        """Keep one value."""
        self.values[key], self.types[key] = value, kind


def read_safetensors(path: Path) -> Header:
    """The header of a safetensors file.

    Raises:
        FileInvalid: it is not safetensors, damaged, or cut off.
        OSError: it cannot be opened.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little") if len(start) == 8 else -1
        if not 2 <= length <= min(size - 8, _MOST_HEADER):
            raise _safetensors_damaged(path, f"its header would have {length:,} of {size:,} bytes")
        text = file.read(length)
    try:
        entries = json.loads(text)
        described = entries.pop("__metadata__", {}) or {}
        tensors = [_safetensors_tensor(name, entry) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _safetensors_damaged(path, f"its header cannot be parsed ({error})") from error
    needed = max((end for _, end in tensors), default=0) + 8 + length
    if needed > size:
        why = f"its tensors reach to byte {needed:,}, and the file ends at byte {size:,}"
        raise _safetensors_damaged(path, why)
    header = Header("safetensors", tensors=[tensor for tensor, _ in tensors])
    for key, value in described.items():
        header.add(str(key), "string", str(value))
    return header


def _safetensors_tensor(name: str, entry: dict[str, Any]) -> tuple[Tensor, int]:
    shape = tuple(int(extent) for extent in entry["shape"])
    begin, end = (int(offset) for offset in entry["data_offsets"])
    bits = _SAFETENSORS_BITS.get(str(entry["dtype"]))
    if begin < 0 or end < begin or any(extent < 0 for extent in shape):
        raise ValueError(f"the tensor {name!r} has a size below zero")
    if bits is not None and (end - begin) * 8 != math.prod(shape) * bits:
        raise ValueError(f"the tensor {name!r} does not have the bytes of its shape")
    return Tensor(str(name), str(entry["dtype"]), shape, end - begin), end


def _safetensors_damaged(path: Path, why: str) -> FileInvalid:
    return FileInvalid(
        f"{path.name} is not a whole safetensors file.",
        f"{why}.",
        "download or save it again; a small file of text by this name is often a Git LFS pointer.",
    )
