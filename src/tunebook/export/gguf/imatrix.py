"""Importance data as files: llama.cpp's imatrix, in its GGUF form and, for reading, in its older one.

`<tensor>.in_sum2` and `<tensor>.counts` are llama.cpp's (tools/imatrix/imatrix.cpp), which passes
over others; the gradients of rows are beside them as `<tensor>.out_sum2`. Knows no model.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunebook.errors import FileInvalid, SourceMissing, three_part
from tunebook.export.gguf.importance import EMBEDDING, Importance, Moments
from tunebook.export.gguf_header import read_gguf

_COLUMNS, _COUNTS, _ROWS = ".in_sum2", ".counts", ".out_sum2"
_LOOKUPS = f"{EMBEDDING}.lookup_sum2", f"{EMBEDDING}.lookup_ids"
_LONGEST = 1 << 20  # of a name or a row in the older form; more is no such file


def save_imatrix(importance: Importance, path: Path | str) -> Path:
    """Write importance data as a GGUF file that llama.cpp's tools take as `--imatrix`.

    Raises:
        DiskFull: as for every file.
    """
    import gguf

    path = Path(path)
    with three_part("write the importance data"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        writer = gguf.GGUFWriter(temporary, "imatrix")
        try:
            _fill(writer, importance)
        finally:
            writer.close()
        temporary.replace(path)
    return path


def _fill(writer: Any, importance: Importance) -> None:
    from gguf import Keys

    writer.add_type("imatrix")
    writer.add_array(Keys.IMatrix.DATASETS, list(importance.datasets) or ["calibration"])
    writer.add_uint32(Keys.IMatrix.CHUNK_COUNT, importance.chunks)
    writer.add_uint32(Keys.IMatrix.CHUNK_SIZE, importance.chunk)
    writer.add_uint64("tunebook.tokens", importance.tokens)
    for name, moments in importance.tensors.items():
        writer.add_tensor(f"{name}{_COLUMNS}", moments.columns.float().numpy())
        writer.add_tensor(f"{name}{_COUNTS}", moments.counts.float()[:, None].numpy())
        if moments.rows is not None:
            writer.add_tensor(f"{name}{_ROWS}", moments.rows.float().numpy())
    if importance.lookups is not None and importance.lookups.rows is not None:
        for name, value in zip(
            _LOOKUPS, (importance.lookups.columns, importance.lookups.rows), strict=True
        ):
            writer.add_tensor(name, value.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()


def load_imatrix(path: Path | str) -> Importance:
    """Importance data of a file that `save_imatrix` or llama.cpp's `llama-imatrix` wrote.

    Raises:
        SourceMissing: there is no such file.
        FileInvalid: it is no imatrix, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceMissing(
            "There is no such file of importance data.",
            f"{path} is not there.",
            "check the path, or measure them: importance='auto'.",
        )
    with path.open("rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    return _from_gguf(path) if is_gguf else _from_legacy(path)


def _from_gguf(path: Path) -> Importance:
    header = read_gguf(path, items=_LONGEST)
    if header.values.get("general.type") != "imatrix":
        raise _wrong(path, "it is a GGUF file of something else: its general.type is not 'imatrix'")
    found: dict[str, torch.Tensor] = {}
    for tensor in header.tensors:
        if tensor.type != "F32":
            raise _wrong(path, f"{tensor.name} is {tensor.type}, and sums are F32")
        data = np.fromfile(path, "<f4", count=tensor.bytes // 4, offset=tensor.start)
        found[tensor.name] = torch.from_numpy(data).double().view(tensor.shape)
    tensors = {}
    for key in found:
        if not key.endswith(_COLUMNS):
            continue
        name = key.removesuffix(_COLUMNS)
        if name + _COUNTS not in found:
            raise _wrong(path, f"{name}{_COUNTS} is missing")
        counts = found[name + _COUNTS].flatten()
        rows = found.get(name + _ROWS)
        tensors[name] = Moments(
            found[key].view(len(counts), -1),
            counts,
            None if rows is None else rows.view(len(counts), -1),
        )
    lookups = None
    if all(name in found for name in _LOOKUPS):
        squares, ids = (found[name].view(1, -1) for name in _LOOKUPS)
        lookups = Moments(squares, ids.sum()[None], ids)
    values: dict[str, Any] = header.values
    datasets = getattr(values.get("imatrix.datasets"), "sample", ())
    return Importance(
        tensors,
        lookups,
        int(values.get("tunebook.tokens", 0)),
        tuple(map(str, datasets)),
        int(values.get("imatrix.chunk_count", 0)),
        int(values.get("imatrix.chunk_size", 0)),
        str(path),
    )


def _from_legacy(path: Path) -> Importance:
    """The form before GGUF: counted entries of a name, calls and sums, each divided by the calls."""
    data = path.read_bytes()
    try:
        return _parsed(data, path)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise _wrong(path, "it is neither a GGUF file nor an imatrix of the older form") from error


def _parsed(data: bytes, path: Path) -> Importance:
    numbers = _Numbers(data)
    tensors = {}
    for _ in range(numbers.next()):
        name = numbers.text(numbers.next())
        calls, width = numbers.next(), numbers.next()
        sums = numbers.floats(width).double()[None]
        tensors[name] = Moments(sums, torch.tensor([float(max(calls, 1))], dtype=torch.float64))
    if not tensors:
        raise ValueError("no entries")
    chunks = 0
    datasets: tuple[str, ...] = ()
    if numbers.left:
        chunks = numbers.next()
        datasets = (numbers.text(numbers.next()),) if numbers.left else ()
    return Importance(tensors, datasets=datasets, chunks=chunks, file=str(path))


class _Numbers:
    """A cursor over little-endian int32 and float32."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def next(self) -> int:
        (value,) = struct.unpack("<i", self._take(4))
        return int(value)

    def text(self, length: int) -> str:
        return self._take(length).decode()

    def floats(self, count: int) -> torch.Tensor:
        return torch.from_numpy(np.frombuffer(self._take(4 * count), "<f4").copy())

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= min(self.left, 4 * _LONGEST):
            raise ValueError("it ends too soon")
        self._at += count
        return self._data[self._at - count : self._at]


def _wrong(path: Path, why: str) -> FileInvalid:
    return FileInvalid(
        f"{path.name} is no importance data that can be read.",
        f"{why}.",
        "give a file that `llama-imatrix` or `save_imatrix` wrote, or measure: importance='auto'.",
    )
