"""A recipe that trains in seconds, and tiny models with real tokenizers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunebook.recipe import Recipe

QUICK = {
    "model.max_seq_length": 64,
    "data.max_rows": 40,
    "training.max_steps": 6,
    "training.batch_size": 2,
    "training.gradient_accumulation_steps": 2,
    "training.learning_rate": 1e-3,
    "training.warmup_steps": 1,
    "training.save_steps": 3,
    "lora.r": 4,
}


@pytest.fixture
def quick() -> Callable[..., Recipe]:
    """Makes a small recipe over the embedded model and data; keywords change fields."""

    def make(**values: Any) -> Recipe:
        dotted = {name.replace("__", "."): value for name, value in values.items()}
        return Recipe().with_values({**QUICK, **dotted})

    return make


@pytest.fixture
def random_model(unpacked_tokenizers: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Makes a two-layer random Llama folder with the real tokenizer of that name."""

    def make(name: str) -> Path:
        import torch
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        folder = tmp_path / f"random-{name}"
        size = len(AutoTokenizer.from_pretrained(unpacked_tokenizers[name]))
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=size, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
        for file in unpacked_tokenizers[name].iterdir():
            shutil.copy(file, folder)
        return folder

    return make
