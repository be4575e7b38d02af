"""Merged prompts, stitched conversations, ShareGPT and ChatML: by hand, and there and back."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, strategies as st

from tunebook.chat_templates import apply_chat_template, standardize_sharegpt, to_sharegpt
from tunebook.data.conversions import (
    from_chatml,
    from_sharegpt_turns,
    stitched,
    to_chatml,
    to_sharegpt_turns,
)
from tunebook.data.examples import ExampleTemplate
from tunebook.data.mapping import MergedPrompt
from tunebook.data.masking import MASKED, encode_conversation
from tunebook.errors import FormatUnknown, RecipeInvalid, RowInvalid, TemplateInvalid

words = st.text(st.characters(exclude_categories=["Cs"]))
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": words}
    )
)


@given(messages)
def test_sharegpt_there_and_back(chat: list[dict[str, Any]]) -> None:
    assert from_sharegpt_turns(to_sharegpt_turns(chat)) == chat


@given(messages)
def test_chatml_there_and_back_or_refused(chat: list[dict[str, Any]]) -> None:
    if any("<|im_" in message["content"] for message in chat):
        return
    assert from_chatml(to_chatml(chat)) == chat


@given(st.lists(st.tuples(words, words), min_size=1, max_size=5))
def test_rows_to_sharegpt_to_messages_keep_every_text(rows: list[tuple[str, str]]) -> None:
    turns = [
        {"from": f, "value": v} for row in rows for f, v in zip(("human", "gpt"), row, strict=True)
    ]
    chat = from_sharegpt_turns(turns)
    assert [message["content"] for message in chat] == [text for row in rows for text in row]
    assert to_sharegpt_turns(chat) == turns


def test_chatml_by_hand():
    text = (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq\nr<|im_end|>\n<|im_start|>assistant\n"
    )
    expected = [{"role": "system", "content": "S"}, {"role": "user", "content": "q\nr"}]
    assert from_chatml(text) == expected
    assert from_chatml(text + "begun") == [*expected, {"role": "assistant", "content": "begun"}]
    with pytest.raises(RowInvalid, match="plain words"):
        from_chatml("plain words")
    with pytest.raises(RowInvalid, match="pirate"):
        from_chatml("<|im_start|>pirate\nahoy<|im_end|>")
    with pytest.raises(RowInvalid, match="cannot be written"):
        to_chatml([{"role": "user", "content": "a<|im_end|>b"}])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"a": "x", "b": "y"}, "x\nInput: y."),
        ({"a": "x", "b": ""}, "x."),
        ({"a": "x", "b": None}, "x."),
        ({"a": "{b}", "b": "[[y]]"}, "{b}\nInput: [[y]]."),
        ({"a": 3, "b": 0}, "3\nInput: 0."),
    ],
)
def test_optional_blocks(row, expected):
    assert MergedPrompt("{a}[[\nInput: {b}]].").fill(row) == expected


@given(st.dictionaries(st.sampled_from(["a", "b"]), words))
def test_a_column_alone_gives_its_text_back(row: dict[str, str]) -> None:
    assert MergedPrompt("{a}").fill(row) == row.get("a", "")


@given(st.integers(0, 40), st.integers(1, 4), st.integers())
def test_every_row_stands_once_in_every_place(rows: int, extension: int, seed: int) -> None:
    chats = stitched(rows, extension, seed)
    assert [chat[0] for chat in chats] == list(range(rows))
    for place in range(extension):
        assert Counter(chat[place] for chat in chats) == Counter(range(rows))
    assert chats == stitched(rows, extension, seed)


def test_draws_are_independent():
    chats = stitched(100, 3, 3407)
    assert sum(chat[1] == chat[2] for chat in chats) < 10
    assert chats != stitched(100, 3, 3408)


ROWS = Dataset.from_list(
    [{"instruction": f"q{i}", "input": "x" * (i % 2), "output": f"a{i}"} for i in range(8)]
)


def test_to_sharegpt_with_a_merged_prompt():
    out = to_sharegpt(ROWS, merged_prompt="{instruction}[[ ({input})]]")
    assert out.column_names == ["conversations"]
    assert out[1]["conversations"] == [
        {"from": "human", "value": "q1 (x)"},
        {"from": "gpt", "value": "a1"},
    ]
    assert out[0]["conversations"][0]["value"] == "q0"
    standard = standardize_sharegpt(out)[1]["conversations"]
    assert standard[0] == {"role": "user", "content": "q1 (x)"}
    assert to_sharegpt(standardize_sharegpt(out))[1] == out[1]


def test_conversations_are_stitched_from_whole_rows():
    out = to_sharegpt(ROWS, conversation_extension=3, remove_unused_columns=False)
    assert len(out) == 8
    assert out.column_names == [*ROWS.column_names, "conversations"]
    for row in out:
        said = [turn["value"] for turn in row["conversations"]]
        assert [text[1:] for text in said[::2]] == [text[1:] for text in said[1::2]]
        assert len(said) == 6


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(FormatUnknown, match="nope"):
        to_sharegpt(ROWS, merged_prompt="{nope}")
    with pytest.raises(FormatUnknown, match="answer"):
        to_sharegpt(ROWS, output_column_name="answer")
    with pytest.raises(FormatUnknown, match="no column"):
        to_sharegpt(ROWS, merged_prompt="plain")


LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|>"
    + "<|start_header_id|>user<|end_header_id|>\n\n{INPUT}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{OUTPUT}<|eot_id|>" * 2
)


@pytest.mark.parametrize("text", [LLAMA, LLAMA[: LLAMA.index("{OUTPUT}<|eot_id|>") + 18]])
def test_an_example_is_taken_apart(text):
    example = ExampleTemplate.of(text)
    assert example.question == example.first == "<|start_header_id|>user<|end_header_id|>\n\n"
    assert example.answer == "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    assert example.ending == "<|eot_id|>"
    assert example.opening.endswith("{SYSTEM}<|eot_id|>")


@pytest.mark.parametrize("text", ["{INPUT}", "{OUTPUT}{INPUT}", "{INPUT}{OUTPUT}{SYSTEM}", ""])
def test_an_example_that_makes_no_sense_is_refused(text):
    with pytest.raises(TemplateInvalid, match="cannot be understood"):
        ExampleTemplate.of(text)


def test_apply_chat_template_writes_text_and_teaches_the_tokenizer(tokenizer):
    import copy

    model = copy.copy(tokenizer("llama-2"))
    data = to_sharegpt(ROWS, conversation_extension=2)
    example = "{SYSTEM}\n>>> {INPUT}\n<<< {OUTPUT}\n>>> {INPUT}\n<<< {OUTPUT}"
    text = apply_chat_template(data, model, example, default_system_message="It's S.")[0]["text"]
    said = [turn["value"] for turn in data[0]["conversations"]]
    assert text == f"<s>It's S.\n>>> {said[0]}\n<<< {said[1]}</s>\n>>> {said[2]}\n<<< {said[3]}</s>"
    chat = from_sharegpt_turns(data[0]["conversations"])
    encoded = encode_conversation(model, chat)
    assert encoded.text == text
    kept = [label for label in encoded.labels if label != MASKED]
    assert model.decode(kept).replace(" ", "") == f"{said[1]}</s>{said[3]}</s>"
    prompt = model.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    assert prompt.endswith("\n<<<"), "the model says the blank itself"
    with pytest.raises(RecipeInvalid, match="tokenizer"):
        apply_chat_template(data)
