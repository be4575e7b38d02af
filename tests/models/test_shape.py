"""Shapes are read from real configs and count what a real model has."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from tunebook.errors import ModelInvalid
from tunebook.models.shape import ModelShape, shape_of_files
from tunebook.recipe import LoraPart

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
KINDS = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi3",
    "olmo",
    "olmo2",
    "granite",
    "smollm3",
    "cohere",
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_counts_agree_with_the_model_that_transformers_builds(kind, tied):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **SMALL, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    shape = ModelShape.from_config(config.to_dict())
    assert shape.total_parameters() == sum(p.numel() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
@pytest.mark.parametrize("tied", [True, False])
def test_experts_are_counted_for_files(kind, tied):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {**SMALL, "moe_intermediate_size": 48, "num_local_experts": 6, "num_experts": 6}
    config = AutoConfig.for_model(kind, **sizes, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    shape = shape_of_files(config.to_dict())
    assert shape.total_parameters() == sum(p.numel() for p in model.parameters())
    linear = [m for m in model.model.layers[0].modules() if isinstance(m, torch.nn.Linear)]
    assert sorted(shape.linear_layers().values()) == sorted(
        (m.in_features, m.out_features) for m in linear
    )


def test_files_without_experts_have_the_shape_that_is_planned():
    config = {"model_type": "llama", **SMALL}
    assert shape_of_files(config) == ModelShape.from_config(config)
    with pytest.raises(ModelInvalid, match="experts"):
        shape_of_files({"model_type": "deepseek_v3", **SMALL, "n_routed_experts": 8})


def test_sizes_of_linear_layers():
    layers = ModelShape.from_config({"model_type": "llama", **SMALL}).linear_layers()
    assert layers["q_proj"] == (64, 64)
    assert layers["k_proj"] == layers["v_proj"] == (64, 32)
    assert layers["down_proj"] == (96, 64)


def test_lora_parameters_follow_rank_and_targets():
    shape = ModelShape.from_config({"model_type": "llama", **SMALL})
    only_q = LoraPart(r=4, target_modules=["q_proj"])
    assert shape.lora_parameters(only_q) == 3 * 4 * (64 + 64)
    everything = LoraPart(r=4, target_modules="all-linear")
    assert shape.lora_parameters(everything) == shape.lora_parameters(LoraPart(r=4))


def test_fused_projections_carry_one_adapter():
    shape = ModelShape.from_config({"model_type": "phi3", **SMALL})
    fused = LoraPart(r=4, target_modules=["qkv_proj"])
    assert shape.adapted_layers(fused) == {"qkv_proj": (64, 64 + 2 * 32)}
    assert shape.lora_parameters(fused) == 3 * 4 * (64 + 64 + 2 * 32)
    assert shape.adapted_layers(LoraPart(target_modules=["q_proj", "k_proj"])) == {
        "qkv_proj": (64, 64 + 2 * 32)
    }
    assert shape.adapted_layers(LoraPart()) == shape.adapted_layers(
        LoraPart(target_modules="all-linear")
    )
    assert list(shape.adapted_layers(LoraPart(target_modules="all-linear"))) == [
        "qkv_proj",
        "o_proj",
        "gate_up_proj",
        "down_proj",
    ]


def test_nested_text_config_is_followed():
    config = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", **SMALL}}
    shape = ModelShape.from_config(config)
    assert shape.architecture == "gemma3_text"
    assert shape.tie_word_embeddings
    assert shape.norms_per_layer == 4


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"model_type": "bert"}, "hidden_size"),
        ({"model_type": "t5", **SMALL, "is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "mixtral", **SMALL, "num_local_experts": 8}, "experts"),
    ],
)
def test_what_cannot_be_counted_is_refused_with_the_reason(config, word):
    with pytest.raises(ModelInvalid) as caught:
        ModelShape.from_config(config)
    assert word in caught.value.why


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 64), st.integers(1, 64))
def test_adapters_grow_with_rank(first, second):
    shape = ModelShape.from_config({"model_type": "llama", **SMALL})
    low, high = sorted((first, second))
    assert shape.lora_parameters(LoraPart(r=low)) <= shape.lora_parameters(LoraPart(r=high))
