"""Formats with their sizes, progress that can be stopped, and files proved to be the model."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunebook.errors import Cancelled
from tunebook.export import FORMATS, Progress, predicted_sizes, usage, verify
from tunebook.models.adapters import add_lora
from tunebook.models.loading import load_model, load_shape, load_tokenizer
from tunebook.recipe import LoraPart, ModelPart, QuantizationPart, Recipe

RECIPE = Recipe.of(r=4, bits=16)


@pytest.fixture(scope="module")
def model() -> Any:
    """The embedded model with a LoRA whose B is random, as if it had learnt something."""
    tuned = add_lora(load_model(ModelPart(), QuantizationPart(bits=16)), LoraPart(r=4), seed=1)
    torch.manual_seed(2)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape).to(parameter.device)
    return tuned.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(ModelPart())


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_is_written_near_its_size_and_is_the_model(
    name: str, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    progress = Progress(lambda done, total: told.append((done, total)))
    path = FORMATS[name].save(model, tokenizer, tmp_path / name, recipe=RECIPE, progress=progress)
    weights = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    assert weights == pytest.approx(
        predicted_sizes(RECIPE, load_shape(RECIPE.model))[name], rel=0.05
    )
    assert told[0][0] == 0
    assert told[-1] == (told[-1][1], told[-1][1])
    checked = verify(path, model, tokenizer, RECIPE)
    assert checked.ok
    assert checked.tokens > 20
    assert "Loaded again" in checked.summary
    if name == "adapter":
        assert checked.max_difference < 1e-4


def test_files_that_are_not_the_model_are_found_out(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    path = FORMATS["adapter"].save(model, tokenizer, tmp_path / "adapter", recipe=RECIPE)
    file = path / "adapter_model.safetensors"
    tensors = {
        name: tensor if "lora_A" in name else -tensor for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
    checked = verify(path, model, tokenizer, RECIPE)
    assert not checked.ok
    assert "Not the same" in checked.summary


def test_a_stop_takes_away_what_was_half_written(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    stop = threading.Event()
    progress = Progress(lambda done, _: stop.set() if done else None, stop)
    with pytest.raises(Cancelled):
        FORMATS["merged_16bit"].save(
            model, tokenizer, tmp_path / "out" / "merged", progress=progress
        )
    assert list(tmp_path.iterdir()) == []


def test_lines_that_would_not_work_are_not_shown() -> None:
    titles = [title for title, _ in usage("adapter", "runs/x/export/adapter", Recipe())]
    assert titles == ["Tunebook"]  # nothing else finds the model that ships inside
    recipe = Recipe.of(model="Qwen2.5-0.5B-Instruct", r=20)
    lines = dict(usage("adapter", "runs/my run/export/adapter", recipe))
    assert "Qwen/Qwen2.5-0.5B-Instruct" in lines["vLLM, as a server"]
    assert "--max-lora-rank 32" in lines["vLLM, as a server"]
    assert "'my run=runs/my run/export/adapter'" in lines["vLLM, as a server"]
    assert "vllm serve 'a b'" in dict(usage("merged_16bit", "a b", recipe))["vLLM, as a server"]
