"""8-bit weights in fused layers: their product, exactly, where bitsandbytes rounds the inputs too."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from families import FAMILIES
from steps import (
    assert_same,
    distance,
    error,
    random_batch,
    take_fused_step,
    take_step,
    with_lengths,
)
from test_families import BATCHES, FUSED, MEMORY

from tunebook.engine import check_parity, fused_layers, has_fused_head, parity, patch, patch_checked
from tunebook.engine.eight_bits import exact_eight_bits
from tunebook_kernels import Packed8bit

TABLE = [
    (family, BATCHES[(2 * f) % 5], list(MEMORY)[(f + f // 3) % 6])
    for f, family in enumerate(FAMILIES)
]


@pytest.fixture
def eight_bits(tiny_model, with_lora, in_eight_bits):
    def make(family: str, **lora: Any) -> Any:
        model = with_lora(in_eight_bits(tiny_model(family)), tuned=True, **lora)
        model.enable_input_require_grads()
        return model

    return make


@pytest.fixture
def rounds_inputs(monkeypatch) -> None:
    """Bitsandbytes multiplies as it does on a GPU; on a CPU it would dequantise."""
    bitsandbytes = pytest.importorskip("bitsandbytes")

    def product(x, weight, out=None, state=None, threshold=0.0, bias=None):
        from bitsandbytes.autograd._functions import MatMul8bitLt

        return MatMul8bitLt.apply(x, weight, out, bias, state)

    monkeypatch.setattr(bitsandbytes, "matmul", product)


@pytest.mark.parametrize(("family", "kind", "memory"), TABLE)
def test_a_patched_model_takes_the_step_of_its_dequantised_weights(
    eight_bits, input_ids, family, kind, memory
):
    model = eight_bits(family)
    batch = random_batch(kind.split(" by")[0], input_ids.device.type)
    with exact_eight_bits(model):
        theirs = take_step(model, batch)
    patch(model, device="any")
    assert len(fused_layers(model)) == FUSED.get(family, 2)
    MEMORY[memory](model)
    given = with_lengths(model, batch) if kind == "packed by lengths" else batch
    takes = [take_step, take_fused_step] if has_fused_head(model) else [take_step]
    with exact_eight_bits(model):  # of layers that are not fused
        for take in takes:
            assert_same(take(model, given), theirs, 2e-5, batch.get("attention_mask"))


def test_it_is_nearer_to_the_model_before_it_was_rounded_than_bitsandbytes(
    tiny_model, with_lora, in_eight_bits, input_ids, rounds_inputs
):
    batch = random_batch("plain", input_ids.device.type)
    whole = with_lora(tiny_model("llama"), tuned=True)
    rounded = with_lora(in_eight_bits(tiny_model("llama")), tuned=True)
    exact = take_step(whole, batch)
    theirs = take_step(rounded, batch)
    patch(rounded, device="any")
    ours = take_step(rounded, batch)
    assert error(ours, exact) < error(theirs, exact) < 0.1
    assert distance(ours.logits, exact.logits) < distance(theirs.logits, exact.logits)


def test_parity_is_with_the_dequantised_weights(eight_bits, input_ids, rounds_inputs, monkeypatch):
    model = eight_bits("qwen3")
    done = patch_checked(model, input_ids, device="any")
    assert not done.undone()
    assert len(fused_layers(model)) == 2
    assert check_parity(model, input_ids).ok
    layer = model.model.model.layers[0].mlp.down_proj.base_layer
    assert "forward" not in layer.__dict__
    with monkeypatch.context() as without:
        without.setattr(parity, "exact_eight_bits", lambda model: nullcontext())
        assert not check_parity(model, input_ids).ok  # which would undo everything


def test_layers_are_read_before_and_after_their_first_use(eight_bits, input_ids):
    model = eight_bits("llama")
    layer = model.model.model.layers[0].mlp.down_proj.base_layer
    before = Packed8bit.of(copy.deepcopy(layer)).dequantize()
    patch(model, device="any")
    first = take_step(model, random_batch("plain", input_ids.device.type))
    with torch.no_grad():
        model(input_ids, use_cache=True)  # by their own code, which moves their scales elsewhere
    assert layer.weight.SCB is None
    assert torch.equal(Packed8bit.of(layer).dequantize(), before)
    again = take_step(model, random_batch("plain", input_ids.device.type))
    assert_same(again, first, 1e-6)


def test_weights_that_are_trained_are_left_to_bitsandbytes(tiny_model, input_ids):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.mlp.down_proj = bitsandbytes.nn.Linear8bitLt(128, 64, bias=False)
    done = patch(model.to(input_ids.device), device="any")
    reasons = {reason for _, kind, reason in done.left if kind == "decoder_layer"}
    assert reasons == {"its layers round weights to 8 bit anew at each use"}


def test_a_model_loaded_in_eight_bits_runs_fused(tiny_model, with_lora, input_ids, tmp_path):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    pytest.importorskip("bitsandbytes")
    tiny_model("gemma2").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        quantization_config=BitsAndBytesConfig(load_in_8bit=True),
        device_map={"": input_ids.device.type},
        attn_implementation="eager",  # transformers up to 5.17 leaves the softcap out of others
    )
    model = with_lora(model, tuned=True)
    assert not patch_checked(model, input_ids, device="any").undone()
    assert len(fused_layers(model)) == 2
