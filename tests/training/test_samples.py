"""What a row asks and expects is told from its tokens, whatever the template around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunebook.training.samples import question, row_prompt

TURNS = [
    {"role": "system", "content": "Be nice."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yo"},
    {"role": "user", "content": "What is\n2+2?"},
]


@pytest.mark.parametrize(
    ("name", "turns"),
    [("llama-3.1", TURNS), ("qwen3", TURNS), ("phi-3.5", TURNS), ("mistral-7b-v0.2", TURNS[3:])],
)
def test_the_question_is_told_from_the_template(
    name: str, turns: list[dict[str, str]], unpacked_tokenizers: dict[str, Path]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(unpacked_tokenizers[name])
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert question(ids, tokenizer) == "What is\n2+2?"
    answer = tokenizer("4, mate", add_special_tokens=False)["input_ids"]
    row = {
        "input_ids": ids + answer + ids,
        "labels": [-100] * len(ids) + answer + [-100] * len(ids),
    }
    prompt = row_prompt(row, tokenizer)
    assert (prompt.ids, prompt.expected) == (ids, "4, mate")


def test_a_tokenizer_without_a_template_shows_the_text(
    unpacked_tokenizers: dict[str, Path],
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(unpacked_tokenizers["llama-3.1"])
    tokenizer.chat_template = None
    ids = tokenizer("Once upon a time", add_special_tokens=True)["input_ids"]
    assert question(ids, tokenizer) == "Once upon a time"
