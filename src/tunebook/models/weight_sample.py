"""A few of a model's own weights, read straight from its safetensors file: one slice, no torch.

Looks at the disk only; knows nothing of quantization.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunebook.errors import ModelInvalid, ModelMissing
from tunebook.models.loading import resolve_model
from tunebook.recipe import ModelPart

STAND_IN_DEVIATION = 0.02
"""`initializer_range` of nearly all decoders; trained weights stay of that size."""
_MOST_HEADER = 100 * 2**20
_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
_PREFERRED = ("q_proj.weight", "qkv_proj.weight", "gate_proj.weight", "proj.weight", ".weight")


@dataclass(frozen=True)
class WeightSample:
    """Whole rows of one weight matrix.

    Attributes:
        weights: (rows, columns), float32.
        tensor: its name in the file; empty for a stand-in.
        why: why it is a stand-in, as a sentence; empty for real weights.
    """

    weights: npt.NDArray[np.float32]
    tensor: str
    why: str = ""


def sample_weights(part: ModelPart, *, most: int = 2**18, columns: int = 1024) -> WeightSample:
    """The first rows of a matrix of a middle layer; else a normal distribution that says so.

    Args:
        most: about how many weights to read.
        columns: width of a stand-in's rows.
    """
    why = "No weights of this model are on this machine yet"
    try:
        folder = local_folder(part)
        if folder is not None:
            return _from_folder(folder, most)
    except (OSError, ValueError, KeyError, struct.error) as error:
        why = f"The weights could not be read ({error})"
    draw = np.random.default_rng(0).standard_normal((max(1, most // columns), columns))
    return WeightSample((draw * STAND_IN_DEVIATION).astype(np.float32), "", f"{why}.")


def local_folder(part: ModelPart) -> Path | None:
    """Where the model's files lie on this disk, the hub's cache included; None if nowhere."""
    try:
        resolved = resolve_model(part.name)
    except (ModelMissing, ModelInvalid):
        return None
    if resolved.source != "hub":
        return Path(resolved.location)
    from huggingface_hub import try_to_load_from_cache

    for name in ("model.safetensors.index.json", "model.safetensors"):
        found = try_to_load_from_cache(resolved.location, name, revision=part.revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _from_folder(folder: Path, most: int) -> WeightSample:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        name = _choose(list(files))
        path = folder / Path(files[name]).name
    else:
        path, name = folder / "model.safetensors", ""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _MOST_HEADER:
            raise ValueError("its header is longer than safetensors allows")
        header: dict[str, Any] = json.loads(file.read(length))
        name = name or _choose([key for key, about in header.items() if _readable(about)])
        about = header[name]
        if not _readable(about):
            raise ValueError(f"{name} is stored as {about.get('dtype')}")
        rows, columns = about["shape"]
        rows = max(1, min(rows, most // columns))
        file.seek(8 + length + about["data_offsets"][0])
        raw = file.read(rows * columns * _WIDTHS[about["dtype"]])
    return WeightSample(_decode(raw, about["dtype"]).reshape(rows, columns), name)


def _choose(names: list[str]) -> str:
    """A projection of the middle layer, as far as names tell."""
    for ending in _PREFERRED:
        found = [name for name in names if name.endswith(ending) and "layers." in name]
        if found:
            return sorted(found, key=lambda name: (len(name), name))[len(found) // 2]
    raise ValueError("no layer's weights are in it")


def _readable(about: Any) -> bool:
    shape = about.get("shape", []) if isinstance(about, dict) else []
    return len(shape) == 2 and about.get("dtype") in _WIDTHS


def _decode(raw: bytes, dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
    kind = np.float16 if dtype == "F16" else np.float32
    return np.frombuffer(raw, kind).astype(np.float32)
