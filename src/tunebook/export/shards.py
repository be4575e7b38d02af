"""Write tensors into safetensors files one after the other, without holding a file in memory.

The safetensors library writes a file from a dictionary that holds all of it. Here room is left for
the header, each tensor goes to the disk as it comes, and the header is written when the file is full
(the format lets blanks follow it). Knows names and tensors, and nothing of models.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 5 * 10**9  # as transformers' default of 5 GB
_ENTRY = 160  # bytes of a header's entry beside the name: dtype, shape and two offsets
_LARGEST_HEADER = 2**20
_DTYPES = {
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}


class ShardWriter:
    """A folder's `model.safetensors`, or numbered files and their index where one is not enough.

    A context: leaving it writes the last header, gives the files their names and writes the index.

    Args:
        folder: exists; gets the files.
        shard_bytes: a file is closed before it would hold more than these, unless one tensor does.
        expected: about how many tensors there will be; more only make more files.
    """

    def __init__(self, folder: Path, *, shard_bytes: int = SHARD_BYTES, expected: int) -> None:
        self._folder, self._shard_bytes = folder, shard_bytes
        self._room = min(_LARGEST_HEADER, 4096 + expected * (_ENTRY + 60)) // 8 * 8
        self._paths: list[Path] = []
        self._where: dict[str, int] = {}
        self._file: BinaryIO | None = None
        self._header: dict[str, Any] = {}
        self._written = self._header_bytes = 0
        self.total = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._close()
            self._give_names()
        elif self._file is not None:
            self._file.close()

    def add(self, name: str, tensor: torch.Tensor) -> int:
        """Write a tensor that lies on the CPU; returns its bytes."""
        import torch

        size = tensor.numel() * tensor.element_size()
        entry = len(json.dumps(name)) + _ENTRY
        full = self._written + size > self._shard_bytes or self._header_bytes + entry > self._room
        if self._file is not None and self._written and full:
            self._close()
        if self._file is None:
            self._open()
        assert self._file is not None
        self._header[name] = {
            "dtype": _DTYPES[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [self._written, self._written + size],
        }
        self._where[name] = len(self._paths) - 1
        raw: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        self._file.write(raw)
        self._written += size
        self._header_bytes += entry
        self.total += size
        return size

    def _open(self) -> None:
        path = self._folder / f"shard-{len(self._paths)}.safetensors"
        self._paths.append(path)
        self._file = path.open("wb")
        self._file.seek(8 + self._room)
        self._header = {"__metadata__": {"format": "pt"}}
        self._written, self._header_bytes = 0, len(json.dumps(self._header)) + 8

    def _close(self) -> None:
        if self._file is None:
            return
        header = json.dumps(self._header, separators=(",", ":")).encode().ljust(self._room)
        with self._file as file:
            file.seek(0)
            file.write(len(header).to_bytes(8, "little") + header)
            file.flush()
            os.fsync(file.fileno())
        self._file = None

    def _give_names(self) -> None:
        if len(self._paths) == 1:
            self._paths[0].rename(self._folder / "model.safetensors")
            return
        count = len(self._paths)
        names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
        for path, new in zip(self._paths, names, strict=True):
            path.rename(self._folder / new)
        index = {
            "metadata": {"total_size": self.total},
            "weight_map": {name: names[shard] for name, shard in self._where.items()},
        }
        text = json.dumps(index, indent=2) + "\n"
        (self._folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
