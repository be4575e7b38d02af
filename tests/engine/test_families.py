"""Each family, kind of batch, way to spend memory and kind of weights: the same numbers as unpatched.

Every family meets every kind of batch; ways to spend memory and kinds of weights take turns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import FAMILIES
from steps import (
    Step,
    assert_same,
    document,
    error,
    packed,
    random_batch,
    take_fused_step,
    take_step,
    with_lengths,
)

from tunebook.engine import LayerMemory, fused_layers, has_fused_head, patch, spend
from tunebook.engine.decoder import ALL, NOTHING, Keep

FUSED = {"granite": 0, "olmo2": 0, "cohere": 0, "starcoder2": 0, "smollm3": 1}  # of two layers
HEADLESS = ("granite", "cohere")
BATCHES = ["plain", "padded left", "padded right", "packed by lengths", "packed by positions"]
MEMORY: dict[str, Callable[[Any], None]] = {
    "all kept": lambda model: None,
    "nothing kept": lambda model: spend_evenly(model, LayerMemory(NOTHING)),
    "half kept": lambda model: spend_evenly(model, LayerMemory(Keep(normed=False, gate_up=False))),
    "resident": lambda model: spend_evenly(model, LayerMemory(ALL, resident=True)),
    "checkpointed": lambda model: model.gradient_checkpointing_enable({"use_reentrant": False}),
    "checkpointed, reentrant": lambda model: model.gradient_checkpointing_enable(
        {"use_reentrant": True}
    ),
}
WEIGHTS = ["float32", "bfloat16", "four bits"]
TABLE = [
    (family, batch, list(MEMORY)[(f + b) % 6], WEIGHTS[(f + 2 * b + f // 3) % 3])
    for f, family in enumerate(FAMILIES)
    for b, batch in enumerate(BATCHES)
]


def spend_evenly(model: Any, memory: LayerMemory) -> None:
    spend(model, [memory] * len(fused_layers(model)))


@pytest.mark.parametrize(("family", "kind", "memory", "weights"), TABLE)
def test_a_patched_model_takes_the_same_step(
    tiny_model, with_lora, in_four_bits, input_ids, family, kind, memory, weights
):
    model = tiny_model(family)
    base = in_four_bits(model) if weights == "four bits" else model.to(getattr(torch, weights))
    model = with_lora(base, tuned=True)
    model.enable_input_require_grads()  # which reentrant checkpointing asks for
    batch = random_batch(kind.split(" by")[0], input_ids.device.type)
    theirs = take_step(model, batch)
    exact = take_step(copy.deepcopy(model).float(), batch) if weights == "bfloat16" else None
    patch(model, device="any")
    assert len(fused_layers(model)) == FUSED.get(family, 2)
    assert has_fused_head(model) == (family not in HEADLESS)
    MEMORY[memory](model)
    given = with_lengths(model, batch) if kind == "packed by lengths" else batch
    steps = [take_step(model, given)]
    if has_fused_head(model):
        steps.append(take_fused_step(model, given))
    for ours in steps:
        if exact is None:
            assert_same(ours, theirs, 2e-5, batch.get("attention_mask"))
        else:
            assert ours.loss == pytest.approx(theirs.loss, rel=1e-2)
            assert error(ours, exact) <= 1.5 * error(theirs, exact)


@pytest.mark.parametrize("by", ["lengths", "positions"])
@pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen3", "gemma2", "gemma3_text", "smollm3"]
)
def test_each_document_of_a_packed_row_learns_as_if_alone(
    tiny_model, with_lora, input_ids, family, by
):
    model = with_lora(tiny_model(family), tuned=True)
    documents = [document(n, input_ids.device.type, seed=n) for n in (9, 5, 14)]
    alone = [take_step(model, packed([one])) for one in documents]
    patch(model, device="any")
    spend_evenly(model, LayerMemory(NOTHING))
    for number, expected in enumerate(alone):
        learnt = [one if i == number else unlearnt(one) for i, one in enumerate(documents)]
        row = packed(learnt)
        row = with_lengths(model, row) if by == "lengths" else row
        for take in (take_step, take_fused_step):
            step = take(model, row)
            assert_same(Step(step.loss, None, step.gradients), expected, 2e-5)


def unlearnt(one: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**one, "labels": torch.full_like(one["labels"], -100)}
