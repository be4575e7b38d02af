"""The picture of a layer counts what PEFT counts."""

from __future__ import annotations

import pytest

from tunebook.errors import RecipeInvalid
from tunebook.models.anatomy import SHORTCUTS, layer_anatomy, toggled
from tunebook.models.catalog import find
from tunebook.models.shape import ModelShape
from tunebook.recipe import ALL_LINEAR, LoraPart

TINY = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
MODELS = {
    "llama": ("LlamaConfig", {}),
    "llama with biases": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 8}),
    "gemma2": ("Gemma2Config", {"head_dim": 8}),
    "phi3": ("Phi3Config", {}),
}
CHOICES = [
    {"target_modules": list(SHORTCUTS["all"])},
    {"target_modules": list(SHORTCUTS["attention"]), "r": 4},
    {"target_modules": list(SHORTCUTS["mlp"]), "bias": "lora_only"},
    {"target_modules": ["q_proj", "down_proj"], "bias": "all"},
    {"target_modules": "all-linear"},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_trainable_weights_are_those_of_peft(name, choice):
    import transformers

    from tunebook.models.adapters import add_lora

    kind, more = MODELS[name]
    config = getattr(transformers, kind)(**TINY, **more)
    model = transformers.AutoModelForCausalLM.from_config(config)
    lora = LoraPart(**choice)
    wrapped = add_lora(model, lora, seed=0)
    trainable, total = wrapped.get_nb_trainable_parameters()
    anatomy = layer_anatomy(ModelShape.from_config(config.to_dict()), lora)
    assert anatomy.trainable == trainable
    assert anatomy.share == pytest.approx(trainable / total)
    for part in anatomy.parts:
        found = sum(
            weights.numel()
            for path, weights in wrapped.named_parameters()
            if f".{part.name}.lora_" in path
        )
        assert found == part.trainable


def test_norms_stand_where_the_architecture_has_them():
    gemma, qwen, llama = (
        find(name) for name in ("gemma-2-2b-it", "Qwen3-4B", "Llama-3.2-1B-Instruct")
    )
    assert gemma is not None
    assert qwen is not None
    assert llama is not None
    assert all(layer_anatomy(gemma.shape, LoraPart()).norms)
    assert layer_anatomy(llama.shape, LoraPart()).norms == (
        "input_layernorm", "", "post_attention_layernorm", "",
    )  # fmt: skip
    assert layer_anatomy(qwen.shape, LoraPart()).head_norms


def test_toggling_takes_away_and_adds_in_the_usual_order():
    entry = find("Llama-3.2-1B-Instruct")
    assert entry is not None
    without = toggled(entry.shape, LoraPart(), "k_proj")
    assert "k_proj" not in without
    again = toggled(entry.shape, LoraPart(target_modules=without), "k_proj")
    assert again == LoraPart().target_modules


def test_a_fused_layer_is_toggled_as_one_and_named_by_its_parts():
    entry = find("phi-4")
    assert entry is not None
    names = [part.name for part in layer_anatomy(entry.shape, LoraPart()).parts]
    assert names == ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    assert toggled(entry.shape, LoraPart(), "qkv_proj") == [
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ]
    only_q = LoraPart(target_modules=["q_proj", "o_proj"])
    assert toggled(entry.shape, only_q, "qkv_proj") == ["o_proj"]


def test_the_last_adapter_stays_and_unknown_names_are_told():
    entry = find("Llama-3.2-1B-Instruct")
    assert entry is not None
    with pytest.raises(RecipeInvalid, match="last adapter"):
        toggled(entry.shape, LoraPart(target_modules=["q_proj"]), "q_proj")
    with pytest.raises(RecipeInvalid, match="no layer"):
        toggled(entry.shape, LoraPart(), "wqkv")
    odd = layer_anatomy(entry.shape, LoraPart(target_modules=["q_proj", "lm_head"]))
    assert odd.unknown == ["lm_head"]


def test_a_model_that_sees_trains_its_tower_too_and_shows_what_is_switched_off():
    entry = find("Qwen2.5-VL-7B-Instruct")
    assert entry is not None
    for values in (
        {},
        {"vision_layers": False},
        {"language_layers": False},
        {"mlp_modules": False},
    ):
        lora = LoraPart(r=8, **values)
        anatomy = layer_anatomy(entry.shape, lora)
        assert anatomy.trainable == entry.shape.lora_parameters(lora)
        assert [part.name for part in anatomy.parts] == ALL_LINEAR
    assert not any(
        part.adapted for part in layer_anatomy(entry.shape, LoraPart(language_layers=False)).parts
    )
