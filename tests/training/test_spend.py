"""A plan's levels reach the engine's layers, and running out of memory takes the next plan."""

from __future__ import annotations

import itertools

import pytest
import torch

from tunebook.engine import fused_layers, patch
from tunebook.engine.decoder import ALL, NOTHING, berth_of, fused
from tunebook.models.adapters import add_lora
from tunebook.models.shape import ModelShape
from tunebook.plan import Hardware, Level, Strategy, make_plan
from tunebook.recipe import Recipe
from tunebook.training.setup import give_up_memory
from tunebook.training.spend import apply_strategy, layer_memory

SIZES = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


@pytest.fixture
def model():
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES))
    adapted = add_lora(base, Recipe().lora, seed=0)
    patch(adapted, device="any")
    return adapted


def strategy(levels: tuple[int, ...], **more) -> Strategy:
    return Strategy(
        micro_batch=1,
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        dtype="float32",
        optimizer="adamw_torch",
        engine="fused",
        levels=levels,
        **more,
    )


def test_each_level_keeps_what_the_one_below_keeps_and_more():
    kept = [
        {name for name, value in vars(memory.keep).items() if value}
        for memory in layer_memory(strategy(tuple(Level)))
    ]
    assert [len(names) for names in kept] == [0, 1, 2, 3, 4, 5]
    assert all(less < more for less, more in itertools.pairwise(kept))


def test_levels_and_resident_layers_reach_the_model(model):
    how = strategy((Level.NOTHING, Level.RESIDUAL, Level.GATE_UP, Level.ALL), resident_layers=1)
    assert apply_strategy(model, how)
    layers = [fused(layer) for layer in fused_layers(model)]
    assert layers[0].keep == NOTHING
    assert layers[1].keep.residual
    assert not layers[1].keep.attention
    assert layers[2].keep.gate_up
    assert not layers[2].keep.normed
    assert layers[3].keep == ALL
    residents = [{group.resident for group in layer.groups} for layer in layers]
    assert residents == [{True}, {False}, {False}, {False}]


def test_a_model_that_is_not_patched_as_planned_is_told_from_one_that_is(model):
    assert not apply_strategy(model, strategy((Level.ALL,) * 3))
    stock = strategy(()).model_copy(update={"engine": "stock"})
    assert apply_strategy(model, stock)


def test_the_first_layers_inputs_go_to_the_host(model):
    assert apply_strategy(model, strategy((Level.NOTHING,) * 4, offloaded_layers=2))
    berths = [berth_of(layer) for layer in fused_layers(model)]
    assert [berth and berth.stows for berth in berths] == ["inputs", "inputs", "nothing", None]
    how = strategy((Level.OUTPUT,) * 4, offloaded_layers=1, offloaded="output")
    assert apply_strategy(model, how)
    berths = [berth_of(layer) for layer in fused_layers(model)]
    assert [berth and berth.stows for berth in berths] == ["output", "nothing", None, None]
    assert apply_strategy(model, strategy((Level.NOTHING,) * 4))
    assert [berth_of(layer) for layer in fused_layers(model)] == [None] * 4


def test_running_out_of_memory_takes_smaller_plans_until_nothing_is_left(model):
    shape = ModelShape.from_config({"model_type": "llama", **SIZES})
    recipe = Recipe().with_values({"training.batch_size": 8, "model.max_seq_length": 8192})
    first = make_plan(recipe, shape=shape, hardware=Hardware.of("H100"))
    smaller = give_up_memory(model, first, recipe, shape, None)
    taken = [first]
    while (plan := smaller()) is not None:
        keeps = [fused(layer).keep for layer in fused_layers(model)]
        assert keeps == [memory.keep for memory in layer_memory(plan.strategy)]
        berths = [berth_of(layer) for layer in fused_layers(model)]
        stowing = sum(berth is not None and berth.stows != "nothing" for berth in berths)
        assert stowing == plan.strategy.offloaded_layers
        assert plan.strategy.effective_batch == recipe.effective_batch
        taken.append(plan)
    totals = [plan.forecast.total for plan in taken]
    assert totals == sorted(totals, reverse=True)
    assert len(taken) > 2
    assert taken[-1].strategy.micro_batch == 1
