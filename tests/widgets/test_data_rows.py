"""The data panel's list of rows, its search, the stages of one row, templates side by side, fixes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import datasets
import pytest

from tunebook.cli.main import main
from tunebook.errors import FolderExists, RecipeInvalid
from tunebook.recipe import Recipe
from tunebook.widgets import DataPanel, preview
from tunebook.widgets._rows import RowReader


def row(question: str, answer: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def rows_of(count: int = 60) -> list[dict[str, Any]]:
    rows = [row(f"Question {i}?", f"Answer {i}." + " ok" * (i % 5)) for i in range(count)]
    rows[7] = rows[3]
    rows[9] = {"messages": []}
    rows[12] = row("Write to someone@mail.net", "Done.")
    return rows


@pytest.fixture
def panel() -> DataPanel:
    return preview(rows_of())


def listed(panel: DataPanel) -> list[int]:
    return [line[0] for line in panel.lines["lines"]]


def test_the_page_asks_for_windows_of_rows(panel: DataPanel) -> None:
    assert panel.listing["total"] == 60
    panel.handle({"type": "window", "start": 50, "count": 30})
    assert listed(panel) == list(range(50, 60))
    assert panel.lines["version"] == panel.listing["version"]
    panel.handle({"type": "window", "start": 6, "count": 4})
    lines = panel.lines["lines"]
    assert lines[0][:2] == [6, "Question 6?"]
    assert lines[0][2] == RowReader.view(panel._reader, 6, None)["counts"]["tokens"]
    assert ["duplicate", "warning"] in lines[1][3]
    assert lines[3][2] is None
    assert ["invalid row", "error"] in lines[3][3]


def test_a_search_lists_its_hits_and_the_pager_goes_from_hit_to_hit(panel: DataPanel) -> None:
    version = panel.listing["version"]
    assert panel.search("QUESTION 1") == [1, 10, 11, *range(13, 20)]
    assert panel.listing["version"] > version
    assert (panel.listing["total"], panel.listing["searching"]) == (10, False)
    assert listed(panel) == [1, 10, 11, *range(13, 20)]
    assert (panel.row, panel.place) == (0, -1)
    panel.handle({"type": "step", "by": 1})
    assert (panel.row, panel.place) == (1, 0)
    panel.handle({"type": "pick", "place": 3})
    assert (panel.row, panel.place) == (13, 3)
    panel.handle({"type": "step", "by": -1})
    assert panel.row == 11
    assert panel.search(only="unusable") == [9]
    assert panel.search(only="duplicate") == [7]
    assert panel.search("someone", only="finding") == [12]
    assert panel.search() == list(range(60))


def test_a_search_of_the_page_runs_in_a_thread_and_a_newer_one_wins(
    panel: DataPanel, eventually: Any
) -> None:
    panel.handle({"type": "search", "text": "no such words", "only": ""})
    panel.handle({"type": "search", "text": "answer 2", "only": ""})
    eventually(lambda: not panel.listing["searching"])
    assert panel.listing["text"] == "answer 2"
    assert listed(panel) == [2, *range(20, 30)]


def test_a_search_that_is_stopped_keeps_what_it_found(monkeypatch: Any, eventually: Any) -> None:
    monkeypatch.setattr(RowReader, "check", lambda self: ({}, []))
    panel = preview(datasets.Dataset.from_dict({"text": [f"a {i}" for i in range(20_000)]}))
    found = panel._begin_search("a", "")
    going = panel._list.search("a")
    next(going)
    panel.handle({"type": "stop_search"})
    panel._go_on(found)
    assert panel.listing["searching"] is False
    panel.handle({"type": "window", "start": 4990, "count": 50})
    assert listed(panel) == list(range(4990, 5000))


def test_all_stages_of_a_row_are_shown(panel: DataPanel) -> None:
    panel.handle({"type": "row", "row": 3})
    assert panel.raw == rows_of()[3]
    assert panel.conversation[1]["content"] == "Answer 3. ok ok ok"
    assert "".join(piece[0] for piece in panel.text) == "".join(t[0] for t in panel.tokens)
    assert [piece[2] for piece in panel.text if piece[3]] == ["assistant"]
    assert panel.packed["state"] == "batched"
    panel.handle({"type": "set", "path": "training.packing", "value": "true"})
    panel._place_anew()
    assert panel.packed["state"] == "packed"
    assert 3 in [item["row"] for item in panel.packed["rows"]]
    assert "none of which sees this one" in panel.packed["words"]
    panel.handle({"type": "row", "row": 9})
    assert (panel.row_error["stage"], panel.packed["state"]) == ("messages", "left_out")
    assert (panel.tokens, panel.text) == ([], [])
    json.dumps(panel.get_state(), default=str)


def test_the_offered_tools_stand_above_the_conversation(panel: DataPanel) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
    about = {"name": "weather", "description": "Of a <city>.", "parameters": {"type": "object"}}
    told = row("Weather?", "")
    told["messages"][1]["tool_calls"] = [call]
    rows = [told | {"tools": [about, {"name": "bare"}]}, row("Hi", "Ho") | {"tools": []}]
    panel = DataPanel(Recipe.of(chat_template="llama-3.1"), rows=rows)
    panel.load()
    schema = json.dumps(about["parameters"], indent=2)
    offered = [["weather", "Of a <city>.", schema], ["bare", "", "{}"]]
    assert panel.tools == {"words": "Tools that the model may call.", "offered": offered}
    assert [json.loads(c) for c in panel.conversation[1]["calls"]] == [call["function"]]
    assert not any(finding["code"].startswith("tools") for finding in panel.findings)
    panel.handle({"type": "row", "row": 1})
    assert panel.tools == {}
    assert [message["calls"] for message in panel.conversation] == [[], []]
    blind = preview([row("Hi", "Ho") | {"tools": [about]}])
    assert "does not write them" in blind.tools["words"]
    (finding,) = [f for f in blind.findings if f["code"] == "tools_unused"]
    assert "the chat template does not write them" in finding["title"]


def test_a_template_is_compared_on_every_row_and_taken(panel: DataPanel, eventually: Any) -> None:
    panel.handle({"type": "row", "row": 5})
    panel.handle({"type": "compare", "template": "alpaca"})
    mine, other = panel.comparison["mine"], panel.comparison["other"]
    assert [t[1] for t in mine["tokens"]] == [t[1] for t in panel.tokens]
    assert any("only" in token[2].split() for token in other["tokens"])
    assert "first template only" in panel.comparison["words"]
    panel.handle({"type": "row", "row": 6})
    assert "Question 6" in "".join(t[0] for t in panel.comparison["other"]["tokens"])
    wanted = [t[1] for t in panel.comparison["other"]["tokens"]]
    panel.handle({"type": "use_template", "template": "alpaca"})
    eventually(lambda: not panel.busy, 30)
    assert panel.recipe.model.chat_template == "alpaca"
    assert (panel.row, panel.comparison) == (6, {})
    assert [t[1] for t in panel.tokens] == wanted
    assert any(found["code"] == "template_mismatch" for found in panel.findings)
    panel.handle({"type": "compare", "template": ""})
    assert panel.comparison["other"]["tokens"][0][1] == mine["tokens"][0][1]
    panel.handle({"type": "compare", "template": "no-such-template"})
    assert "no-such-template" in panel.comparison["error"]["what"]
    panel.handle({"type": "compare", "template": None})
    assert panel.comparison == {}


def test_tokens_carry_what_was_measured_at_them(panel: DataPanel) -> None:
    assert panel.counts["values"] == []
    panel.use_values(lambda number: [0.5 * number, 2.0], name="loss")
    panel.handle({"type": "row", "row": 2})
    assert [token[4] for token in panel.tokens[:3]] == [1.0, 2.0, None]
    assert (panel.counts["values"], panel.values_name) == ([1.0, 2.0], "loss")
    panel.use_values(None)
    assert {token[4] for token in panel.tokens} == {None}


def test_a_fix_is_looked_at_applied_and_taken_back(panel: DataPanel) -> None:
    given = panel.studio.rows
    panel.preview_fix("hide_personal_data")
    about = panel.fix_preview
    assert (about["row"], about["where"]) == (12, "messages[0].content")
    assert "someone@mail.net" in about["before"]
    assert "someone" not in about["after"]
    assert about["words"].startswith("Changes 1 of 60 rows")
    assert panel.fixes == []
    panel.handle({"type": "drop_preview"})
    assert panel.fix_preview == {}
    panel.preview_fix("drop_duplicates")
    panel.apply_fix()
    assert (panel.rows, len(panel.studio.rows), len(panel.fixes)) == (59, 59, 1)
    assert all(found["code"] != "duplicate" for found in panel.findings)
    panel.preview_fix("drop_invalid")
    panel.apply_fix()
    assert panel.rows == 58
    assert [item["fix"] for item in panel.fixes] == ["drop_duplicates", "drop_invalid"]
    panel.undo_fix()
    assert (panel.rows, len(panel.fixes)) == (59, 1)
    panel.undo_fix()
    assert panel.rows == 60
    assert panel.studio.rows is given


def test_fixed_rows_of_a_slice_are_not_cut_twice_and_go_to_a_new_file(
    tmp_path: Path, eventually: Any
) -> None:
    path = tmp_path / "my rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows_of())))
    before = path.read_bytes()
    recipe = Recipe.of(data=str(path), **{"data.split": "train[2:12]", "data.max_rows": 9})
    panel = DataPanel(recipe)
    panel.load()
    assert panel.rows == 9
    panel.handle({"type": "preview_fix", "fix": "drop_duplicates"})
    eventually(lambda: panel.fix_preview and not panel.busy, 30)
    panel.handle({"type": "apply_fix"})
    eventually(lambda: panel.fixes and not panel.busy, 30)
    assert panel.rows == 8
    assert panel.code_now()["shell"].startswith("#")
    assert "train[2:12]" in panel.code_now()["python"]
    assert panel.fix_file == str(tmp_path / "my rows.fixed.jsonl")
    with pytest.raises(FolderExists):
        panel.save_fixed(str(path))
    assert path.read_bytes() == before
    written = panel.save_fixed(panel.fix_file)
    assert panel.studio.rows is None
    assert panel.recipe.data.source == str(written)
    assert panel.code_now()["shell"].startswith(f"tunebook check '{written}'")
    again = DataPanel(panel.recipe)
    again.load()
    assert (again.rows, again.raw) == (8, rows_of()[2])
    with pytest.raises(RecipeInvalid, match="nothing to write"):
        panel.save_fixed(str(tmp_path / "more.jsonl"))
    panel.undo_fix()
    assert (panel.rows, panel.recipe) == (9, recipe)
    assert path.read_bytes() == before


def test_the_code_makes_the_fixed_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [*rows_of(), row("Take <|end|> that", "So.")]
    path.write_text("\n".join(map(json.dumps, rows)))
    panel = DataPanel(Recipe.of(data=str(path)))
    panel.load()
    panel.preview_fix("drop_duplicates")
    panel.apply_fix()
    assert "special" not in panel.code_now()["python"]
    panel.preview_fix("strip_special_tokens")
    assert panel.fix_preview["before"] == "Take <|end|> that"
    panel.apply_fix()
    words = shlex.split(panel.code_now()["shell"])
    assert main(words[1:]) == 0
    written = Path(panel.fix_file)
    by_shell = written.read_text()
    assert len(by_shell.splitlines()) == 60
    assert "<|end|>" not in by_shell
    written.unlink()
    exec(panel.code_now()["python"], {})
    assert written.read_text() == by_shell


def test_another_source_forgets_the_fixes(panel: DataPanel, eventually: Any) -> None:
    panel.preview_fix("drop_duplicates")
    panel.apply_fix()
    panel.handle({"type": "source", "source": "tunebook-demo"})
    eventually(lambda: not panel.busy, 30)
    assert (panel.fixes, panel.studio.rows) == ([], None)
    panel.undo_fix()
    assert panel.studio.rows is None


@pytest.mark.parametrize("place", [2, 120])
def test_a_broken_line_is_a_finding_beside_the_others_and_goes_by_its_fix(
    tmp_path: Path, place: int
) -> None:
    lines = [json.dumps(row(f"Question {i}?", f"Answer {i}.")) for i in range(130)]
    lines[8] = lines[7]
    lines.insert(place, "{broken")
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    panel = preview(path)
    assert panel.error == {}
    assert panel.rows == 130
    found = {finding["code"]: finding["severity"] for finding in panel.findings}
    assert (found["broken_row"], found["duplicate"]) == ("error", "warning")
    panel.preview_fix("drop_duplicates")
    assert not panel.fix_preview["able"]
    panel.preview_fix("drop_invalid")
    assert "Leaves out 1 of 131 rows" in panel.fix_preview["words"]
    panel.apply_fix()
    assert "broken_row" not in [finding["code"] for finding in panel.findings]
    panel.preview_fix("drop_duplicates")
    panel.apply_fix()
    panel.save_fixed(str(tmp_path / "new.jsonl"))
    assert len((tmp_path / "new.jsonl").read_text().splitlines()) == 129


def test_a_fix_that_would_leave_no_row_is_refused() -> None:
    panel = preview([{"messages": [], "text": None}] * 2 + [row("a", "")])
    panel.preview_fix("drop_invalid")
    assert panel.fix_preview["able"] is True
    panel.apply_fix()
    panel.preview_fix("drop_empty_answers")
    assert panel.fix_preview["able"] is False
    panel.handle({"type": "apply_fix"})
    assert len(panel.studio.rows) == 1
