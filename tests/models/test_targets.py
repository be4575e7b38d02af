"""LoRA on vision-language models: on exactly the towers, kinds and names asked for, and it learns there."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_vision import FAMILIES, LAYERS, tiny_batch, tiny_config, tiny_tokenizer, tiny_vision
from transformers import AutoModelForImageTextToText

from tunebook.errors import RecipeInvalid, TargetsMissing
from tunebook.models.adapters import add_lora
from tunebook.models.loading import load_model
from tunebook.models.shape import ModelShape
from tunebook.models.targets import kind_of, recipe_values
from tunebook.models.vision import load_processor, towers
from tunebook.recipe import ALL_LINEAR, LoraPart, ModelPart, QuantizationPart, Recipe

# tower and kind: how many linear layers; the projector's count with "all-linear" only
TABLE: dict[str, dict[str, int]] = {
    "qwen2_vl": {"vision attention": 4, "vision mlp": 4, "projector mlp": 2},
    "qwen2_5_vl": {"vision attention": 4, "vision mlp": 6, "projector mlp": 2},
    "qwen3_vl": {"vision attention": 4, "vision mlp": 4, "projector mlp": 4},
    "gemma3": {"vision attention": 8, "vision mlp": 4, "projector mlp": 0},
    "mllama": {"vision attention": 12, "vision mlp": 6, "projector mlp": 1},
    "pixtral": {"vision attention": 8, "vision mlp": 6, "projector mlp": 2},
    "mistral3": {"vision attention": 8, "vision mlp": 6, "projector mlp": 3},
    "llava_next": {"vision attention": 8, "vision mlp": 4, "projector mlp": 2},
    "smolvlm": {"vision attention": 8, "vision mlp": 4, "projector mlp": 1},
    "idefics3": {"vision attention": 8, "vision mlp": 4, "projector mlp": 1},
}
SWITCHES = ("vision_layers", "language_layers", "attention_modules", "mlp_modules")
COMBINATIONS = [
    dict(zip(SWITCHES, values, strict=True))
    for values in itertools.product((True, False), repeat=4)
    if (values[0] or values[1]) and (values[2] or values[3])
]


def tiny(family: str) -> Any:
    torch.manual_seed(0)
    config = tiny_config(family, tiny_tokenizer(family))
    return AutoModelForImageTextToText.from_config(config)


def counted(model: Any) -> Counter[str]:
    """Adapted layers by tower and kind."""
    base = model.get_base_model()
    where = towers(base)
    paths = [name for name, module in base.named_modules() if hasattr(module, "lora_A")]
    return Counter(f"{where.of(path)} {kind_of(path, where.of(path))}" for path in paths)


def expected(family: str, part: LoraPart) -> dict[str, int]:
    """By the table: language towers have four linear layers of attention and three of MLP a layer."""
    layers = 2 * LAYERS if family == "mllama" else LAYERS
    table = {"language attention": 4 * layers, "language mlp": 3 * layers, **TABLE[family]}
    switched = {
        "vision": part.vision_layers,
        "projector": part.vision_layers and part.target_modules == "all-linear",
        "language": part.language_layers,
        "attention": part.attention_modules,
        "mlp": part.mlp_modules,
    }
    return {
        name: count
        for name, count in table.items()
        if count and all(switched[word] for word in name.split())
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_every_combination_of_switches_reaches_what_the_table_says(family):
    base = tiny(family)
    shape = ModelShape.from_config(base.config.to_dict())
    assert shape.vision is not None
    for switches, names in itertools.product(COMBINATIONS, (ALL_LINEAR, "all-linear")):
        part = LoraPart(r=2, target_modules=names, **switches)
        model = add_lora(base, part, seed=0)
        assert counted(model) == expected(family, part), part
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert shape.lora_parameters(part) == trained, part
        told = Recipe().with_values({f"lora.{k}": v for k, v in recipe_values(model).items()}).lora
        again = add_lora(model.unload(), told, seed=0)
        assert counted(again) == expected(family, part), part
        base = again.unload()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_name_means_the_layers_that_do_the_same_in_the_vision_tower(family):
    model = add_lora(tiny(family), LoraPart(r=2, target_modules=["q_proj", "down_proj"]), seed=0)
    table = TABLE[family]
    fused = family.startswith("qwen")
    layers = 2 * LAYERS if family == "mllama" else LAYERS
    parts = 2 if table["vision mlp"] % 3 else 3
    if family == "mllama":
        parts = 2
    assert counted(model) == {
        "language attention": layers,
        "language mlp": layers,
        "vision attention": table["vision attention"] // (2 if fused else 4),
        "vision mlp": table["vision mlp"] // parts,
    }


def test_names_of_one_tower_alone_reach_that_tower():
    model = add_lora(tiny("qwen2_vl"), LoraPart(r=2, target_modules=["qkv", "fc1"]), seed=0)
    assert counted(model) == {"vision attention": 2, "vision mlp": 2}
    model = add_lora(
        tiny("gemma3"), LoraPart(r=2, target_modules=["layers.1.self_attn.k_proj"]), seed=0
    )
    assert counted(model) == {"vision attention": 1, "language attention": 1}


def test_layers_to_transform_choose_among_those():
    model = add_lora(
        tiny("qwen2_5_vl"), LoraPart(r=2, vision_layers=False), seed=0, layers_to_transform=[1]
    )
    assert counted(model) == {"language attention": 4, "language mlp": 3}


def test_the_kinds_hold_for_language_models_too():
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "phi3", vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    base = AutoModelForCausalLM.from_config(config)
    shape = ModelShape.from_config(config.to_dict())
    part = LoraPart(r=2, mlp_modules=False)
    model = add_lora(base, part, seed=0)
    names = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if hasattr(m, "lora_A")}
    assert names == {"qkv_proj", "o_proj"} == set(shape.adapted_layers(part))
    assert sorted(model.peft_config["default"].target_modules) == ["o_proj", "qkv_proj"]


def test_what_is_switched_off_cannot_be_asked_for():
    with pytest.raises(TargetsMissing, match="switched on"):
        add_lora(tiny("qwen2_vl"), LoraPart(target_modules=["qkv"], vision_layers=False), seed=0)
    for pair in ({"lora.vision_layers": False, "lora.language_layers": False},
                 {"lora.attention_modules": False, "lora.mlp_modules": False}):  # fmt: skip
        with pytest.raises(RecipeInvalid, match="both"):
            Recipe().with_values(pair)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_towers_get_gradients_when_asked_and_none_when_not(family, tmp_path: Path):
    part = ModelPart(name=str(tiny_vision(family, tmp_path / family)))
    batch = tiny_batch(load_processor(part))
    base = load_model(part, QuantizationPart(bits=16))
    for vision, language in ((True, True), (True, False), (False, True)):
        asked = LoraPart(
            r=2, target_modules="all-linear", vision_layers=vision, language_layers=language
        )
        model = add_lora(base, asked, seed=0).train()
        where = towers(model)
        model(**batch).loss.backward()
        inner = model.get_base_model()
        reached = set()
        for name, parameter in inner.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad == (".lora_" in name), (
                name
            )
            if "lora_B" in name:
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.abs().sum() > 0, name
                reached.add(where.of(name))
        towers_asked = {"vision": vision, "language": language}
        assert reached - {"projector"} == {name for name, asked in towers_asked.items() if asked}
        base = model.unload()
