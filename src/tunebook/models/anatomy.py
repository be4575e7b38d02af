"""One decoder layer as parts, for a picture: what carries an adapter and how many weights learn.

Pure arithmetic on a model's shape; knows no picture and loads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunebook.errors import RecipeInvalid
from tunebook.models.shape import ModelShape, parts_of_fused
from tunebook.recipe import ALL_LINEAR, LoraPart

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
SHORTCUTS: dict[str, tuple[str, ...]] = {
    "all": tuple(ALL_LINEAR),
    "attention": ATTENTION,
    "mlp": MLP,
}
"""Target modules by what they are called together; on a fused layer each name means the whole."""

_NORMS = {
    2: ("input_layernorm", "", "post_attention_layernorm", ""),
    4: (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
}
_NORMS_OF = {
    "olmo2": ("", "post_attention_layernorm", "", "post_feedforward_layernorm"),
    "olmo3": ("", "post_attention_layernorm", "", "post_feedforward_layernorm"),
    "glm4": (
        "input_layernorm",
        "post_self_attn_layernorm",
        "post_attention_layernorm",
        "post_mlp_layernorm",
    ),
    "cohere": ("input_layernorm", "", "", ""),
}


_EVERYTHING: dict[str, Any] = {
    "target_modules": "all-linear",
    "language_layers": True,
    "attention_modules": True,
    "mlp_modules": True,
}


class LayerPart(BaseModel):
    """One linear module of a decoder layer."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="As the model has it: `q_proj`, or `qkv_proj` where it is fused.")
    block: Literal["attention", "mlp"]
    size_in: int
    size_out: int
    adapted: bool
    trainable: int = Field(description="Weights of its adapters in all layers; 0 without one.")
    would_train: int = Field(description="The same if it had one.")


class Anatomy(BaseModel):
    """What one layer is made of and what of the whole model learns."""

    model_config = ConfigDict(frozen=True)

    architecture: str
    layers: int
    hidden_size: int
    heads: int
    key_value_heads: int
    norms: tuple[str, str, str, str] = Field(
        description="Before and after attention, before and after the MLP; empty where there is none."
    )
    head_norms: bool = Field(description="Norms on queries and keys.")
    parallel: bool = Field(description="Attention and MLP read the same input.")
    parts: list[LayerPart]
    bias: int = Field(description="Bias terms that are trained too.")
    trainable: int = Field(description="Of a vision tower too.")
    total: int = Field(description="Weights of the base model.")
    unknown: list[str] = Field(description="Targets that no module of this layer is called.")

    @property
    def share(self) -> float:
        """Trainable weights as a share of all, adapters included, as PEFT prints it."""
        return self.trainable / (self.total + self.trainable - self.bias)


def layer_anatomy(shape: ModelShape, lora: LoraPart) -> Anatomy:
    """The parts of one layer of this model, and what `lora` trains of them."""
    modules = shape.adapted_layers(lora.model_copy(update=_EVERYTHING))
    adapted = shape.adapted_layers(lora)
    parts = []
    for name, (size_in, size_out) in modules.items():
        weights = shape.num_hidden_layers * lora.r * (size_in + size_out)
        parts.append(
            LayerPart(
                name=name,
                block="attention" if name in ("qkv_proj", *ATTENTION) else "mlp",
                size_in=size_in,
                size_out=size_out,
                adapted=name in adapted,
                trainable=weights if name in adapted else 0,
                would_train=weights,
            )
        )
    bias = shape.num_hidden_layers * _trained_biases(shape, lora, adapted)
    tower = shape.vision.lora_parameters(lora) if shape.vision else 0
    return Anatomy(
        architecture=shape.architecture,
        layers=shape.num_hidden_layers,
        hidden_size=shape.hidden_size,
        heads=shape.num_attention_heads,
        key_value_heads=shape.num_key_value_heads,
        norms=_NORMS_OF.get(shape.architecture) or _NORMS.get(shape.norms_per_layer, _NORMS[2]),
        head_norms=shape.qk_norm != "none",
        parallel=shape.norms_per_layer == 1,
        parts=parts,
        bias=bias,
        trainable=sum(part.trainable for part in parts) + tower + bias,
        total=shape.total_parameters(),
        unknown=_unknown(modules, lora),
    )


def toggled(shape: ModelShape, lora: LoraPart, name: str) -> list[str]:
    """The target modules with `name` added, or taken away if it has an adapter.

    They are named as unfused models name them, so that the recipe suits another model too.

    Raises:
        RecipeInvalid: no such module, or it is the last one.
    """
    modules = shape.adapted_layers(lora.model_copy(update=_EVERYTHING))
    if name not in modules:
        raise RecipeInvalid(
            f"This model has no layer `{name}`.",
            f"a layer of it has {', '.join(modules)}.",
            "choose one of those.",
        )
    chosen = set(shape.adapted_layers(lora)) ^ {name}
    if not chosen:
        raise RecipeInvalid(
            "The last adapter cannot be taken away.",
            "At least one layer must have an adapter, or nothing could learn.",
            "add another layer first.",
        )
    named = [part for module in modules if module in chosen for part in parts_of_fused(module)]
    return sorted(named, key=ALL_LINEAR.index)


def _trained_biases(shape: ModelShape, lora: LoraPart, adapted: dict[str, tuple[int, int]]) -> int:
    """Bias terms of one layer that `lora.bias` trains."""
    if lora.bias == "none":
        return 0
    biased = {
        **dict.fromkeys(("q_proj", "k_proj", "v_proj"), shape.attention_bias),
        "o_proj": shape.attention_output_bias,
        **dict.fromkeys(MLP, shape.mlp_bias),
    }
    chosen = adapted if lora.bias == "lora_only" else shape.linear_layers()
    return sum(size for name, (_, size) in chosen.items() if biased.get(name))


def _unknown(modules: Sequence[str] | dict[str, tuple[int, int]], lora: LoraPart) -> list[str]:
    if lora.target_modules == "all-linear":
        return []
    known = {part for module in modules for part in (module, *parts_of_fused(module))}
    return [name for name in lora.target_modules if name.rsplit(".", 1)[-1] not in known]
