"""Tiny random vision-language models of each family, and batches with images for them.

Knows transformers' configs and the form of each family's inputs; knows no tokenizer, no picture and
no kind of swap.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from families import DEVICE, SIZES

Batch = dict[str, Any]

IMAGE, VIDEO, START, END = 290, 291, 292, 293
PATCH, MERGE = 4, 2
IGNORED = -100

TEXT: dict[str, Any] = {**SIZES, "tie_word_embeddings": False}
_ROPE = {"rope_type": "default", "rope_theta": 1000.0}
_QWEN_IDS = {
    "image_token_id": IMAGE, "video_token_id": VIDEO,
    "vision_start_token_id": START, "vision_end_token_id": END,
}  # fmt: skip
_PIXTRAL = {
    "model_type": "pixtral", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "head_dim": 16, "patch_size": PATCH, "image_size": 32,
}  # fmt: skip
_SIGLIP = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "patch_size": PATCH, "image_size": 16,
}  # fmt: skip
_LAYERS = [{"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6}]
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        "text_config": {**TEXT, "rope_parameters": {**_ROPE, "mrope_section": [2, 3, 3]}},
        "vision_config": {
            "depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 2,
            "patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": 2,
        }, **_QWEN_IDS,
    },
    "qwen2_5_vl": {
        "text_config": {**TEXT, "rope_parameters": {**_ROPE, "mrope_section": [2, 3, 3]}},
        "vision_config": {
            "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
            "out_hidden_size": 64, "patch_size": PATCH, "spatial_merge_size": MERGE,
            "temporal_patch_size": 2, "window_size": 16, "fullatt_block_indexes": [1],
        }, **_QWEN_IDS,
    },
    "qwen3_vl": {
        "text_config": {
            **TEXT, "head_dim": 16, "rope_parameters": {**_ROPE, "mrope_section": [2, 3, 3]},
        },
        "vision_config": {
            "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
            "out_hidden_size": 64, "patch_size": PATCH, "spatial_merge_size": MERGE,
            "temporal_patch_size": 2, "num_position_embeddings": 36,
            "deepstack_visual_indexes": [1],
        }, **_QWEN_IDS,
    },
    "gemma3": {
        "text_config": {
            **TEXT, "head_dim": 16, "query_pre_attn_scalar": 5, "tie_word_embeddings": True,
            **_LAYERS[0],
        },
        "vision_config": {**_SIGLIP, "model_type": "siglip_vision_model", "vision_use_head": False},
        "mm_tokens_per_image": 4, "image_token_index": IMAGE, "image_token_id": IMAGE,
        "boi_token_index": START, "eoi_token_index": END,
    },
    "mllama": {
        "text_config": {
            **TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1],
            "rope_parameters": _ROPE,
        },
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_global_layers": 1, "attention_heads": 2, "vision_output_dim": 64,
            "image_size": 16, "patch_size": PATCH, "max_num_tiles": 2,
            "intermediate_layers_indices": [1], "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        }, "image_token_index": IMAGE,
    },
    "llava": {  # as Pixtral's checkpoints are
        "text_config": {"model_type": "mistral", **TEXT, "head_dim": 16},
        "vision_config": _PIXTRAL, "image_token_index": IMAGE, "image_token_id": IMAGE,
        "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
    },
    "mistral3": {
        "text_config": {"model_type": "mistral", **TEXT, "head_dim": 16},
        "vision_config": _PIXTRAL, "image_token_index": IMAGE, "image_token_id": IMAGE,
        "spatial_merge_size": MERGE, "vision_feature_layer": -1,
    },
    "llava_next": {
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": {**_SIGLIP, "model_type": "clip_vision_model", "num_hidden_layers": 3},
        "image_token_index": IMAGE, "image_token_id": IMAGE,
        "image_grid_pinpoints": [[16, 32], [32, 16]],
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
    },
    "smolvlm": {
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": _SIGLIP, "image_token_id": IMAGE, "scale_factor": MERGE, "pad_token_id": 0,
    },
    "idefics3": {
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": _SIGLIP, "image_token_id": IMAGE, "scale_factor": MERGE, "pad_token_id": 0,
    },
}  # fmt: skip
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def vision_model(family: str, attention: str = "sdpa") -> Any:
    """A random model of two or three layers in each tower, weights of norms away from 1."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **copy.deepcopy(FAMILIES[family]))
    model = AutoModelForImageTextToText.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if "norm" in name or "gate" in name.rsplit(".", 1)[-1] else 0.1
            parameter.add_(scale * torch.randn_like(parameter))
    return model.to(DEVICE)


