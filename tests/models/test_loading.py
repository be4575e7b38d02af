"""Base models and tokenizers: found, loaded, and still trainable after they were talked to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tunebook.errors import ModelInvalid, ModelMissing, TokenizerMissing
from tunebook.models.adapters import add_lora
from tunebook.models.loading import (
    EMBEDDED,
    load_model,
    load_shape,
    load_tokenizer,
    resolve_model,
)
from tunebook.recipe import LoraPart, ModelPart, QuantizationPart


def gradient(model: torch.nn.Module) -> torch.Tensor:
    """Of every lora_B, for one fixed batch."""
    ids = torch.arange(20, 60)[None]
    model.train()
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    grads = [p.grad for n, p in model.named_parameters() if "lora_B" in n]
    assert all(grad is not None for grad in grads)
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def test_a_model_that_has_answered_still_gets_the_same_gradients() -> None:
    model = add_lora(load_model(ModelPart(), QuantizationPart()), LoraPart(), seed=0)
    before = gradient(model)
    model.eval()
    with torch.no_grad():
        model.generate(torch.tensor([[1, 3, 50]]), max_new_tokens=3)
        model(torch.tensor([[1, 3, 50, 60]]))
    after = gradient(model)
    assert before.abs().sum() > 0
    assert torch.equal(before, after)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_weights_are_stored_in_the_bits_asked_for(bits: int) -> None:
    model = load_model(ModelPart(), QuantizationPart(bits=bits))
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.numel() * weight.element_size() == 256 * 768 * (32 if bits == 16 else bits) // 8


def test_names_folders_and_hub_ids_are_told_apart(tmp_path: Path) -> None:
    assert resolve_model("tunebook-tiny").source == "embedded"
    assert resolve_model("owner/name").source == "hub"
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)).source == "folder"


@pytest.mark.parametrize("name", ["tunebok-tiny", "/no/such/folder", "a b", ""])
def test_a_name_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(ModelMissing, match="tunebook-tiny"):
        resolve_model(name)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match=r"config\.json"):
        resolve_model(str(tmp_path))


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / name, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{garbage")
    with pytest.raises(ModelInvalid, match="could not be loaded"):
        load_model(ModelPart(name=str(tmp_path)), QuantizationPart(bits=16))


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / name, tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelInvalid, match="safetensors"):
        load_model(ModelPart(name=str(tmp_path)), QuantizationPart(bits=16))


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    shutil.copy(EMBEDDED / "config.json", tmp_path)
    with pytest.raises(TokenizerMissing, match=r"tokenizer\.json"):
        load_tokenizer(ModelPart(name=str(tmp_path)))


def test_every_tokenizer_gets_a_padding_token(unpacked_tokenizers: dict[str, Path]) -> None:
    for name, folder in unpacked_tokenizers.items():
        tokenizer = load_tokenizer(ModelPart(name=str(folder)))
        assert tokenizer.pad_token_id is not None, name
    llama = load_tokenizer(ModelPart(name=str(unpacked_tokenizers["llama-3.1"])))
    assert llama.pad_token == "<|finetune_right_pad_id|>"


def test_the_shape_is_read_from_the_config_alone(tmp_path: Path) -> None:
    shutil.copy(EMBEDDED / "config.json", tmp_path)
    shape = load_shape(ModelPart(name=str(tmp_path)))
    config = json.loads((EMBEDDED / "config.json").read_text())
    assert shape.hidden_size == config["hidden_size"]
    assert shape == load_shape(ModelPart())
