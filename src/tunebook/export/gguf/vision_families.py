"""What llama.cpp wants of each family of vision models: names, sizes, and what it does otherwise.

One row a family, read off llama.cpp's conversion scripts and graphs (conversion/*.py, tools/mtmd).
Knows configurations and shapes; no files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tunebook.errors import ModelInvalid
from tunebook.export.gguf.picture_template import Place

if TYPE_CHECKING:
    import torch

Cut = Callable[["torch.Tensor"], "tuple[torch.Tensor, ...]"]
Turn = Callable[["torch.Tensor", Any], "torch.Tensor"]
"""(merged tensor, configuration of the vision tower) to the tensor as the file holds it."""
Values = dict[str, Any]


_IMAGE = Place("<image>")


@dataclass(frozen=True)
class Split:
    """A tensor of the model that is several of the file.

    Attributes:
        names: in the file.
        cut: into as many pieces.
    """

    names: tuple[str, ...]
    cut: Cut


@dataclass(frozen=True)
class VisionFamily:
    """One family.

    Attributes:
        projector: `clip.projector_type`, by which llama.cpp chooses its graph.
        parts: prefixes of the modules that see, in the model.
        names: modules behind such a prefix, `{n}` for the number of a layer, to names in the file.
        dropped: what of these parts llama.cpp does not compute with.
        stated: metadata that this family has beside the others': key without `clip.` to value.
        settings: fields of the configuration with the only values that its graph computes; dotted.
        activations: of the vision tower, that it computes.
        turns: by the end of a module's name, how its tensors are turned.
        tokens: that llama.cpp writes around a picture, so that the vocabulary has to have them.
        place: how chat templates write a picture.
        language: metadata of the file with the language tower.
        pixels: fewest and most pixels of a picture for llama.cpp, from the picture processor.
        notes: sentences on what llama.cpp does otherwise.
    """

    projector: str
    parts: tuple[str, ...]
    names: Mapping[str, str | Split]
    dropped: tuple[str, ...] = ()
    stated: Callable[[Any, Any], Values] = lambda _config, _pictures: {}
    settings: Mapping[str, Any] = field(default_factory=dict)
    activations: tuple[str, ...] = ("gelu_pytorch_tanh", "gelu")
    turns: Mapping[str, Turn] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()
    place: Place = _IMAGE
    language: Callable[[Any], Values] = lambda _config: {}
    pixels: Callable[[Any, Any], tuple[int, int] | None] = lambda _config, _pictures: None
    notes: tuple[str, ...] = ()


def _thirds(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tensor.chunk(3)


def _frames(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(out, in, 2, height, width): what is multiplied with each of two frames."""
    return tensor.unbind(2)


def _paired(tensor: torch.Tensor, vision: Any) -> torch.Tensor:
    """Rows of each head from halves (transformers' rotary) to neighbours (llama.cpp's)."""
    heads = vision.num_attention_heads
    split = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return split.transpose(1, 2).reshape(tensor.shape)


def _plus_one(tensor: torch.Tensor, vision: Any) -> torch.Tensor:
    return tensor.float() + 1


_PATCHES_OF_TWO_FRAMES = Split(("v.patch_embd.weight", "v.patch_embd.weight.1"), _frames)
_QWEN: dict[str, str | Split] = {
    "patch_embed.proj.weight": _PATCHES_OF_TWO_FRAMES,
    "blocks.{n}.norm1": "v.blk.{n}.ln1",
    "blocks.{n}.norm2": "v.blk.{n}.ln2",
    "blocks.{n}.attn.proj": "v.blk.{n}.attn_out",
}
_QWEN_2: dict[str, str | Split] = {
    **_QWEN,
    "blocks.{n}.attn.qkv": Split(
        ("v.blk.{n}.attn_q", "v.blk.{n}.attn_k", "v.blk.{n}.attn_v"), _thirds
    ),
    "merger.ln_q": "v.post_ln",
    "merger.mlp.0": "mm.0",
    "merger.mlp.2": "mm.2",
}
_VIT = {  # SigLIP, CLIP and the tower of Idefics
    "embeddings.class_embedding": "v.class_embd",
    "embeddings.patch_embedding": "v.patch_embd",
    "embeddings.position_embedding": "v.position_embd",
    "pre_layrnorm": "v.pre_ln",
    "encoder.layers.{n}.layer_norm1": "v.blk.{n}.ln1",
    "encoder.layers.{n}.layer_norm2": "v.blk.{n}.ln2",
    "encoder.layers.{n}.self_attn.q_proj": "v.blk.{n}.attn_q",
    "encoder.layers.{n}.self_attn.k_proj": "v.blk.{n}.attn_k",
    "encoder.layers.{n}.self_attn.v_proj": "v.blk.{n}.attn_v",
    "encoder.layers.{n}.self_attn.out_proj": "v.blk.{n}.attn_out",
    "encoder.layers.{n}.mlp.fc1": "v.blk.{n}.ffn_up",
    "encoder.layers.{n}.mlp.fc2": "v.blk.{n}.ffn_down",
    "post_layernorm": "v.post_ln",
}
_GATED = {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}


