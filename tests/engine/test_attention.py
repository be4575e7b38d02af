"""Every way of attending against a plain float64 computation, gradients included."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tunebook.engine.attention import Segments, attend, attention_forward

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32] if DEVICE == "cpu" else [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
LENGTH = 40
STARTS = [0, 7, 8, 29, LENGTH, LENGTH]  # documents, one of them of a single token, one empty


def segments() -> Segments:
    return Segments(torch.tensor(STARTS, dtype=torch.int32, device=DEVICE), 32)


def allowed(window: int | None, documents: bool) -> torch.Tensor:
    """(LENGTH, LENGTH), True where the row's token may look at the column's."""
    may = torch.zeros((LENGTH, LENGTH), dtype=torch.bool)
    for row in range(LENGTH):
        first = max(start for start in STARTS if start <= row) if documents else 0
        if window is not None:
            first = max(first, row - window + 1)
        may[row, first : row + 1] = True
    return may


def oracle(q, k, v, scale, softcap, may):
    times = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    scores = q @ k.transpose(2, 3) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    return scores.masked_fill(~may.to(q.device), float("-inf")).softmax(-1) @ v


def states(dtype: torch.dtype, heads: int, rows: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(heads + rows)
    shapes = [(rows, heads, LENGTH, 64), (rows, 2, LENGTH, 64), (rows, 2, LENGTH, 64)]
    return [torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in shapes]


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 5},
    "wide window": {"window": LENGTH},
    "softcap": {"softcap": 3.0},
    "softcap and window": {"softcap": 3.0, "window": 9},
    "documents": {"segments": True},
    "documents and window": {"segments": True, "window": 5},
    "documents and softcap": {"segments": True, "softcap": 3.0},
}


@pytest.mark.parametrize("by_hand", [False, True], ids=["autograd", "by hand"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("heads", [2, 6], ids=["one to one", "grouped"])
@pytest.mark.parametrize("name", CASES)
def test_attention_is_what_the_formula_says(name, heads, dtype, by_hand):
    how = dict(CASES[name])
    documents = how.pop("segments", False)
    q, k, v = states(dtype, heads, rows=1 if documents else 2)
    may = allowed(how.get("window"), documents)
    upstream = torch.randn(q.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    truth = oracle(*exact, 0.1, how.get("softcap"), may)
    wanted = [truth, *torch.autograd.grad(truth, exact, upstream.double())]
    if documents:
        how["segments"] = segments()
    if by_hand:
        with torch.no_grad():
            made = attention_forward(q, k, v, learns=True, scale=0.1, **how)
            got = [made.output, *made.backward(upstream)]
    else:
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        output = attend(*leaves, scale=0.1, **how)
        got = [output, *torch.autograd.grad(output, leaves, upstream)]
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == dtype
        assert float((ours.double() - theirs).norm() / theirs.norm()) < TOLERANCE[dtype]


@pytest.mark.parametrize("additive", [False, True], ids=["boolean", "added"])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_a_mask_that_is_given_is_all_that_counts(additive, softcap):
    q, k, v = states(torch.float32, 4, rows=2)
    may = torch.ones((LENGTH, LENGTH), dtype=torch.bool).tril()
    may[:, 3:6] = False
    may[3:6, 3:6] = torch.eye(3, dtype=torch.bool)
    mask = may[None, None].to(DEVICE)
    if additive:
        mask = torch.zeros(mask.shape, device=DEVICE).masked_fill(~mask, torch.finfo(q.dtype).min)
    ours = attend(q, k, v, scale=0.1, softcap=softcap, mask=mask)
    theirs = oracle(q.double(), k.double(), v.double(), 0.1, softcap, may)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_without_learning_no_graph_is_made():
    q, k, v = states(torch.float32, 4, rows=1)
    made = attention_forward(q, k, v, learns=False, scale=0.1)
    assert not made.output.requires_grad


@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("heads", [2, 6], ids=["one to one", "grouped"])
def test_by_hand_it_gives_what_sdpa_gives_and_takes_inputs_made_again(heads, head_dim):
    """On a CPU to the last bit."""
    dtype = torch.float32 if DEVICE == "cpu" else torch.bfloat16
    q, k, v = (x[..., :1].repeat(1, 1, 1, head_dim) for x in states(dtype, heads, rows=2))
    q = q * torch.linspace(-1, 1, head_dim, device=DEVICE, dtype=dtype)
    made = attention_forward(q, k, v, learns=True, scale=0.1)
    assert made.by_hand
    upstream = torch.randn(q.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)
    without = made.with_inputs(None, None, None)
    again = without.with_inputs(*(x.clone() for x in (q, k, v)))
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    output = attend(*leaves, scale=0.1)
    wanted = [output, *torch.autograd.grad(output, leaves, upstream)]
    for ours, theirs in zip([again.output, *again.backward(upstream)], wanted, strict=True):
        share = 0.0 if DEVICE == "cpu" else TOLERANCE[dtype]
        assert float((ours - theirs).norm()) <= share * float(theirs.norm())


def test_what_a_graph_holds_is_not_by_hand():
    q, k, v = states(torch.float32, 4, rows=1)
    for how in ({"window": 5}, {"segments": segments()}):
        assert not attention_forward(q, k, v, learns=True, scale=0.1, **how).by_hand
