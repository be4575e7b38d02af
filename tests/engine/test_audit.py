from __future__ import annotations

import pytest
import torch
from torch import nn

from tunebook.engine import audit_gradients
from tunebook.errors import GradientAudit


@pytest.fixture
def batch(input_ids):
    return {"input_ids": input_ids, "labels": input_ids}


def test_a_fresh_adapter_passes_with_every_lora_a_waiting(tiny_model, with_lora, batch):
    audit = audit_gradients(with_lora(tiny_model("llama")), batch)
    assert audit.trainable == 28
    assert audit.waiting == 14
    assert audit.gradient_norm > 0


def test_a_trained_adapter_waits_for_nothing(tiny_model, with_lora, batch):
    assert audit_gradients(with_lora(tiny_model("llama"), tuned=True), batch).waiting == 0


def test_it_leaves_modes_gradients_and_random_state(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("llama")).eval()
    state = torch.get_rng_state()
    audit_gradients(model, batch)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_layer_that_is_cut_off_is_named(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("llama"))
    attention = model.base_model.model.model.layers[0].self_attn
    attention.v_proj.register_forward_hook(lambda module, inputs, output: output.detach())
    with pytest.raises(GradientAudit, match=r"layers\.0\.self_attn\.v_proj\.lora_A") as caught:
        audit_gradients(model, batch)
    assert "received no gradient" in caught.value.what


def test_a_zero_gradient_of_lora_b_is_named(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("llama"))
    attention = model.base_model.model.model.layers[1].self_attn
    attention.v_proj.register_forward_hook(lambda module, inputs, output: output * 0.0)
    with pytest.raises(GradientAudit, match="lora_B") as caught:
        audit_gradients(model, batch)
    assert "zero" in caught.value.what


def test_labels_that_are_all_masked_are_not_passed(tiny_model, with_lora, batch):
    masked = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    with pytest.raises(GradientAudit):
        audit_gradients(with_lora(tiny_model("llama")), masked)


def test_a_gradient_that_is_not_finite_is_named(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("llama"))
    with torch.no_grad():
        model.base_model.model.model.norm.weight[0] = float("inf")
    with pytest.raises(GradientAudit, match="not finite"):
        audit_gradients(model, batch)


def test_nothing_trainable_is_an_error(tiny_model, batch):
    with pytest.raises(GradientAudit, match="Nothing would be learned"):
        audit_gradients(tiny_model("llama").requires_grad_(False), batch)


def test_tied_weights_that_came_apart_are_an_error(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("llama"))
    head = model.base_model.model.lm_head
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    with pytest.raises(GradientAudit, match="came apart"):
        audit_gradients(model, batch)
