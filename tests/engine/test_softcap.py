"""Layers whose scores pass a tanh: by the kernel where it runs, and the same numbers everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import DEVICE
from steps import assert_same, random_batch, take_fused_step, take_step, with_lengths

from tunebook.engine import CAUSAL, LayerMemory, attention, fused_layers, patch, spend
from tunebook.engine.decoder import ALL, NOTHING
from tunebook_kernels import takes_attention

RUNS = takes_attention(*(torch.ones((1, 1, 2, 16), device=DEVICE),) * 3)


@pytest.fixture
def scores_made(monkeypatch) -> list[str]:
    """The name of each function that was called to attend with a softcap."""
    called: list[str] = []
    for name in ("flash_attention_forward", "flash_attention_backward", "in_full"):
        function = getattr(attention, name)

        def counted(*args: Any, name: str = name, function: Any = function, **kwargs: Any) -> Any:
            called.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(attention, name, counted)
    return called


@pytest.mark.parametrize("keep", [ALL, NOTHING], ids=["all kept", "nothing kept"])
@pytest.mark.parametrize("kind", ["padded right", "packed"])
def test_a_step_of_gemma_2_makes_no_scores_where_the_kernel_runs(
    tiny_model, with_lora, scores_made, kind, keep
):
    model = with_lora(tiny_model("gemma2"), tuned=True)
    batch = random_batch(kind, DEVICE)
    theirs = take_step(model, batch)
    patch(model, device="any")
    spend(model, [LayerMemory(keep)] * len(fused_layers(model)))
    # as the trainer gives them: nothing after a token counts, so that padding needs no mask
    given = with_lengths(model, batch) if kind == "packed" else {**batch, "attention_mask": CAUSAL}
    scores_made.clear()  # of the small layers that `patch` tries out
    for take in (take_step, take_fused_step):
        assert_same(take(model, given), theirs, 2e-5, batch.get("attention_mask"))
    made = {"flash_attention_forward", "flash_attention_backward"} if RUNS else {"in_full"}
    assert set(scores_made) == made


def test_what_stays_for_the_backward_is_no_larger_than_the_queries():
    q, k, v = torch.randn((3, 1, 4, 96, 16), device=DEVICE)
    made = attention.attention_forward(q, k[:, :2], v[:, :2], learns=True, scale=0.1, softcap=2.0)
    if RUNS:
        assert made.output.grad_fn is None
        assert made.lse.shape == (1, 4, 96)
    assert [gradient.shape for gradient in made.backward(q)] == [q.shape, *[(1, 2, 96, 16)] * 2]
