"""The sizes in the `config.json` of published vision-language models, as the hub has them.

What a config leaves to transformers' defaults is left out here too.
"""

from __future__ import annotations

from typing import Any

_QWEN2_TOWER = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14}
_QWEN25_TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN3_TOWER = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "deepstack_visual_indexes": [5, 11, 17],
    "num_position_embeddings": 2304,
    "patch_size": 16,
    "spatial_merge_size": 2,
}
_SIGLIP_896 = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 896,
    "patch_size": 14,
    "vision_use_head": False,
}
_CLIP_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
_SMALL_SIGLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}
_LARGE_SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}


def _text(
    width: int, wide: int, layers: int, heads: int, keys: int, vocabulary: int, **more: Any
) -> Any:
    return {
        "hidden_size": width,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": vocabulary,
        **more,
    }


def _qwen2(kind: str, text: dict[str, Any], tower: dict[str, Any], tied: bool) -> dict[str, Any]:
    return {"model_type": kind, "tie_word_embeddings": tied, **text, "vision_config": tower}


def _qwen3(text: dict[str, Any], tower: dict[str, Any], tied: bool) -> dict[str, Any]:
    text = {
        **text,
        "model_type": "qwen3_vl_text",
        "head_dim": 128,
        "max_position_embeddings": 262144,
    }
    tower = {**tower, "model_type": "qwen3_vl"}
    return {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": tied,
        "text_config": text,
        "vision_config": tower,
    }


def _gemma(text: dict[str, Any]) -> dict[str, Any]:
    text = {"model_type": "gemma3_text", "sliding_window": 1024, **text}
    return {
        "model_type": "gemma3",
        "mm_tokens_per_image": 256,
        "text_config": text,
        "vision_config": _SIGLIP_896,
    }


