"""The weights of a GGUF file in the order of the model's rows, read when they are asked for.

So a model can compute with what a file holds. Knows files, tensors and types; runs no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tunebook.export.gguf.blocks import dequantize
from tunebook.export.gguf.divergence import Load
from tunebook.export.gguf.mixes import is_quantized
from tunebook.export.gguf.tensors import FileTensor
from tunebook.export.gguf_header import read_gguf
from tunebook.export.headers import Tensor


def stored_weights(path: Path, tensors: Sequence[FileTensor]) -> dict[str, Load]:
    """For `Replaced`: what gives each matrix of a file, by its name; norms and routers are left out.

    Args:
        tensors: of the model that the file was made of.
    """
    found = {tensor.name: tensor for tensor in read_gguf(path).tensors}
    return {
        tensor.name: _Stored(path, found[tensor.name], tensor)
        for tensor in tensors
        if tensor.name in found and is_quantized(tensor.name, tensor.shape) and tensor.source
    }


class _Stored:
    """One matrix of a file."""

    def __init__(self, path: Path, stored: Tensor, tensor: FileTensor) -> None:
        assert tensor.source is not None
        shape = (*tensor.shape[:-1], stored.bytes // _count(tensor.shape[:-1]))
        self._packed = np.memmap(path, np.uint8, "r", offset=stored.start, shape=shape)
        self._kind, self._weight = stored.type, tensor.source.weight
        self._order: np.ndarray | None = None
        if len(tensor.shape) == 2:  # where the file has each row of the model
            places = torch.arange(tensor.shape[0])
            turned = tensor.source.turn(places[:, None]).flatten()
            if not torch.equal(turned, places):
                self._order = turned.argsort().numpy()

    def __call__(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        packed = self._packed
        if rows is not None:
            wanted = rows.cpu().numpy()
            packed = packed[wanted if self._order is None else self._order[wanted]]
        elif self._order is not None:
            packed = packed[self._order]
        device = getattr(self._weight.holder, self._weight.key).device
        return dequantize(torch.from_numpy(np.array(packed)).to(device), self._kind)


def _count(lengths: Sequence[int]) -> int:
    count = 1
    for length in lengths:
        count *= length
    return count
