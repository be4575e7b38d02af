"""What is wrong is named in three parts, and nothing half-written is left."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunebook.cli import main
from tunebook.errors import (
    DatasetEmpty,
    DiskFull,
    DoesNotFit,
    ModelMissing,
    RowInvalid,
    SourceMissing,
    TargetsMissing,
    TokenizerMissing,
    TunebookError,
)
from tunebook.models.loading import EMBEDDED
from tunebook.recipe import Recipe
from tunebook.training import Run, train

Quick = Callable[..., Recipe]


def bad_recipe(kind: str, folder: Path, quick: Quick) -> Recipe:
    """A recipe with one mistake in it."""
    if kind == "missing file":
        return quick(data__source=str(folder / "nothing.jsonl"))
    if kind == "unknown model":
        return quick(model__name="tunebok-tiny")
    if kind == "empty dataset":
        (folder / "empty.jsonl").write_text("")
        return quick(data__source=str(folder / "empty.jsonl"))
    if kind == "row with missing keys":
        good = {
            "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        }
        bad = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}
        rows = [good] * 3 + [bad]
        (folder / "bad.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        return quick(data__source=str(folder / "bad.jsonl"))
    if kind == "no tokenizer":
        model = folder / "model"
        model.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(EMBEDDED / name, model)
        return quick(model__name=str(model))
    if kind == "no targets":
        return quick(lora__target_modules=["query_key_value"])
    if kind == "no memory":
        return quick(training__memory_budget="1MiB")
    raise AssertionError(kind)


BAD: list[tuple[str, type[TunebookError], str]] = [
    ("missing file", SourceMissing, "nothing.jsonl"),
    ("unknown model", ModelMissing, "tunebook-tiny"),
    ("empty dataset", DatasetEmpty, "empty.jsonl"),
    ("row with missing keys", RowInvalid, "Row 3"),
    ("no tokenizer", TokenizerMissing, "tokenizer"),
    ("no targets", TargetsMissing, "q_proj"),
    ("no memory", DoesNotFit, "MiB"),
]


@pytest.mark.parametrize(("kind", "error", "named"), BAD, ids=[kind for kind, _, _ in BAD])
def test_python_raises_it_and_leaves_nothing(
    kind: str, error: type[TunebookError], named: str, tmp_path: Path, quick: Quick
) -> None:
    with pytest.raises(error) as caught:
        train(bad_recipe(kind, tmp_path, quick), wait=True, root=tmp_path / "runs")
    parts = caught.value
    assert named in f"{parts.what} {parts.why} {parts.do}"
    assert all(len(part) > 10 for part in (parts.what, parts.why, parts.do))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("kind", "error", "named"), BAD, ids=[kind for kind, _, _ in BAD])
def test_the_command_line_prints_it_and_leaves_nothing(
    kind: str,
    error: type[TunebookError],
    named: str,
    tmp_path: Path,
    quick: Quick,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = bad_recipe(kind, tmp_path, quick).save(tmp_path / "recipe.yaml")
    assert main(["train", str(recipe), "--root", str(tmp_path / "runs")]) == 2
    printed = capsys.readouterr().err
    assert "Why:" in printed
    assert "Do:" in printed
    assert named in printed.replace("\n", " ")
    assert "Traceback" not in printed
    assert not (tmp_path / "runs").exists()


def test_a_background_run_keeps_its_error_for_the_panel(tmp_path: Path, quick: Quick) -> None:
    run = Run.create(bad_recipe("no targets", tmp_path, quick), root=tmp_path / "runs").start()
    with pytest.raises(TargetsMissing):
        run.wait()
    assert run.state == "failed"
    assert isinstance(run.error, TargetsMissing)


def test_a_full_disk_is_said_before_the_folder_is_made(
    tmp_path: Path, quick: Quick, full_disk: Callable[[], None]
) -> None:
    full_disk()
    with pytest.raises(DiskFull):
        train(quick(), wait=True, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_disk_that_fills_up_in_mid_run_keeps_the_last_checkpoint(
    tmp_path: Path, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunebook.training.trainer import SFTTrainer

    save = SFTTrainer._save_checkpoint

    def fill_up(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step > 3:
            raise OSError(28, "No space left on device", "optimizer.pt")
        return save(self, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "_save_checkpoint", fill_up)
    run = Run.create(quick(), root=tmp_path / "runs").start()
    with pytest.raises(DiskFull, match="full"):
        run.wait()
    assert run.state == "failed"
    assert [event.kind for event in run.log.read()][-1] == "failed"
    monkeypatch.setattr(SFTTrainer, "_save_checkpoint", save)
    run.resume().wait()
    assert run.state == "completed"


@pytest.mark.parametrize(("kind", "error", "named"), BAD, ids=[kind for kind, _, _ in BAD])
def test_the_panel_shows_it_and_leaves_nothing(
    kind: str,
    error: type[TunebookError],
    named: str,
    tmp_path: Path,
    quick: Quick,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("anywidget")
    from tunebook.widgets import TrainPanel

    recipe = bad_recipe(kind, tmp_path, quick)
    monkeypatch.chdir(tmp_path)
    panel = TrainPanel(recipe=recipe)
    panel.handle({"type": "start"})
    end = time.monotonic() + 120
    while not panel.error:
        assert time.monotonic() < end, "the panel shows no error"
        time.sleep(0.05)
    shown = panel.error
    assert shown["name"] == error.__name__
    assert named in f"{shown['what']} {shown['why']} {shown['do']}"
    assert not (tmp_path / "runs").exists()


def test_tools_that_the_template_hides_are_a_warning() -> None:
    from tunebook.data import prepare_data
    from tunebook.models.loading import load_tokenizer
    from tunebook.training.worker import data_warnings

    rows = [{"prompt": "q", "completion": "a", "tools": [{"name": "f"}]}] * 2
    for template, codes in (("chatml", ["tools_hidden"]), ("qwen-3", [])):
        recipe = Recipe.of(chat_template=template)
        statistics = prepare_data(recipe, load_tokenizer(recipe.model), rows=rows).statistics
        assert [warning.code for warning in data_warnings(statistics, recipe)] == codes
