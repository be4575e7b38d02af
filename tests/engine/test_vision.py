"""Vision-language models: with images, patched and unpatched take the same step in both towers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from steps import assert_same, error, take_fused_step, take_step
from vision import FAMILIES, IMAGE, vision_batch, vision_model

from tunebook.engine import (
    LayerMemory,
    audit_gradients,
    check_parity,
    fused_layers,
    has_fused_head,
    patch,
    patch_checked,
    spend,
    unpatch,
)
from tunebook.engine.decoder import NOTHING

MEMORY: dict[str, Callable[[Any], None]] = {
    "all kept": lambda model: None,
    "nothing kept": lambda model: spend(
        model, [LayerMemory(NOTHING)] * len(fused_layers(model))
    ),
    "checkpointed": lambda model: model.gradient_checkpointing_enable({"use_reentrant": False}),
}
WEIGHTS = ["float32", "bfloat16", "four bits"]
TABLE = [
    (family, rows, padded, list(MEMORY)[(f + b) % 3], WEIGHTS[(f + 2 * b + f // 3) % 3])
    for f, family in enumerate(FAMILIES)
    for b, (rows, padded) in enumerate([(1, False), (2, False), (2, True)])
]


@pytest.mark.parametrize(("family", "rows", "padded", "memory", "weights"), TABLE)
def test_a_patched_model_takes_the_same_step_with_images(
    with_lora, in_four_bits, family, rows, padded, memory, weights
):
    model = vision_model(family)
    if weights == "bfloat16":
        model = model.bfloat16()
    elif weights == "four bits":
        model = in_four_bits(model)
    model = with_lora(model, tuned=True)
    batch = vision_batch(family, rows=rows, padded=padded)
    if padded and family != "mllama":
        batch["attention_mask"][1, :2] = 0  # on the left too
    MEMORY["checkpointed" if memory == "checkpointed" else "all kept"](model)
    theirs = take_step(model, batch)
    patched = copy.deepcopy(model)
    patch(patched, device="any")
    MEMORY[memory](patched)
    ours = [take_step(patched, batch), take_fused_step(patched, batch)]
    assert any("visual" in name or "vision" in name for name in theirs.gradients)
    if weights != "bfloat16":
        for step in ours:
            assert_same(step, theirs, 1e-4, batch.get("attention_mask"))
        return
    exact = take_step(copy.deepcopy(model).double(), in_double(batch))
    for step in ours:
        assert error(step, exact) <= 1.1 * error(theirs, exact) + 1e-3


def in_double(batch: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in batch.items()
    }


@pytest.mark.parametrize("images", [True, False], ids=["with images", "ids alone"])
@pytest.mark.parametrize("family", FAMILIES)
def test_parity_holds_with_images_and_without(with_lora, family, images):
    model = with_lora(vision_model(family), tuned=True)
    batch = vision_batch(family)
    ids, labels = batch.pop("input_ids"), batch.pop("labels")
    if not images:
        ids = ids.masked_fill(ids >= IMAGE, 7)
    done = patch_checked(model, ids, labels, batch if images else None, device="any")
    assert not done.undone()
    parity = check_parity(model, ids, labels, batch if images else None)
    assert parity.ok, str(parity)
    assert parity.gradient_difference is not None
    assert parity.gradient_difference > 0  # other code did run


def test_a_swap_that_is_wrong_for_images_alone_is_undone(with_lora, monkeypatch):
    import tunebook.engine.norm as norm

    model = with_lora(vision_model("qwen2_5_vl"), tuned=True)
    batch = vision_batch("qwen2_5_vl")
    ids, labels = batch.pop("input_ids"), batch.pop("labels")
    right = norm.rms_norm

    def wrong(x: torch.Tensor, *arguments: Any, **more: Any) -> torch.Tensor:
        return right(x, *arguments, **more) * (1.1 if x.dim() == 2 else 1.0)  # of patches

    monkeypatch.setattr(norm, "rms_norm", wrong)
    text = ids.masked_fill(ids >= IMAGE, 7)
    assert not patch_checked(model, text, text, device="any").undone()
    unpatch(model)
    assert set(patch_checked(model, ids, labels, batch, device="any").undone()) == {"rms_norm"}


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "mllama", "llava"])
def test_the_gradient_audit_takes_a_batch_with_images(with_lora, family):
    model = with_lora(vision_model(family))
    patch(model, device="any")
    audit = audit_gradients(model, vision_batch(family))
    assert audit.waiting == audit.trainable // 2


def test_a_model_that_recorded_hidden_states_can_still_be_fused():
    model = vision_model("llava")
    batch = vision_batch("llava")
    before = model(**batch).logits  # hooks of transformers stay on the attention of both towers
    model(**batch, output_hidden_states=True, output_attentions=True)
    done = patch(model, device="any")
    assert not [row for row in done.left if "hooks" in row[2]]
    torch.testing.assert_close(model(**batch, use_cache=False).logits, before, atol=1e-4, rtol=1e-4)
