"""The demo dataset: the checked-in files are what the script writes, and held-out is held out."""

from __future__ import annotations

import json

import pytest

from tunebook.data.demo import demo_path
from tunebook.data.demo.make import pirate, text


def _messages(split: str) -> list[tuple[str, str]]:
    rows = [json.loads(line)["messages"] for line in demo_path(split).read_text().splitlines()]
    return [(user["content"], assistant["content"]) for user, assistant in rows]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_files_are_what_the_script_writes(split: str) -> None:
    assert demo_path(split).read_text(encoding="utf-8") == text(split)


def test_held_out_shares_no_question_and_no_answer_with_train() -> None:
    train, heldout = _messages("train"), _messages("heldout")
    assert len(train) > 350
    assert len(heldout) > 50
    assert not {user for user, _ in train} & {user for user, _ in heldout}
    assert not {answer for _, answer in train} & {answer for _, answer in heldout}


def test_every_answer_is_a_pirates() -> None:
    for _, answer in _messages("train") + _messages("heldout"):
        assert answer.startswith("Arr! ")
        assert " be " in answer
        assert answer.endswith(", matey.")


def test_the_rule() -> None:
    said = "The capital of France is Paris."
    assert pirate(said) == "Arr! The capital of France be Paris, matey."


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match="not 'test'"):
        demo_path("test")
