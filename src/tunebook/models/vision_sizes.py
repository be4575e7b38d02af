"""Where each family's config keeps the sizes of its vision tower, and what it leaves unsaid.

A table with one reader a family. Knows the fields of `config.json` and `preprocessor_config.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Values = dict[str, Any]

TOWER_DEFAULTS: dict[str, Values] = {
    "qwen2_vl": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 3584,
        "mlp_ratio": 4,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "qwen2_5_vl": {
        "depth": 32,
        "hidden_size": 3584,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
    "qwen3_vl": {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    },
    "gemma3": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    },
    "mllama": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_global_layers": 8,
        "attention_heads": 16,
        "image_size": 448,
        "patch_size": 14,
        "vision_output_dim": 7680,
        "max_num_tiles": 4,
    },
    "pixtral": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 1024,
        "patch_size": 16,
    },
    "llava": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
    },
    "idefics3": {
        "hidden_size": 1152,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 32,
    },
}
"""What transformers takes where a vision config leaves a size out; families not named share another's."""

_SHARED = {"mistral3": "pixtral", "llava_next": "llava", "smolvlm": "idefics3"}
_PIXELS = {"qwen3_vl": (256 * 256, 4096 * 4096)}  # else as Qwen2-VL's preprocessor_config.json
_QWEN2_PIXELS = (56 * 56, 28 * 28 * 16384)
_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_NAMES = {
    "qwen2_vl": ("qkv", "proj", "fc1", "fc2"),
    "qwen2_5_vl": ("qkv", "proj", "gate_proj", "up_proj", "down_proj"),
    "qwen3_vl": ("qkv", "proj", "linear_fc1", "linear_fc2"),
    "mllama": ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
    "pixtral": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
_CLIP_NAMES = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def family_of(config: Mapping[str, Any]) -> str | None:
    """The family of a vision-language model; None if it is none of the known ones."""
    if not isinstance(config.get("vision_config"), Mapping):
        return None
    kind = str(config.get("model_type") or "")
    if kind == "llava" and config["vision_config"].get("model_type") == "pixtral":
        return "pixtral"
    return kind if _base(kind) in TOWER_DEFAULTS else None


def tower_config(config: Mapping[str, Any]) -> Values:
    """The vision config of a known family with what it leaves unsaid."""
    family = family_of(config)
    assert family is not None
    return {**TOWER_DEFAULTS[_base(family)], **config["vision_config"]}


def text_width(config: Mapping[str, Any]) -> int:
    """Hidden size of the language tower."""
    return int(
        (config.get("text_config") or {}).get("hidden_size") or config.get("hidden_size") or 4096
    )


def read(config: Mapping[str, Any], pictures: Mapping[str, Any]) -> Values | None:
    """The fields of a `VisionShape` but its parameters; None for an unknown family.

    Args:
        pictures: the `preprocessor_config.json`, or nothing.
    """
    family = family_of(config)
    if family is None:
        return None
    tower = tower_config(config)
    base = _base(family)
    values: Values = {
        "family": family,
        "patch_size": tower["patch_size"],
        "layer_names": _NAMES.get(base, _CLIP_NAMES),
        "gated_mlp": "gate_proj" in _NAMES.get(base, ()),
    }
    readers = {"gemma3": _gemma, "mllama": _llama, "pixtral": _pixtral, "llava": _llava}
    reader = _qwen if base.startswith("qwen") else readers.get(base, _idefics)
    values |= reader(config, tower, pictures)
    return {"layers_seen": values["num_hidden_layers"], **values}


def _base(family: str) -> str:
    return _SHARED.get(family, family)


def _qwen(config: Mapping[str, Any], tower: Values, pictures: Mapping[str, Any]) -> Values:
    family = str(config["model_type"])
    first = family == "qwen2_vl"
    hidden = tower["embed_dim" if first else "hidden_size"]
    out = tower["hidden_size" if first else "out_hidden_size"]
    merge, layers = tower["spatial_merge_size"], tower["depth"]
    mergers = 1 + len(tower.get("deepstack_visual_indexes", ()))
    least, most = _PIXELS.get(family, _QWEN2_PIXELS)
    limits = pictures.get("size") or {}
    full = len(tower.get("fullatt_block_indexes", ()))
    return {
        "merge_size": merge,
        "hidden_size": hidden,
        "intermediate_size": int(hidden * tower["mlp_ratio"])
        if first
        else tower["intermediate_size"],
        "num_hidden_layers": layers,
        "num_attention_heads": tower["num_heads"],
        "window_size": tower.get("window_size") if full else None,
        "full_layers": full or layers,
        "projector": ((hidden * merge**2, hidden * merge**2), (hidden * merge**2, out)) * mergers,
        "tile": tower["patch_size"] * merge,
        "min_pixels": pictures.get("min_pixels") or limits.get("shortest_edge") or least,
        "max_pixels": pictures.get("max_pixels") or limits.get("longest_edge") or most,
    }


def _gemma(config: Mapping[str, Any], tower: Values, pictures: Mapping[str, Any]) -> Values:
    side = tower["image_size"] // tower["patch_size"]
    tokens = config.get("mm_tokens_per_image") or 256
    return {
        **_sizes(tower),
        "merge_size": side // int(tokens**0.5),
        "projector": (),
        "tile": (pictures.get("size") or {}).get("height") or tower["image_size"],
    }


def _llama(config: Mapping[str, Any], tower: Values, pictures: Mapping[str, Any]) -> Values:
    layers = tower["num_hidden_layers"] + tower["num_global_layers"]
    heads = tower.get("num_attention_heads") or tower["attention_heads"]
    return {
        **_sizes({**tower, "num_attention_heads": heads}),
        "num_hidden_layers": layers,
        "full_layers": layers,
        "class_token": True,
        "projector": ((tower["vision_output_dim"], text_width(config)),),
        "tile": (pictures.get("size") or {}).get("height") or tower["image_size"],
        "max_tiles": pictures.get("max_image_tiles") or tower["max_num_tiles"],
    }


def _pixtral(config: Mapping[str, Any], tower: Values, pictures: Mapping[str, Any]) -> Values:
    hidden, text = tower["hidden_size"], text_width(config)
    merge = int(config.get("spatial_merge_size") or 2) if config["model_type"] == "mistral3" else 1
    merging = ((hidden * merge**2, hidden),) if merge > 1 else ()
    return {
        **_sizes(tower),
        "merge_size": merge,
        "projector": (*merging, (hidden, text), (text, text)),
        "tile": tower["image_size"],
        "longest_edge": (pictures.get("size") or {}).get("longest_edge") or tower["image_size"],
    }


def _llava(config: Mapping[str, Any], tower: Values, pictures: Mapping[str, Any]) -> Values:
    hidden, text = tower["hidden_size"], text_width(config)
    seen = config.get("vision_feature_layer", -2)
    looked_at = list(seen) if isinstance(seen, list | tuple) else [seen]
    behind = tower["num_hidden_layers"] + 1
    points = pictures.get("image_grid_pinpoints") or config.get("image_grid_pinpoints")
    return {
        **_sizes(tower),
        "class_token": True,
        "layers_seen": max(layer if layer >= 0 else behind + layer for layer in looked_at),
        "projector": ((hidden * len(looked_at), text), (text, text)),
        "tile": tower["image_size"],
        "pinpoints": points or _PINPOINTS if config["model_type"] == "llava_next" else (),
    }


def _idefics(config: Mapping[str, Any], tower: Values, pictures: Mapping[str, Any]) -> Values:
    scale = int(config.get("scale_factor") or 2)
    tile = (pictures.get("max_image_size") or {}).get("longest_edge") or tower["image_size"]
    return {
        **_sizes(tower),
        "merge_size": scale,
        "projector": ((tower["hidden_size"] * scale**2, text_width(config)),),
        "tile": tile,
        "longest_edge": (pictures.get("size") or {}).get("longest_edge") or 4 * tile,
    }


def _sizes(tower: Values) -> Values:
    """Of a tower whose config names them as everybody does."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return {**{name: tower[name] for name in names}, "full_layers": tower["num_hidden_layers"]}
