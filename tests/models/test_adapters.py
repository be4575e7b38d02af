"""LoRA on a loaded model: on the layers that it has, whatever they are called, in the dtype asked for."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunebook.compat import FastLanguageModel
from tunebook.errors import TargetsMissing
from tunebook.models.adapters import add_lora
from tunebook.models.shape import ModelShape
from tunebook.models.targets import linear_names
from tunebook.recipe import ALL_LINEAR, LoraPart


def tiny(family: str, dtype: torch.dtype = torch.float32) -> Any:
    config = AutoConfig.for_model(
        family, vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


def adapted(model: Any) -> dict[str, tuple[int, int]]:
    """Name, inputs and outputs of the layers with LoRA."""
    return {
        name.rsplit(".", 1)[-1]: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ALL_LINEAR, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        (["q_proj", "v_proj"], {"qkv_proj"}),
        (["up_proj", "qkv_proj"], {"gate_up_proj", "qkv_proj"}),
        (["layers.1.self_attn.k_proj", "o_proj"], {"qkv_proj", "o_proj"}),
        (["down_proj"], {"down_proj"}),
    ],
)
def test_parts_of_a_fused_layer_mean_that_layer(wanted, expected, caplog):
    part = LoraPart(r=4, target_modules=wanted)
    base = tiny("phi3")
    shape = ModelShape.from_config(base.config.to_dict())
    with caplog.at_level(logging.INFO, "tunebook.models.targets"):
        model = add_lora(base, part, seed=0)
    assert adapted(model).keys() == expected
    assert shape.adapted_layers(part) == adapted(model)
    assert bool(caplog.records) == (not expected >= set(wanted))
    if "layers.1.self_attn.k_proj" not in wanted:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert shape.lora_parameters(part) == trained


def test_what_became_of_the_names_is_said_and_saved(tmp_path: Path, caplog):
    with caplog.at_level(logging.INFO, "tunebook.models.targets"):
        add_lora(tiny("phi3"), LoraPart(), seed=0).save_pretrained(tmp_path)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "on qkv_proj, gate_up_proj instead of q_proj, k_proj, v_proj, gate_proj, up_proj" in line
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert sorted(saved["target_modules"]) == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]


def test_a_tutorial_s_seven_names_reach_all_of_phi():
    model = FastLanguageModel.get_peft_model(tiny("phi3"), r=4, target_modules=list(ALL_LINEAR))
    assert adapted(model).keys() == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}


def test_names_that_a_model_has_stay(caplog):
    with caplog.at_level(logging.INFO, "tunebook.models.targets"):
        model = add_lora(tiny("llama"), LoraPart(), seed=0)
    assert adapted(model).keys() == set(ALL_LINEAR)
    assert not caplog.records


def test_names_that_mean_nothing_are_refused():
    model = tiny("phi3")
    with pytest.raises(TargetsMissing) as caught:
        add_lora(model, LoraPart(target_modules=["query"]), seed=0)
    assert all(name in caught.value.why for name in linear_names(model))


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_the_matrices_are_of_the_dtype_asked_for(dtype, base):
    model = add_lora(tiny("llama", base), LoraPart(r=4, adapter_dtype=dtype), seed=0)
    expected = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    trained = {p.dtype for p in model.parameters() if p.requires_grad}
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert (trained, frozen) == ({expected}, {base})
    exact = add_lora(tiny("llama", base), LoraPart(r=4), seed=0)
    for (name, ours), other in zip(model.named_parameters(), exact.parameters(), strict=True):
        if ours.requires_grad:
            assert torch.equal(ours, other.to(expected)), name
