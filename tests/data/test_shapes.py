"""Spans found in one rendering are those found by rendering again."""

from __future__ import annotations

import copy

import pytest

from tunebook.data.rendering import Renderer
from tunebook.data.sandbox import program
from tunebook.data.templates import TEMPLATES, get_chat_template, without_generation_marks
from tunebook.errors import TemplateInvalid

SAID = [
    ("Hello", "Hi.", "More?", "No."),
    ("One", "Two words", "One", "Two words"),
    ("日本 été 🦜", "a < b </think> c", "<|im_end|>", "[INST] x"),
    (" blanks ", "\n\nat the ends \n", "so", "so "),
    ("", "nothing", "asked", ""),
    ("What?", "<think>\nwell\n</think>\n\nIt.", "And?", "<think>\n\n</think>\n\nThat."),
]
LOOKS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>"
    "{% if '/quick' in messages[-1].content %}<no>{% endif %}{% endif %}"
)


def with_template(tokenizer, text: str):
    model = copy.copy(tokenizer)
    model.chat_template = text
    return model


def found(renderer: Renderer, messages):
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    try:
        return renderer.render_answers(messages, turns)
    except TemplateInvalid as error:
        return error.why


def renderings(renderer: Renderer, messages, monkeypatch) -> int:
    count = 0
    real = renderer._program.render

    def counted(*args, **keywords):
        nonlocal count
        count += 1
        return real(*args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(renderer._program, "render", counted)
        found(renderer, messages)
    return count


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_renderer_that_knows_the_shape_finds_what_a_fresh_one_finds(
    template, system, tokenizer, chat
):
    own = tokenizer("qwen2.5")
    text = get_chat_template(own, template.name).chat_template
    model = with_template(own, without_generation_marks(text))
    known = Renderer(model)
    for _ in range(2):
        found(known, chat(system, "a", "b", "c", "d"))
    for said in SAID:
        messages = chat(system, *said)
        assert found(known, messages) == found(Renderer(model), messages)


@pytest.mark.parametrize("name", ["qwen2.5", "llama-3.1", "phi-3.5"])
def test_a_known_shape_is_not_rendered(name, tokenizer, chat, monkeypatch):
    renderer = Renderer(tokenizer(name))
    for _ in range(2):
        found(renderer, chat(None, "a", "b", "c", "d"))
    assert renderings(renderer, chat(None, *SAID[0]), monkeypatch) == 0
    assert renderings(renderer, chat(None, *SAID[3]), monkeypatch) > 1


def test_words_that_a_template_looks_for_are_rendered_again(tokenizer, chat, monkeypatch):
    model = with_template(tokenizer("qwen2.5"), LOOKS)
    renderer = Renderer(model)
    for _ in range(2):
        found(renderer, chat(None, "a", "b"))
    assert renderings(renderer, chat(None, "Hello", "Hi."), monkeypatch) == 0
    looked_for = chat(None, "Hello /quick", "Hi.")
    assert renderings(renderer, looked_for, monkeypatch) > 1
    assert found(renderer, looked_for) == found(Renderer(model), looked_for)


def test_texts_that_are_only_written_are_no_marks():
    text = (
        "{{ '<bos>' + ('<s>' if a else '<t>') }}{% set tag = '</think>' %}"
        "{% set kept %}{{ '<kept>' }}{% endset %}{% if '<call>' in a %}{{ a | join(', ') }}{% endif %}"
    )
    assert program(text).marks == ("</think>", "<call>", "<kept>")
