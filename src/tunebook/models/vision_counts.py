"""How many weights a vision tower and its projector have, from their config: one formula a family.

Tests hold each against the model that transformers builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunebook.models.vision_sizes import text_width, tower_config

_CHANNELS = 3


def tower_parameters(config: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    """All weights of a vision tower and its projector.

    Args:
        config: the model's `config.json`.
        values: its sizes, as `vision_sizes.read` gives them.
    """
    tower = tower_config(config)
    family = values["family"]
    if family.startswith("qwen"):
        return _qwen(tower, values)
    if family == "mllama":
        return int(_llama(tower, values) + _biased(*values["projector"]))
    if family in ("pixtral", "mistral3"):
        return _pixtral(config, values)
    side = tower["image_size"] // values["patch_size"]
    if family.startswith("llava"):
        return _clip(config, values, side)
    whole = _siglip(values, side)
    if family == "gemma3":
        hidden = values["hidden_size"]
        return int(whole + hidden * text_width(config) + hidden)
    return whole + _plain(*values["projector"])


def _qwen(tower: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    hidden, wide = values["hidden_size"], values["intermediate_size"]
    third = values["family"] == "qwen3_vl"
    norm = hidden if values["family"] == "qwen2_5_vl" else 2 * hidden
    patches = _CHANNELS * tower["temporal_patch_size"] * values["patch_size"] ** 2 * hidden
    attention = _biased((hidden, 3 * hidden), (hidden, hidden))
    up = ((hidden, wide),) * (2 if values["gated_mlp"] else 1)
    layer = 2 * norm + attention + _biased(*up, (wide, hidden))
    count = patches + values["num_hidden_layers"] * layer + norm + _biased(*values["projector"])
    if not third:
        return int(count)
    merged = hidden * values["merge_size"] ** 2
    deep = len(tower["deepstack_visual_indexes"])
    return int(count + hidden + tower["num_position_embeddings"] * hidden + deep * 2 * merged)


def _siglip(values: Mapping[str, Any], side: int) -> int:
    hidden = values["hidden_size"]
    patches = _CHANNELS * values["patch_size"] ** 2 * hidden + hidden
    layers = values["num_hidden_layers"] * _clip_layer(values)
    return int(patches + side**2 * hidden + layers + 2 * hidden)


def _clip(config: Mapping[str, Any], values: Mapping[str, Any], side: int) -> int:
    hidden, text = values["hidden_size"], text_width(config)
    patches = _CHANNELS * values["patch_size"] ** 2 * hidden + hidden  # and the class embedding
    layers = values["num_hidden_layers"] * _clip_layer(values)
    tower = patches + (side**2 + 1) * hidden + 2 * 2 * hidden + layers
    newline = text if config["model_type"] == "llava_next" else 0
    biased = config.get("multimodal_projector_bias", True)
    return int(tower + newline + (_biased if biased else _plain)(*values["projector"]))


def _clip_layer(values: Mapping[str, Any]) -> int:
    hidden, wide = values["hidden_size"], values["intermediate_size"]
    attention = ((hidden, hidden),) * 4
    return int(2 * 2 * hidden + _biased(*attention, (hidden, wide), (wide, hidden)))


def _llama(tower: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    hidden, wide, tiles = values["hidden_size"], values["intermediate_size"], tower["max_num_tiles"]
    places = (tower["image_size"] // values["patch_size"]) ** 2 + 1
    ratios = len(tower.get("supported_aspect_ratios") or range(8)) + 1
    patches = _CHANNELS * values["patch_size"] ** 2 * hidden + hidden  # and the class embedding
    positions = 1 + places * hidden + ratios * tiles * places * hidden
    tile_positions = 2 * (1 + ratios * tiles * hidden)
    attention = 4 * hidden * hidden
    layer = 2 * 2 * hidden + attention + _biased((hidden, wide), (wide, hidden))
    layers = values["num_hidden_layers"] * layer + 2 * tower["num_global_layers"]
    return int(patches + positions + tile_positions + 2 * 2 * hidden + layers)


def _pixtral(config: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    hidden, wide = values["hidden_size"], values["intermediate_size"]
    patches = _CHANNELS * values["patch_size"] ** 2 * hidden
    layer = 2 * hidden + 4 * hidden * hidden + 3 * hidden * wide
    tower = patches + hidden + values["num_hidden_layers"] * layer
    *merging, first, second = values["projector"]
    biased = config.get("multimodal_projector_bias", config["model_type"] == "llava")
    norm = hidden if config["model_type"] == "mistral3" else 0
    handing_on = (_biased if biased else _plain)(first, second)
    return int(tower + norm + _plain(*merging) + handing_on)


def _plain(*sizes: tuple[int, int]) -> int:
    """Weights of linear layers without biases."""
    return sum(size_in * size_out for size_in, size_out in sizes)


def _biased(*sizes: tuple[int, int]) -> int:
    """Weights of linear layers with biases."""
    return sum((size_in + 1) * size_out for size_in, size_out in sizes)
