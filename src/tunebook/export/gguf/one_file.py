"""Write one GGUF file: a header, then tensor after tensor, each computed when it is its turn.

Knows the layout of a file and its blocks; knows nothing of what the tensors are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import ModelInvalid
from tunebook.export.gguf.mixes import Mix, tensor_bytes
from tunebook.export.gguf.tensors import FileTensor
from tunebook.export.progress import Progress

if TYPE_CHECKING:
    import gguf
    import torch

_LARGEST_F16 = 65504.0


def write_file(
    path: Path,
    architecture: str,
    describe: Callable[[gguf.GGUFWriter], None],
    tensors: Sequence[FileTensor],
    kinds: Sequence[str],
    mix: Mix,
    progress: Progress,
    *,
    importance: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a file; no more than one tensor is held in memory.

    Args:
        architecture: `general.architecture`.
        describe: adds the metadata.
        kinds: the type of each tensor.
        importance: of the columns, by the tensor's name.

    Raises:
        ModelInvalid: a weight that is not a number, or does not fit into F16.
        OSError: the disk is full.
    """
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, architecture)
    try:
        describe(writer)
        writer.add_file_type(mix.file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for tensor, kind in zip(tensors, kinds, strict=True):
            writer.add_tensor_info(
                tensor.name,
                tensor.shape,
                np.dtype(np.float32),
                tensor_bytes(tensor.shape, kind),
                raw_dtype=gguf.GGMLQuantizationType[kind],
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _write_tensors(writer, tensors, kinds, importance or {}, progress)
    finally:
        writer.close()


def add_values(writer: gguf.GGUFWriter, values: Mapping[str, Any]) -> None:
    """Add metadata of plain types: text, truth, whole and other numbers, and lists of them."""
    add: dict[type, Callable[[str, Any], None]] = {
        str: writer.add_string,
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        list: writer.add_array,
    }
    for key, value in values.items():
        add[type(value)](key, value)


def _write_tensors(
    writer: gguf.GGUFWriter,
    tensors: Sequence[FileTensor],
    kinds: Sequence[str],
    importance: Mapping[str, torch.Tensor],
    progress: Progress,
) -> None:
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    for tensor, kind in zip(tensors, kinds, strict=True):
        packed = _packed(tensor, kind, importance.get(tensor.name))
        data = packed.cpu().contiguous().numpy()
        file.write(data.data)  # `tofile` does not tell that a disk is full
        writer.write_padding(file, data.nbytes)
        progress.add(data.nbytes)
    file.flush()
    os.fsync(file.fileno())


def _packed(tensor: FileTensor, kind: str, importance: torch.Tensor | None) -> torch.Tensor:
    """The blocks of a tensor: (..., bytes of a row), uint8."""
    from tunebook.export.gguf.blocks import quantize

    weight = tensor.load()
    if kind == "F16" and (largest := float(weight.abs().amax())) > _LARGEST_F16:
        raise ModelInvalid(
            f"The weights {tensor.name} do not fit into F16.",
            f"the largest is {largest:,.0f}, and F16 ends at {_LARGEST_F16:,.0f}.",
            "set the quantization to 'bf16' or 'f32'.",
        )
    return quantize(weight, kind, importance)
