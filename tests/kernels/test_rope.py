"""Rotary embedding of Q and K against float64 and Hugging Face's formula."""

from __future__ import annotations

import pytest
import torch
from oracle import DEVICE, DTYPES, assert_as_exact, assert_close, random
from packed_heads import CASES, SMALL, Case, in_wider_rows, packed
from transformers.models.phi3.modeling_phi3 import apply_rotary_pos_emb

from tunebook_kernels import (
    apply_rope,
    apply_rope_reference,
    can_launch,
    rope_backward,
    rope_forward,
)

STRIDED = pytest.mark.parametrize("strided", [False, True], ids=["dense", "strided"])
WITH_FLOAT64 = pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)


def heads_of(case: Case, dtype: torch.dtype, seed: int, *, strided: bool) -> list[torch.Tensor]:
    """q, k and v, as an attention module holds them (`strided`) or each in one piece."""
    parts = case.split(case.projection(dtype, seed))
    return parts if strided else [part.contiguous() for part in parts]


@STRIDED
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@CASES
def test_rope_is_as_exact_as_the_hugging_face_formula(case, dtype, strided):
    cos, sin = case.angles(dtype)
    batched = [value if value.dim() == 3 else value[None] for value in (cos, sin)]
    q, k, _ = heads_of(case, dtype, 2, strided=strided)
    upstream = heads_of(case, dtype, 3, strided=strided)[:2]
    assert_as_exact(
        lambda q, k: packed(*apply_rope(q, k, cos, sin)),
        lambda q, k: packed(*apply_rotary_pos_emb(q, k, *batched)),
        lambda q, k: packed(*apply_rope_reference(q, k, cos.double(), sin.double())),
        packed(*upstream),
        q,
        k,
    )


@WITH_FLOAT64
@CASES
def test_raw_forward_turns_q_and_k_of_a_packed_buffer_in_place(case, dtype):
    cos, sin = case.angles(torch.float32)
    rows = case.projection(dtype, 4).flatten(0, 1)
    wide = in_wider_rows(rows)
    assert rope_forward(wide, cos, sin, **case.heads) is wide
    q, k, v = case.split(rows.double())
    turned = apply_rope_reference(q, k, cos.double(), sin.double())
    assert_close(wide[:, :-5], packed(*turned, v))
    turned_columns = (case.q_heads + case.kv_heads) * case.head_dim
    assert torch.equal(wide[:, turned_columns:], in_wider_rows(rows)[:, turned_columns:])


@STRIDED
@WITH_FLOAT64
@CASES
def test_raw_backward_is_the_transpose_of_the_forward(case, dtype, strided):
    cos, sin = case.angles(torch.float32)
    gradients = heads_of(case, dtype, 5, strided=strided)
    qkv = case.projection(torch.float64, 6).requires_grad_()
    q, k, v = case.split(qkv)
    turned = apply_rope_reference(q, k, cos.double(), sin.double())
    doubles = [part.double() for part in gradients]
    exact = torch.autograd.grad((*turned, v), qkv, doubles)[0].flatten(0, 1)

    out = in_wider_rows(torch.zeros(exact.shape, dtype=dtype, device=DEVICE))
    assert rope_backward(*gradients, cos, sin, out) is out
    assert_close(out[:, :-5], exact)
    assert (out[:, -5:] == 7).all()
    v_columns = case.kv_heads * case.head_dim
    assert torch.equal(out[:, -5 - v_columns : -5], packed(gradients[2]))


def test_gradients_whose_columns_are_apart_are_taken_too():
    cos, sin = SMALL.angles(torch.float32)
    near = heads_of(SMALL, torch.float32, 7, strided=True)
    apart = [torch.stack((part, part), -1)[..., 0] for part in near]
    assert apart[0].stride(3) == 2
    results = [torch.empty((6, 128), device=DEVICE) for _ in range(2)]
    rope_backward(*near, cos, sin, results[0])
    rope_backward(*apart, cos, sin, results[1])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_turning_there_and_back_gives_the_same_heads():
    q, k, _ = heads_of(SMALL, torch.float32, 8, strided=True)
    turns = random((3, 5), torch.float32, 9).repeat(1, 2)
    there = apply_rope(q, k, turns.cos(), turns.sin())
    back = apply_rope(*there, turns.cos(), -turns.sin())
    torch.testing.assert_close(back, (q, k))


def test_angles_that_learn_get_their_gradient():
    q, k, _ = heads_of(SMALL, torch.float32, 10, strided=True)
    cos, sin = (value.requires_grad_() for value in SMALL.angles(torch.float32))
    output = apply_rope(q, k, cos, sin)[0]
    torch.testing.assert_close(torch.autograd.grad(output.sum(), cos)[0], q.sum((0, 1))[None])


def test_it_is_fused_where_triton_runs():
    q, k, _ = heads_of(SMALL, torch.float32, 11, strided=False)
    cos, sin = SMALL.angles(torch.float32)
    turned, _ = apply_rope(q.requires_grad_(), k, cos, sin)
    assert ("RoPE" in str(turned.grad_fn)) == can_launch(q)
    assert apply_rope(q[:0], k[:0], cos, sin)[0].shape == (0, *q.shape[1:])
