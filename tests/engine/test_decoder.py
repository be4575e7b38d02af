"""Fused decoder layers where more happens than one forward and one backward."""

from __future__ import annotations

import copy
import gc
import threading
from dataclasses import replace
from typing import Any
from weakref import ReferenceType, ref

import pytest
import torch
from families import DEVICE
from steps import Batch, Step, assert_same, distance, error, random_batch, take_step

from tunebook.engine import LayerMemory, fused_layers, patch, spend, unpatch
from tunebook.engine.attention import attention_forward
from tunebook.engine.decoder import ALL, NOTHING, FusedLayer, Keep, scratch_owner
from tunebook.engine.decoder_blocks import MLPBlock
from tunebook.engine.linear_group import SCRATCH
from tunebook.training.memory import measure_step_memory

TIGHT = 2e-5


@pytest.fixture
def batch() -> Batch:
    return random_batch("plain", DEVICE)


def forward(model: Any, batch: Batch) -> torch.Tensor:
    loss: torch.Tensor = model(**batch, use_cache=False).loss
    return loss


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def scratch_of(model: Any) -> int:
    """Bytes of scratch that a model's layers hold."""
    owner = scratch_owner(fused_layers(model)[0])
    return sum(b.nbytes for key, b in SCRATCH._buffers.items() if key[0] == owner)


