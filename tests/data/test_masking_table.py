"""A fast part of benchmarks/mask_table.py: every template with one tokenizer, all shapes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"


def load_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mask_table", ROOT / "benchmarks/mask_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mask_table"] = module
    spec.loader.exec_module(module)
    return module


TABLE = load_table()
CASES = {name: (text, form) for name, text, form in TABLE._cases(DATA)}


@pytest.mark.parametrize("name", CASES)
def test_the_tokens_learnt_are_those_of_the_reference(name, shared_data, tokenizer):
    text, form = CASES[name]
    hidden = [True, False] if name.startswith("ours") else [True]
    results = [
        (shape, result)
        for marks in hidden
        for shape, result in TABLE.check(tokenizer("llama-3.1"), name, text, form, marks=marks)
    ]
    assert not [found for found in results if found[1] not in TABLE._FINE]
    assert sum(result == "agrees" for _, result in results) >= 8


def test_the_reference_sees_a_wrong_mask():
    """By hand: one character more or less in a span is another label."""
    offsets = [(0, 1), (1, 3), (3, 4)]
    assert TABLE._labels([7, 8, 9], offsets, [(1, 4)]) == [-100, 8, 9]
    assert TABLE._labels([7, 8, 9], offsets, [(2, 4)]) == [-100, -100, 9]
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    text = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    spans = TABLE._spans_by_format(text, TABLE._CHATML, chat, "")
    assert [text[start:end] for start, end in spans] == ["a<|im_end|>"]


def test_nearly_every_real_template_is_in_the_table():
    if DATA.is_dir():
        assert len(CASES) >= 95
