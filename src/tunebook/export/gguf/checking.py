"""Read a GGUF file again and say where it is not the model: tensors, vocabulary, chat template.

Trusts nothing that the writer has in memory but the model itself. Knows files and tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunebook.export.gguf.tensors import FileTensor
from tunebook.export.gguf.vocabulary import Vocabulary
from tunebook.export.gguf_header import read_gguf
from tunebook.export.headers import Array, Header, Tensor

# Largest root mean square of the error over that of the weights: about three times what the blocks
# of a type leave of normally distributed weights. A mixed-up tensor has 1.4.
_TOLERANCE = {
    **{"F32": 1e-6, "F16": 1e-3, "BF16": 6e-3, "Q8_0": 0.03, "Q6_K": 0.06},
    **dict.fromkeys(("Q5_K", "Q5_0", "Q5_1"), 0.15),
    **dict.fromkeys(("Q4_K", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS"), 0.3),
    **{"Q3_K": 0.5, "Q2_K": 0.8},
}
_WHOLE = 2**31  # items of an array: all of them
_SAMPLE = 2**22  # weights of a tensor that are compared, in rows spread over all of it


def differences(
    path: Path,
    tensors: Sequence[FileTensor],
    kinds: Sequence[str],
    vocabulary: Vocabulary | None,
    values: Mapping[str, Any] | None = None,
) -> list[str]:
    """What in a file is not the model, each as half a sentence; empty if it is the model.

    Args:
        tensors: what the file should hold.
        kinds: the type of each.
        vocabulary: the tokenizer's, made anew; None if the file should have none.
        values: other metadata that it should have.

    Raises:
        FileInvalid: it is no GGUF file, damaged or cut off.
    """
    header = read_gguf(path, items=_WHOLE)
    expected = dict(zip((tensor.name for tensor in tensors), kinds, strict=True))
    found = {tensor.name: tensor for tensor in header.tensors}
    wrong = [f"the tensor {name} is missing" for name in expected if name not in found]
    wrong += [f"the tensor {name} is too many" for name in found if name not in expected]
    for tensor in tensors:
        if stored := found.get(tensor.name):
            wrong += _tensor_differences(path, stored, tensor, expected[tensor.name])
    if vocabulary is not None:
        wrong += _vocabulary_differences(header, vocabulary)
    for key, value in (values or {}).items():
        if _stored(header, key) != _as_stored(value):
            wrong.append(f"{key} is {_stored(header, key)} instead of {value}")
    return wrong


def _tensor_differences(path: Path, stored: Tensor, tensor: FileTensor, kind: str) -> Iterator[str]:
    if (stored.type, stored.shape) != (kind, tensor.shape):
        yield (
            f"the tensor {tensor.name} is {stored.type} {list(stored.shape)} instead of "
            f"{kind} {list(tensor.shape)}"
        )
        return
    error = _error(path, stored, tensor)
    if not error <= _TOLERANCE[kind]:  # true of no number too
        yield f"the weights of {tensor.name} are off by {error:.1%} on average"


def _error(path: Path, stored: Tensor, tensor: FileTensor) -> float:
    """The root mean square of the error over that of the weights, on a sample of rows."""
    import torch

    from tunebook.export.gguf.blocks import dequantize

    wanted = tensor.load().reshape(-1, tensor.shape[-1])
    rows = len(wanted)
    step = max(1, wanted.numel() // _SAMPLE)
    packed = np.fromfile(path, np.uint8, count=stored.bytes, offset=stored.start).reshape(rows, -1)
    got = dequantize(torch.from_numpy(packed[::step]).to(wanted.device), stored.type)
    wanted = wanted[::step]
    scale = float(wanted.pow(2).mean().sqrt())
    error = float((got - wanted).pow(2).mean().sqrt())
    return error / scale if scale else error


def _vocabulary_differences(header: Header, vocabulary: Vocabulary) -> Iterator[str]:
    """Whatever token ids depend on, and the template, key by key."""
    wanted = {
        "model": vocabulary.model,
        "pre": vocabulary.pre,
        "tokens": vocabulary.tokens,
        "token_type": vocabulary.types,
        "scores": [float(np.float32(score)) for score in vocabulary.scores] or None,
        "merges": vocabulary.merges or None,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "eot_token_id": vocabulary.eot,
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "add_space_prefix": vocabulary.add_space_prefix,
    }
    found = {f"tokenizer.ggml.{key}": value for key, value in wanted.items()}
    found["tokenizer.chat_template"] = vocabulary.chat_template
    for key, value in found.items():
        if _stored(header, key) != value:
            yield f"{key} is not the tokenizer's"


def _stored(header: Header, key: str) -> Any:
    stored = header.values.get(key)
    return list(stored.sample) if isinstance(stored, Array) else stored


def _as_stored(value: Any) -> Any:
    """A value with its numbers as precise as the file has them."""
    if isinstance(value, list):
        return [_as_stored(item) for item in value]
    return float(np.float32(value)) if isinstance(value, float) else value
