from __future__ import annotations

import pytest
import torch

from tunebook.engine import (
    audit_gradients,
    check_parity,
    patch,
    patch_checked,
    report,
    unpatch,
)
from tunebook.engine.modules import swap_forward, swapped_kind
from tunebook.models.loading import load_model, load_tokenizer
from tunebook.recipe import Recipe

FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "phi3"]
PARTS = 10  # of a Llama of two layers: its head, 2 layers, 2 MLPs and 5 norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_patched_is_the_same_function(tiny_model, with_lora, input_ids, family, dtype):
    model = with_lora(tiny_model(family).to(dtype), tuned=True)
    patch(model, device="any")
    parity = check_parity(model, input_ids)
    assert parity.ok, str(parity)
    assert parity.gradient_difference is not None
    assert parity.dtype == str(dtype).removeprefix("torch.")


def test_patched_four_bit_layers_are_the_same_function(tiny_model, with_lora, input_ids, tmp_path):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    pytest.importorskip("bitsandbytes")
    tiny_model("llama").save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=quantization, device_map={"": input_ids.device.type}
    )
    model = with_lora(model, tuned=True)
    assert type(model.model.model.layers[0].mlp.gate_proj.base_layer).__name__ == "Linear4bit"
    assert len(patch(model, device="any").swapped) == PARTS
    parity = check_parity(model, input_ids)
    assert parity.ok, str(parity)


def test_rounding_of_a_model_that_is_surprised_is_no_other_function(with_lora):
    recipe = Recipe().with_values({"model.dtype": "bfloat16"})
    model = with_lora(load_model(recipe.model, recipe.quantization, device="cpu"))
    words = load_tokenizer(recipe.model)("The cat sat on the mat and then it went home.")
    input_ids = torch.tensor([words["input_ids"]])  # few tokens, each at 8 to 9 nats
    patch(model, device="any")
    parity = check_parity(model, input_ids)
    assert parity.ok, str(parity)


def test_checkpointed_layers_are_the_same_function(tiny_model, with_lora, input_ids):
    model = with_lora(tiny_model("qwen3"), tuned=True)
    model.gradient_checkpointing_enable()
    patch(model, device="any")
    assert check_parity(model, input_ids).ok


def test_parity_leaves_the_model_patched_and_as_it_was(tiny_model, with_lora, input_ids):
    model = with_lora(tiny_model("llama"), tuned=True).eval()
    patch(model, device="any")
    first = next(p for p in model.parameters() if p.requires_grad)
    first.grad = torch.ones_like(first)
    state = torch.get_rng_state()
    check_parity(model, input_ids)
    assert not any(module.training for module in model.modules())
    assert torch.equal(first.grad, torch.ones_like(first))
    assert sum(p.grad is not None for p in model.parameters()) == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(swapped_kind(module) is not None for module in model.modules()) == PARTS


def test_a_model_without_trainable_weights_is_compared_without_gradients(tiny_model, input_ids):
    model = tiny_model("llama").requires_grad_(False)
    patch(model, device="any")
    parity = check_parity(model, input_ids)
    assert parity.ok
    assert parity.gradient_difference is None


def test_a_wrong_swap_is_seen(tiny_model, input_ids):
    model = tiny_model("llama")
    patch(model, device="any")
    swap_forward(model.model.norm, "rms_norm", lambda self, x: x * 1.01)
    parity = check_parity(model, input_ids)
    assert not parity.ok
    assert "NOT the same" in str(parity)


def test_a_gradient_that_a_swap_loses_is_seen(tiny_model, with_lora, input_ids):
    model = with_lora(tiny_model("llama"), tuned=True)
    patch(model, device="any")
    layer = model.base_model.model.model.layers[1]
    fused = layer.forward
    swap_forward(layer, "decoder_layer", lambda self, x, **given: fused(x.detach(), **given))
    parity = check_parity(model, input_ids)
    assert parity.logits_difference < 1e-5
    assert not parity.ok


@pytest.mark.parametrize("broken", ["wrong", "raises"])
def test_a_kind_that_fails_is_undone_and_the_other_stays(
    tiny_model, input_ids, monkeypatch, broken
):
    import tunebook.engine.norm as norm

    def wrong(x, weight, eps, *, offset=0.0):
        if broken == "raises":
            raise RuntimeError("no compiler")
        return x * weight

    monkeypatch.setattr(norm, "rms_norm", wrong)
    model = tiny_model("llama")
    done = patch_checked(model, input_ids, device="any")
    assert {kind for _, kind in done.swapped} == {"output_head", "decoder_layer", "gated_mlp"}
    assert len(done.left) == 5
    assert all(
        kind == "rms_norm" and reason.startswith("undone: ") for _, kind, reason in done.left
    )
    assert ("no compiler" in str(done)) == (broken == "raises")
    assert report(model) is done
    assert swapped_kind(model.model.norm) is None
    assert swapped_kind(model.model.layers[0].mlp) == "gated_mlp"


def test_a_part_that_runs_only_in_an_answer_is_checked_too(tiny_model, input_ids, monkeypatch):
    import tunebook.engine.mlp as mlp

    _, reference = mlp._OPERATIONS["silu"]
    monkeypatch.setitem(mlp._OPERATIONS, "silu", (lambda gate, up: gate * up, reference))
    done = patch_checked(tiny_model("llama"), input_ids, device="any")
    assert {kind for _, kind in done.swapped} == {"output_head", "decoder_layer", "rms_norm"}
    assert {kind for _, kind, _ in done.left} == {"gated_mlp"}


def test_dropout_is_no_reason_to_undo_a_layer_and_is_on_again(tiny_model, with_lora, input_ids):
    model = with_lora(tiny_model("llama"), tuned=True, lora_dropout=0.3)
    assert not patch_checked(model, input_ids, device="any").left
    model.train()
    losses = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        losses.add(model(input_ids=input_ids, labels=input_ids, use_cache=False).loss.item())
    assert len(losses) == 2


def test_twenty_training_steps_give_the_same_loss_curve(tiny_model, with_lora, input_ids):
    curves = []
    for patched in (True, False):
        model = with_lora(tiny_model("llama"))
        if patched:
            patch_checked(model, input_ids, device="any")
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        losses = []
        for _ in range(20):
            loss = model(input_ids=input_ids, labels=input_ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        curves.append(losses)
    assert curves[0][-1] < curves[0][0] - 0.5
    assert curves[0] == pytest.approx(curves[1], abs=1e-3)


def test_a_patched_model_passes_the_gradient_audit(tiny_model, with_lora, input_ids):
    model = with_lora(tiny_model("llama"))
    patch(model, device="any")
    assert audit_gradients(model, {"input_ids": input_ids, "labels": input_ids}).waiting == 14
    unpatch(model)