def _smol(kind: str, text: dict[str, Any], tower: dict[str, Any], scale: int) -> dict[str, Any]:
    return {
        "model_type": kind,
        "tie_word_embeddings": False,
        "scale_factor": scale,
        "image_token_id": 49190,
        "text_config": {"model_type": "llama", "pad_token_id": 2, **text},
        "vision_config": {"model_type": kind, **tower},
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen2-VL-2B-Instruct": _qwen2(
        "qwen2_vl",
        _text(1536, 8960, 28, 12, 2, 151936, max_position_embeddings=32768),
        {**_QWEN2_TOWER, "hidden_size": 1536},
        True,
    ),
    "Qwen2-VL-7B-Instruct": _qwen2(
        "qwen2_vl",
        _text(3584, 18944, 28, 28, 4, 152064, max_position_embeddings=32768),
        {**_QWEN2_TOWER, "hidden_size": 3584},
        False,
    ),
    "Qwen2.5-VL-3B-Instruct": _qwen2(
        "qwen2_5_vl",
        _text(2048, 11008, 36, 16, 2, 151936, max_position_embeddings=128000),
        {**_QWEN25_TOWER, "out_hidden_size": 2048},
        True,
    ),
    "Qwen2.5-VL-7B-Instruct": _qwen2(
        "qwen2_5_vl",
        _text(3584, 18944, 28, 28, 4, 152064, max_position_embeddings=128000),
        {**_QWEN25_TOWER, "out_hidden_size": 3584},
        False,
    ),
    "Qwen3-VL-2B-Instruct": _qwen3(
        _text(2048, 6144, 28, 16, 8, 151936), {**_QWEN3_TOWER, "out_hidden_size": 2048}, True
    ),
    "Qwen3-VL-4B-Instruct": _qwen3(
        _text(2560, 9728, 36, 32, 8, 151936), {**_QWEN3_TOWER, "out_hidden_size": 2560}, True
    ),
    "Qwen3-VL-8B-Instruct": _qwen3(
        _text(4096, 12288, 36, 32, 8, 151936),
        {
            **_QWEN3_TOWER,
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "deepstack_visual_indexes": [8, 16, 24],
            "out_hidden_size": 4096,
        },
        False,
    ),
    "gemma-3-4b-it": _gemma(
        {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
    ),
    "gemma-3-12b-it": _gemma(
        {
            "hidden_size": 3840,
            "intermediate_size": 15360,
            "num_hidden_layers": 48,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
        }
    ),
    "gemma-3-27b-it": _gemma(
        {
            "hidden_size": 5376,
            "intermediate_size": 21504,
            "num_hidden_layers": 62,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
            "head_dim": 128,
        }
    ),
    "Llama-3.2-11B-Vision-Instruct": {
        "model_type": "mllama",
        "image_token_index": 128256,
        "text_config": {
            "model_type": "mllama_text_model",
            "tie_word_embeddings": False,
            "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
            **_text(4096, 14336, 40, 32, 8, 128256, max_position_embeddings=131072),
        },
        "vision_config": {
            "model_type": "mllama_vision_model",
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_global_layers": 8,
            "attention_heads": 16,
            "image_size": 560,
            "patch_size": 14,
            "max_num_tiles": 4,
            "vision_output_dim": 7680,
            "intermediate_layers_indices": [3, 7, 15, 23, 30],
        },
    },
    "pixtral-12b": {
        "model_type": "llava",
        "image_seq_length": 1,
        "image_token_index": 10,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "text_config": {
            "model_type": "mistral",
            "head_dim": 128,
            "hidden_size": 5120,
            "intermediate_size": 14336,
            "num_hidden_layers": 40,
            "num_key_value_heads": 8,
            "max_position_embeddings": 1024000,
            "sliding_window": None,
            "vocab_size": 131072,
        },
        "vision_config": {
            "model_type": "pixtral",
            "head_dim": 64,
            "image_size": 1024,
            "patch_size": 16,
        },
    },
    "Mistral-Small-3.1-24B-Instruct-2503": {
        "model_type": "mistral3",
        "image_token_index": 10,
        "tie_word_embeddings": False,
        "multimodal_projector_bias": False,
        "spatial_merge_size": 2,
        "vision_feature_layer": -1,
        "text_config": {
            "model_type": "mistral",
            "head_dim": 128,
            "sliding_window": None,
            **_text(5120, 32768, 40, 32, 8, 131072, max_position_embeddings=131072),
        },
        "vision_config": {
            "model_type": "pixtral",
            "head_dim": 64,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 1540,
            "patch_size": 14,
        },
    },
    "llava-v1.6-mistral-7b-hf": {
        "model_type": "llava_next",
        "image_token_index": 32000,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "mistral",
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "num_key_value_heads": 8,
            "sliding_window": None,
            "vocab_size": 32064,
        },
        "vision_config": _CLIP_336,
    },
    "llava-1.5-7b-hf": {
        "model_type": "llava",
        "image_token_index": 32000,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "llama",
            "max_position_embeddings": 4096,
            "vocab_size": 32064,
        },
        "vision_config": _CLIP_336,
    },
    "SmolVLM-256M-Instruct": _smol(
        "idefics3",
        _text(576, 1536, 30, 9, 3, 49280, max_position_embeddings=8192),
        _SMALL_SIGLIP,
        4,
    ),
    "SmolVLM-500M-Instruct": _smol(
        "idefics3",
        _text(960, 2560, 32, 15, 5, 49280, max_position_embeddings=8192),
        _SMALL_SIGLIP,
        4,
    ),
    "SmolVLM-Instruct": _smol(
        "idefics3",
        _text(2048, 8192, 24, 32, 32, 49155, max_position_embeddings=16384),
        _LARGE_SIGLIP,
        3,
    ),
    "SmolVLM2-2.2B-Instruct": _smol(
        "smolvlm",
        _text(2048, 8192, 24, 32, 32, 49280, max_position_embeddings=8192),
        _LARGE_SIGLIP,
        3,
    ),
    "Idefics3-8B-Llama3": _smol(
        "idefics3",
        _text(4096, 14336, 32, 32, 8, 128259, max_position_embeddings=131072),
        {**_LARGE_SIGLIP, "image_size": 364},
        2,
    ),
}
