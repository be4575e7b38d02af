"""The try and the take-away panel refuse kindly, and do what their buttons say."""

from __future__ import annotations

from typing import Any

from tunebook.widgets import TakeAwayPanel, TryPanel


def test_without_a_run_both_refuse_in_three_parts() -> None:
    for panel, message in (
        (TryPanel(), {"type": "send", "text": "hello"}),
        (TakeAwayPanel(), {"type": "save"}),
    ):
        panel.handle(message)
        assert panel.error["name"] == "RunMissing"
        assert "Train" in panel.error["do"]


def test_while_training_both_refuse(fake_run: Any) -> None:
    fake_run.begin()
    for panel, message in (
        (TryPanel(run=fake_run), {"type": "send", "text": "hello"}),
        (TakeAwayPanel(run=fake_run), {"type": "save"}),
    ):
        panel.handle(message)
        assert panel.error["name"] == "RunBusy"


def test_both_sides_answer_and_each_remembers_its_own(fake_run: Any, eventually: Any) -> None:
    panel = TryPanel(run=fake_run)
    panel.handle({"type": "send", "text": "first"})
    eventually(lambda: panel.turns and not panel.answering)
    panel.handle({"type": "send", "text": "second"})
    eventually(lambda: len(panel.turns) == 2 and not panel.answering)
    assert panel.turns[0]["tuned"] == {"text": "tuned answer", "state": "done"}
    assert panel.turns[0]["base"] == {"text": "base answer", "state": "done"}
    messages, sampling = fake_run.asked[-1]
    assert sampling["adapter"] is False
    assert [item["content"] for item in messages] == ["first", "base answer", "second"]


def test_sampling_is_kept_in_range(fake_run: Any) -> None:
    panel = TryPanel(run=fake_run)
    panel.handle({"type": "sampling", "max_new_tokens": 10**9, "temperature": -1})
    assert (panel.max_new_tokens, panel.temperature) == (4096, 0.0)
    panel.handle({"type": "sampling", "compare": False})
    assert panel.ask("x").get("base") is None


def test_clear_empties_the_conversation(fake_run: Any) -> None:
    panel = TryPanel(run=fake_run)
    panel.ask("x")
    panel.handle({"type": "clear"})
    assert panel.turns == []


def test_save_shows_paths_sizes_and_how_to_load(fake_run: Any, eventually: Any) -> None:
    panel = TakeAwayPanel(run=fake_run)
    panel.handle({"type": "save", "folder": str(fake_run.path / "there")})
    eventually(lambda: panel.files and not panel.busy)
    (file,) = panel.files
    assert file["path"] == str(fake_run.path / "there" / "adapter")
    assert file["size"] == "2 B"
    assert "FastLanguageModel.from_pretrained" in file["code"]


def test_saving_nothing_is_refused(fake_run: Any, eventually: Any) -> None:
    panel = TakeAwayPanel(run=fake_run)
    panel.handle({"type": "set", "path": "export.formats", "value": []})
    panel.handle({"type": "save"})
    eventually(lambda: panel.error.get("what") == "There is nothing to save.")
