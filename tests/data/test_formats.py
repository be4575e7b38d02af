"""What columns mean, and rows that do not fit."""

from __future__ import annotations

import json

import pytest

from tunebook.data.conversations import to_conversations, to_messages
from tunebook.data.formats import detect_format
from tunebook.errors import FormatUnknown, RowInvalid

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
        "kto": "messages",
        "gsm8k_train": "prompt_completion",
    }
    for name, format in wanted.items():
        lines = (shared_data / "datasets" / f"{name}.jsonl").read_text().split("\n")
        rows = [json.loads(line) for line in lines if line]
        found = detect_format(rows)
        assert (found.format, found.confidence, found.disagreeing) == (format, 1.0, [])
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
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "not text"),
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