def _qwen_pixels(config: Any, pictures: Any) -> tuple[int, int]:
    size = pictures.size
    return int(size["shortest_edge"]), int(size["longest_edge"])


def _qwen2_stated(config: Any, pictures: Any) -> Values:
    vision = config.vision_config
    return {
        "vision.image_size": 560,  # of no meaning: pictures keep their sizes
        "vision.embedding_length": vision.embed_dim,
        "vision.feed_forward_length": int(vision.embed_dim * vision.mlp_ratio),
        "vision.attention.layer_norm_epsilon": 1e-6,
        "vision.spatial_merge_size": vision.spatial_merge_size,
    }


def _qwen25_stated(config: Any, pictures: Any) -> Values:
    vision = config.vision_config
    whole = list(vision.fullatt_block_indexes)
    pattern = whole[0] + 1
    if whole != list(range(pattern - 1, vision.depth, pattern)):
        raise _computed_otherwise(config, "vision_config.fullatt_block_indexes", whole)
    return {
        "vision.image_size": 560,
        "vision.attention.layer_norm_epsilon": 1e-6,
        "vision.spatial_merge_size": vision.spatial_merge_size,
        "vision.n_wa_pattern": pattern,
    }


def _qwen3_stated(config: Any, pictures: Any) -> Values:
    vision = config.vision_config
    deep = set(vision.deepstack_visual_indexes)
    return {
        "vision.image_size": math.isqrt(vision.num_position_embeddings) * vision.patch_size,
        "vision.attention.layer_norm_epsilon": 1e-6,
        "vision.spatial_merge_size": vision.spatial_merge_size,
        "vision.is_deepstack_layers": [layer in deep for layer in range(vision.depth)],
    }


def _gemma_stated(config: Any, pictures: Any) -> Values:
    vision = config.vision_config
    across = vision.image_size // vision.patch_size
    pooled = across // math.isqrt(config.mm_tokens_per_image)
    return {
        "vision.attention.layer_norm_epsilon": vision.layer_norm_eps,
        "vision.projector.scale_factor": pooled,
    }


def _idefics_stated(config: Any, pictures: Any) -> Values:
    return {
        "vision.attention.layer_norm_epsilon": config.vision_config.layer_norm_eps,
        "vision.projector.scale_factor": config.scale_factor,
        "vision.preproc_image_size": pictures.size["longest_edge"],
    }


def _pixtral_stated(config: Any, pictures: Any) -> Values:
    return {
        "vision.attention.layer_norm_epsilon": 1e-5,
        "vision.spatial_merge_size": _merged(config),
    }


def _pixtral_pixels(config: Any, pictures: Any) -> tuple[int, int]:
    unit = (config.vision_config.patch_size * _merged(config)) ** 2
    return unit, int(pictures.size["longest_edge"]) ** 2


def _merged(config: Any) -> int:
    return int(getattr(config, "spatial_merge_size", 1))


def _llava_stated(config: Any, pictures: Any) -> Values:
    vision, layers = config.vision_config, feature_layers(config)
    return {
        "vision.attention.layer_norm_epsilon": vision.layer_norm_eps,
        "vision.block_count": max(layers),
        "vision.feature_layer": layers,
    }


def feature_layers(config: Any) -> list[int]:
    """The hidden states that a LLaVA model looks at; 0 is the first layer's input.

    Raises:
        ModelInvalid: in another order than llama.cpp joins them in.
    """
    chosen = config.vision_feature_layer
    layers = [chosen] if isinstance(chosen, int) else list(chosen)
    count = config.vision_config.num_hidden_layers + 1
    layers = [layer % count for layer in layers]
    if layers != sorted(set(layers)):
        raise _computed_otherwise(config, "vision_feature_layer", chosen)
    return layers


