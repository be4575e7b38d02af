"""Leafing through a table: windows, search in every value, filters by what a check found."""

from __future__ import annotations

import random
from typing import Any

import datasets
import pyarrow as pa
import pytest

from tunebook.data.browsing import RowList, first_words, found_in
from tunebook.data.checks import check_loaded
from tunebook.data.formats import detect_format
from tunebook.data.loading import read_rows
from tunebook.data.marks import RowMarks
from tunebook.recipe import Recipe

WORDS = ["straße", "Übung", "naïve", "матч", "שלום", "a.b*c", "Tokens", "TOKEN", "tok", "42", "é"]


def leaves(value: Any) -> list[str]:
    """Every text and number in a value, as text."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [] if value is None or isinstance(value, bool | bytes) else [str(value)]


def random_rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)

    def said() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(0, 4)))

    return [
        {
            "messages": [
                {"role": "user", "content": said()},
                {"role": "assistant", "content": draw.choice([said(), None])},
            ],
            "tags": draw.choice([None, [], [said(), said()]]),
            "meta": draw.choice([None, {"id": draw.randint(0, 50), "note": said()}]),
            "good": draw.random() < 0.5,
        }
        for _ in range(count)
    ]


def searched(rows: RowList, text: str, only: str = "") -> list[int]:
    for _ in rows.search(text, only):
        pass
    return [rows.row(place) for place in range(len(rows))]


@pytest.mark.parametrize("text", ["token", "ÜBUNG", "МАТЧ", "שלום", "a.b*", "42", "É", "4", "none"])
def test_the_search_finds_what_reading_every_value_finds(text: str) -> None:
    rows = random_rows(300, seed=len(text))
    wanted = [
        number
        for number, row in enumerate(rows)
        if any(text.lower() in leaf.lower() for leaf in leaves(row))
    ]
    table = datasets.Dataset.from_list(rows)
    assert found_in(table.data.table, text) == wanted
    assert found_in(table.data.table.slice(37, 120), text) == [
        number - 37 for number in wanted if 37 <= number < 157
    ]
    chosen = table.select(range(299, -1, -2))
    by_list = RowList(chosen, detect_format(rows))
    assert searched(by_list, text) == [
        place for place, number in enumerate(range(299, -1, -2)) if number in wanted
    ]


def test_kinds_of_columns_that_arrow_knows() -> None:
    table = pa.table(
        {
            "large": pa.array(["one", None, "Three"], pa.large_string()),
            "coded": pa.array(["x", "y", "three"]).dictionary_encode(),
            "deep": pa.array([[["three"]], None, []], pa.large_list(pa.list_(pa.string()))),
            "fixed": pa.array([["a", "b"], ["Three", "c"], None], pa.list_(pa.string(), 2)),
            "bytes": pa.array([b"", b"three", b""]),
            "number": pa.array([1.5, 3.25, None]),
        }
    )
    assert found_in(table, "THREE") == [0, 1, 2]
    assert found_in(table.slice(1), "THREE") == [0, 1]
    assert found_in(table.drop(["fixed"]), "THREE") == [0, 2]
    assert found_in(table, "3.2") == [1]
    assert found_in(table, "") == [0, 1, 2]


def test_windows_hold_first_words_lengths_and_findings(tokenizer, chat) -> None:
    rows = [
        {"messages": chat("Be brief.", f"Question {i}\n here", f"Answer {i}")} for i in range(9)
    ]
    rows[4] = rows[3]
    rows[6] = {"messages": []}
    recipe = Recipe.of(max_seq_length=12)
    loaded = read_rows(recipe.data, rows=rows)
    detection = detect_format(loaded.table)
    report, marks = check_loaded(recipe, loaded, detection, tokenizer("qwen2.5"), False)
    listed = RowList(loaded.table, detection, marks)
    lines = listed.lines(3, 4)
    assert [line.row for line in lines] == [3, 4, 5, 6]
    assert lines[0].words == "Question 3 here"
    assert "duplicate" in lines[1].marks
    assert "invalid_row" in lines[3].marks
    assert lines[3].tokens is None
    longest = report.statistics.longest if report.statistics else 0
    assert lines[0].tokens > 12 >= longest
    for finding in report.findings:
        if finding.code in marks.found:
            assert searched(listed, "", finding.code)[:5] == finding.examples
    assert searched(listed, "", "cut") == [0, 1, 2, 3, 4, 5, 7, 8]
    assert searched(listed, "", "unusable") == sorted({6, *marks.rows("masked_row")})
    assert searched(listed, "question 3", "duplicate") == [4]
    assert searched(listed, "", "finding") == sorted({n for ns in marks.found.values() for n in ns})
    assert searched(listed, "", "no_such_code") == []
    assert searched(listed, "") == list(range(9))
    assert listed.lines(7, 100)[-1].row == 8
    assert listed.lines(-5, 1)[0].row == 0


def test_a_search_can_be_left_and_shows_what_it_found_so_far() -> None:
    table = datasets.Dataset.from_list([{"text": f"row {i} of them"} for i in range(12_000)])
    listed = RowList(table, detect_format(table))
    going = listed.search("row")
    assert next(going) == 5000
    assert len(listed) == 5000
    going.close()
    assert listed.lines(4999, 5)[0].words == "row 4999 of them"


def test_steps_go_from_hit_to_hit_even_from_a_row_between() -> None:
    table = datasets.Dataset.from_list([{"text": "yes" if i % 3 == 0 else "no"} for i in range(10)])
    listed = RowList(table, detect_format(table), RowMarks())
    assert listed.step(4, 1) == 5
    assert searched(listed, "YES") == [0, 3, 6, 9]
    assert [listed.step(row, 1) for row in (0, 4, 9)] == [3, 6, 9]
    assert [listed.step(row, -1) for row in (0, 4, 9)] == [0, 3, 6]
    assert (listed.place(6), listed.place(7)) == (2, 3)


def test_the_first_words_of_a_row_that_cannot_be_used_are_its_first_text() -> None:
    detection = detect_format([{"prompt": "a", "completion": "b"}])
    assert (
        first_words({"prompt": None, "note": [" ", {"x": "kept  here"}]}, detection) == "kept here"
    )
    assert first_words({"prompt": None}, detection) == ""
    assert first_words({"prompt": "x" * 500, "completion": "b"}, detection).endswith("x…")
