"""Quantise weights to ggml's block types and back, in torch, on whichever device they are on.

What each type does is in `legacy`, `kquants` and `iq4`; here are the table of types and the walk
over a tensor in pieces small enough for the processor's cache. Knows no model and no file.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Barrier

import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from tunebook.errors import TensorUnsuitable
from tunebook.export.gguf import iq4, kquants, legacy

_CPU_PIECE, _GPU_PIECE = 1 << 18, 1 << 23  # weights at a time, some five float32 copies of each


@dataclass(frozen=True)
class BlockType:
    """A ggml type: so many weights of a row are so many bytes."""

    name: str
    weights: int
    bytes: int
    ggml: GGMLQuantizationType

    @property
    def bits_per_weight(self) -> float:
        """Scales included."""
        return 8 * self.bytes / self.weights


_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
_NAMES = (*_FLOATS, "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", *_K_QUANTS, "IQ4_NL", "IQ4_XS")
BLOCK_TYPES: dict[str, BlockType] = {
    name: BlockType(name, *GGML_QUANT_SIZES[GGMLQuantizationType[name]], GGMLQuantizationType[name])
    for name in _NAMES
}

# weights (places, n), and how much each counts or None, to bytes (bytes, n)
_PACK: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "Q8_0": legacy.pack_q8_0,
    "Q4_0": partial(legacy.pack_signed, bits=4),
    "Q5_0": partial(legacy.pack_signed, bits=5),
    "Q4_1": partial(legacy.pack_affine, bits=4),
    "Q5_1": partial(legacy.pack_affine, bits=5),
    "Q2_K": kquants.pack_q2_k,
    "Q3_K": kquants.pack_q3_k,
    "Q4_K": kquants.pack_q4_k,
    "Q5_K": kquants.pack_q5_k,
    "Q6_K": kquants.pack_q6_k,
    "IQ4_NL": iq4.pack_iq4_nl,
    "IQ4_XS": iq4.pack_iq4_xs,
}
_BY_ROW = ("Q4_0", "Q4_1", "Q5_0", "Q5_1")  # a weight counts by the mean square of its row too
_UNPACK: dict[str, Callable[[Tensor], Tensor]] = {
    "Q8_0": legacy.unpack_q8_0,
    "Q4_0": partial(legacy.unpack_signed, bits=4),
    "Q5_0": partial(legacy.unpack_signed, bits=5),
    "Q4_1": partial(legacy.unpack_affine, bits=4),
    "Q5_1": partial(legacy.unpack_affine, bits=5),
    "Q2_K": kquants.unpack_q2_k,
    "Q3_K": kquants.unpack_q3_k,
    "Q4_K": kquants.unpack_q4_k,
    "Q5_K": kquants.unpack_q5_k,
    "Q6_K": kquants.unpack_q6_k,
    "IQ4_NL": iq4.unpack_iq4_nl,
    "IQ4_XS": iq4.unpack_iq4_xs,
}


def row_bytes(type: str, k: int) -> int:
    """The bytes of a row of k weights.

    Raises:
        TensorUnsuitable: the type is not known, or k is no multiple of its block.
    """
    block = _block(type)
    if k % block.weights:
        fitting = [t for t in ("Q8_0", "IQ4_NL") if not k % BLOCK_TYPES[t].weights]
        raise TensorUnsuitable(
            f"Rows of {k} weights cannot be written as {type}.",
            f"{type} packs {block.weights} neighbours of a row into a block, and {k} is no multiple.",
            f"choose {' or '.join([*fitting, 'F16'])} for this tensor.",
        )
    return k // block.weights * block.bytes


@torch.no_grad()
def quantize(weight: Tensor, type: str, importance: Tensor | None = None) -> Tensor:
    """The bytes that ggml's quantiser would write, row by row.

    Scales and quants are those of `ggml_quantize_chunk` but for sums whose terms are added in
    another order: rarely, one of two equally good trials is chosen differently. A group whose scale
    is rounded to 0 has quants of 0.

    Args:
        weight: (..., k) of any floating dtype, finite (`finite` tells).
        type: a name in `BLOCK_TYPES`.
        importance: (k) float32, at least 0: mean square of the input that each column meets, as an
            importance matrix holds it; (experts, k) where `weight` is (experts, rows, k). Q8_0 and
            the float types have no use for it.

    Returns:
        (..., row_bytes(type, k)) uint8, on the device of `weight`; for F32 of float32 the same memory.

    Raises:
        TensorUnsuitable: unknown type, k is no multiple of its block, or not the length of importance.
    """
    block, k = _block(type), weight.shape[-1]
    size = row_bytes(type, k)
    if importance is not None and importance.shape == (weight.shape[0], k) and weight.ndim == 3:
        pairs = zip(weight, importance, strict=True)
        return torch.stack([quantize(part, type, columns) for part, columns in pairs])
    rows = weight.detach().reshape(-1, k)
    if type in _FLOATS:
        return rows.to(_FLOATS[type]).contiguous().view(torch.uint8).view(*weight.shape[:-1], size)
    with torch.inference_mode(False):  # else no thread but this one could write to it
        packed = torch.empty(len(rows), size, dtype=torch.uint8, device=weight.device)
    columns = None
    if importance is not None and type != "Q8_0":
        _require_columns(importance, k)
        columns = importance.to(weight.device, torch.float32).reshape(-1, block.weights).t()

    def piece(part: slice) -> None:
        x = rows[part].float()
        places = x.view(-1, block.weights).t().contiguous()
        counts = None if columns is None else columns.repeat(1, len(x))
        if counts is not None and type in _BY_ROW:
            mean = x.square().mean(1).repeat_interleave(k // block.weights)
            counts.mul_(places.square().add_(mean).sqrt_())
        packed[part].view(-1, block.bytes).copy_(_PACK[type](places, counts).t())

    _each(piece, len(rows), k, weight.device)
    return packed.view(*weight.shape[:-1], size)


@torch.no_grad()
def dequantize(packed: Tensor, type: str) -> Tensor:
    """The weights that llama.cpp reads from such bytes.

    Args:
        packed: (..., row bytes) uint8, a whole number of blocks to the row.
        type: a name in `BLOCK_TYPES`.

    Returns:
        (..., k) float32 on the same device.

    Raises:
        TensorUnsuitable: unknown type, or no whole number of blocks.
    """
    block, size = _block(type), packed.shape[-1]
    if size % block.bytes:
        raise TensorUnsuitable(
            f"Rows of {size} bytes are not {type}.",
            f"a block of {type} has {block.bytes} bytes, and {size} is no multiple.",
            "give the type that the tensor was written in.",
        )
    k = size // block.bytes * block.weights
    rows = packed.reshape(-1, size).contiguous()
    if type in _FLOATS:
        return rows.view(_FLOATS[type]).float().view(*packed.shape[:-1], k)
    with torch.inference_mode(False):
        weight = torch.empty(len(rows), k, device=packed.device)

    def piece(part: slice) -> None:
        x = _UNPACK[type](rows[part].view(-1, block.bytes).t().contiguous())
        weight[part].view(-1, block.weights).copy_(x.t())

    _each(piece, len(rows), k, packed.device)
    return weight.view(*packed.shape[:-1], k)


def finite(weight: Tensor) -> bool:
    """Whether no weight is nan or infinite; one pass and no copy of the tensor."""
    if not weight.numel():
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(weight.detach()))).all())


def _block(type: str) -> BlockType:
    if type not in BLOCK_TYPES:
        raise TensorUnsuitable(
            f"There is no type {type!r} to write.",
            f"known are {', '.join(BLOCK_TYPES)}.",
            "choose one of them; for IQ1 to IQ3 take Q2_K or Q3_K.",
        )
    return BLOCK_TYPES[type]


def _require_columns(importance: Tensor, k: int) -> None:
    if importance.shape != (k,):
        raise TensorUnsuitable(
            "The importance is not that of this tensor.",
            f"it is of shape {tuple(importance.shape)}, and a row has {k} weights.",
            "measure it on this model, or leave it out.",
        )


def _each(piece: Callable[[slice], None], count: int, k: int, device: torch.device) -> None:
    """Call `piece` for consecutive rows, on the CPU in as many threads as torch would take.

    Threads of whole pieces need no waiting for one another after each of some hundred small
    operations, as torch's own threads do.
    """
    cpu = device.type == "cpu"
    step = max(1, (_CPU_PIECE if cpu else _GPU_PIECE) // max(k, 1))
    parts = [slice(start, start + step) for start in range(0, count, step)]
    threads = min(torch.get_num_threads(), len(parts)) if cpu else 1
    if threads < 2:
        for part in parts:
            piece(part)
        return
    together, alone = torch.get_num_threads(), Barrier(threads)

    def single() -> None:
        torch.set_num_threads(1)  # of this thread, and what threads to come begin with
        torch.get_num_threads()  # the first call makes it last
        alone.wait()

    with ThreadPoolExecutor(threads) as pool:
        for started in [pool.submit(single) for _ in range(threads)]:
            started.result()
        torch.set_num_threads(together)
        list(pool.map(piece, parts))  # raises what a piece raises
