"""Tiny vision models whose tokenizers llama.cpp can load, for tests of export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from tiny_vision import tiny_vision
from transformers import AutoModelForImageTextToText

from tunebook.models import embedded
from tunebook.models.vision import load_processor
from tunebook.recipe import ModelPart

BLANK_LINE = "ĊĊ"


def tiny_words(folder: Path) -> Path:
    """The embedded tokenizer without start token, and with a token for a blank line, as SmolVLM's has."""
    source = Path(embedded.__file__).parent
    folder.mkdir(parents=True)
    shutil.copy(source / "tokenizer_config.json", folder)
    state = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    state["post_processor"] = None
    model = state["model"]
    model["vocab"][BLANK_LINE] = len(model["vocab"])
    pair = list(BLANK_LINE)
    model["merges"].append(pair if isinstance(model["merges"][0], list) else " ".join(pair))
    (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    return folder


def tiny_seeing(family: str, folder: Path, **more: Any) -> tuple[Any, Any]:
    """A random model, float32, with norms and biases that are not 1 and 0, and its processor."""
    if family == "qwen2_5_vl":  # the only windows that llama.cpp knows
        more["vision_config"] = {"window_size": 112, **more.get("vision_config", {})}
    path = tiny_vision(family, folder / "model", tokenizer=tiny_words(folder / "words"), **more)
    processor = load_processor(ModelPart(name=str(path)))
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model, processor
