"""Read the header of a GGUF file, as ggml's docs/gguf.md lays it out, and none of its tensors.

The `gguf` package's own reader keeps an array for every string of a vocabulary, which takes 8 s and
450 MiB for one of 150,000 tokens with its merges (benchmarks/gguf_header.py); here long arrays are
stepped over. Every length in the file is checked against its size before it is followed.
"""

from __future__ import annotations

import itertools
import math
import mmap
import struct
from pathlib import Path
from typing import Any

from tunebook.errors import FileInvalid
from tunebook.export.headers import Array, Header, Tensor

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_NAMES = {
    **{0: "uint8", 1: "int8", 2: "uint16", 3: "int16", 4: "uint32", 5: "int32", 6: "float32"},
    **{7: "bool", 8: "string", 9: "array", 10: "uint64", 11: "int64", 12: "float64"},
}
_STRING, _ARRAY = 8, 9
_MOST = {"tensors": 1_000_000, "keys": 100_000, "items": 20_000_000}


def read_gguf(path: Path, *, items: int = 8) -> Header:
    """The header of a GGUF file of version 2 or 3, of either byte order.

    Args:
        items: how many of each array are kept.

    Raises:
        FileInvalid: it is not GGUF, damaged, or cut off.
        OSError: it cannot be opened.
    """
    if path.stat().st_size < 24:
        raise _not_gguf(path, f"it has {path.stat().st_size} bytes; a header alone has 24")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF":
            raise _not_gguf(path, f"it begins with {bytes(data[:4])!r} instead of b'GGUF'")
        return _GGUF(path, data, items).read()


class _GGUF:
    """One pass over a header; `at` is the place of the next byte."""

    def __init__(self, path: Path, data: mmap.mmap, items: int) -> None:
        self.path, self.data, self.size, self.at = path, data, len(data), 4
        self.items = items
        swapped = struct.unpack_from("<I", data, 4)[0] & 0xFFFF == 0
        self.order = ">" if swapped else "<"
        self.u64 = struct.Struct(f"{self.order}Q")

    def read(self) -> Header:
        version = self.number("I")
        if version not in (2, 3):
            raise FileInvalid(
                f"{self.path.name} is of a GGUF version that cannot be read.",
                f"its version is {version}; 2 and 3 are known.",
                "convert it anew with a llama.cpp of 2023-08 or later.",
            )
        tensors, keys = self.count("tensors"), self.count("keys")
        header = Header(f"GGUF {version}" + (", big-endian" if self.order == ">" else ""))
        for _ in range(keys):
            key, kind = self.string(), self.number("I")
            value = self.value(kind)
            header.add(key, value.type if isinstance(value, Array) else _NAMES[kind], value)
        infos = [self.tensor_info() for _ in range(tensors)]
        header.tensors = self.tensors(infos, header.values.get("general.alignment", 32))
        return header

    def number(self, code: str) -> Any:
        layout = struct.Struct(self.order + code)
        self.need(layout.size)
        (value,) = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return value

    def count(self, what: str) -> int:
        found: int = self.number("Q")
        if found > _MOST[what]:
            raise self.damaged(f"it claims {found:,} {what}")
        return found

    def string(self) -> str:
        length = self.number("Q")
        self.need(length)
        text = self.data[self.at : self.at + length]
        self.at += length
        return text.decode("utf-8", errors="replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY or depth > 3:
            raise self.damaged(f"a value at byte {self.at:,} is of the unknown type {kind}")
        return self.array(depth)

    def array(self, depth: int) -> Array:
        kind, count = self.number("I"), self.count("items")
        sample = tuple(self.value(kind, depth + 1) for _ in range(min(count, self.items)))
        rest = count - len(sample)
        if kind in _SCALARS:
            self.skip(rest * struct.calcsize(f"={_SCALARS[kind]}"))
        elif kind == _STRING:
            self.skip_strings(rest)
        else:
            for _ in range(rest):
                self.value(kind, depth + 1)
        return Array(_NAMES.get(kind, str(kind)), count, sample)

    def skip(self, length: int) -> None:
        self.need(length)
        self.at += length

    def skip_strings(self, count: int) -> None:
        at, last, length_at, data = self.at, self.size - 8, self.u64.unpack_from, self.data
        for _ in range(count):
            if at > last:
                raise self.cut_off()
            at += 8 + length_at(data, at)[0]
        self.at = at
        self.need(0)

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self.string(), self.number("I")
        if dimensions > 8:
            raise self.damaged(f"the tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))
        return name, shape[::-1], self.number("I"), self.number("Q")

    def tensors(
        self, infos: list[tuple[str, tuple[int, ...], int, int]], align: Any
    ) -> list[Tensor]:
        """The tensors with their sizes; those of a type that is not known reach to the next one."""
        if not isinstance(align, int) or align < 1 or align & (align - 1):
            raise self.damaged(f"general.alignment is {align!r}, not a power of two")
        start = -(-self.at // align) * align
        ends = sorted({offset for *_, offset in infos} | {max(self.size - start, 0)})
        following = dict(itertools.pairwise(ends))
        made, needed = [], 0
        for name, shape, kind, offset in infos:
            word, size = _ggml_size(kind, math.prod(shape))
            size = following.get(offset, offset) - offset if size is None else size
            made.append(Tensor(name, word, shape, size, start + offset))
            needed = max(needed, start + offset + size)
        if needed > self.size:
            raise self.cut_off(needed)
        return made

    def need(self, length: int) -> None:
        if self.at + length > self.size:
            raise self.cut_off()

    def cut_off(self, needed: int | None = None) -> FileInvalid:
        tensors = (
            f"its tensors reach to byte {needed:,}" if needed else "its header goes on after that"
        )
        return FileInvalid(
            f"{self.path.name} is cut off or damaged.",
            f"the file ends at byte {self.size:,}, and {tensors}.",
            "download or export it again, and compare its size with the original's.",
        )

    def damaged(self, why: str) -> FileInvalid:
        return FileInvalid(
            f"{self.path.name} is damaged.", f"{why}.", "download or export it again."
        )


def _not_gguf(path: Path, why: str) -> FileInvalid:
    return FileInvalid(
        f"{path.name} is not a GGUF file.",
        f"{why}.",
        "choose a file that llama.cpp wrote, or export one; a page of text by this name is often "
        "a download that failed.",
    )


def _ggml_size(kind: int, elements: int) -> tuple[str, int | None]:
    """The name of a ggml type and the bytes of so many elements; None if the type is not known."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        known = GGMLQuantizationType(kind)
        block, size = GGML_QUANT_SIZES[known]
    except (ValueError, KeyError):
        return f"type {kind}", None
    return known.name, elements * size // block
