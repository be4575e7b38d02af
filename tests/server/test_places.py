"""Which folders hold a run, and which paths a client may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunebook.errors import PathRefused, RunMissing
from tunebook.server import places
from tunebook.server.places import RunFinder, RunRoot, search


def names(found: tuple[set[Path], bool]) -> list[str]:
    return sorted(path.name for path in found[0])


def test_runs_are_found_at_any_depth_and_not_inside_of_each_other(
    make_run: Any, tmp_path: Path
) -> None:
    make_run(tmp_path / "runs/a")
    make_run(tmp_path / "work/project/runs/b")
    make_run(tmp_path / "runs/a/checkpoints/inner")
    assert names(search(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("place", [".hidden", "node_modules", "deep/.venv/lib", "venv"])
def test_what_is_hidden_or_installed_is_not_searched(
    make_run: Any, tmp_path: Path, place: str
) -> None:
    make_run(tmp_path / place / "a")
    assert search(tmp_path) == (set(), True)


def test_an_environment_of_any_name_is_not_searched(make_run: Any, tmp_path: Path) -> None:
    (tmp_path / "mine/bin").mkdir(parents=True)
    (tmp_path / "mine/pyvenv.cfg").touch()
    make_run(tmp_path / "mine/lib/a")
    assert search(tmp_path)[0] == set()


def test_a_recipe_or_a_log_alone_is_no_run(tmp_path: Path) -> None:
    for name, file in (("project", "recipe.yaml"), ("logs", "events.jsonl")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    assert search(tmp_path)[0] == set()


def test_links_are_not_followed_and_circles_end(make_run: Any, tmp_path: Path) -> None:
    make_run(tmp_path / "outside/a")
    root = tmp_path / "root"
    root.mkdir()
    (root / "away").symlink_to(tmp_path / "outside")
    (root / "circle").symlink_to(root)
    assert search(root) == (set(), True)


def test_a_huge_root_is_searched_in_part_and_says_so(
    make_run: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(places, "MOST_FOLDERS", 20)
    make_run(tmp_path / "near")
    for number in range(40):
        (tmp_path / f"x{number}/y").mkdir(parents=True)
    found, complete = search(tmp_path)
    assert not complete
    assert len(found) <= 1


def test_a_new_run_beside_another_is_found_between_two_searches(
    make_run: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    make_run(tmp_path / "runs/a")
    finder = RunFinder(tmp_path)
    assert len(finder.find()) == 1
    monkeypatch.setattr(places, "search", lambda _: pytest.fail("searched again"))
    make_run(tmp_path / "runs/b")
    (tmp_path / "runs/a/events.jsonl").unlink()
    assert {path.name for path in finder.find()} == {"b"}


@pytest.mark.parametrize(
    "path", ["../a", "runs/../../a", "/../a", "runs/.hidden", "runs/a\0", ".", "runs/./a"]
)
def test_no_path_leads_out_or_to_hidden_things(make_run: Any, tmp_path: Path, path: str) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "root/runs/a")
    with pytest.raises(PathRefused):
        RunRoot(tmp_path / "root").run(path)


def test_no_link_leads_out(make_run: Any, tmp_path: Path) -> None:
    make_run(tmp_path / "outside/a")
    root = tmp_path / "root"
    root.mkdir()
    (root / "runs").symlink_to(tmp_path / "outside")
    (root / "b").symlink_to(tmp_path / "outside/a")
    for path in ("runs/a", "b"):
        with pytest.raises(PathRefused):
            RunRoot(root).run(path)


def test_a_path_that_is_no_run_is_missing(make_run: Any, tmp_path: Path) -> None:
    make_run(tmp_path / "runs/a")
    root = RunRoot(tmp_path)
    assert root.run("runs/a").path == tmp_path / "runs/a"
    assert root.run("/runs//a/").path == tmp_path / "runs/a"
    for path in ("", "runs", "runs/zzz", "runs/a/recipe.yaml"):
        with pytest.raises(RunMissing):
            root.run(path)


def test_a_root_behind_a_link_works(make_run: Any, tmp_path: Path) -> None:
    make_run(tmp_path / "real/runs/a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert RunRoot(tmp_path / "link").run("runs/a").exists()
