"""LoRA in all its forms through fused layers: either fused and the same numbers, or left to PEFT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import DEVICE
from peft import LoraConfig
from steps import Step, assert_same, random_batch, take_fused_step, take_step
from torch import nn

import tunebook.engine.linear_group as linear_group
from tunebook.engine import LayerMemory, fused_layers, has_fused_head, patch, spend, unpatch
from tunebook.engine.decoder import ALL, NOTHING, Keep, fused
from tunebook.engine.linear_group import Unsupported
from tunebook.training.flat import FlatAdapter

FORMS: dict[str, dict[str, Any]] = {
    "rank of 5": {"r": 5},
    "rank of 20": {"r": 20, "lora_alpha": 7},
    "rsLoRA": {"r": 6, "lora_alpha": 5, "use_rslora": True},
    "ranks and alphas by layer": {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 2}},
    "all biases": {"bias": "all"},
    "biases beside LoRA": {"bias": "lora_only"},
    "q and v": {"target_modules": ["q_proj", "v_proj"]},
    "one layer of two": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
    "head saved": {"modules_to_save": ["lm_head"]},
    "embedding saved": {"modules_to_save": ["embed_tokens"]},
    "both saved": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "norms saved": {"modules_to_save": ["input_layernorm"]},
    "on the head": {"target_modules": ["q_proj", "lm_head"]},
    "on the embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "tokens": {"trainable_token_indices": [5, 6]},
    "with a bias": {"lora_bias": True},
    "DoRA": {"use_dora": True},
}
LEFT_TO_PEFT = ("norms saved", "with a bias", "DoRA")
TIED = [(form, True) for form in FORMS] + [  # where it makes a difference
    (form, False)
    for form in ("head saved", "embedding saved", "on the head", "on the embedding", "tokens")
]
TIGHT = 2e-5


@pytest.fixture
def batch() -> dict[str, Any]:
    return random_batch("plain", DEVICE)


def steps_of(model: Any, batch: dict[str, Any]) -> list[Step]:
    """By the model's own loss and, where there is one, by the fused head."""
    heads = [take_step, take_fused_step] if has_fused_head(model) else [take_step]
    return [take(model, batch) for take in heads]


def assert_as_unpatched(model: Any, batch: dict[str, Any]) -> None:
    ours = steps_of(model, batch)
    unpatch(model)
    theirs = take_step(model, batch)
    for step in ours:
        assert_same(step, theirs, TIGHT)


def runs_fused(layer: nn.Module) -> bool:
    try:
        fused(layer)
    except Unsupported:
        return False
    return True


def layers_of(model: Any) -> list[nn.Module]:
    layers: list[nn.Module] = list(model.get_base_model().model.layers)
    return layers


# ------------------------------------------------------------------------------------------ forms


@pytest.mark.parametrize("first", ["patched first", "PEFT first"])
@pytest.mark.parametrize(("form", "tied"), TIED)
def test_each_form_of_lora_takes_the_same_step(tiny_model, with_lora, batch, form, first, tied):
    model = tiny_model("qwen2", tie_word_embeddings=tied)
    if first == "patched first":
        patch(model, device="any")
        take_step(model, batch)
    model = with_lora(model, tuned=True, **FORMS[form])
    if first == "PEFT first":
        patch(model, device="any")
        assert bool(fused_layers(model)) == (form not in LEFT_TO_PEFT)
    assert [runs_fused(layer) for layer in layers_of(model)] == [form not in LEFT_TO_PEFT] * 2
    assert_as_unpatched(model, batch)


def test_a_head_that_peft_wraps_later_is_not_fused_and_patching_again_says_so(
    tiny_model, with_lora
):
    model = tiny_model("llama")
    assert ("", "output_head") in patch(model, device="any").swapped
    model = with_lora(model, target_modules=["q_proj", "lm_head"])
    assert not has_fused_head(model)
    reasons = {kind: reason for _, kind, reason in patch(model, device="any").left}
    assert reasons["output_head"] == "its head is a Linear"


