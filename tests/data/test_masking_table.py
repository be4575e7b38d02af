"""A fast part of benchmarks/mask_table.py: every template with one tokenizer, all shapes."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings, strategies as st

from tunebook.data.rendering import Renderer
from tunebook.data.templates import CHAT_TEMPLATES, TEMPLATES, without_generation_marks
from tunebook.errors import TemplateInvalid

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


PIECES = st.lists(
    st.sampled_from(
        [
            *"a. \n<>|[]:#/",
            *("<|im_end|>", "<|im_start|>assistant\n", "</s>", "[/INST]", "<think>", "</think>"),
            *("assistant", "\n\n", "### Response:\n", "é🦜", "<|end|>", "ASSISTANT: "),
        ]
    ),
    max_size=6,
).map("".join)


class Speaking:
    """As much of a tokenizer as rendering needs."""

    def __init__(self, template: str) -> None:
        self.special_tokens_map = {"bos_token": "<s>", "eos_token": "</s>"}
        self.chat_template = template

    def get_chat_template(self, chat_template: None = None, tools: object = None) -> str:
        return self.chat_template


@pytest.mark.parametrize("name", [t.name for t in TEMPLATES if t.file])
@settings(max_examples=25, deadline=None)
@given(said=st.lists(PIECES, min_size=2, max_size=6), system=st.none() | PIECES)
def test_spans_found_without_marks_are_those_of_the_marks(
    name: str, said: list[str], system: str | None
) -> None:
    """Whatever the texts hold, marks of the template among them; unproved is allowed, wrong is not."""
    template = CHAT_TEMPLATES[name].text
    assert template is not None
    chat = TABLE._chat(*said[: len(said) // 2 * 2], system=system)
    turns = [number for number, message in enumerate(chat) if message["role"] == "assistant"]
    marked = Renderer(Speaking(template))  # type: ignore[arg-type]
    hidden = Renderer(Speaking(without_generation_marks(template)))  # type: ignore[arg-type]
    with contextlib.suppress(TemplateInvalid):
        assert hidden.render_answers(chat, turns) == marked.render_answers(chat, turns)


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
