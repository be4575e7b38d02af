"""Packed rows learn as if alone, and few sequences hold them all."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies as st

from tunebook.data.packing import (
    best_fit_decreasing,
    block_diagonal_mask,
    flatten_batch,
    pack_rows,
    suggest_max_length,
)
from tunebook.data.spool import dataset_of


@given(st.lists(st.integers(1, 50), max_size=80), st.integers(10, 60))
def test_every_row_is_packed_once_and_fits(lengths, capacity):
    packs = best_fit_decreasing(lengths, capacity)
    assert sorted(number for pack in packs for number in pack) == list(range(len(lengths)))
    for pack in packs:
        assert len(pack) == 1 or sum(lengths[n] for n in pack) <= capacity
    # Two sequences that are at most half full would have been one.
    half = [p for p in packs if 2 * sum(lengths[n] for n in p) <= capacity]
    assert len(half) <= 1


def test_each_row_goes_where_least_is_left():
    assert best_fit_decreasing([3, 7, 5, 5, 2, 8], 10) == [[5, 4], [1, 0], [2, 3]]


def rows_of(seed: int, count: int = 9) -> list[dict[str, list[int]]]:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        ids = [rng.randrange(3, 64) for _ in range(rng.randrange(2, 20))]
        labels = [token if rng.random() < 0.6 else -100 for token in ids]
        rows.append({"input_ids": ids, "labels": [*labels[:-1], ids[-1]]})
    return rows


def table_of(rows: list[dict[str, list[int]]]):
    import pyarrow as pa

    return dataset_of(pa.Table.from_pylist(rows))


def test_a_packed_table_has_positions_and_lengths():
    rows = rows_of(0)
    packed = pack_rows(table_of(rows), 40)
    together = [n for lengths in packed["seq_lengths"] for n in lengths]
    assert sorted(together) == sorted(len(row["input_ids"]) for row in rows)
    for pack in packed:
        assert len(pack["input_ids"]) == sum(pack["seq_lengths"]) <= 40
        assert pack["position_ids"] == [i for n in pack["seq_lengths"] for i in range(n)]
        starts = [i for i, place in enumerate(pack["position_ids"]) if place == 0]
        assert all(pack["labels"][i] == -100 for i in starts)


@pytest.fixture
def llama():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(attention: str) -> LlamaForCausalLM:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            attn_implementation=attention,
        )
        return LlamaForCausalLM(config).float().train()

    return make


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("packed_first", [True, False])
def test_a_packed_batch_gives_each_row_its_own_loss_and_gradient(llama, attention, packed_first):
    import torch

    rows = rows_of(1)
    model = llama(attention)
    alone, count = torch.zeros(()), 0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        alone = alone + torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum")
        count += int((labels[1:] != -100).sum())
    alone.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    batch = flatten_batch(list(pack_rows(table_of(rows), 40)) if packed_first else rows)
    lengths = batch["cu_seq_lens_q"].diff().tolist()
    assert sum(lengths) == batch["input_ids"].shape[1]
    assert batch["max_length_q"] == max(lengths)
    logits = model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
    ).logits[0, :-1]
    labels = batch["labels"][0, 1:]
    assert int((labels != -100).sum()) == count
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(loss, alone, rtol=1e-5, atol=1e-5)
    loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-5)

    model.zero_grad()
    mask = block_diagonal_mask(batch["position_ids"], torch.float32)
    masked = model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=mask,
        use_cache=False,
    ).logits[0, :-1]
    torch.testing.assert_close(masked, logits, rtol=1e-4, atol=1e-5)


def test_a_packed_row_changes_nothing_in_its_neighbours(llama):
    import torch

    rows = rows_of(2, 2)
    model = llama("sdpa")

    def second(first: list[int]) -> torch.Tensor:
        batch = flatten_batch([{"input_ids": first, "labels": first}, rows[1]])
        out = model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        )
        return out.logits[0, len(first) :]

    torch.testing.assert_close(second([5, 6, 7]), second([9, 9, 4]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("lengths", "truncated", "suggested"),
    [
        ([100] * 99 + [900], 0, None),
        ([100] * 10, 10, 128),
        ([], 0, None),
        ([64] * 300 + [999], 1, None),
    ],
)
def test_a_length_is_suggested_where_rows_are_cut(lengths, truncated, suggested):
    assert suggest_max_length(lengths, truncated) == suggested
