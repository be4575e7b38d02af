"""Where runs are: the folders below a root that hold one, and the way from a client's path to them.

Nothing outside of the root is ever reached: hidden names are refused and links are not followed.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from tunebook.errors import PathRefused
from tunebook.training.folder import RunFolder

DEEPEST = 6  # folders below the root
MOST_FOLDERS = 20_000
MOST_SECONDS = 2.0
SOONEST, LATEST = 3.0, 60.0  # seconds between two searches of the whole root
SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "venv", "env"})


class RunRoot:
    """The folder that a server shows, and the runs in it by their path relative to it."""

    def __init__(self, root: Path | str) -> None:
        self.path = Path(root).resolve()

    def relative(self, path: Path) -> str:
        """A path below the root as clients write it: relative, with forward slashes."""
        return path.relative_to(self.path).as_posix()

    def run(self, path: str) -> RunFolder:
        """The run at a client's path.

        Raises:
            PathRefused: the path leads outside, through a link or to something hidden.
            RunMissing: there is no run.
        """
        parts = [part for part in path.strip("/").split("/") if part]
        if any(part.startswith(".") or "\0" in part or os.sep in part for part in parts):
            raise _refused(path, "it has a part that is hidden or leads upwards.")
        place = self.path.joinpath(*parts)
        if place.resolve() != place:
            raise _refused(path, "it passes through a link.")
        folder = RunFolder(place)
        folder.require()
        return folder


class RunFinder:
    """Finds the folders that hold a run; cheap enough to be asked every other second.

    The whole root is searched now and then, the more seldom the longer that takes. In between only
    the folders that hold runs already are looked at, where the next one most likely appears.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.complete = True
        self._runs: set[Path] = set()
        self._due = 0.0

    def find(self) -> set[Path]:
        """All run folders known now."""
        begun = time.monotonic()
        if begun >= self._due:
            self._runs, self.complete = search(self.root)
            ended = time.monotonic()
            self._due = ended + min(LATEST, max(SOONEST, 20 * (ended - begun)))
        else:
            gone = {run for run in self._runs if not is_run(run)}
            parents = {run.parent for run in self._runs}
            self._runs = (self._runs - gone) | self._siblings(parents)
        return self._runs

    def _siblings(self, parents: Iterable[Path]) -> set[Path]:
        beside = (child for parent in parents for child in _folders(parent))
        return {child for child in beside if child not in self._runs and is_run(child)}


def is_run(path: Path) -> bool:
    """Whether a folder holds a run that has begun."""
    return (path / "events.jsonl").is_file() and (path / "recipe.yaml").is_file()


def search(root: Path) -> tuple[set[Path], bool]:
    """The run folders below `root`, the nearest first, and whether all of it could be searched."""
    runs: set[Path] = set()
    waiting = deque((child, 1) for child in _folders(root))
    end = time.monotonic() + MOST_SECONDS
    for _ in range(MOST_FOLDERS):
        if not waiting:
            return runs, True
        folder, depth = waiting.popleft()
        if is_run(folder):
            runs.add(folder)
        elif depth < DEEPEST:
            waiting.extend((child, depth + 1) for child in _folders(folder))
        if time.monotonic() > end:
            break
    return runs, not waiting


def _folders(parent: Path) -> list[Path]:
    """The folders directly in one that may hold runs; none where it cannot be read."""
    try:
        with os.scandir(parent) as entries:
            found = [
                entry
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []
    if any(entry.name in ("bin", "Scripts") for entry in found) and _is_environment(parent):
        return []
    return [Path(entry.path) for entry in found if entry.name not in SKIPPED]


def _is_environment(folder: Path) -> bool:
    return (folder / "pyvenv.cfg").is_file() or (folder / "conda-meta").is_dir()


def _refused(path: str, why: str) -> PathRefused:
    return PathRefused(
        f"The path {path!r} cannot be opened.",
        why,
        "give the path of a run folder relative to the folder that the server was started in.",
    )
