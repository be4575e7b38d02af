"""What tiny random models of each family are made of.

Knows names of transformers' configs; makes no model.
"""

from __future__ import annotations

from typing import Any

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOWS: dict[str, Any] = {
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention"],
}
FAMILIES: dict[str, dict[str, Any]] = {  # what each has that a Llama has not, small enough to bite
    "llama": {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
    }},
    "mistral": {"sliding_window": 6},
    "qwen2": {"use_sliding_window": True, **WINDOWS},
    "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 16},
    "gemma2": {
        "head_dim": 16, **WINDOWS, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 5,
    },
    "gemma3_text": {"head_dim": 16, **WINDOWS, "query_pre_attn_scalar": 5},
    "phi3": {"rope_parameters": {
        "rope_type": "longrope", "rope_theta": 500.0, "partial_rotary_factor": 0.5,
        "original_max_position_embeddings": 64, "factor": 4.0,
        "short_factor": [1.0, 1.1, 1.3, 1.4], "long_factor": [2.0, 2.5, 3.0, 3.5],
    }},
    "smollm3": {"no_rope_layers": [1, 0]},
    "granite": {
        "attention_multiplier": 0.3, "embedding_multiplier": 2.0, "residual_multiplier": 0.5,
        "logits_scaling": 3.0,
    },
    "olmo2": {},
    "cohere": {"logit_scale": 0.5, "use_qk_norm": True},
    "starcoder2": {"sliding_window": 6, "use_bias": True},
}  # fmt: skip
