"""Test cases are kept, asked, judged and compared with the run before."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tunebook.cases import CaseBook, check_cases
from tunebook.errors import CaseInvalid, RecipeInvalid
from tunebook.sampling import Sampling


class Speaker:
    """Answers every question with the same words and remembers what it was asked."""

    def __init__(self, root: Path, name: str, words: str) -> None:
        self.name, self.path, self.words = name, root / name, words
        self.asked: list[Any] = []

    def answer(self, messages: Any, **sampling: Any) -> str:
        self.asked.append((messages, sampling))
        return self.words


def test_cases_are_lines_of_a_file_that_is_read_again(tmp_path: Path) -> None:
    book = CaseBook(tmp_path / "runs")
    assert book.read() == []
    first = book.add("Capital of Italy?", expected=" Rome ", sampling=Sampling(seed=3))
    second = book.add([{"role": "system", "content": "x"}, {"role": "user", "content": "Hi"}])
    assert CaseBook(tmp_path / "runs").read() == [first, second]
    assert (first.match, first.expected, second.match) == ("contains", "Rome", "free")
    assert len(book.path.read_text().splitlines()) == 2
    book.remove(first.id)
    assert book.read() == [second]


@pytest.mark.parametrize(
    ("match", "answer", "passes"),
    [
        ("contains", "It is  ROME,\nof course", True),
        ("contains", "Paris", False),
        ("exact", " rome ", True),
        ("exact", "Rome!", False),
        ("free", "anything", None),
    ],
)
def test_what_passes(tmp_path: Path, match: Any, answer: str, passes: bool | None) -> None:
    case = CaseBook(tmp_path).add("?", expected="Rome", match=match)
    assert case.passes(answer) is passes


def test_a_formula_passes_however_it_is_written(tmp_path: Path) -> None:
    case = CaseBook(tmp_path).add("?", expected=r"\frac { a } { 2 }", match="latex")
    assert case.passes(r"$\frac{a}{2}$")
    assert not case.passes(r"\frac { A } { 2 }")


def test_the_next_run_is_compared_with_the_one_before(tmp_path: Path) -> None:
    book = CaseBook(tmp_path)
    book.add("Italy?", expected="Rome", answer="Paris", run="first")
    book.add("Hello", answer="Hi", run="first")
    one = check_cases(Speaker(tmp_path, "one", "Rome it is"))
    assert [r.before for r in one.results] == ["Paris", "Hi"]
    assert [r.before_passed for r in one.results] == [False, None]
    assert [row[3] for row in one.rows()] == ["passed", "changed"]
    again = check_cases(Speaker(tmp_path, "one", "Rome it is"))
    assert again.results[0].before == "Paris"  # its own answers are not what was before
    two = check_cases(Speaker(tmp_path, "two", "Madrid"))
    assert [(r.before, r.before_run) for r in two.results] == [("Rome it is", "one")] * 2
    assert (two.failed, two.results[0].passed, two.results[0].changed) == (1, False, True)
    assert two.summary == "0 of 1 passed, 2 changed"
    assert "FAILED   Italy?" in str(two)


def test_a_case_is_asked_as_it_was_sampled(tmp_path: Path) -> None:
    CaseBook(tmp_path).add("Hi", sampling=Sampling(temperature=0.7, seed=5, max_new_tokens=9))
    speaker = Speaker(tmp_path, "one", "Ho")
    check_cases(speaker)
    messages, sampling = speaker.asked[0]
    assert messages == [{"role": "user", "content": "Hi"}]
    assert (sampling["temperature"], sampling["seed"], sampling["max_new_tokens"]) == (0.7, 5, 9)


def test_a_stop_keeps_what_was_answered_before(tmp_path: Path) -> None:
    for number in range(3):
        CaseBook(tmp_path).add(f"question {number}")
    stop, told = threading.Event(), []

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if done == 1:
            stop.set()

    report = check_cases(Speaker(tmp_path, "one", "x"), stop=stop, progress=progress)
    assert len(report.results) == len(report.cases) == 1
    assert told == [(0, 3), (1, 3)]
    assert len((tmp_path / "one" / "case_results.jsonl").read_text().splitlines()) == 1


def test_what_is_no_case_is_refused_by_name(tmp_path: Path) -> None:
    book = CaseBook(tmp_path)
    for bad in ("", [], [{"role": "assistant", "content": "Hi"}]):
        with pytest.raises(CaseInvalid, match="does not end with"):
            book.add(bad)
    with pytest.raises(CaseInvalid, match="expects nothing"):
        book.add("?", match="exact")
    assert not book.path.exists()
    book.add("fine")
    with book.path.open("a") as file:
        file.write(json.dumps({"messages": [], "colour": "red"}) + "\n")
    with pytest.raises(CaseInvalid, match="line 2"):
        book.read()


def test_sampling_out_of_range_is_refused_in_three_parts() -> None:
    with pytest.raises(RecipeInvalid, match="`temperature` cannot be 9"):
        Sampling.of(temperature=9)
    with pytest.raises(RecipeInvalid, match="`heat`"):
        Sampling.of(heat=1)
    assert Sampling.of(top_k="5").top_k == 5