def test_two_models_in_two_threads_do_not_disturb_each_other(
    tiny_model, with_lora, in_four_bits, batch
):
    models = [with_lora(in_four_bits(tiny_model(f)), tuned=True) for f in ("llama", "qwen3")]
    expected = []
    for model in models:
        patch(model, device="any")
        spend(model, [LayerMemory(NOTHING)] * 2)
        expected.append(take_step(model, batch))
    wrong: list[float] = []

    def train(model: Any, alone: Step) -> None:
        for _ in range(15):
            model.zero_grad(set_to_none=True)
            forward(model, batch).backward()
            found = gradients(model)
            wrong.extend(
                away
                for name, gradient in alone.gradients.items()
                if (away := distance(found[name], gradient)) > TIGHT
            )

    threads = [
        threading.Thread(target=train, args=pair) for pair in zip(models, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_scratch_goes_with_its_model_and_stays_with_others(
    tiny_model, with_lora, in_four_bits, batch
):
    models = [with_lora(in_four_bits(tiny_model("llama"))) for _ in range(2)]
    for model in models:
        patch(model, device="any")
        take_step(model, batch)
    first, second = models
    assert scratch_of(first) == scratch_of(second) > 0
    spend(first, [LayerMemory(ALL)] * 2)
    assert scratch_of(first) == 0 < scratch_of(second)
    owner = scratch_owner(fused_layers(second)[0])
    del model, second, models
    gc.collect()
    assert owner not in {key[0] for key in SCRATCH._buffers}


@pytest.mark.parametrize("kind", ["plain", "padded left"])
@pytest.mark.parametrize("lora", [{}, {"lora_dropout": 0.3}], ids=["", "dropout"])
@pytest.mark.parametrize("family", ["llama", "gemma", "gemma2", "gemma3_text", "qwen3", "phi3"])
def test_q_k_and_v_are_made_again_without_their_attention(
    tiny_model, with_lora, monkeypatch, family, lora, kind
):
    """The same step to the last bit, whether attention is by hand or a graph holds q, k and v."""
    model = with_lora(tiny_model(family), tuned=True, **lora).train()
    patch(model, device="any")
    batch = random_batch(kind, DEVICE)
    made: list[Any] = []

    def noted(*args: Any, **how: Any) -> Any:
        made.append(attention_forward(*args, **how))
        return made[-1]

    monkeypatch.setattr("tunebook.engine.decoder_blocks.attention_forward", noted)
    spend(model, [LayerMemory(ALL)] * 2)
    expected = take_step(model, batch, seed=5)
    made.clear()
    spend(model, [LayerMemory(Keep(attention=False, gate_up=False, normed=False))] * 2)
    ours = take_step(model, batch, seed=5)
    by_graph = sum(not one.by_hand for one in made[:2])
    assert len(made) == 2 + by_graph  # what a graph made is made again
    if DEVICE == "cpu" and kind == "plain" and family in ("llama", "qwen3"):
        assert not by_graph
    for name, gradient in ours.gradients.items():
        same = torch.equal(gradient, expected.gradients[name])
        assert same or (DEVICE == "cuda" and distance(gradient, expected.gradients[name]) < 1e-5)


@pytest.mark.parametrize("memory", [ALL, NOTHING], ids=["all kept", "nothing kept"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_graph_that_is_kept_can_be_run_again(tiny_model, with_lora, batch, family, memory):
    model = with_lora(tiny_model(family), tuned=True)
    expected = take_step(model, batch)
    patch(model, device="any")
    spend(model, [LayerMemory(memory)] * 2)
    loss = forward(model, batch)
    for times in (1, 2):
        loss.backward(retain_graph=times == 1)
        for name, gradient in gradients(model).items():
            assert distance(gradient, times * expected.gradients[name]) <= TIGHT


@pytest.mark.parametrize("memory", [ALL, NOTHING], ids=["all kept", "nothing kept"])
def test_other_forwards_before_the_backward_change_nothing(
    tiny_model, with_lora, in_four_bits, batch, memory
):
    model = with_lora(in_four_bits(tiny_model("llama")), tuned=True).train()
    patch(model, device="any")
    spend(model, [LayerMemory(memory)] * 2)
    expected = take_step(model, batch)
    loss = forward(model, batch)
    with torch.no_grad(), model.disable_adapter():  # as DPO asks the reference model
        assert forward(model, batch) != loss
    other = forward(model, random_batch("padded left", DEVICE, seed=9))
    loss.backward()
    assert_same(Step(float(loss), None, gradients(model)), expected, TIGHT)
    other.backward()


def test_gradients_of_two_batches_add_up(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("qwen3"), tuned=True)
    patch(model, device="any")
    second = random_batch("padded right", DEVICE, seed=4)
    each = [take_step(model, given).gradients for given in (batch, second)]
    for given in (batch, second):
        forward(model, given).backward()
    for name, gradient in gradients(model).items():
        assert distance(gradient, each[0][name] + each[1][name]) <= TIGHT


def test_gradients_reach_the_embeddings_through_frozen_layers(tiny_model, batch):
    model = tiny_model("qwen2").requires_grad_(False).train()
    embedded = model.get_input_embeddings()(batch["input_ids"]).requires_grad_()

    def gradient() -> torch.Tensor:
        loss = model(inputs_embeds=embedded, labels=batch["labels"], use_cache=False).loss
        return torch.autograd.grad(loss, embedded)[0]

    expected = gradient()
    patch(model, device="any")
    assert distance(gradient(), expected) <= TIGHT


def test_hidden_states_are_handed_out_as_before(tiny_model, batch):
    model = tiny_model("gemma3_text")
    expected = model(**batch, use_cache=False, output_hidden_states=True).hidden_states
    patch(model, device="any")
    ours = model(**batch, use_cache=False, output_hidden_states=True).hidden_states
    assert len(ours) == len(expected) == 3
    for a, b in zip(ours, expected, strict=True):
        assert distance(a, b) <= TIGHT


def test_a_bfloat16_model_under_autocast_is_as_exact(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("llama").bfloat16(), tuned=True)
    exact = take_step(copy.deepcopy(model).float(), batch)
    with torch.autocast(DEVICE, torch.bfloat16):
        theirs = take_step(model, batch)
        patch(model, device="any")
        ours = take_step(model, batch)
    assert error(ours, exact) <= 1.5 * error(theirs, exact)


def test_a_wider_model_under_autocast_runs_its_own_code(tiny_model, with_lora, batch, monkeypatch):
    model = with_lora(tiny_model("llama"), tuned=True)
    patch(model, device="any")
    runs = []
    run = FusedLayer.run
    monkeypatch.setattr(
        FusedLayer, "run", lambda *args, **given: runs.append(1) or run(*args, **given)
    )
    take_step(model, batch)
    assert len(runs) == 2
    with torch.autocast(DEVICE, torch.bfloat16):
        take_step(model, batch)
    assert len(runs) == 2


def test_layers_that_transformers_recomputes_keep_no_more_than_their_input(
    tiny_model, with_lora, batch
):
    model = with_lora(tiny_model("llama", num_hidden_layers=4), tuned=True).train()
    patch(model, device="any")
    model.enable_input_require_grads()

    def peak() -> int:
        return measure_step_memory(lambda: forward(model, batch).backward(), device=model.device)

    all_kept = peak()
    spend(model, [LayerMemory(NOTHING)] * 4)
    nothing_kept = peak()
    spend(model, [LayerMemory(ALL)] * 4)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert nothing_kept < 0.7 * all_kept
    # transformers before 5.23 wraps the layer, and holds its output a second time
    assert peak() <= 1.1 * nothing_kept


def test_as_many_layers_as_there_are_must_be_planned(tiny_model):
    model = tiny_model("llama")
    patch(model, device="any")
    with pytest.raises(ValueError, match="3 layers were planned; the model runs 2 fused"):
        spend(model, [LayerMemory()] * 3)
    unpatch(model)
    assert not fused_layers(model)


@pytest.mark.parametrize("tile", [1, 7, 16, 1000])
@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3"])
def test_an_mlp_by_tiles_takes_the_same_step(tiny_model, with_lora, batch, family, tile):
    model = with_lora(tiny_model(family), tuned=True)
    theirs = take_step(model, batch)
    patch(model, device="any")
    for keep in (NOTHING, replace(ALL, gate_up=False)):
        spend(model, [LayerMemory(replace(keep, tile=tile))] * 2)
        assert_same(take_step(model, batch), theirs, TIGHT)


def test_dropout_is_not_cut_into_tiles(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("llama"), tuned=True, lora_dropout=0.3)
    patch(model, device="any")
    steps = []
    for tile in (None, 7):
        spend(model, [LayerMemory(replace(NOTHING, tile=tile))] * 2)
        steps.append(take_step(model, batch, seed=5))
    assert_same(steps[1], steps[0], 1e-6)


def test_what_one_tile_needed_is_gone_before_the_next(tiny_model, with_lora, batch, monkeypatch):
    model = with_lora(tiny_model("llama"), tuned=True).train()
    patch(model, device="any")
    spend(model, [LayerMemory(replace(NOTHING, tile=7))] * 2)
    made: list[ReferenceType[torch.Tensor]] = []
    alive: list[int] = []
    whole = MLPBlock.forward

    def noted(self: MLPBlock, x: torch.Tensor, context: Any) -> Any:
        alive.append(sum(tensor() is not None for tensor in made))
        y, kept = whole(self, x, context)
        assert kept.projected is not None
        made.append(ref(kept.projected))
        return y, kept

    monkeypatch.setattr(MLPBlock, "forward", noted)
    forward(model, batch).backward()
    assert len(alive) > 4
    assert set(alive) == {0}
