"""A file with a fault is found out in every mix, and no right one is refused."""

from __future__ import annotations

import copy
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model

from tunebook.export import save_gguf, verify
from tunebook.export.gguf import judge, verification
from tunebook.export.gguf.checking import differences
from tunebook.export.gguf.mixes import MIXES
from tunebook.export.gguf.writer import Content, content_of
from tunebook.models.loading import load_tokenizer
from tunebook.recipe import ModelPart, Recipe


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(ModelPart())


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama-3.1")


def written(model: Any, tokenizer: Any, folder: Path, mix: str, **more: Any) -> Path:
    save_gguf(model, tokenizer, folder, quantization=mix.lower(), verify=False, **more)
    (file,) = folder.glob("*.gguf")
    return file


def found(file: Path, content: Content, mix: str) -> list[str]:
    return differences(file, content.tensors, content.kinds(MIXES[mix]), content.vocabulary)


@pytest.mark.parametrize("mix", list(MIXES))
def test_faults_of_every_kind_are_found_in_every_mix(
    mix: str, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    wrong = copy.deepcopy(model)
    first, second = wrong.model.layers
    with torch.no_grad():
        heads = first.self_attn.k_proj.weight.view(2, 64, 256)
        heads.copy_(heads.flip(0).clone())  # two heads change places
        first.mlp.up_proj.weight.mul_(1.35)  # a scale of 16 bit was read wrongly
        first.mlp.gate_proj.weight[37].neg_()  # one row of 512
        second.mlp.down_proj.weight[:, :256].zero_()  # blocks that were not written
        second.self_attn.v_proj.weight[5] = second.self_attn.v_proj.weight[6]  # a row twice
    file = written(wrong, tokenizer, tmp_path / "a", mix)
    told = found(file, content_of(model, tokenizer), mix)
    assert [one.split(" of ")[1].split(" are ")[0] for one in told] == [
        "blk.0.attn_k.weight",
        "blk.0.ffn_gate.weight",
        "blk.0.ffn_up.weight",
        "blk.1.attn_v.weight",
        "blk.1.ffn_down.weight",
    ]


@pytest.mark.parametrize("mix", sorted({mix.base: mix.name for mix in MIXES.values()}.values()))
def test_awkward_weights_and_uneven_importance_are_no_fault(
    mix: str, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    awkward = copy.deepcopy(model)
    first, second = awkward.model.layers
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        tails = torch.randn(512, 256, generator=generator) / torch.rand(
            512, 256, generator=generator
        ).clamp(min=0.02)
        first.mlp.up_proj.weight.copy_(0.02 * tails)
        first.mlp.gate_proj.weight[:, 7].mul_(60)  # a column of outliers
        first.mlp.gate_proj.weight[9].zero_()
        first.self_attn.q_proj.weight.mul_(torch.rand(256, 256, generator=generator) < 0.2)
        second.self_attn.k_proj.weight.zero_()  # as a layer that was pruned
        second.self_attn.v_proj.weight.mul_(1e-9)  # less than a scale can say
        second.mlp.up_proj.weight.fill_(0.5)
        second.mlp.gate_proj.weight[3].mul_(1e-4)
    importance = {
        tensor.name: torch.exp(2.5 * torch.randn(tensor.shape[-1], generator=generator))
        for tensor in content_of(awkward, tokenizer).tensors
        if len(tensor.shape) == 2
    }
    content = content_of(awkward, tokenizer)
    for number, given in enumerate((None, importance)):
        file = written(awkward, tokenizer, tmp_path / str(number), mix, importance=given)
        assert found(file, content, mix) == []


@pytest.mark.skipif(not judge.can_judge(), reason="xllamacpp is not installed")
@pytest.mark.parametrize("mix", ["Q8_0", "Q4_K_M", "Q2_K"])
def test_what_llama_cpp_computes_otherwise_is_found_however_coarse_the_types_are(
    mix: str, tokenizer: Any, tmp_path: Path
) -> None:
    """Random weights lose nearly every choice by Q2_K: that is no fault, another rotation is."""
    model = tiny_model("mistral")
    file = written(model, tokenizer, tmp_path / "a", mix)
    right = verify(file.parent, model, tokenizer, Recipe())
    assert right.ok, right.summary
    assert right.apart is not None
    assert right.apart < 0.2 * verification._APART
    if mix == "Q2_K":
        assert right.same_choice < right.least_agreement * right.tokens
    data = bytearray(file.read_bytes())
    key = b"rope.freq_base"
    place = data.find(key) + len(key) + 4
    assert struct.unpack_from("<f", data, place) == (10000.0,)
    struct.pack_into("<f", data, place, 40000.0)
    file.write_bytes(data)
    outcome = verify(file.parent, model, tokenizer, Recipe())
    assert not outcome.ok
    assert "llama.cpp computes otherwise" in outcome.summary


@pytest.mark.skipif(not judge.can_judge(), reason="xllamacpp is not installed")
@pytest.mark.parametrize("family", ["qwen3-moe", "gemma-2", "llama with biases"])
def test_the_coarsest_right_file_of_a_family_is_not_refused(
    family: str, tokenizer: Any, tmp_path: Path
) -> None:
    model = tiny_model(family)
    file = written(model, tokenizer, tmp_path / "a", "Q2_K")
    outcome = verify(file.parent, model, tokenizer, Recipe())
    assert outcome.ok, outcome.summary
    assert outcome.apart is not None
    assert outcome.apart < verification._APART
