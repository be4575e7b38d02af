"""The file with a vision model's eyes, `mmproj-….gguf`: vision tower and projector for llama.cpp.

Tensors are computed when they are asked for, as those of the language file; what each family wants
stands in `vision_families`. Knows models and picture processors; writes no files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import ModelInvalid, RecipeInvalid, TokenizerUnsupported
from tunebook.export.gguf.architectures import ARCHITECTURES
from tunebook.export.gguf.mixes import MIXES, Mix
from tunebook.export.gguf.tensors import FileTensor, shape_of
from tunebook.export.gguf.vision_families import (
    Split,
    Turn,
    VisionFamily,
    activation_of,
    vision_family,
)
from tunebook.export.weights import Weight, merged_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TYPES = ("F32", "F16", "BF16", "Q8_0")
"""Of the matrices of a projector file."""
_LAYER = re.compile(r"(layers|blocks|merger_list)\.(\d+)\.")
_BREAK = "[IMG_BREAK]"


@dataclass(frozen=True)
class Projector:
    """What goes into the projector file of one model, whatever its type.

    Attributes:
        metadata: keys and values.
        of_language: those that the file with the language tower has beside its others.
        tensors: in the order of the model.
        notes: sentences on what llama.cpp does otherwise than the model.
    """

    family: VisionFamily
    metadata: dict[str, Any]
    of_language: dict[str, Any]
    tensors: list[FileTensor]
    notes: tuple[str, ...]

    def kinds(self, mix: Mix) -> list[str]:
        """The type of each tensor."""
        return [projector_type(tensor.name, tensor.shape, mix.name) for tensor in self.tensors]

    def differences(self, path: Path, mix: Mix) -> list[str]:
        """What in a file is not the model, each as half a sentence; see `checking.differences`."""
        from tunebook.export.gguf.checking import differences

        return differences(path, self.tensors, self.kinds(mix), None, self.metadata)


def projector_of(base: PreTrainedModel, processor: Any) -> Projector:
    """The projector file of a vision model.

    Args:
        base: the model inside the PEFT wrapper.
        processor: with the tokenizer and what makes pixels of pictures.

    Raises:
        ModelInvalid: a family or variant that llama.cpp does not know.
        TokenizerUnsupported: tokens are missing that llama.cpp writes around a picture.
    """
    config = base.config
    family = vision_family(config)
    pictures = processor.image_processor
    _require_tokens(family, processor.tokenizer)
    metadata = {f"clip.{key}": value for key, value in _metadata(family, config, pictures).items()}
    layers = metadata["clip.vision.block_count"]
    tensors = list(_tensors(base, family, layers, processor.tokenizer))
    unit = pictures_unit(metadata)
    notes = tuple(note.format(unit=unit) for note in family.notes)
    prefix = ARCHITECTURES[config.get_text_config().model_type].name
    of_language = {f"{prefix}.{key}": value for key, value in family.language(config).items()}
    return Projector(family, metadata, of_language, tensors, notes)


def projector_mix(name: str) -> Mix:
    """The type of a projector file by its name.

    Raises:
        RecipeInvalid: llama.cpp computes its pictures with no such type.
    """
    if name.upper() not in TYPES:
        raise RecipeInvalid(
            f"The file with the vision tower is not written in {name!r}.",
            f"llama.cpp takes {', '.join(kind.lower() for kind in TYPES)}.",
            "use 'f16', or 'q8_0' for half of that.",
        )
    return MIXES[name.upper()]


def projector_type(name: str, shape: tuple[int, ...], wanted: str) -> str:
    """The type of one tensor: 32 bit for what is added, 16 bit at most for what is no product of matrices."""
    added = name.endswith(("position_embd.weight", ".bias", "_norm.weight"))
    if len(shape) < 2 or added or wanted == "F32":
        return "F32"
    if name.startswith("v.patch_embd"):  # a convolution
        return "F32" if wanted == "BF16" else "F16"
    if name == "mm.input_projection.weight":  # is turned round before each use
        return "F16"
    return "F16" if wanted == "Q8_0" and shape[-1] % 32 else wanted


def plain_size(metadata: dict[str, Any]) -> tuple[int, int]:
    """(width, height) of a small picture that neither llama.cpp nor the processor resizes or borders."""
    size, unit = metadata["clip.vision.image_size"], pictures_unit(metadata)
    if (longest := metadata.get("clip.vision.preproc_image_size")) is not None:
        return longest, size
    if (fewest := metadata.get("clip.vision.image_min_pixels")) is None:
        return size, size
    most = metadata["clip.vision.image_max_pixels"]
    high = max(5, math.isqrt(fewest) // unit + 1)
    wide = high + 1
    while high * wide * unit**2 > most or wide * unit > math.isqrt(most):
        high, wide = high - 1, wide - 1
    return wide * unit, high * unit


def pictures_unit(metadata: dict[str, Any]) -> int:
    """Pixels along a side of what becomes one token."""
    merged = metadata.get("clip.vision.spatial_merge_size", 1)
    return int(metadata["clip.vision.patch_size"] * merged)


def _metadata(family: VisionFamily, config: Any, pictures: Any) -> dict[str, Any]:
    """Keys without their prefix `clip.`; in the order of the file."""
    vision = config.vision_config
    values = {
        "has_vision_encoder": True,
        "projector_type": family.projector,
        "use_gelu": activation_of(config).startswith("gelu"),
        "use_silu": activation_of(config) == "silu",
        "vision.projection_dim": config.get_text_config().hidden_size,
        "vision.image_size": getattr(vision, "image_size", None),
        "vision.patch_size": vision.patch_size,
        "vision.embedding_length": vision.hidden_size,
        "vision.feed_forward_length": getattr(vision, "intermediate_size", None),
        "vision.block_count": vision.num_hidden_layers,
        "vision.attention.head_count": vision.num_attention_heads,
        "vision.image_mean": [float(value) for value in pictures.image_mean],
        "vision.image_std": [float(value) for value in pictures.image_std],
    }
    pixels = family.pixels(config, pictures)
    if pixels is not None:
        values |= {"vision.image_min_pixels": pixels[0], "vision.image_max_pixels": pixels[1]}
    return {**values, **family.stated(config, pictures)}


def _require_tokens(family: VisionFamily, tokenizer: Any) -> None:
    """llama.cpp looks its tokens around a picture up by their text, and dies without them."""
    for text in family.tokens:
        if len(ids := tokenizer(text, add_special_tokens=False)["input_ids"]) != 1:
            raise TokenizerUnsupported(
                "llama.cpp cannot show this model a picture.",
                f"it writes the token {text!r} beside pictures, and the tokenizer has {len(ids)} "
                "tokens for that text.",
                "use the tokenizer that came with the model.",
            )


def _tensors(
    base: PreTrainedModel, family: VisionFamily, layers: int, tokenizer: Any
) -> Iterator[FileTensor]:
    for weight in merged_weights(base):
        part = next((part for part in family.parts if weight.name.startswith(part)), None)
        if part is not None and not weight.buffer:
            rest = weight.name.removeprefix(part).removeprefix(
                "vision_model."
            )  # older transformers
            yield from _placed(weight, rest, family, layers, base.config)
        elif _BREAK in family.tokens and weight.name.endswith("embed_tokens.weight"):
            shape = (shape_of(weight)[-1],)
            row = tokenizer.convert_tokens_to_ids(_BREAK)
            yield FileTensor("v.token_embd.img_break", shape, partial(_row, weight, row))


def _placed(
    weight: Weight, rest: str, family: VisionFamily, layers: int, config: Any
) -> Iterator[FileTensor]:
    """The tensors of the file that one of the model becomes: one, several or none."""
    if rest.startswith(family.dropped):
        return
    number = _LAYER.search(rest)
    key = _LAYER.sub(r"\1.{n}.", rest)
    module, _, ending = key.rpartition(".")
    whole = key in family.names
    place = family.names.get(key if whole else module)
    if place is None:
        raise ModelInvalid(
            "This model cannot be written as GGUF.",
            f"llama.cpp's {family.projector!r} has no place for its tensor {weight.name}.",
            "export 'merged_16bit', and serve that with vLLM or transformers.",
        )
    layer = int(number[2]) if number else 0
    if "{n}" in key and "deepstack" not in key and layer >= layers:
        return  # behind the last layer that is looked at
    deep = getattr(config.vision_config, "deepstack_visual_indexes", None) or [0] * (layer + 1)
    split = place if isinstance(place, Split) else None
    for index, name in enumerate(split.names if split else (str(place),)):
        full = name if whole else f"{name}.{ending}"
        full = full.format(n=layer, deep=deep[layer] if "{deep}" in full else 0)
        turn = next((turn for end, turn in family.turns.items() if module.endswith(end)), None)
        load = partial(_loaded, weight, split, index, turn, config.vision_config)
        yield FileTensor(full, _cut_shape(shape_of(weight), split), load)


def _loaded(
    weight: Weight, split: Split | None, index: int, turn: Turn | None, vision: Any
) -> torch.Tensor:
    value = weight.value()
    value = value if split is None else split.cut(value)[index]
    value = value if turn is None else turn(value, vision)
    return value.float().contiguous()


def _row(weight: Weight, row: int) -> torch.Tensor:
    return weight.value()[row].float()


def _cut_shape(shape: tuple[int, ...], split: Split | None) -> tuple[int, ...]:
    import torch

    if split is None:
        return shape
    return tuple(split.cut(torch.empty(shape, device="meta"))[0].shape)
