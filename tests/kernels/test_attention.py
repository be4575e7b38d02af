"""Attention with a softcap against float64 and Hugging Face's eager attention of Gemma 2."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from oracle import DEVICE, DTYPES, assert_as_exact, assert_close, error, gradients, random
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

from tunebook_kernels import (
    flash_attention,
    flash_attention_backward,
    flash_attention_forward,
    flash_attention_reference,
    takes_attention,
)
from tunebook_kernels.attention import attention_tile

ALONE = [0, 7, 8, 50, 60, 60]  # a document of one token, one that is empty, tokens after the last


class Case(NamedTuple):
    """Sizes, and what else attention is told."""

    batch: int
    heads: int
    kv_heads: int
    length: int
    head_dim: int
    softcap: float | None = 3.0
    window: int | None = None
    documents: list[int] | None = None

    def states(self, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
        """q, k and v, parts of one projection as a fused layer makes it."""
        heads = self.heads + 2 * self.kv_heads
        columns = heads * self.head_dim
        projected = random((self.batch, self.length, columns), dtype, seed)
        apart = projected.view(self.batch, self.length, heads, self.head_dim).transpose(1, 2)
        return list(apart.split((self.heads, self.kv_heads, self.kv_heads), 1))

    def upstream(self, dtype: torch.dtype, seed: int) -> torch.Tensor:
        return random((self.batch, self.heads, self.length, self.head_dim), dtype, seed)

    @property
    def how(self) -> dict[str, object]:
        starts = None
        if self.documents is not None:
            starts = torch.tensor(self.documents, dtype=torch.int32, device=DEVICE)
        return {"scale": 0.3, "softcap": self.softcap, "window": self.window, "starts": starts}

    def mask(self) -> torch.Tensor:
        """(length, length), what is added to the scores; made row by row, to be sure of it."""
        mask = torch.full((self.length, self.length), torch.finfo(torch.float16).min)
        starts = [*(self.documents or [0]), self.length]
        for row in range(self.length):
            first = max(start for start in starts if start <= row)
            first = max(first, row + 1 - (self.window or self.length))
            mask[row, first : row + 1] = 0
        return mask.to(DEVICE)


CASES = pytest.mark.parametrize(
    "case",
    [
        Case(2, 4, 2, 75, 16),
        Case(1, 2, 2, 75, 80, softcap=50.0, window=20),
        Case(1, 4, 1, 70, 96, documents=ALONE),
        Case(2, 2, 1, 33, 20, window=5, documents=[0, 3, 32, 33]),
        Case(1, 2, 1, 40, 64, softcap=None, window=100),
        Case(1, 2, 1, 40, 256, softcap=0.5),
    ],
    ids=lambda case: f"{case.length}x{case.head_dim}",
)


def in_float64(case: Case):
    def exact(q, k, v):
        group = case.heads // case.kv_heads
        q, k, v = q.double(), *(x.double().repeat_interleave(group, 1) for x in (k, v))
        scores = q @ k.transpose(2, 3) * 0.3
        if case.softcap:
            scores = case.softcap * torch.tanh(scores / case.softcap)
        return (scores + case.mask()).softmax(-1) @ v

    return exact


def hugging_face(case: Case):
    module = SimpleNamespace(num_key_value_groups=case.heads // case.kv_heads, training=False)

    def eager(q, k, v):
        mask = case.mask().to(q.dtype)[None, None]
        made, _ = eager_attention_forward(module, q, k, v, mask, 0.0, 0.3, case.softcap)
        return made.transpose(1, 2)

    return eager


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@CASES
def test_it_is_as_exact_as_eager_attention(case, dtype):
    assert_as_exact(
        lambda *leaves: flash_attention(*leaves, **case.how),
        hugging_face(case),
        in_float64(case),
        case.upstream(dtype, 1),
        *case.states(dtype, 2),
    )


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@CASES
def test_the_reference_is_what_eager_attention_means(case, dtype):
    q, k, v = case.states(dtype, 3)
    assert_close(flash_attention_reference(q, k, v, **case.how), in_float64(case)(q, k, v))


def test_a_token_alone_sees_itself():
    q, k, v = (states.requires_grad_() for states in Case(1, 2, 1, 1, 32).states(DTYPES[-1], 12))
    made = flash_attention(q, k, v, scale=0.3, softcap=3.0)
    assert torch.equal(made, v.expand_as(made))
    dq, dk, dv = torch.autograd.grad(made.sum(), (q, k, v))
    assert not dk.abs().max() > 1e-2
    assert not dq.abs().max() > 1e-2
    assert torch.equal(dv, torch.full_like(v, 2.0))


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_scores_near_zero_and_far_beyond_the_cap_are_exact(size):
    case = Case(1, 1, 1, 40, 32, softcap=50.0)  # of size 30, 40 % are where nothing is learnt
    q, k, v = case.states(torch.float32, 4)
    upstream = case.upstream(torch.float32, 5)
    made = gradients(lambda *leaves: flash_attention(*leaves, **case.how), upstream, q * size, k, v)
    truth = gradients(in_float64(case), upstream.double(), q.double() * size, k, v)
    for ours, theirs in zip(made, truth, strict=True):
        assert error(ours, theirs.double()) < 4e-6  # of eager attention 2e-6


def test_raw_functions_take_any_strides_and_give_what_autograd_gives():
    case = Case(2, 4, 2, 35, 24)
    q, k, v = case.states(torch.float32, 6)
    upstream = case.upstream(torch.float32, 7)
    wanted = gradients(lambda *leaves: flash_attention(*leaves, **case.how), upstream, q, k, v)
    q, k, v, upstream = (torch.stack((x, x), -1)[..., 0] for x in (q, k, v, upstream))
    out, lse = flash_attention_forward(q, k, v, **case.how)
    assert out.transpose(1, 2).is_contiguous() or not takes_attention(q, k, v)
    made = flash_attention_backward(upstream, q, k, v, out, lse, **case.how)
    for ours, theirs in zip((out, *made), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_sums_of_rows_are_those_of_the_scores():
    case = Case(1, 2, 1, 40, 16, softcap=2.0)
    q, k, v = case.states(torch.float32, 8)
    _, lse = flash_attention_forward(q, k, v, **case.how)
    scores = q.double() @ k.double().repeat_interleave(2, 1).transpose(2, 3) * 0.3
    scores = 2 * torch.tanh(scores / 2) + case.mask().double()
    torch.testing.assert_close(
        lse.double(), scores.logsumexp(-1) / math.log(2), rtol=1e-6, atol=1e-6
    )


def test_a_result_is_the_same_each_time():
    case = Case(2, 4, 1, 75, 64, window=30)
    upstream, leaves = case.upstream(DTYPES[-1], 9), case.states(DTYPES[-1], 10)
    first, second = (
        gradients(lambda *states: flash_attention(*states, **case.how), upstream, *leaves)
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_it_is_fused_where_it_can_be():
    q, k, v = (states.requires_grad_() for states in Case(1, 2, 1, 5, 16).states(DTYPES[0], 11))
    made = flash_attention(q, k, v, scale=0.3, softcap=3.0)
    assert ("FlashAttention" in str(made.grad_fn)) == takes_attention(q, k, v)
    assert not takes_attention(q.double(), k.double(), v.double())
    assert not takes_attention(*(torch.ones((1, 1, 2, 300), device=DEVICE),) * 3)


def test_a_tile_is_what_the_card_has_room_for():
    largest = [attention_tile("forward", 256, 2, shared) for shared in (0, 99, 163, 227)]
    assert largest[0] == largest[1]
    assert all(tile["BLOCK_D"] == 256 for tile in largest)
    assert attention_tile("dq", 80, 2, 99)["BLOCK_D"] == 128
