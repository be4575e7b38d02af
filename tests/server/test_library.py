"""The runs below a root as plain data, from their files alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunebook.errors import RunBusy
from tunebook.events import FailedEvent, SampleEvent, StartedEvent, StepEvent, WarningEvent
from tunebook.recipe import Recipe
from tunebook.server import library as module
from tunebook.server.library import RunLibrary
from tunebook.training.folder import RunFolder

NASTY = "<img src=x onerror=alert(1)>\u202e\x1b[31m"


def began_by(**process: Any) -> StartedEvent:
    return StartedEvent(
        device="cpu", total_steps=10, trainable_parameters=1, total_parameters=2, **process
    )


def listed(library: RunLibrary) -> dict[str, dict[str, Any]]:
    return {run["name"]: run for run in library.list()["runs"]}


def test_states_are_judged_by_the_files_and_the_process(make_run: Any, tmp_path: Path) -> None:
    make_run(tmp_path / "live")
    make_run(tmp_path / "dead", dead=True)
    make_run(tmp_path / "done", ended="completed")
    make_run(tmp_path / "halted", ended="stopped")
    make_run(tmp_path / "broken", more=[FailedEvent(error={"what": "Out.", "do": "Less."})])
    make_run(tmp_path / "ending").stop_file.touch()
    runs = listed(RunLibrary(tmp_path))
    assert {name: run["state"] for name, run in runs.items()} == {
        "live": "running", "dead": "interrupted", "done": "completed", "halted": "stopped",
        "broken": "failed", "ending": "stopping",
    }  # fmt: skip
    assert runs["broken"]["failure"] == {"what": "Out.", "do": "Less."}
    assert runs["live"]["eta"] == 0.5 * 7
    assert runs["dead"]["eta"] is None


def test_a_process_of_the_same_number_that_began_later_is_another_one(
    make_run: Any, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "a")
    lines = folder.log.path.read_text().splitlines()
    first = json.loads(lines[0])
    first["process_started"] -= 3600
    folder.log.path.write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    assert listed(RunLibrary(tmp_path))["a"]["state"] == "interrupted"


def test_the_newest_run_is_first(make_run: Any, tmp_path: Path) -> None:
    for name, began in (("old", 1e9), ("new", 1.5e9), ("middle", 1.2e9)):
        make_run(tmp_path / name, began=began, ended="completed")
    assert list(listed(RunLibrary(tmp_path))) == ["new", "middle", "old"]


def test_a_list_costs_only_what_was_written_since(
    make_run: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = make_run(tmp_path / "a", steps=3)
    library = RunLibrary(tmp_path)
    assert listed(library)["a"]["step"] == 3
    read: list[int] = []
    real = module.whole_lines

    def counted(path: Path, offset: int) -> Any:
        lines, after = real(path, offset)
        read.append(len(lines))
        return lines, after

    monkeypatch.setattr(module, "whole_lines", counted)
    folder.log.append(StepEvent(step=4, epoch=0, loss=1, learning_rate=1, tokens=1, seconds=1))
    assert listed(library)["a"]["step"] == 4
    assert sum(read) == 1


def test_a_log_cut_off_in_mid_line_is_read_on_when_it_is_whole(
    make_run: Any, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "a", steps=3)
    library = RunLibrary(tmp_path)
    line = StepEvent(step=4, epoch=0, loss=1, learning_rate=1, tokens=1, seconds=1)
    text = line.model_dump_json() + "\n"
    with folder.log.path.open("a") as file:
        file.write(text[:30])
        file.flush()
        assert listed(library)["a"]["step"] == 3
        file.write(text[30:])
    assert listed(library)["a"]["step"] == 4


def test_a_long_log_is_read_in_several_answers(
    make_run: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    make_run(tmp_path / "a", steps=50, total=50)
    monkeypatch.setattr(module, "MOST_SECONDS", 0.0)
    library = RunLibrary(tmp_path)
    assert listed(library)["a"]["reading"]
    monkeypatch.setattr(module, "MOST_SECONDS", 5.0)
    run = listed(library)["a"]
    assert (run["step"], run["reading"]) == (50, False)


def test_a_replaced_log_is_read_anew(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", steps=9)
    library = RunLibrary(tmp_path)
    assert listed(library)["a"]["step"] == 9
    assert library.picture("a")["step"] == 9
    made = make_run(tmp_path / "b/c", steps=2)
    os.replace(made.log.path, folder.log.path)
    assert listed(library)["a"]["step"] == 2
    assert library.picture("a")["step"] == 2


def test_a_run_that_goes_away_leaves_the_list(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    library = RunLibrary(tmp_path)
    assert list(listed(library)) == ["a"]
    folder.log.path.unlink()
    assert list(listed(library)) == []


def test_only_the_newest_of_very_many_are_listed(
    make_run: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "MOST_RUNS", 2)
    for number in range(4):
        folder = make_run(tmp_path / f"r{number}", began=1e9 + number)
        os.utime(folder.log.path, (1e9 + number, 1e9 + number))
    answer = RunLibrary(tmp_path).list()
    assert [run["name"] for run in answer["runs"]] == ["r3", "r2"]
    assert answer["more"] == 2


def test_the_picture_of_a_run(make_run: Any, tmp_path: Path) -> None:
    said = [
        SampleEvent(step=2, prompt=NASTY, answer="aye", expected="yes"),
        WarningEvent(step=2, code="x", message="Loss rises.", do="Lower it."),
    ]
    make_run(tmp_path / "runs/a", steps=4, more=said)
    library = RunLibrary(tmp_path)
    shown = library.picture("runs/a")
    assert (shown["path"], shown["name"], shown["state"]) == ("runs/a", "a", "running")
    assert (shown["step"], shown["total"], shown["last_loss"]) == (4, 10, 2.5)
    assert shown["samples"][0]["prompt"] == NASTY
    assert {"kind": "warning", "step": 2, "text": "Loss rises.", "do": "Lower it."} in shown[
        "messages"
    ]
    assert len(shown["loss_points"]) == 4 * 4 * 4


def test_pictures_kept_are_few(make_run: Any, tmp_path: Path) -> None:
    library = RunLibrary(tmp_path)
    for number in range(module.MOST_VIEWS + 3):
        make_run(tmp_path / f"r{number}")
        library.picture(f"r{number}")
    assert len(library._viewed) == module.MOST_VIEWS


def test_recipe_plan_and_files(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    (folder.adapter).mkdir()
    (folder.adapter / "adapter.bin").write_bytes(b"12345")
    (folder.path / ".secret").touch()
    (folder.path / "link").symlink_to("/etc/passwd")
    told = RunLibrary(tmp_path).contents("a")
    assert {file["path"]: file["bytes"] for file in told["files"] if not file["directory"]}[
        "adapter/adapter.bin"
    ] == 5
    assert not [
        file for file in told["files"] if "secret" in file["path"] or file["path"] == "link"
    ]
    rows = {row["path"]: row for group in told["recipe"]["groups"] for row in group["rows"]}
    assert rows["training.max_steps"]["value"] == "10"
    assert rows["training.max_steps"]["changed"]
    assert not rows["lora.r"]["changed"]
    assert "max_steps: 10" in told["recipe"]["text"]
    assert told["plan"] is None


def test_an_untouched_recipe_has_no_changed_value(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    Recipe().save(folder.recipe_file)
    told = RunLibrary(tmp_path).contents("a")["recipe"]
    assert [
        row["path"] for group in told["groups"] for row in group["rows"] if row["changed"]
    ] == []


def test_a_recipe_that_cannot_be_read_is_told_beside_the_rest(
    make_run: Any, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "a")
    folder.recipe_file.write_text("training: [")
    library = RunLibrary(tmp_path)
    assert listed(library)["a"]["state"] == "running"
    told = library.contents("a")
    assert told["recipe"]["text"] == "training: ["
    assert told["recipe"]["error"]["name"] == "RecipeInvalid"
    assert told["files"]


def test_events_go_on_at_an_offset(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", steps=2)
    library = RunLibrary(tmp_path)
    first = library.events("a", 0)
    assert [event["kind"] for event in first["events"]] == ["started", "step", "step", "memory"]
    assert library.events("a", first["offset"]) == {
        "events": [], "offset": first["offset"], "end": True,
    }  # fmt: skip
    folder.log.append(StepEvent(step=3, epoch=0, loss=1, learning_rate=1, tokens=1, seconds=1))
    assert [e["step"] for e in library.events("a", first["offset"])["events"]] == [3]
    assert len(library.events("a", 10**9)["events"]) == 5


def test_a_line_of_megabytes_is_passed_over(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", steps=1)
    with folder.log.path.open("ab") as file:
        file.write(b'{"kind": "step", "x": "' + b"y" * 9 * 2**20 + b'"}\n')
    folder.log.append(StepEvent(step=2, epoch=0, loss=1, learning_rate=1, tokens=1, seconds=1))
    assert listed(RunLibrary(tmp_path))["a"]["step"] == 2


def test_requests_go_by_the_runs_own_road(make_run: Any, tmp_path: Path) -> None:
    code = (
        "import json, time; from tunebook.training.folder import this_process;"
        "print(json.dumps(this_process()), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        process = json.loads(other.stdout.readline())
        folder: RunFolder = make_run(tmp_path / "a", more=[began_by(**process)])
        library = RunLibrary(tmp_path)
        for wish in ("pause", "save", "sample"):
            library.ask("a", wish)
        assert folder.requests() == {"pause", "save", "sample"}
        assert listed(library)["a"]["requests"] == ["pause", "sample", "save"]
        asked = library.ask("a", "continue")
        assert asked == {"path": "a", "state": "running", "requests": ["sample", "save"]}
        assert library.ask("a", "stop")["state"] == "stopping"
        assert library.picture("a")["requests"] == ["sample", "save", "stop"]
        other.kill()


def test_a_run_that_nobody_works_on_takes_no_request(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", dead=True)
    with pytest.raises(RunBusy) as caught:
        RunLibrary(tmp_path).ask("a", "stop")
    assert "interrupted" in caught.value.why
    assert not folder.stop_file.exists()
