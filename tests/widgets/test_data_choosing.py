"""The data panel's chooser, uploads, column mapping and length line, without a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunebook.widgets import DataPanel, _picking, preview

ROWS = [{"prompt": f"Question {i}?", "completion": "Answer. " * (1 + i)} for i in range(30)]


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    variables: dict[str, Any] = {"rows": ROWS}
    monkeypatch.setattr(_picking, "user_namespace", lambda: variables)
    return variables


def settled(panel: DataPanel, eventually: Any) -> None:
    eventually(lambda: bool(panel.statistics) and not panel.busy, 30)


def test_a_variable_of_the_notebook_is_chosen_and_the_code_names_it(
    namespace: dict[str, Any], eventually: Any
) -> None:
    panel = DataPanel()
    panel.find_sources()
    assert panel.sources[0]["options"][0]["about"] == "list of dicts, 30 rows: prompt, completion"
    panel.handle({"type": "choose", "kind": "variable", "value": "rows"})
    settled(panel, eventually)
    assert (panel.rows, panel.rows_name) == (30, "rows")
    assert "rows=rows" in panel.code_now()["python"]
    assert panel.summary.startswith("rows · 30 rows")
    panel.handle({"type": "source", "source": "tunebook-demo"})
    eventually(lambda: panel.rows == 386 and not panel.busy, 30)
    assert (panel.rows_name, panel.studio.rows) == ("", None)
    panel.handle({"type": "choose", "kind": "variable", "value": "gone"})
    assert panel.error["name"] == "SourceMissing"


def test_a_file_of_the_page_comes_in_pieces_and_is_read(tmp_path: Path, eventually: Any) -> None:
    content = "\n".join(json.dumps(row) for row in ROWS).encode()
    panel = DataPanel(uploads=tmp_path / "in")
    begin = {"type": "upload_begin", "id": "u", "name": "../x.jsonl", "size": len(content)}
    panel.handle(begin)
    half = len(content) // 2
    piece = {"type": "upload_piece", "id": "u"}
    panel._receive(None, {**piece, "offset": 0}, [memoryview(content[:half])])
    assert (panel.upload["received"], panel.upload["state"]) == (half, "sending")
    panel._receive(None, {**piece, "id": "old", "offset": half}, [b"never"])
    panel._receive(None, {**piece, "offset": half}, [memoryview(content[half:])])
    assert panel.error == {}
    settled(panel, eventually)
    assert (tmp_path / "in" / "x.jsonl").read_bytes() == content
    assert panel.rows == 30
    panel.handle({**begin, "id": "v"})
    panel.handle({"type": "upload_cancel"})
    assert panel.upload == {}
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["x.jsonl"]
    panel.handle({**begin, "name": "x.exe"})
    assert "no data file" in panel.error["what"]


def test_unknown_columns_are_asked_for_with_a_guess_and_the_first_row(eventually: Any) -> None:
    panel = preview([{"q_en": f"Hi {i}", "zz": f"Ho {i}"} for i in range(30)])
    assert panel.error == {}
    assert (panel.mapping["how"], panel.rows) == ("guessed", 0)
    assert panel.mapping["chosen"] == {"prompt": "q_en", "completion": "zz"}
    assert "format of the dataset is not known" in panel.as_text()
    panel.handle({"type": "try_columns", "kind": "prompt_completion", "chosen": {"prompt": "zz"}})
    assert "`completion`" in panel.mapping["example"]["error"]["what"]
    turned = {"prompt": "zz", "completion": "q_en"}
    panel.handle({"type": "try_columns", "kind": "prompt_completion", "chosen": turned})
    said = [message["content"] for message in panel.mapping["example"]["messages"]]
    assert said == ["Ho 0", "Hi 0"]
    panel.handle({"type": "use_columns"})
    settled(panel, eventually)
    assert panel.recipe.data.columns == turned
    assert panel.conversation[0]["content"] == "Ho 0"
    assert panel.mapping["how"] == "mapped"


def test_the_length_line_says_what_it_would_cost_and_what_is_set(eventually: Any) -> None:
    panel = preview(ROWS)
    assert panel.lengths["rows"] == 30
    assert panel.lengths["of"] is None
    panel.try_length(32)
    assert panel.trial["memory"] < panel.trial["memory_now"]
    assert panel.recipe.model.max_seq_length == panel.lengths["limit"]
    expected = next(stop for stop in panel.lengths["stops"] if stop[0] == 32)
    panel.handle({"type": "length", "limit": 32})
    assert panel.recipe.model.max_seq_length == 32
    eventually(lambda: panel.statistics["longest"] == 32 and not panel.busy, 30)
    assert panel.statistics["truncated"] == expected[2]
    assert panel.lengths["limit"] == 32


def test_the_static_view_colours_tokens_and_escapes_everything() -> None:
    bad = "<script>alert(1)</script>\x1b[31m\u202eabc\x00"
    panel = preview([{"prompt": "Hi & bye", "completion": bad}])
    shown = panel.as_html()
    assert "<script>" not in shown
    assert not {"\x1b", "\u202e", "\x00"} & set(shown)
    assert "\\u202e" in shown
    assert shown.count("<mark") > 3
    assert "tokens, " in shown
