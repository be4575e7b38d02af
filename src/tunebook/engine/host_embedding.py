"""Keeps a frozen input embedding in the host's memory, where the device reads the rows it needs.

A batch looks up a few thousand rows of a table of a gigabyte. The table is registered with CUDA, which
maps it into the device's address space, so that it stays a tensor "on the device" for all who use it:
lookups, `state_dict` and a captured graph read it over the link. Knows no plan and no layer.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from tunebook.engine.linear_group import LAYOUT
from tunebook.engine.locks import unwrapped

logger = logging.getLogger(__name__)

_HOST, _FAILURE = "_tunebook_on_host", "_tunebook_not_on_host"


class HostMemory:
    """A copy of a tensor of the device in registered host memory; registered as long as it lives.

    Raises:
        RuntimeError: the host has no room, or CUDA cannot register it.
    """

    def __init__(self, source: torch.Tensor) -> None:
        self._registered = False
        self._device = source.device
        self._bytes = torch.empty(source.nbytes, dtype=torch.uint8)
        # not pinned by torch, which rounds up to a power of two
        status = _cudart().cudaHostRegister(self._bytes.data_ptr(), source.nbytes, 0)
        if int(status) != 0:
            raise RuntimeError(f"cudaHostRegister returned {status}")
        self._registered = True
        self._bytes.view(source.dtype).view(source.shape).copy_(source)
        self._dtype, self._shape = source.dtype, source.shape

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The bytes as CUDA sees them; whoever reads this keeps the object alive."""
        return {
            "shape": (self._bytes.numel(),),
            "typestr": "|u1",
            "data": (self._bytes.data_ptr(), False),
            "version": 2,
        }

    def tensor(self) -> torch.Tensor:
        """A tensor of the device, of the shape and dtype copied, over these bytes."""
        mapped = torch.as_tensor(self, device=self._device)
        return mapped.view(self._dtype).view(self._shape)

    def __del__(self) -> None:
        if self._registered:
            torch.cuda.synchronize(self._device)  # nobody reads it any more
            _cudart().cudaHostUnregister(self._bytes.data_ptr())


def place_embedding(model: nn.Module, *, on_host: bool) -> None:
    """Move the input embedding to the host's memory, or back to the device.

    It stays on the device, with a warning, where it learns, where the output head shares it, or where
    the host has no room; see `embedding_failure`.
    """
    embedding = _embedding(model)
    if embedding is None or (_HOST in embedding.__dict__) == on_host:
        return
    embedding.__dict__.pop(_FAILURE, None)
    weight: Any = embedding.weight
    if not on_host:
        weight.data = weight.data.clone()
        del embedding.__dict__[_HOST]
    elif failure := _to_host(embedding, model):
        embedding.__dict__[_FAILURE] = failure
        logger.warning("The input embedding stays on the device: %s", failure)
        return
    LAYOUT.changed()  # captured graphs hold its address


def embedding_bytes(model: nn.Module) -> int:
    """Bytes of host memory that the input embedding takes."""
    embedding = _embedding(model)
    on_host = embedding is not None and _HOST in embedding.__dict__
    return embedding.weight.nbytes if embedding is not None and on_host else 0


def embedding_failure(model: nn.Module) -> str | None:
    """Why it stays on the device although it was to leave; None if it does not have to."""
    embedding = _embedding(model)
    return None if embedding is None else embedding.__dict__.get(_FAILURE)


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _to_host(embedding: nn.Embedding, model: nn.Module) -> str | None:
    """Move it to the host; why it could not be, or None."""
    weight: Any = embedding.weight
    head: Any = unwrapped(model).get_output_embeddings()
    if weight.device.type != "cuda":
        return "it is not on a GPU"
    if weight.requires_grad:
        return "it learns"
    if head is not None and head.weight.data_ptr() == weight.data_ptr():
        return "the output head shares its weights"
    try:
        memory = HostMemory(weight.data)
    except RuntimeError as error:
        return str(error).splitlines()[0].rstrip(".")
    weight.data = memory.tensor()
    embedding.__dict__[_HOST] = True
    return None


def _embedding(model: nn.Module) -> nn.Embedding | None:
    inner: Any = unwrapped(model)
    found = inner.get_input_embeddings() if hasattr(inner, "get_input_embeddings") else None
    return found if isinstance(found, nn.Embedding) else None
