"""Formats with their sizes, progress that can be stopped, and files proved to be the model."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunebook.errors import Cancelled
from tunebook.export import FORMATS, Progress, predicted_sizes, save_merged, usage, verify
from tunebook.export.commands import form_of
from tunebook.export.verification import Verification
from tunebook.models.adapters import add_lora
from tunebook.models.loading import load_model, load_shape, load_tokenizer
from tunebook.recipe import LoraPart, ModelPart, QuantizationPart, Recipe

RECIPE = Recipe.of(r=4, bits=16)
WEIGHTS = (".safetensors", ".gguf")


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
    weights = sum(file.stat().st_size for file in path.glob("*.*") if file.suffix in WEIGHTS)
    assert weights == pytest.approx(
        predicted_sizes(RECIPE, load_shape(RECIPE.model))[name], rel=0.05
    )
    assert told[0][0] == 0
    assert told[-1] == (told[-1][1], told[-1][1])
    checked = verify(path, model, tokenizer, RECIPE)
    assert checked.ok
    assert checked.tokens > 20
    assert checked.summary.startswith(("Loaded again", "Run by llama.cpp", "Read again"))
    assert checked.quantized == (name in ("merged_4bit", "gguf"))
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


def test_gguf_is_served_by_the_programs_that_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    folder.mkdir()
    file = folder / "Pirate Q4_K_M.gguf"
    file.write_bytes(b"GGUF")
    lines = dict(usage("gguf_q4_k_m", str(folder), Recipe()))
    assert f"llama-server -m '{file}'" in lines["llama.cpp, as a server"]
    assert "Ollama" not in lines  # there is no Modelfile
    assert "lms import" in lines["LM Studio"]
    assert "http://localhost:8080/v1" in lines["Open WebUI, beside that server"]
    (folder / "Modelfile").write_text("FROM ./x.gguf\n")
    lines = dict(usage("gguf", str(file), Recipe()))
    assert f"ollama create pirate-q4_k_m -f '{folder}/Modelfile'" in lines["Ollama"]
    assert "FROM ./Pirate Q4_K_M.gguf\n" in lines["Ollama"]  # what the Modelfile has to say first
    assert "ollama run pirate-q4_k_m" in lines["Ollama"]
    hub = dict(usage("gguf", "me/x-GGUF", Recipe(), files=["x.IQ4_XS.gguf"]))
    assert hub["Ollama"] == "ollama run hf.co/me/x-GGUF:IQ4_XS"


def test_of_rounded_files_it_is_said_how_far_off_they_may_be() -> None:
    numbers = {"tokens": 45, "same_choice": 44, "max_difference": 2.9, "divergence": 0.0154}
    outcome = Verification(**numbers, least_agreement=0.8, largest_divergence=0.3)
    assert outcome.ok
    assert outcome.summary == (
        "Loaded again: the same next token in 44 of 45 places, probabilities 0.015 nats apart on "
        "average, where its type may be 0.3"
    )
    assert "logits differ by at most 2.9" in Verification(**numbers).summary


def test_what_a_folder_holds(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    for name, form in (("lora", "adapter"), ("merged_4bit", "merged_4bit")):
        save_merged(model, tokenizer, tmp_path / name, method=name)
        assert form_of(tmp_path / name) == form
    assert form_of(tmp_path) == "merged_16bit"


def test_what_takes_pictures_is_loaded_with_its_processor(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text("{}")
    recipe = Recipe().with_values({"model.name": "Qwen/Qwen2.5-VL-7B-Instruct"})
    lines = dict(usage("adapter", str(tmp_path), recipe))
    assert "model, processor = FastVisionModel.from_pretrained" in lines["Tunebook"]
    assert 'AutoModelForImageTextToText.from_pretrained("Qwen/Qwen2.5-VL-7B' in lines["PEFT"]
    lines = dict(
        usage("merged_16bit", "me/x", recipe, files=["config.json", "processor_config.json"])
    )
    assert "processor = AutoProcessor.from_pretrained" in lines["transformers"]
    lines = dict(usage("merged_16bit", "me/x", recipe, files=["config.json"]))
    assert "tokenizer = AutoTokenizer.from_pretrained" in lines["transformers"]


def test_lines_that_would_not_work_are_not_shown() -> None:
    titles = [title for title, _ in usage("adapter", "runs/x/export/adapter", Recipe())]
    assert titles == ["Tunebook"]  # nothing else finds the model that ships inside
    recipe = Recipe.of(model="Qwen2.5-0.5B-Instruct", r=20)
    lines = dict(usage("adapter", "runs/my run/export/adapter", recipe))
    assert "Qwen/Qwen2.5-0.5B-Instruct" in lines["vLLM, as a server"]
    assert "--max-lora-rank 32" in lines["vLLM, as a server"]
    assert "'my run=runs/my run/export/adapter'" in lines["vLLM, as a server"]
    assert "vllm serve 'a b'" in dict(usage("merged_16bit", "a b", recipe))["vLLM, as a server"]
