"""The try and the take-away panel refuse kindly; the take-away panel saves."""

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
