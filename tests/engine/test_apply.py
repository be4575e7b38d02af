from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tunebook.engine import patch, report, unpatch
from tunebook.engine.mlp import examine as examine_mlp
from tunebook.engine.modules import Leave, Swap, swapped_kind
from tunebook.engine.norm import examine as examine_norm

NORMS = {"llama": 5, "qwen2": 5, "qwen3": 9, "mistral": 5, "gemma2": 9, "phi3": 5}
MLPS = {"llama": 2, "qwen2": 2, "qwen3": 2, "mistral": 2, "gemma2": 2, "phi3": 0}


@pytest.mark.parametrize("family", NORMS)
def test_every_norm_and_every_gated_mlp_of_a_family_is_swapped(tiny_model, family):
    done = patch(tiny_model(family), device="any")
    kinds = [kind for _, kind in done.swapped]
    assert kinds.count("rms_norm") == NORMS[family]
    assert kinds.count("gated_mlp") == MLPS[family]
    assert len(done.left) == 2 - MLPS[family]


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
    x = torch.randn((3, 5, 32), device=mlp.gate_proj.weight.device, requires_grad=True)
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
        x = torch.randn(3, 32, device=norm.weight.device)
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
    assert reasons == {"model.layers.0.mlp": "its forward is not down(silu(gate) * up)"}


def test_unpatch_leaves_nothing_behind(tiny_model, input_ids):
    model = tiny_model("llama")
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    expected = model(input_ids).logits
    patch(model, device="any")
    assert report(model) is not None
    unpatch(model)
    assert report(model) is None
    for name, module in model.named_modules():
        assert module.__dict__.keys() == before[name].keys()
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
    assert len(second.swapped) == len(first.swapped) == 7
    assert not second.left


def test_a_deep_copy_of_a_patched_model_uses_its_own_weights(tiny_model, input_ids):
    model = tiny_model("llama")
    patch(model, device="any")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.model.norm.weight.zero_()
    assert not twin(input_ids).logits.any()
    assert model(input_ids).logits.any()


def test_forward_hooks_and_foreign_forwards_survive(tiny_model, input_ids):
    model = tiny_model("llama")
    seen = []
    model.model.norm.register_forward_hook(lambda *_: seen.append(1))
    foreign = model.model.layers[0].mlp.forward
    model.model.layers[0].mlp.forward = foreign
    done = patch(model, device="any")
    assert ("model.layers.0.mlp", "gated_mlp", "its forward was replaced by something else") in (
        done.left
    )
    model(input_ids)
    unpatch(model)
    assert seen == [1]
    assert model.model.layers[0].mlp.__dict__["forward"] is foreign


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_a_gpu_everything_is_left_with_that_reason(tiny_model):
    done = patch(tiny_model("llama"))
    assert not done.swapped
    assert {reason for _, _, reason in done.left} == {"no Triton on this device (cpu)"}