def vision_batch(family: str, *, rows: int = 2, padded: bool = False, seed: int = 3) -> Batch:
    """Rows of text with images of different sizes, the first row with two where that is possible."""
    torch.manual_seed(seed)
    images = [[(6, 4), (4, 4)], [(4, 8)], [(8, 4)]][:rows]
    make = _MAKERS.get(family, _plain)
    tokens, inputs = make(images)
    longest = max(len(one) for one in tokens) + 3 * padded
    ids = torch.zeros((rows, longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(tokens):
        short = one if padded or rows == 1 else one + _text(longest - len(one))
        ids[row, : len(short)] = torch.tensor(short)
        mask[row, : len(short)] = 1
    labels = ids.masked_fill((ids >= IMAGE) | (mask == 0), IGNORED)
    labels[:, :2] = IGNORED
    batch: Batch = {"input_ids": ids, "labels": labels, **inputs}
    if padded:
        batch["attention_mask"] = mask
    kinds = (ids == IMAGE).int()
    if family in QWEN:
        batch["mm_token_type_ids"] = kinds
    if family == "gemma3":
        batch["token_type_ids"] = kinds
    if family == "mllama":
        seen = torch.cumsum(kinds, 1).clamp(max=1)
        batch["cross_attention_mask"] = seen[:, :, None, None].expand(-1, -1, 1, 2).contiguous()
    return {
        name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


def _text(count: int) -> list[int]:
    return torch.randint(3, 280, (count,)).tolist()


def _row(counts: list[int]) -> list[int]:
    """Some text around as many image tokens as each image has."""
    tokens = _text(3)
    for count in counts:
        tokens += [START, *[IMAGE] * count, END, *_text(5)]
    return tokens + _text(4)


def _qwen(images: list[list[tuple[int, int]]]) -> tuple[list[list[int]], Batch]:
    """Patches of all images one after another, and each image's grid."""
    rows = [_row([h * w // MERGE**2 for h, w in row]) for row in images]
    grids = [(1, h, w) for row in images for h, w in row]
    patches = sum(h * w for _, h, w in grids)
    pixels = torch.randn(patches, 3 * 2 * PATCH**2)
    return rows, {"pixel_values": pixels, "image_grid_thw": torch.tensor(grids)}


def _pixtral(images: list[list[tuple[int, int]]], merge: int) -> tuple[list[list[int]], Batch]:
    rows = [_row([h * w // merge**2 for h, w in row]) for row in images]
    sizes = [(h * PATCH, w * PATCH) for row in images for h, w in row]
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    pixels = torch.randn(len(sizes), 3, height, width)
    return rows, {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)}


def _llava_next(images: list[list[tuple[int, int]]]) -> tuple[list[list[int]], Batch]:
    """Each image as a small one and two tiles, with a token after each line."""
    count = sum(len(row) for row in images)
    each = 16 + 4 * 8 + 4
    rows = [_row([each] * len(row)) for row in images]
    sizes = torch.tensor([(16, 32)] * count)
    return rows, {"pixel_values": torch.randn(count, 3, 3, 16, 16), "image_sizes": sizes}


def _plain(images: list[list[tuple[int, int]]]) -> tuple[list[list[int]], Batch]:
    """Images of one size, four tokens each (Gemma 3)."""
    rows = [_row([4] * len(row)) for row in images]
    count = sum(len(row) for row in images)
    return rows, {"pixel_values": torch.randn(count, 3, 16, 16)}


def _idefics(images: list[list[tuple[int, int]]]) -> tuple[list[list[int]], Batch]:
    """Images by row, as many as the row with most has; those it has not are zero."""
    rows = [_row([4] * len(row)) for row in images]
    most = max(len(row) for row in images)
    pixels = torch.randn(len(images), most, 3, 16, 16)
    for index, row in enumerate(images):
        pixels[index, len(row) :] = 0
    mask = torch.ones(len(images), most, 16, 16, dtype=torch.long)
    mask[0, 0, 12:] = 0  # an image that is padded
    return rows, {"pixel_values": pixels, "pixel_attention_mask": mask}


def _mllama(images: list[list[tuple[int, int]]]) -> tuple[list[list[int]], Batch]:
    """One image a row, of one or two tiles."""
    rows = [[*_text(3), IMAGE, *_text(9)] for _ in images]
    count = len(images)
    tiles = torch.ones(count, 1, 2, dtype=torch.long)
    tiles[0, 0, 1] = 0
    ratios = torch.tensor([[1]] + [[2]] * (count - 1))
    pixels = torch.randn(count, 1, 2, 3, 16, 16)
    return rows, {
        "pixel_values": pixels, "aspect_ratio_ids": ratios, "aspect_ratio_mask": tiles,
    }  # fmt: skip


_MAKERS: dict[str, Any] = {
    **dict.fromkeys(QWEN, _qwen),
    "llava": lambda images: _pixtral(images, 1),
    "mistral3": lambda images: _pixtral(images, MERGE),
    "llava_next": _llava_next,
    "smolvlm": _idefics,
    "idefics3": _idefics,
    "mllama": _mllama,
}