_QWEN_SETTINGS = {"vision_config.spatial_merge_size": 2, "vision_config.temporal_patch_size": 2}
_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>")
_QWEN_PLACE = Place("<|vision_start|><|image_pad|><|vision_end|>")
_QWEN_NOTE = (
    "llama.cpp keeps a picture's proportions where the model stretches it: sides that are no multiple "
    "of {unit} pixels get a black border of a few pixels.",
)
_QWEN_2_5 = {f"blocks.{{n}}.mlp.{name}": f"v.blk.{{n}}.{theirs}" for name, theirs in _GATED.items()}
_IDEFICS = VisionFamily(
    projector="idefics3",
    parts=("model.vision_model.", "model.connector."),
    names={**_VIT, "modality_projection.proj": "mm.model.fc"},
    stated=_idefics_stated,
    activations=("gelu_pytorch_tanh",),
    tokens=("\n\n", "\n", "<fake_token_around_image>", "<global-img>"),
    notes=(
        "llama.cpp always cuts a picture into tiles, also where the processor has "
        "do_image_splitting=False or the picture is no larger than one.",
    ),
)
_PIXTRAL = VisionFamily(
    projector="pixtral",
    parts=("model.vision_tower.", "model.multi_modal_projector."),
    names={
        "patch_conv": "v.patch_embd",
        "ln_pre": "v.pre_ln",
        "transformer.layers.{n}.attention_norm": "v.blk.{n}.ln1",
        "transformer.layers.{n}.ffn_norm": "v.blk.{n}.ln2",
        "transformer.layers.{n}.attention.q_proj": "v.blk.{n}.attn_q",
        "transformer.layers.{n}.attention.k_proj": "v.blk.{n}.attn_k",
        "transformer.layers.{n}.attention.v_proj": "v.blk.{n}.attn_v",
        "transformer.layers.{n}.attention.o_proj": "v.blk.{n}.attn_out",
        **{
            f"transformer.layers.{{n}}.feed_forward.{name}": f"v.blk.{{n}}.{theirs}"
            for name, theirs in _GATED.items()
        },
        "norm": "mm.input_norm",
        "patch_merger.merging_layer": "mm.patch_merger",
        "linear_1": "mm.1",
        "linear_2": "mm.2",
    },
    stated=_pixtral_stated,
    settings={
        "vision_config.rope_parameters.rope_theta": 10000.0,
        "vision_feature_layer": -1,
        "projector_hidden_act": "gelu",
    },
    activations=("silu", "gelu"),
    turns={"attention.q_proj": _paired, "attention.k_proj": _paired},
    tokens=("[IMG_END]", "[IMG_BREAK]"),
    place=Place("[IMG]"),
    pixels=_pixtral_pixels,
    notes=_QWEN_NOTE,
)
_LLAVA = VisionFamily(
    projector="mlp",
    parts=("model.vision_tower.", "model.multi_modal_projector.", "model.image_"),
    names={**_VIT, "linear_1": "mm.0", "linear_2": "mm.2"},
    dropped=("post_layernorm", "head.", "newline"),
    stated=_llava_stated,
    settings={"projector_hidden_act": "gelu"},
    activations=("quick_gelu", "gelu", "gelu_pytorch_tanh"),
    notes=(
        "llama.cpp gives a picture that is not square a border.",
        "llama.cpp puts the class token of a CLIP tower behind the patches, not before them, so that "
        "each patch has its neighbour's place: it sees worse than the model.",
    ),
)
_LLAVA_NEXT = replace(
    _LLAVA,
    notes=(
        *_LLAVA.notes,
        "llama.cpp shows a LLaVA-NeXT model one view of the whole picture, without the tiles and the "
        "marks between their rows that it was trained with.",
    ),
)

