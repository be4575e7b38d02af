"""A slice of real weights is read as it is, and a stand-in says that it is one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tunebook.models.weight_sample import sample_weights
from tunebook.recipe import ModelPart

NAME = "model.layers.{}.self_attn.q_proj.weight"


def save(folder: Path, dtype: str, shards: int = 1) -> dict:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    tensors = {NAME.format(at): torch.randn(40, 64, dtype=getattr(torch, dtype)) for at in range(4)}
    tensors["model.layers.0.input_layernorm.weight"] = torch.ones(64)
    files = {name: f"part-{at % shards}.safetensors" for at, name in enumerate(tensors)}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return tensors
    for file in set(files.values()):
        save_file({name: tensors[name] for name in files if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return tensors


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shards", [1, 2])
def test_the_first_rows_of_a_middle_layer_are_read(tmp_path, dtype, shards):
    tensors = save(tmp_path / "model", dtype, shards)
    sample = sample_weights(ModelPart(name=str(tmp_path / "model")), most=64 * 10)
    assert sample.tensor == NAME.format(2)
    assert sample.why == ""
    assert sample.weights.shape == (10, 64)
    np.testing.assert_array_equal(sample.weights, tensors[sample.tensor][:10].float().numpy())


def test_the_embedded_model_has_its_own():
    sample = sample_weights(ModelPart())
    assert sample.tensor
    assert 0 < sample.weights.std() < 1


def test_a_model_that_is_not_here_gets_a_stand_in():
    sample = sample_weights(ModelPart(name="nobody/has-this-one"))
    assert sample.tensor == ""
    assert "No weights of this model" in sample.why
    assert sample.weights.std() == pytest.approx(0.02, rel=0.05)


def test_a_broken_file_gets_a_stand_in_that_says_so(tmp_path):
    save(tmp_path / "model", "float32")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not a header")
    sample = sample_weights(ModelPart(name=str(tmp_path / "model")))
    assert "could not be read" in sample.why
