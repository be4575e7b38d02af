"""What columns mean, and rows that do not fit."""

from __future__ import annotations

import json

import pytest

from tunebook.data.conversations import (
    to_conversations,
    to_label,
    to_messages,
    to_preference,
    to_reference,
)
from tunebook.data.formats import detect_for, detect_format
from tunebook.errors import FormatUnknown, ImagesUnsupported, RecipeInvalid, RowInvalid
from tunebook.recipe import DataPart, Recipe

Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
S = {"role": "system", "content": "s"}
SHARE = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    ("row", "format", "messages"),
    [
        ({"messages": [S, Q, A]}, "messages", [S, Q, A]),
        ({"conversations": SHARE, "id": 1}, "sharegpt", [Q, A]),
        ({"conversations": SHARE, "system": "s"}, "sharegpt", [S, Q, A]),
        ({"anything": [Q, A]}, "messages", [Q, A]),
        ({"instruction": "q", "input": "", "output": "a"}, "alpaca", [Q, A]),
        ({"instruction": "q", "output": "a", "system": "s"}, "alpaca", [S, Q, A]),
        ({"prompt": "q", "completion": "a"}, "prompt_completion", [Q, A]),
        ({"prompt": [S, Q], "completion": [A]}, "prompt_completion", [S, Q, A]),
        ({"question": "q", "answer": "a"}, "prompt_completion", [Q, A]),
        ({"text": "t", "meta": "x"}, "text", [{"role": "text", "content": "t"}]),
        ({"story": "t"}, "text", [{"role": "text", "content": "t"}]),
    ],
)
def test_formats(row, format, messages):
    found = detect_format([row])
    assert found.format == format
    assert found.disagreeing == []
    assert to_conversations([row], found) == [messages]
    assert found.reason


def test_alpaca_joins_instruction_and_input():
    row = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert to_messages(row, detect_format([row]))[0]["content"] == "Add.\n\n1 2"


def test_the_real_files(shared_data):
    wanted = {
        "alpaca": "alpaca",
        "sharegpt": "sharegpt",
        "kto": "unpaired_preference",
        "preference_instruct": "preference",
        "preference_chat": "preference",
        "gsm8k_train": "prompt_completion",
    }
    sure = {"kto": 0.95}
    for name, format in wanted.items():
        lines = (shared_data / "datasets" / f"{name}.jsonl").read_text().split("\n")
        rows = [json.loads(line) for line in lines if line]
        found = detect_format(rows)
        assert (found.format, found.confidence, found.disagreeing) == (
            format,
            sure.get(name, 1.0),
            [],
        )
        assert all(len(chat) >= 2 for chat in to_conversations(rows, found))


def test_rows_that_disagree_are_listed():
    found = detect_format([{"messages": [Q, A]}, {"messages": []}, {"messages": [Q]}, {}])
    assert found.disagreeing == [1, 3]
    assert found.confidence == 0.5
    assert "2 of the first 4 rows" in found.reason


def test_a_format_that_is_named_is_taken():
    rows = [{"text": "t", "prompt": "q", "completion": "a"}]
    assert detect_format(rows).format == "prompt_completion"
    assert detect_format(rows, "text").format == "text"
    with pytest.raises(FormatUnknown, match="not in the format `alpaca`"):
        detect_format(rows, "alpaca")


def test_unknown_columns_are_listed():
    with pytest.raises(FormatUnknown, match=r"`foo`, `bar`; known are .*instruction"):
        detect_format([{"foo": "1", "bar": "2"}])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": [{"role": "user"}]}, r"Row 7 .*(?s:.*)no `content`"),
        ({"messages": [{"content": "x"}]}, r"Row 7 .*(?s:.*)no `role`"),
        ({"messages": [{"role": "pirate", "content": "x"}]}, "(?s)unknown `role` 'pirate'"),
        ({"messages": [{"role": "user", "content": 3}]}, "(?s)int 3 as `content`"),
        ({"messages": ["x"]}, "(?s)turn 0 .* not an object"),
        ({"messages": []}, "(?s)empty list"),
        ({"messages": [{"role": "user", "content": [{"type": "video_clip"}]}]}, "not text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "vision model"),
    ],
)
def test_rows_that_do_not_fit_name_row_and_key(row, words):
    detection = detect_format([{"messages": [Q, A]}])
    with pytest.raises(RowInvalid, match=words):
        to_messages(row, detection, number=7)


@pytest.mark.parametrize("row", [{"prompt": "q"}, {"prompt": "q", "completion": 1}])
def test_an_answer_that_is_missing_or_no_text(row):
    detection = detect_format([{"prompt": "q", "completion": "a"}])
    with pytest.raises(RowInvalid, match="`completion`"):
        to_messages(row, detection, number=0)


def test_parts_of_text_are_joined_and_empty_keys_dropped():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = {"messages": [{"role": "Human", "content": parts, "name": None}]}
    detection = detect_format([{"messages": [Q]}])
    assert to_messages(row, detection) == [{"role": "user", "content": "ab"}]


