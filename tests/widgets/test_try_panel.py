"""The try panel: both sides answer, token by token; conversations become test cases."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tunebook.errors import CaseInvalid
from tunebook.sampling import Sampling
from tunebook.widgets import TryPanel


def shown(turn: dict[str, Any], side: str) -> tuple[str, str]:
    return turn[side]["text"], turn[side]["state"]


def test_both_sides_answer_and_each_remembers_its_own(fake_run: Any, eventually: Any) -> None:
    panel = TryPanel(run=fake_run)
    panel.system = "Be brief."
    panel.handle({"type": "send", "text": "first"})
    eventually(lambda: panel.turns and not panel.answering)
    panel.handle({"type": "send", "text": "second"})
    eventually(lambda: len(panel.turns) == 2 and not panel.answering)
    assert shown(panel.turns[0], "tuned") == ("tuned answer", "done")
    assert shown(panel.turns[0], "base") == ("base answer", "done")
    assert panel.writing == {}
    messages, sampling = fake_run.asked[-1]
    assert sampling["adapter"] is False
    said = [item["content"] for item in messages]
    assert said == ["Be brief.", "first", "base answer", "second"]


def test_tokens_carry_probability_and_alternatives(fake_run: Any) -> None:
    tokens = TryPanel(run=fake_run).ask("x")["tuned"]["tokens"]
    assert tokens[0] == ["tuned ", 0.75, 1.0, [["tuned ", 0.75], ["other", 0.1235]]]
    assert tokens[-1][0] == "<|end|>"


def test_both_sides_draw_with_the_same_settings_and_seed(fake_run: Any) -> None:
    panel = TryPanel(run=fake_run)
    panel.handle({"type": "set", "path": "sampling.temperature", "value": "0.7"})
    panel.handle({"type": "set", "path": "sampling.top_k", "value": "40"})
    turn = panel.ask("x")
    seeds = {sampling["seed"] for _, sampling in fake_run.asked}
    assert seeds == {turn["seed"]}
    assert all(sampling["top_k"] == 40 for _, sampling in fake_run.asked)
    assert "temperature=0.7, top_k=40" in panel.code_now()["python"]
    assert "--temperature 0.7 --top-k 40" in panel.code_now()["shell"]


def test_a_refused_setting_stays_as_typed_beside_its_field(fake_run: Any) -> None:
    panel = TryPanel(run=fake_run)
    panel.handle({"type": "set", "path": "sampling.temperature", "value": "hot"})
    assert panel.invalid["sampling.temperature"]["typed"] == "hot"
    assert panel.sampling == Sampling()
    panel.sampling = Sampling(temperature=1.0)
    assert panel.values["sampling.temperature"] == 1.0


def test_again_and_edit_replace_the_last_turn(fake_run: Any, eventually: Any) -> None:
    panel = TryPanel(run=fake_run)
    for question in ("first", "second"):
        panel.ask(question)
    panel.handle({"type": "again"})
    eventually(lambda: len(panel.turns) == 2 and not panel.answering)
    panel.handle({"type": "edit", "text": "other"})
    eventually(lambda: len(panel.turns) == 2 and not panel.answering)
    assert [turn["user"] for turn in panel.turns] == ["first", "other"]
    assert [item["content"] for item in fake_run.asked[-1][0]] == ["first", "base answer", "other"]


def test_without_comparison_the_base_is_not_asked(fake_run: Any) -> None:
    panel = TryPanel(run=fake_run)
    panel.compare = False
    assert "base" not in panel.ask("x")
    assert len(fake_run.asked) == 1


def test_stop_keeps_what_was_said_and_leaves_the_other_side_out(
    fake_run: Any, eventually: Any
) -> None:
    def slow(side: str) -> Any:
        for _ in range(100):
            time.sleep(0.01)
            yield side

    fake_run.says = slow
    panel = TryPanel(run=fake_run)
    panel.handle({"type": "send", "text": "x"})
    eventually(lambda: panel.writing and panel.writing["tuned"]["text"])
    panel.handle({"type": "stop"})
    eventually(lambda: not panel.answering)
    (turn,) = panel.turns
    assert turn["tuned"]["state"] == turn["base"]["state"] == "stopped"
    assert 0 < len(turn["tuned"]["text"]) < 600
    assert turn["base"]["text"] == ""


def test_clear_empties_the_conversation(fake_run: Any) -> None:
    panel = TryPanel(run=fake_run)
    panel.ask("x")
    panel.handle({"type": "clear"})
    assert panel.turns == []


def test_a_conversation_becomes_a_case_that_the_next_run_answers(
    fake_run: Any, eventually: Any
) -> None:
    panel = TryPanel(run=fake_run)
    panel.handle({"type": "save_case", "match": "free"})
    assert panel.error["name"] == "CaseInvalid"
    panel.sampling = Sampling(temperature=0.7)
    panel.ask("who?")
    seed = panel.turns[-1]["seed"]
    panel.handle({"type": "save_case", "match": "contains", "expected": "changed"})
    assert panel.error == {}
    (case,) = panel.cases
    assert (case["verdict"], case["before"], case["now"]) == ("not asked", "tuned answer", "")
    assert panel.book.read()[0].sampling.seed == seed

    fake_run.says = lambda side: ("a changed ", "answer")
    panel.handle({"type": "check_cases"})
    eventually(lambda: panel.cases_summary and not panel.answering)
    (case,) = panel.cases
    assert (case["verdict"], case["before"]) == ("passed", "tuned answer")
    assert case["now"] == "a changed answer"
    assert TryPanel(run=fake_run).cases == panel.cases  # from the folder, by another panel
    assert "changed" in panel.as_html()
    panel.handle({"type": "remove_case", "id": case["id"]})
    assert panel.cases == []


def test_cases_are_not_asked_while_training(fake_run: Any) -> None:
    fake_run.begin()
    panel = TryPanel(run=fake_run)
    panel.handle({"type": "check_cases"})
    assert panel.error["name"] == "RunBusy"


def test_an_expectation_that_is_empty_is_refused(fake_run: Any) -> None:
    panel = TryPanel(run=fake_run)
    panel.ask("x")
    with pytest.raises(CaseInvalid):
        panel.save_case(match="exact", expected=" ")


def test_the_static_view_is_the_conversation_escaped(fake_run: Any) -> None:
    fake_run.says = lambda side: ("<script>", side)
    panel = TryPanel(run=fake_run)
    panel.ask("<b>bold</b>")
    page = panel.as_html()
    assert "&lt;script&gt;tuned" in page
    assert "&lt;script&gt;base" in page
    assert "<script>" not in page
    assert "<b>" not in page
