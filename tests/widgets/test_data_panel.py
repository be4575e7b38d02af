"""The data panel shows the rows as the path of training makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunebook.errors import DatasetUnreadable
from tunebook.models.loading import load_tokenizer
from tunebook.recipe import Recipe
from tunebook.widgets import DataPanel, preview
from tunebook.widgets._rows import RowReader

MARKUP = "<img src=x onerror=alert(1)>"
ROWS = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": MARKUP}]},
    {
        "messages": [
            {"role": "user", "content": "Two"},
            {"role": "assistant", "content": "Good day"},
        ]
    },
]


@pytest.fixture(scope="module")
def panel() -> DataPanel:
    return preview(ROWS)


def test_tokens_join_to_the_row_and_the_answer_is_learned(panel: DataPanel) -> None:
    panel.handle({"type": "row", "row": 0})
    assert panel.error == {}
    learned = "".join(text for text, _, kind, *_ in panel.tokens if "trained" in kind)
    assert MARKUP in learned
    assert "Hi" in "".join(text for text, _, kind, *_ in panel.tokens if "masked" in kind)
    assert panel.counts["trained"] == sum("trained" in kind for _, _, kind, *_ in panel.tokens)
    said = {"role": "assistant", "content": MARKUP, "calls": []}
    assert panel.conversation[1] == said


def test_the_pager_stays_inside_the_rows(panel: DataPanel) -> None:
    panel.handle({"type": "row", "row": 99})
    assert (panel.row, panel.rows) == (1, 2)
    panel.handle({"type": "row", "row": -5})
    assert panel.row == 0


def test_statistics_give_the_plan_its_size(panel: DataPanel) -> None:
    assert panel.statistics["rows"] == 2
    assert 0 < panel.statistics["trained_share"] < 1
    assert panel.studio.data_size.rows == 2
    assert panel.format["name"] == "messages"


def test_a_row_that_cannot_be_encoded_shows_its_own_error() -> None:
    rows = [
        *ROWS,
        {"messages": [{"role": "user", "content": "no answer"}, {"role": "", "content": ""}]},
    ]
    panel = preview(rows)
    panel.handle({"type": "row", "row": 2})
    assert panel.row_error["what"] or panel.findings
    assert panel.rows == 3


def test_a_missing_file_is_an_error_in_the_panel() -> None:
    panel = preview("no-such-file.jsonl")
    assert panel.error["name"] == "SourceMissing"
    assert "no-such-file.jsonl" in panel.as_text()


def test_another_source_is_read_in_a_thread(
    tmp_path: Path, eventually: Any, panel: DataPanel
) -> None:
    path = tmp_path / "more.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 5)
    own = preview(ROWS)
    own.handle({"type": "source", "source": str(path)})
    eventually(lambda: own.rows == 5 and not own.busy, 30)
    assert own.format["name"] == "prompt_completion"


def test_the_first_rows_of_a_file_show_before_all_of_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    path.write_text("\n".join([json.dumps(row)] * 200 + ["{broken"]))
    recipe = Recipe.of(data=str(path))
    reader = RowReader(recipe, load_tokenizer(recipe.model))
    assert reader.view(0, None)["conversation"][1]["content"] == "b"
    assert (reader.complete, reader.broken) == (False, 0)  # the last line was not looked at
    reader.read_all()
    assert (len(reader), reader.broken) == (200, 1)
    path.write_text("{broken")
    with pytest.raises(DatasetUnreadable, match="Line 1"):
        RowReader(recipe, load_tokenizer(recipe.model))
