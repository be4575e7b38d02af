"""Random models of every family, wide enough for all block types, that score as trained ones do."""

from __future__ import annotations

from typing import Any

import torch

VOCABULARY = 2048  # that of the embedded model's tokenizer
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1 + 0.05 * place for place in range(32)],
    "long_factor": [2 + 0.1 * place for place in range(32)],
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 256}
_WINDOW = {"query_pre_attn_scalar": 64, "sliding_window": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3.1": ("llama", {"rope_parameters": _LLAMA3, "tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True}),
    "mistral": ("mistral", {}),
    "nemo": ("mistral", {"head_dim": 128}),
    "mixtral": ("mixtral", _EXPERTS),
    "qwen2.5": ("qwen2", {"rope_parameters": _YARN}),
    "qwen3": ("qwen3", {}),
    "qwen3-moe": ("qwen3_moe", {**_EXPERTS, "moe_intermediate_size": 256, "norm_topk_prob": True}),
    "gemma": ("gemma", {}),
    "gemma-2": ("gemma2", {**_WINDOW, "layer_types": ["sliding_attention", "full_attention"]}),
    "gemma-3": ("gemma3_text", {**_WINDOW, "layer_types": ["full_attention", "sliding_attention"]}),
    "phi-3.5": ("phi3", {"rope_parameters": _LONG, "original_max_position_embeddings": 32}),
    "phi-4-mini": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.75,
            },
            "tie_word_embeddings": True,
        },
    ),
}


def tiny_model(family: str, **changed: Any) -> Any:
    """Two layers, 256 wide, float32, with norms and biases that are not 1 and 0."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, values = FAMILIES[family]
    common = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "initializer_range": 0.08,
        "bos_token_id": 1,
        "eos_token_id": 5,
        "pad_token_id": 0,
    }
    torch.manual_seed(7)
    config = AutoConfig.for_model(kind, **{**common, **values, **changed})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model
