from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tunebook.engine import patch, report, unpatch
from tunebook.engine.mlp import examine as examine_mlp
from tunebook.engine.modules import Leave, Swap, swapped_kind
from tunebook.engine.norm import examine as examine_norm

KINDS = ("output_head", "decoder_layer", "gated_mlp", "rms_norm")
SWAPPED = {  # of two layers
    "llama": (1, 2, 2, 5), "mistral": (1, 2, 2, 5), "qwen2": (1, 2, 2, 5), "qwen3": (1, 2, 2, 9),
    "gemma": (1, 2, 2, 5), "gemma2": (1, 2, 2, 9), "gemma3_text": (1, 2, 2, 13),
    "phi3": (1, 2, 0, 5), "smollm3": (1, 1, 2, 5), "granite": (0, 0, 2, 5),
    "olmo2": (1, 0, 2, 0), "cohere": (0, 0, 2, 0), "starcoder2": (1, 0, 0, 0),
}  # fmt: skip
LEFT = {  # what a user reads about the layers and heads that run as they were
    "smollm3": {"decoder_layer": "its forward is not that of a pre-norm decoder layer"},
    "granite": {
        "decoder_layer": "its forward is not that of a pre-norm decoder layer",
        "output_head": "its logits are scaled (logits_scaling)",
    },
    "cohere": {
        "decoder_layer": "it has no norm between attention and MLP",
        "output_head": "its logits are scaled (logit_scale)",
    },
    "starcoder2": {"decoder_layer": "its LayerNorm is no RMSNorm of Llama's or Gemma's kind"},
}


@pytest.mark.parametrize("family", SWAPPED)
def test_every_part_of_a_family_that_can_be_swapped_is(tiny_model, family):
    done = patch(tiny_model(family), device="any")
    kinds = [kind for _, kind in done.swapped]
    assert tuple(kinds.count(kind) for kind in KINDS) == SWAPPED[family]
    expected = LEFT.get(family, {})
    for _, kind, reason in done.left:
        if kind in ("decoder_layer", "output_head"):
            assert reason.startswith(expected[kind])
    assert expected.keys() <= {kind for _, kind, _ in done.left}


def test_multipliers_of_one_change_nothing_and_are_fused(tiny_model):
    changes = {"residual_multiplier": 1.0, "logits_scaling": 1.0}
    kinds = [kind for _, kind in patch(tiny_model("granite", **changes), device="any").swapped]
    assert kinds.count("decoder_layer") == 2
    assert kinds.count("output_head") == 1


def test_a_block_that_is_left_says_why(tiny_model):
    relu = patch(tiny_model("llama", hidden_act="relu"), device="any")
    reasons = {reason for _, kind, reason in relu.left if kind == "gated_mlp"}
    assert reasons == {"its activation is ReLU, not SiLU or GELU"}
    phi = patch(tiny_model("phi3"), device="any")
    assert "one projection" in str(phi)
    assert "left 2 x gated_mlp (such as model.layers.0.mlp)" in str(phi)


@pytest.mark.parametrize("hidden_act", ["silu", "gelu", "gelu_pytorch_tanh", "gelu_new"])
def test_a_gated_mlp_of_each_activation_computes_the_same_fused(tiny_model, hidden_act):
    mlp = tiny_model("llama", hidden_act=hidden_act).model.layers[0].mlp
    x = torch.randn((3, 5, 64), device=mlp.gate_proj.weight.device, requires_grad=True)
    verdict = examine_mlp(mlp)
    assert isinstance(verdict, Swap)
    ours, theirs = verdict.forward(mlp, x), mlp(x)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_gemma_and_llama_norms_are_told_apart(tiny_model):
    for family, offset in (("llama", 0.0), ("gemma2", 1.0)):
        norm = tiny_model(family).model.norm
        verdict = examine_norm(norm)
        assert isinstance(verdict, Swap)
        x = torch.randn(3, 64, device=norm.weight.device)
        torch.testing.assert_close(verdict.forward(norm, x), norm(x))
        assert verdict.forward.__closure__ is not None
        assert offset in [cell.cell_contents for cell in verdict.forward.__closure__]


