"""Read a GGUF file again and say where it is not the model: tensors, vocabulary, chat template.

Trusts nothing that the writer has in memory but the model itself. Knows files and tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunebook.export.gguf import blocks
from tunebook.export.gguf.tensors import FileTensor
from tunebook.export.gguf.vocabulary import Vocabulary
from tunebook.export.gguf_header import read_gguf
from tunebook.export.headers import Array, Header, Tensor

# By type: the largest error of a row and the largest deviation of a tensor's scale that blocks leave
# of ordinary weights, both relative; measured on every family and the embedded model, with and
# without importance. A row that is another one is off by 1.4. What is further off, as weights of
# heavy tails are, is held against what the type leaves of the same rows without importance now.
_TOLERANCE = {
    "F32": (1e-6, 1e-6),
    "F16": (1e-3, 1e-4),
    "BF16": (4e-3, 1e-3),
    "Q8_0": (0.02, 2e-3),
    "Q6_K": (0.08, 0.01),
    **dict.fromkeys(("Q5_K", "Q5_0", "Q5_1"), (0.18, 0.01)),
    **dict.fromkeys(("Q4_K", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS"), (0.28, 0.02)),
    "Q3_K": (0.32, 0.05),
    "Q2_K": (0.5, 0.1),
}
TYPES = frozenset(_TOLERANCE)
"""That are written."""
_MOST, _MOST_ERROR = 3, 1.2  # times the tolerance, and of any row, whatever it is held against
_TIMES = 1.5  # an error beside that
# The same by importance, which keeps those columns close that matter and lets others go, and how far
# the scale of all may be from 1 then.
_WEIGHTED = (20.0, 0.95, 0.15)
_TINY = 1e-5  # of weights that scales of 16 bit cannot hold, so that any error is right
_FAINT = 1e-6  # of the mean square: a row below it is as good as zero
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
    weighted = "quantize.imatrix.file" in header.values
    expected = dict(zip((tensor.name for tensor in tensors), kinds, strict=True))
    found = {tensor.name: tensor for tensor in header.tensors}
    wrong = [f"the tensor {name} is missing" for name in expected if name not in found]
    wrong += [f"the tensor {name} is too many" for name in found if name not in expected]
    for tensor in tensors:
        if stored := found.get(tensor.name):
            kind = expected[tensor.name]
            wrong += _tensor_differences(path, stored, tensor, kind, weighted=weighted)
    if vocabulary is not None:
        wrong += _vocabulary_differences(header, vocabulary)
    for key, value in (values or {}).items():
        if _stored(header, key) != _as_stored(value):
            wrong.append(f"{key} is {_stored(header, key)} instead of {value}")
    return wrong


def _tensor_differences(
    path: Path, stored: Tensor, tensor: FileTensor, kind: str, *, weighted: bool
) -> Iterator[str]:
    if (stored.type, stored.shape) != (kind, tensor.shape):
        yield (
            f"the tensor {tensor.name} is {stored.type} {list(stored.shape)} instead of "
            f"{kind} {list(tensor.shape)}"
        )
        return
    wanted, got = _rows(path, stored, tensor)
    most_error, most_scale = _TOLERANCE[kind]
    fit = _Fit(wanted, got)
    far = ~(fit.errors <= most_error)  # true of no number too
    off_scale = not abs(fit.scale - 1) <= most_scale
    if not far.any() and not off_scale:
        return
    least = _Fit(wanted, _again(wanted, kind))
    times, cap, turned = _TIMES, min(_MOST * most_error, _MOST_ERROR), _MOST * most_scale
    if weighted:
        times, cap, turned = _WEIGHTED
    tiny = fit.size < _TINY
    if (far & ~(fit.errors <= (times * least.errors).clamp(max=1.0 if tiny else cap))).any():
        yield f"the weights of {tensor.name} are off by {fit.error:.1%} on average"
        return
    same_scale = weighted or abs(fit.scale - least.scale) <= most_scale
    if off_scale and not (same_scale and (tiny or abs(fit.scale - 1) <= turned)):
        yield f"the weights of {tensor.name} are off by their scale, {fit.scale:.3f} times the model's"


class _Fit:
    """How near rows of a file are to the model's.

    Attributes:
        errors: of each row, the root mean square of the error over that of its weights.
        error: the same of all rows together.
        size: the root mean square of the model's weights.
        scale: by which the file's weights are larger; rounding to the nearest leaves it at 1.
    """

    def __init__(self, wanted: torch.Tensor, got: torch.Tensor) -> None:
        square = wanted.square().sum(-1, dtype=torch.float64)
        wrong = (got - wanted).square().sum(-1, dtype=torch.float64)
        least = max(_FAINT * float(square.mean()), 1e-38)
        self.errors = (wrong / square.clamp(min=least)).sqrt()
        self.size = float(square.sum() / wanted.numel()) ** 0.5
        self.error = float((wrong.sum() / square.sum().clamp(min=least)).sqrt())
        both = float((got * wanted).sum(dtype=torch.float64))
        own = float(got.square().sum(dtype=torch.float64))
        self.scale = own / both if both else 1.0


def _rows(path: Path, stored: Tensor, tensor: FileTensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's weights and the file's, (rows, columns) float32, on a sample of rows."""
    wanted = tensor.load().reshape(-1, tensor.shape[-1])
    rows = len(wanted)
    step = max(1, wanted.numel() // _SAMPLE)
    packed = np.fromfile(path, np.uint8, count=stored.bytes, offset=stored.start).reshape(rows, -1)
    got = blocks.dequantize(torch.from_numpy(packed[::step]).to(wanted.device), stored.type)
    return wanted[::step], got


def _again(wanted: torch.Tensor, kind: str) -> torch.Tensor:
    """What the type's blocks leave of these rows, without importance."""
    return blocks.dequantize(blocks.quantize(wanted, kind), kind)


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
