"""The tensors of a GGUF file, named and turned for llama.cpp, each computed when it is asked for.

Takes merged tensors as `tunebook.export.weights` gives them; knows no types of quantization.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.errors import ModelInvalid
from tunebook.export.gguf.architectures import Architecture
from tunebook.export.gguf.metadata import rope_tensors
from tunebook.export.gguf.vision_families import SEEING
from tunebook.export.weights import Weight, merged_weights

if TYPE_CHECKING:
    import torch
    from gguf import TensorNameMap
    from transformers import PreTrainedModel

_EXPERTS = ".experts.gate_up_proj"
_LANGUAGE = re.compile(r"^model\.(language_model|text_model)\.")


@dataclass(frozen=True)
class FileTensor:
    """A tensor of the file.

    Attributes:
        name: in the file, such as "blk.0.attn_q.weight".
        shape: rows first, as torch has it.
        load: gives it in float32, on the device of the model.
        source: where it comes from; None if it is computed from the configuration.
    """

    name: str
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor]
    source: Source | None = None


@dataclass(frozen=True)
class Source:
    """The tensor of the model that one of the file is made of.

    Attributes:
        weight: the merged tensor.
        part: 0 for the gate and 1 for the up half of stacked experts; None for all of it.
        turn: puts rows of it, or values that belong to its rows, into the order of the file.
    """

    weight: Weight
    part: int | None
    turn: Callable[[torch.Tensor], torch.Tensor]

    def piece(self, value: torch.Tensor) -> torch.Tensor:
        """The part of the model's tensor, in the model's order."""
        return value if self.part is None else value.chunk(2, dim=1)[self.part]


def file_tensors(
    base: PreTrainedModel, architecture: Architecture, text: Any
) -> Iterator[FileTensor]:
    """Every tensor of the file with the language tower, in the order of the model's layers.

    Args:
        base: the model inside the PEFT wrapper.
        text: configuration of its text decoder.

    Raises:
        ModelInvalid: a tensor has no place in llama.cpp's graph of this family.
    """
    for name, tensor in rope_tensors(text).items():
        yield FileTensor(name, tuple(tensor.shape), lambda tensor=tensor: tensor)  # type: ignore[misc]
    names = _name_map(architecture, text.num_hidden_layers)
    for weight in merged_weights(base):
        if not weight.buffer and not weight.name.startswith(SEEING):
            for name, shape, part in _parts(weight):
                yield _placed(name, shape, weight, part, architecture, names, text)


def _parts(weight: Weight) -> Iterator[tuple[str, tuple[int, ...], int | None]]:
    """Gate and up of the experts, (experts, 2 * width, in), apart; anything else as it is.

    Names are those of a model that is a text decoder and nothing else.
    """
    name = _LANGUAGE.sub("model.", weight.name)
    shape = shape_of(weight)
    if not name.endswith(_EXPERTS):
        yield name, shape, None
        return
    experts, both, columns = shape
    for place, part in enumerate(("gate_proj", "up_proj")):
        yield name.replace("gate_up_proj", part), (experts, both // 2, columns), place


def _placed(
    name: str,
    shape: tuple[int, ...],
    weight: Weight,
    part: int | None,
    architecture: Architecture,
    names: TensorNameMap,
    text: Any,
) -> FileTensor:
    # the stacked experts are parameters of their module, without an ending of their own
    full = name if name.endswith((".weight", ".bias")) else f"{name}.weight"
    placed = names.get_name(full, try_suffixes=(".weight", ".bias"))
    if placed is None:
        raise ModelInvalid(
            "This model cannot be written as GGUF.",
            f"llama.cpp's {architecture.name!r} has no place for its tensor {name}.",
            "export 'merged_16bit', and serve that with vLLM or transformers.",
        )
    module = full.rpartition(".")[0]
    found = next((turn for end, turn in architecture.turns.items() if module.endswith(end)), None)

    def turn(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if found is None else found(tensor, text)

    source = Source(weight, part, turn)
    return FileTensor(placed, shape, lambda: turn(source.piece(weight.value()).float()), source)


def shape_of(weight: Weight) -> tuple[int, ...]:
    """Of a merged tensor, not packed."""
    parameter = getattr(weight.holder, weight.key)
    packed = getattr(parameter, "quant_state", None)  # of a 4-bit weight
    return tuple(parameter.shape if packed is None else packed.shape)


def _name_map(architecture: Architecture, layers: int) -> TensorNameMap:
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    number = next(key for key, name in MODEL_ARCH_NAMES.items() if name == architecture.name)
    return get_tensor_name_map(number, layers)