def test_two_active_adapters_are_left_to_peft(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("llama"), tuned=True)
    patch(model, device="any")
    take_step(model, batch)
    model.add_adapter("other", other_adapter())
    model.base_model.set_adapter(["default", "other"])
    assert not any(map(runs_fused, layers_of(model)))
    assert_as_unpatched(model, batch)


# --------------------------------------------------------------------- what changes under the layers


def other_adapter() -> LoraConfig:
    torch.manual_seed(8)
    return LoraConfig(r=6, target_modules=["q_proj", "up_proj"], init_lora_weights=False)


def switch(model: Any) -> None:
    model.add_adapter("other", other_adapter())
    model.set_adapter("other")


def replace(model: Any) -> None:
    model.delete_adapter("default")
    model.add_adapter("default", other_adapter())
    model.set_adapter("default")


def rescale(model: Any) -> None:
    for module in model.modules():
        if hasattr(module, "scale_layer"):
            module.scale_layer(1.5)


def freeze(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if "layers.0" in name and "lora_A" in name:
            parameter.requires_grad_(False)


def let_norms_learn(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.requires_grad_(True)


@torch.no_grad()
def move(model: Any) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = 1.5 * parameter.data


@torch.no_grad()
def make_flat(model: Any) -> None:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for buffer in FlatAdapter([(0.0, named)]).buffers:
        buffer.parameter.mul_(1.5)


CHANGES: list[Callable[[Any], None]] = [
    switch, replace, rescale, freeze, let_norms_learn, move, make_flat,
]  # fmt: skip


@pytest.mark.parametrize("memory", [LayerMemory(ALL), LayerMemory(ALL, resident=True)], ids=str)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_after_the_first_step_is_followed(tiny_model, with_lora, batch, change, memory):
    model = with_lora(tiny_model("qwen3"), tuned=True)
    patch(model, device="any")
    spend(model, [memory] * 2)
    before = take_step(model, batch)
    change(model)
    assert all(map(runs_fused, layers_of(model)))
    after = take_step(model, batch)
    assert before.loss != after.loss or before.gradients.keys() != after.gradients.keys()
    assert_as_unpatched(model, batch)


@pytest.mark.parametrize("learnt", ["bias", "weight"])
def test_copies_kept_in_memory_follow_what_learns(tiny_model, with_lora, batch, learnt):
    model = with_lora(tiny_model("qwen2"), tuned=True)
    for name, parameter in model.named_parameters():
        if "proj" in name and name.endswith(learnt):
            parameter.requires_grad_(True)
    patch(model, device="any")
    spend(model, [LayerMemory(ALL, resident=True)] * 2)
    take_step(model, batch)
    move(model)
    assert_as_unpatched(model, batch)


def test_without_its_adapter_the_model_is_the_base(tiny_model, with_lora, batch):
    base = tiny_model("qwen3").train()
    expected = base(batch["input_ids"], use_cache=False).logits
    model = with_lora(base, tuned=True).train()
    patch(model, device="any")
    tuned = model(batch["input_ids"], use_cache=False).logits
    with model.disable_adapter():
        assert all(map(runs_fused, layers_of(model)))
        off = model(batch["input_ids"], use_cache=False).logits
    torch.testing.assert_close(off, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(tuned, expected, atol=1e-2)
    assert_as_unpatched(model, batch)


def test_adapters_come_and_go_and_the_first_is_unharmed(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("llama"), tuned=True)
    patch(model, device="any")
    first = take_step(model, batch)
    switch(model)
    assert take_step(model, batch).gradients.keys() != first.gradients.keys()
    model.set_adapter("default")
    assert_same(take_step(model, batch), first, 1e-9)


def test_merged_adapters_are_left_to_peft_until_they_are_taken_out(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("llama"), tuned=True).eval()
    patch(model, device="any")
    before = take_step(model, batch)
    model.merge_adapter()
    assert not any(map(runs_fused, layers_of(model)))
    with torch.no_grad():
        merged = model(batch["input_ids"], use_cache=False).logits
    assert before.logits is not None
    torch.testing.assert_close(merged, before.logits, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    assert all(map(runs_fused, layers_of(model)))
    assert_same(take_step(model, batch), before, TIGHT)


# ---------------------------------------------------------------------------------------- dropout


class Masked(nn.Module):
    """In the place of a dropout: multiplies by a mask that is known."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask.view_as(x)


Masks = dict[tuple[int, int], torch.Tensor]


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> Masks:
    """Every mask that fused layers draw, by seed and place; drawn again it must be the same."""
    drawn: Masks = {}
    draw = linear_group._keep_mask

    def noted(like: torch.Tensor, share: float, seed: int | None, index: int) -> torch.Tensor:
        mask = draw(like, share, seed, index)
        assert seed is not None
        assert torch.equal(drawn.setdefault((seed, index), mask), mask)
        return mask

    monkeypatch.setattr(linear_group, "_keep_mask", noted)
    return drawn


def use_masks(model: Any, masks: Masks) -> None:
    """Give PEFT's layers the masks that fused ones drew: seeds count up over a layer's groups."""
    starts = [seed for seed, index in masks if seed - 1 not in {s for s, _ in masks}]
    for start, layer in zip(dict.fromkeys(starts), layers_of(model), strict=True):
        for number, group in enumerate(fused(layer).groups):
            for index, module in enumerate(group.modules):
                dropout: Any = module.lora_dropout
                dropout["default"] = Masked(masks[start + number, index])


HALF = Keep(attention=True, residual=False, gate_up=False, normed=False)
DROPPING = [  # family, how its layers are run, whether in 4 bits, whether transformers recomputes
    ("qwen2", LayerMemory(ALL), True, False),
    ("qwen2", LayerMemory(NOTHING), False, False),
    ("qwen2", LayerMemory(ALL, resident=True), True, False),
    ("gemma2", LayerMemory(HALF), True, False),
    ("gemma2", LayerMemory(NOTHING), True, False),
    ("qwen2", LayerMemory(ALL), False, True),
]


@pytest.mark.parametrize(("family", "memory", "four_bits", "checkpointed"), DROPPING)
def test_the_backward_uses_the_masks_of_the_forward(
    tiny_model, with_lora, in_four_bits, batch, masks, family, memory, four_bits, checkpointed
):
    model = tiny_model(family)
    model = in_four_bits(model) if four_bits else model
    model = with_lora(model, tuned=True, lora_dropout=0.3)
    patch(model, device="any")
    spend(model, [memory] * 2)
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    ours = take_step(model, batch)
    assert len(masks) == 2 * 7
    use_masks(model, masks)
    unpatch(model)
    assert_same(ours, take_step(model, batch), TIGHT)


def test_masks_differ_between_modules_layers_and_steps(tiny_model, with_lora, batch, masks):
    model = with_lora(tiny_model("llama"), tuned=True, lora_dropout=0.3)
    patch(model, device="any")
    for seed in (0, 1):
        take_step(model, batch, seed=seed)
    kept = [mask.bool() for mask in masks.values()]
    assert len(kept) == 2 * 2 * 7
    share = torch.cat([mask.flatten() for mask in kept]).float().mean()
    assert float(share) == pytest.approx(0.7, abs=0.01)
    for i, one in enumerate(kept):
        for other in kept[:i]:
            if one.shape == other.shape:
                agree = float((one == other).float().mean())
                assert agree == pytest.approx(0.7**2 + 0.3**2, abs=0.06)


def test_a_seed_repeats_a_step_with_dropout_and_evaluation_has_none(tiny_model, with_lora, batch):
    model = with_lora(tiny_model("llama"), tuned=True, lora_dropout=0.3)
    patch(model, device="any")
    first, again, other = (take_step(model, batch, seed=seed) for seed in (0, 0, 1))
    assert_same(first, again, 0.0)
    assert first.loss != other.loss
    model.eval()
    with torch.no_grad():
        ours = model(**batch, use_cache=False).loss
        unpatch(model)
        torch.testing.assert_close(ours, model(**batch, use_cache=False).loss)
