"""GGUF files of models that see: llama.cpp sees the same picture and says the same of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_seeing import tiny_seeing

from tunebook.errors import ModelInvalid, RecipeInvalid, TokenizerUnsupported, VerificationFailed
from tunebook.export import Progress, save_gguf, verify
from tunebook.export.commands import usage
from tunebook.export.gguf import blocks
from tunebook.export.gguf.judge import LlamaServer, picture_part
from tunebook.export.gguf.showing import Shown, picture, png
from tunebook.export.gguf.vision_families import VISION_FAMILIES
from tunebook.export.gguf.writer import content_of
from tunebook.export.gguf_header import read_gguf
from tunebook.export.inspect import inspect_file
from tunebook.models.adapters import add_lora
from tunebook.recipe import LoraPart, Recipe

SAME = 0.005
"""Largest difference of two log-probabilities, which spread by 0.8; of a file in 32 bit."""
FAMILIES = (
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3"),
    *("pixtral", "mistral3", "smolvlm", "idefics3"),
)


def written(model: Any, processor: Any, folder: Path, quantization: str = "f32", **more: Any):
    """The two files of an export: language and projector."""
    save_gguf(model, processor, folder, quantization=quantization, **more)
    eyes, rest = (
        [file for file in folder.glob("*.gguf") if file.name.startswith("mmproj-") is which]
        for which in (True, False)
    )
    (projector,), (language,) = eyes, rest
    return language, projector


def adapted(model: Any, scale: float = 0.2) -> Any:
    """A model with a LoRA on both towers whose B is random, as if it had learnt something."""
    tuned = add_lora(model, LoraPart(r=4), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return tuned.eval()


def differences(model: Any, processor: Any, files: tuple[Path, Path], *seeds: int) -> list[float]:
    """Of the log-probabilities of every token, at every place of an answer to each picture."""
    pytest.importorskip("xllamacpp")
    content, found = content_of(model, processor), []
    with LlamaServer(files[0], context=512, projector=files[1]) as server:
        for seed in seeds:
            shown = Shown.of(content, processor, seed)
            gaps = [
                true[list(told)] - torch.tensor(list(told.values()))
                for true, told in shown.places(server, model, top=len(processor.tokenizer))
            ]
            found.append(max(float(gap.abs().max()) for gap in gaps))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_sees_what_every_family_sees(family: str, tmp_path: Path) -> None:
    model, processor = tiny_seeing(family, tmp_path)
    files = written(model, processor, tmp_path / "gguf")
    assert max(differences(model, processor, files, 1, 2)) < SAME
    content = content_of(model, processor)
    first, other = (
        model(**Shown.of(content, processor, seed).inputs).logits[0, -1].log_softmax(-1)
        for seed in (1, 2)
    )
    assert float((first - other).abs().max()) > 0.3  # so the pictures matter
    header = read_gguf(files[1])
    assert header.values["general.type"] == "mmproj"
    assert header.values["clip.projector_type"] == content.projector.family.projector