class _NormWithSurprise(nn.Module):
    """Looks like an RMSNorm, and computes something else."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16))
        self.eps = 1e-6
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        if self.how == "mean":
            wide = wide - wide.mean(-1, keepdim=True)
        eps = 0.0 if self.how == "no eps" else self.eps
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        if self.how == "rounds once":
            return (self.weight * normed).to(x.dtype)
        if self.how == "fails":
            raise RuntimeError("no")
        return self.weight * normed.to(x.dtype)


@pytest.mark.parametrize("how", ["mean", "no eps", "rounds once", "fails"])
def test_what_only_looks_like_an_rms_norm_is_left(how):
    assert isinstance(examine_norm(_NormWithSurprise(how)), Leave)
    assert isinstance(examine_norm(_NormWithSurprise("not at all")), Swap)


@pytest.mark.parametrize("module", [nn.LayerNorm(8), nn.Linear(4, 4), nn.BatchNorm1d(4)], ids=str)
def test_other_modules_are_not_taken_for_an_rms_norm(module):
    assert examine_norm(module) is None


def test_a_block_with_another_forward_is_left(tiny_model):
    from transformers.models.llama.modeling_llama import LlamaMLP

    class Doubled(LlamaMLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = tiny_model("llama")
    model.model.layers[0].mlp.__class__ = Doubled
    reasons = {name: reason for name, _, reason in patch(model, device="any").left}
    assert reasons == {
        "model.layers.0": "its mlp is not the LlamaMLP that such a layer has",
        "model.layers.0.mlp": "its forward is not down(silu(gate) * up)",
    }


@pytest.mark.parametrize("times", [1, 2])
def test_unpatch_leaves_nothing_behind(tiny_model, input_ids, times):
    model = tiny_model("llama")
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    expected = model(input_ids).logits
    for _ in range(times):
        patch(model, device="any")
    assert report(model) is not None
    assert model.config._attn_implementation == "tunebook"
    model(input_ids, use_cache=False)
    unpatch(model)
    assert report(model) is None
    assert model.config._attn_implementation == "eager"
    for name, module in model.named_modules():
        assert module.__dict__ == before[name]
    assert torch.equal(model(input_ids).logits, expected)


def test_patching_one_model_leaves_its_class_and_others_alone(tiny_model):
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    forward = LlamaRMSNorm.forward
    other = tiny_model("llama")
    patch(tiny_model("llama"), device="any")
    assert LlamaRMSNorm.forward is forward
    assert not any(swapped_kind(module) for module in other.modules())


def test_patching_twice_and_after_peft_reports_the_same_modules(tiny_model, with_lora):
    model = tiny_model("llama")
    first = patch(model, device="any")
    wrapped = with_lora(model)
    assert report(wrapped) is first
    second = patch(wrapped, device="any")
    assert len(second.swapped) == len(first.swapped) == 10
    assert not second.left


def test_a_deep_copy_of_a_patched_model_uses_its_own_weights(tiny_model, input_ids):
    model = tiny_model("llama")
    patch(model, device="any")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.model.norm.weight.zero_()
        twin.model.layers[0].self_attn.o_proj.weight.zero_()
    assert not twin(input_ids, use_cache=False).logits.any()
    assert model(input_ids, use_cache=False).logits.any()
    unpatch(twin)
    assert twin.config._attn_implementation == "eager"
    assert model.config._attn_implementation == "tunebook"


def test_forward_hooks_and_foreign_forwards_survive(tiny_model, input_ids):
    model = tiny_model("llama")
    seen = []
    model.model.norm.register_forward_hook(lambda *_: seen.append("norm"))
    model.model.layers[0].register_forward_hook(lambda *_: seen.append("layer"))
    model.model.layers[1].self_attn.o_proj.register_forward_hook(lambda *_: seen.append("o_proj"))
    foreign = model.model.layers[0].mlp.forward
    model.model.layers[0].mlp.forward = foreign
    done = patch(model, device="any")
    assert {name: reason for name, _, reason in done.left} == {
        "model.layers.0": "the forward of its mlp was replaced by something else",
        "model.layers.0.mlp": "its forward was replaced by something else",
        "model.layers.1": "its self_attn.o_proj has hooks",
    }
    model(input_ids, use_cache=False)
    unpatch(model)
    assert seen == ["layer", "o_proj", "norm"]
    assert model.model.layers[0].mlp.__dict__["forward"] is foreign


def test_hooks_of_a_fused_layer_are_called(tiny_model, input_ids):
    model = tiny_model("llama")
    seen = []
    model.model.layers[0].register_forward_pre_hook(lambda *_: seen.append("before"))
    model.model.layers[0].register_forward_hook(lambda *_: seen.append("after"))
    assert ("model.layers.0", "decoder_layer") in patch(model, device="any").swapped
    model(input_ids, use_cache=False)
    assert seen == ["before", "after"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_a_gpu_everything_is_left_with_that_reason(tiny_model):
    done = patch(tiny_model("llama"))
    assert not done.swapped
    assert {reason for _, _, reason in done.left} == {"no Triton on this device (cpu)"}