VISION_FAMILIES: dict[str, VisionFamily] = {  # by `model_type`
    "qwen2_vl": VisionFamily(
        projector="qwen2vl_merger",
        parts=("model.visual.",),
        names={
            **_QWEN_2,
            "blocks.{n}.mlp.fc1": "v.blk.{n}.ffn_up",
            "blocks.{n}.mlp.fc2": "v.blk.{n}.ffn_down",
        },
        stated=_qwen2_stated,
        settings=_QWEN_SETTINGS,
        activations=("quick_gelu",),
        tokens=_QWEN_TOKENS,
        place=_QWEN_PLACE,
        pixels=_qwen_pixels,
        notes=_QWEN_NOTE,
    ),
    "qwen2_5_vl": VisionFamily(
        projector="qwen2.5vl_merger",
        parts=("model.visual.",),
        names={**_QWEN_2, **_QWEN_2_5},
        stated=_qwen25_stated,
        settings={**_QWEN_SETTINGS, "vision_config.window_size": 112},
        activations=("silu",),
        tokens=_QWEN_TOKENS,
        place=_QWEN_PLACE,
        pixels=_qwen_pixels,
        notes=_QWEN_NOTE,
    ),
    "qwen3_vl": VisionFamily(
        projector="qwen3vl_merger",
        parts=("model.visual.",),
        names={
            **_QWEN,
            "patch_embed.proj.bias": "v.patch_embd.bias",
            "pos_embed": "v.position_embd",
            "blocks.{n}.attn.qkv": "v.blk.{n}.attn_qkv",
            "blocks.{n}.mlp.linear_fc1": "v.blk.{n}.ffn_up",
            "blocks.{n}.mlp.linear_fc2": "v.blk.{n}.ffn_down",
            "merger.norm": "v.post_ln",
            "merger.linear_fc1": "mm.0",
            "merger.linear_fc2": "mm.2",
            "deepstack_merger_list.{n}.norm": "v.deepstack.{deep}.norm",
            "deepstack_merger_list.{n}.linear_fc1": "v.deepstack.{deep}.fc1",
            "deepstack_merger_list.{n}.linear_fc2": "v.deepstack.{deep}.fc2",
        },
        stated=_qwen3_stated,
        settings=_QWEN_SETTINGS,
        activations=("gelu_pytorch_tanh",),
        tokens=_QWEN_TOKENS,
        place=_QWEN_PLACE,
        language=lambda config: {
            "n_deepstack_layers": len(config.vision_config.deepstack_visual_indexes)
        },
        pixels=_qwen_pixels,
        notes=_QWEN_NOTE,
    ),
    "gemma3": VisionFamily(
        projector="gemma3",
        parts=("model.vision_tower.", "model.multi_modal_projector."),
        names={
            **_VIT,
            "mm_input_projection_weight": "mm.input_projection.weight",
            "mm_soft_emb_norm": "mm.soft_emb_norm",
        },
        dropped=("head.",),
        stated=_gemma_stated,
        activations=("gelu_pytorch_tanh",),
        turns={"mm_soft_emb_norm": _plus_one},
        tokens=("<start_of_image>", "<end_of_image>"),
        place=Place("<start_of_image>", "\n\n", "\n\n"),
        notes=(
            "llama.cpp gives a picture that is not square a black border where the model stretches "
            "it; a processor with pan and scan also shows the model parts of it, llama.cpp none.",
        ),
    ),
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "mistral3": _PIXTRAL,
    "pixtral": _PIXTRAL,
    "llava": _LLAVA,
    "llava_next": _LLAVA_NEXT,
}
SEEING = tuple(sorted({part for family in VISION_FAMILIES.values() for part in family.parts}))
"""Prefixes of what is not in the file with the language tower."""


def vision_family(config: Any) -> VisionFamily:
    """The family of a vision model.

    Args:
        config: the whole configuration.

    Raises:
        ModelInvalid: no such family, or a variant of it that llama.cpp computes otherwise.
    """
    kind = config.model_type
    if kind == "llava" and config.vision_config.model_type == "pixtral":
        kind = "pixtral"
    found = VISION_FAMILIES.get(kind)
    if found is None:
        raise ModelInvalid(
            f"Vision models of type {kind!r} cannot be written as GGUF.",
            f"known are {', '.join(sorted(VISION_FAMILIES))}.",
            "export 'merged_16bit', and serve that with vLLM or transformers.",
        )
    for name, wanted in found.settings.items():
        if (value := _field(config, name)) != wanted:
            raise _computed_otherwise(config, name, value, wanted)
    activation = activation_of(config)
    if activation not in found.activations:
        wanted = " or ".join(found.activations)
        raise _computed_otherwise(config, "vision_config.hidden_act", activation, wanted)
    return found


def activation_of(config: Any) -> str:
    """The activation in the layers of the vision tower."""
    name: str = config.vision_config.hidden_act
    return name


def _field(config: Any, path: str) -> Any:
    """A field of a configuration by its dotted name; None where there is none."""
    for name in path.split("."):
        config = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
    return config


def _computed_otherwise(config: Any, name: str, value: Any, wanted: Any = None) -> ModelInvalid:
    only = "" if wanted is None else f" as if it were {wanted!r}"
    return ModelInvalid(
        f"This {config.model_type} model cannot be written as GGUF.",
        f"its config has {name}={value!r}, and llama.cpp computes it{only or ' otherwise'}.",
        "export 'merged_16bit', and serve that with vLLM or transformers.",
    )