X = {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
        {"prompt": [Q], "chosen": [A], "rejected": [X]},
        {"prompt": [Q], "chosen": [Q, A], "rejected": [Q, X]},
        {"chosen": [Q, A], "rejected": [Q, X]},
        {"prompt": "q", "chosen": [Q, A], "rejected": [Q, X]},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {
            "conversations": SHARE[:1],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
    ],
)
def test_preferences_in_every_dialect(row):
    found = detect_format([row])
    assert (found.format, found.disagreeing) == ("preference", [])
    pair = to_preference(row, found)
    assert (pair.prompt, pair.chosen, pair.rejected) == ([Q], [A], [X])
    assert to_messages(row, found) == [Q, A]


def test_equal_answers_of_a_preference_stay():
    row = {"chosen": [Q, A], "rejected": [Q, A]}
    pair = to_preference(row, detect_format([row]))
    assert (pair.prompt, pair.chosen, pair.rejected) == ([Q], [A], [A])


def test_labelled_answers():
    rows = [
        {"prompt": "q", "completion": "a", "label": True},
        {"prompt": "q", "completion": "b", "label": False},
    ]
    found = detect_format(rows)
    assert found.format == "unpaired_preference"
    assert [to_label(row, found) for row in rows] == [True, False]
    assert to_messages(rows[1], found) == [Q, X]
    assert detect_format([{"text": "t", "label": 1}]).format == "text"


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"prompt": [Q], "answer": "42"}, "42"),
        ({"prompt": "q", "ground_truth": 42}, "42"),
        ({"prompt": "q"}, None),
    ],
)
def test_questions_with_a_reference(row, reference):
    found = detect_format([row])
    assert found.format == "prompt_only"
    assert to_messages(row, found) == [Q]
    assert to_reference(row, found) == reference


def test_reasoning_tool_calls_and_their_results():
    call = {"name": "add", "arguments": '{"a": 1}', "unused": None}
    done = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    turns = [
        Q,
        {"role": "assistant", "content": None, "tool_calls": [{"function": call}]},
        {"role": "tool", "content": "1", "name": "add"},
        {"role": "assistant", "content": "a", "reasoning_content": "hm"},
    ]
    row = {"messages": turns}
    assert to_messages(row, detect_format([row]))[1:] == [
        {"role": "assistant", "content": "", "tool_calls": [done]},
        {"role": "tool", "content": "1", "name": "add"},
        {"role": "assistant", "content": "a", "reasoning_content": "hm"},
    ]
    shared = {
        "conversations": [
            SHARE[0],
            {"from": "function_call", "value": json.dumps({"name": "add", "arguments": {"a": 1}})},
            {"from": "observation", "value": "1"},
        ]
    }
    assert [m["role"] for m in to_messages(shared, detect_format([shared]))] == [
        "user",
        "assistant",
        "tool",
    ]
    assert to_messages(shared, detect_format([shared]))[1]["tool_calls"] == [done]


def test_reasoning_parts_and_pictures():
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]
    row = {"messages": [Q, {"role": "assistant", "content": parts}]}
    found = detect_format([row])
    assert to_messages(row, found)[1] == {**A, "reasoning_content": "hm"}
    picture = {"messages": [{"role": "user", "content": [{"type": "image", "image": "x.png"}]}]}
    with pytest.raises(ImagesUnsupported, match=r"Row 3(?s:.*)vision model"):
        to_messages(picture, found, number=3)


def test_mixed_formats_are_said():
    rows = [{"messages": [Q, A]}] * 8 + [{"instruction": "q", "output": "a"}] * 2
    found = detect_format(rows)
    assert (found.format, found.disagreeing) == ("messages", [8, 9])
    assert "look like `alpaca`" in found.reason


def test_columns_mapped_by_hand():
    row = {"frage": "q", "antwort": "a", "thema": ""}
    part = DataPart(columns={"question": "frage", "answer": "antwort"})
    found = detect_for(part, [row])
    assert (found.format, found.confidence) == ("prompt_completion", 1.0)
    assert to_messages(row, found) == [Q, A]
    chat = {"talk": SHARE}
    assert to_messages(chat, detect_format([chat], columns={"messages": "talk"})) == [Q, A]
    with pytest.raises(RecipeInvalid, match=r"`frag`(?s:.*)`frage`, `antwort`"):
        detect_format([row], columns={"prompt": "frag"})
    with pytest.raises(RecipeInvalid, match="unknown part, `asked`"):
        detect_format([row], columns={"asked": "frage"})


def test_a_merged_prompt_leaves_empty_blocks_out():
    rows = [
        {"task": "Add", "data": "1 2", "output": "3"},
        {"task": "Hi", "data": "", "output": "a"},
    ]
    part = DataPart(merged_prompt="{task}.[[\\nInput: {data}]]")
    found = detect_for(part, rows)
    assert [to_messages(row, found)[0]["content"] for row in rows] == ["Add.\nInput: 1 2", "Hi."]
    with pytest.raises(RecipeInvalid, match="no column"):
        detect_format(rows, merged_prompt="nothing")
    with pytest.raises(RecipeInvalid, match="not closed"):
        detect_format(rows, merged_prompt="{task}[[{data}")


def test_a_mapping_is_the_same_as_text_and_as_a_dict(tmp_path):
    typed = Recipe.of(columns="prompt=frage, completion = antwort")
    assert typed.data.columns == {"prompt": "frage", "completion": "antwort"}
    assert Recipe.load(typed.save(tmp_path / "r.yaml")) == typed
    assert Recipe.of(columns=" ").data.columns is None
    with pytest.raises(RecipeInvalid, match="part=column"):
        Recipe.of(columns="prompt")
