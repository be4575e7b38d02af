"""The input embedding in the host's memory: the same step with less of the device's."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from families import DEVICE
from steps import random_batch, take_fused_step

from tunebook.engine import LAYOUT, StepGraphs, host_bytes, host_failure, patch, place_embedding

ON_A_GPU = pytest.mark.skipif(DEVICE != "cuda", reason="about memory that CUDA maps")
VOCABULARY = 4096


@pytest.fixture
def untied(tiny_model, with_lora) -> Any:
    model = tiny_model("llama", tie_word_embeddings=False, vocab_size=VOCABULARY)
    return with_lora(model, tuned=True).train()


def table(model: Any) -> torch.Tensor:
    return model.get_input_embeddings().weight


@ON_A_GPU
def test_a_step_is_the_same_and_the_device_has_more_room(untied):
    patch(untied)
    batch, before, version = (
        random_batch("plain", DEVICE),
        table(untied).detach().clone(),
        LAYOUT.version,
    )
    expected = take_fused_step(untied, batch)
    gc.collect()
    allocated = torch.cuda.memory_allocated()
    place_embedding(untied, on_host=True)
    assert allocated - torch.cuda.memory_allocated() == before.nbytes
    assert host_bytes(untied) == before.nbytes
    assert LAYOUT.version > version
    assert untied.device.type == table(untied).device.type == "cuda"
    assert torch.equal(table(untied), before)
    got = take_fused_step(untied, batch)
    assert got.loss == expected.loss
    assert got.gradients.keys() == expected.gradients.keys()
    assert all(torch.equal(got.gradients[name], expected.gradients[name]) for name in got.gradients)
    allocated = torch.cuda.memory_allocated()
    place_embedding(untied, on_host=False)
    assert torch.cuda.memory_allocated() - allocated == before.nbytes
    assert host_bytes(untied) == 0
    assert torch.equal(table(untied), before)


@ON_A_GPU
def test_a_captured_lookup_reads_the_rows_of_each_batch(untied):
    place_embedding(untied, on_host=True)
    embedding = untied.get_input_embeddings()
    graphs = StepGraphs(lambda inputs: (embedding(inputs["ids"]),), guard=lambda: LAYOUT.version)
    for seed in range(8):
        ids = torch.randint(0, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(seed))
        ids = ids.cuda()
        with torch.no_grad():
            (rows,) = graphs({"ids": ids})
        assert torch.equal(rows, table(untied).clone()[ids])
    assert (graphs.failure, graphs.captures) == (None, 1)


@ON_A_GPU
def test_it_is_saved_as_any_other(untied, tmp_path):
    from safetensors.torch import load_file

    place_embedding(untied, on_host=True)
    untied.get_base_model().save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert torch.equal(saved["model.embed_tokens.weight"], table(untied).cpu())


@pytest.mark.parametrize("why", ["tied", "learns", "no room"])
def test_it_stays_where_it_has_to(why, tiny_model, monkeypatch, caplog):
    model = tiny_model("llama", tie_word_embeddings=why == "tied")
    model.requires_grad_(why == "learns")
    monkeypatch.setattr("tunebook.engine.host_embedding.HostMemory", _no_room)
    reasons = {
        "tied": "the output head shares its weights",
        "learns": "it learns",
        "no room": "there is no room",
    }
    where = table(model).data_ptr()
    place_embedding(model, on_host=True)
    expected = reasons[why] if DEVICE == "cuda" else "it is not on a GPU"
    assert host_failure(model) == expected
    assert f"The input embedding stays on the device: {expected}" in caplog.text
    assert (table(model).data_ptr(), host_bytes(model)) == (where, 0)
    place_embedding(model, on_host=False)  # what was never moved is not moved back
    assert table(model).data_ptr() == where


def _no_room(source: torch.Tensor) -> Any:
    raise RuntimeError("there is no room.")
