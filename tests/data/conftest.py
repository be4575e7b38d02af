"""Real tokenizers, loaded once, and the conversations that many tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tokenizer(unpacked_tokenizers: dict[str, Path]) -> Callable[[str], Any]:
    """A real tokenizer by its name; each is loaded once, and tests must not change it."""
    from transformers import AutoTokenizer

    loaded: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name not in loaded:
            loaded[name] = AutoTokenizer.from_pretrained(unpacked_tokenizers[name])
        return loaded[name]

    return load


@pytest.fixture
def chat() -> Callable[..., list[dict[str, str]]]:
    """Messages from texts: a system text or None, then questions and answers in turn."""

    def make(system: str | None, *said: str) -> list[dict[str, str]]:
        roles = ["user", "assistant"] * len(said)
        head = [] if system is None else [{"role": "system", "content": system}]
        return head + [{"role": r, "content": c} for r, c in zip(roles, said, strict=False)]

    return make
