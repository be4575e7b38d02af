"""Per-head RMSNorm and rotation of Q and K against float64 and Hugging Face's modules."""

from __future__ import annotations

import pytest
import torch
from oracle import DEVICE, DTYPES, EPS, assert_as_exact, assert_close, random
from packed_heads import CASES, SMALL, Case, in_wider_rows
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.phi3.modeling_phi3 import apply_rotary_pos_emb
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from tunebook_kernels import (
    can_launch,
    qk_norm_rope,
    qk_norm_rope_backward,
    qk_norm_rope_forward,
    qk_norm_rope_reference,
)

OFFSETS = pytest.mark.parametrize("offset", [0.0, 1.0], ids=["qwen3", "gemma3"])
WITH_FLOAT64 = pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)


def weights(case: Case, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    return random((case.head_dim,), dtype, 2), random((case.head_dim,), dtype, 3)


def hugging_face(case: Case, offset: float, cos: torch.Tensor, sin: torch.Tensor):
    norm = (Qwen3RMSNorm if offset == 0.0 else Gemma3RMSNorm)(case.head_dim, eps=EPS)
    cos, sin = (value if value.dim() == 3 else value[None] for value in (cos, sin))

    def norm_and_turn(qkv, q_weight, k_weight):
        q, k, v = case.split(qkv)
        q = torch.func.functional_call(norm, {"weight": q_weight}, (q,))
        k = torch.func.functional_call(norm, {"weight": k_weight}, (k,))
        turned = torch.cat((*apply_rotary_pos_emb(q, k, cos, sin), v), 1)
        return turned.transpose(1, 2).flatten(2)

    return norm_and_turn


def compare_with_hugging_face(case: Case, offset: float, qkv: torch.Tensor):
    cos, sin = case.angles(qkv.dtype)
    how = {"offset": offset, **case.heads}
    assert_as_exact(
        lambda *leaves: qk_norm_rope(*leaves, cos, sin, EPS, **how),
        hugging_face(case, offset, cos, sin),
        lambda *leaves: qk_norm_rope_reference(*leaves, cos.double(), sin.double(), EPS, **how),
        case.projection(qkv.dtype, 4),
        qkv,
        *weights(case, qkv.dtype),
    )


@OFFSETS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@CASES
def test_it_is_as_exact_as_the_hugging_face_modules(case, dtype, offset):
    compare_with_hugging_face(case, offset, case.projection(dtype, 5))


def test_a_projection_whose_columns_are_apart_is_taken_too():
    qkv = SMALL.projection(torch.float32, 6)
    compare_with_hugging_face(SMALL, 0.0, torch.stack((qkv, qkv), -1)[..., 0])


def test_weight_gradients_over_more_tiles_than_programs():
    case = Case(2, 2, 1, 10 if DEVICE == "cpu" else 4000, 8, 8, "shared")
    compare_with_hugging_face(case, 0.0, case.projection(torch.float32, 7))


@OFFSETS
@WITH_FLOAT64
@CASES
def test_raw_forward_takes_a_wider_buffer(case, dtype, offset):
    cos, sin = case.angles(torch.float32)
    how = {"offset": offset, **case.heads}
    qkv, norms = case.projection(dtype, 8), weights(case, dtype)
    rows = qkv.flatten(0, 1)
    wide = in_wider_rows(rows)
    out, rstd = qk_norm_rope_forward(wide, *norms, cos, sin, EPS, **how)
    doubles = [value.double() for value in (qkv, *norms, cos, sin)]
    assert_close(out, qk_norm_rope_reference(*doubles, EPS, **how).flatten(0, 1))
    assert torch.equal(wide, in_wider_rows(rows))
    v_columns = case.kv_heads * case.head_dim
    assert torch.equal(out[:, -v_columns:], rows[:, -v_columns:])
    normed_heads = qkv.double().view(len(rows), -1, case.head_dim)[:, : -case.kv_heads]
    assert_close(rstd, (normed_heads.pow(2).mean(-1) + EPS).rsqrt())


@pytest.mark.parametrize(
    ("offset", "inplace"), [(0.0, True), (1.0, False)], ids=["qwen3-inplace", "gemma3-new"]
)
@WITH_FLOAT64
@CASES
def test_raw_backward_against_autograd_in_float64(case, dtype, offset, inplace):
    cos, sin = case.angles(torch.float32)
    how = {"offset": offset, **case.heads}
    qkv, norms = case.projection(dtype, 9), weights(case, dtype)
    upstream = case.projection(dtype, 10)
    leaves = [value.detach().double().requires_grad_() for value in (qkv, *norms)]
    y = qk_norm_rope_reference(*leaves, cos.double(), sin.double(), EPS, **how)
    exact = torch.autograd.grad(y, leaves, upstream.double())

    wide = in_wider_rows(qkv.flatten(0, 1))
    _, rstd = qk_norm_rope_forward(wide, *norms, cos, sin, EPS, **how)
    out = wide if inplace else torch.full_like(wide, 7.0)
    dq, dk, dv = case.split(upstream)
    sums = qk_norm_rope_backward(
        dq,
        dk.contiguous(),
        dv,
        wide,
        rstd,
        *norms,
        cos,
        sin,
        out,
        offset=offset,
        needs_dweight=True,
    )
    assert_close(out[:, :-5], exact[0].flatten(0, 1))
    assert (out[:, -5:] == 7).all()
    for ours, truth in zip(sums, exact[1:], strict=True):
        assert ours.dtype == dtype
        assert_close(ours, truth)


def test_frozen_weights_get_no_gradient():
    cos, sin = SMALL.angles(torch.float32)
    qkv, norms = SMALL.projection(torch.float32, 11), weights(SMALL, torch.float32)
    rows = qkv.flatten(0, 1)
    upstream = SMALL.projection(torch.float32, 12)
    _, rstd = qk_norm_rope_forward(rows, *norms, cos, sin, EPS, **SMALL.heads)
    parts, out = SMALL.split(upstream), torch.empty_like(rows)
    assert qk_norm_rope_backward(*parts, rows, rstd, *norms, cos, sin, out) is None

    y = qk_norm_rope(qkv.requires_grad_(), *norms, cos, sin, EPS, **SMALL.heads)
    torch.testing.assert_close(torch.autograd.grad(y, qkv, upstream)[0].flatten(0, 1), out)


def test_it_is_fused_where_triton_runs():
    qkv = SMALL.projection(torch.float32, 13).requires_grad_()
    cos, sin = SMALL.angles(torch.float32)
    y = qk_norm_rope(qkv, *weights(SMALL, torch.float32), cos, sin, EPS, **SMALL.heads)
    assert ("QKNormRoPE" in str(y.grad_fn)) == can_launch(qkv)
