"""All runs below one root: their list, the picture of one, its events, and what is asked of it.

Every method does blocking work with files and may be called from any thread. Logs are read on from
where they were left, so that a look at runs that go on costs what they wrote since.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tunebook.server.contents import files_of, plan_of, recipe_of
from tunebook.server.lines import parsed, whole_lines
from tunebook.server.places import RunFinder, RunRoot
from tunebook.server.summary import RunSummary
from tunebook.training.folder import RunFolder, State
from tunebook.training.view import RunView

MOST_RUNS = 300
MOST_SECONDS = 1.0  # spent on reading logs in one answer; what is left is read in the next
MOST_VIEWS = 8  # open documents whose folded events are kept
Wish = Literal["stop", "pause", "continue", "save", "sample"]
RESTING: tuple[State, ...] = ("new", "completed", "stopped", "failed", "interrupted")


class _Log:
    """How far a log was read; `moved` says whether it was replaced by another one meanwhile."""

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.log.path
        self.offset = 0
        self._file: tuple[int, int] | None = None

    def moved(self) -> bool:
        told = self.path.stat()
        file = (told.st_dev, told.st_ino)
        moved = self._file is not None and (file != self._file or told.st_size < self.offset)
        self._file = file
        return moved


class _Listed(_Log):
    """A run of the list."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder)
        self.summary = RunSummary()
        self.behind = True

    def read_on(self, end: float) -> None:
        """Fold what is new, until the clock shows `end`."""
        if self.moved():
            self.offset, self.summary = 0, RunSummary()
        self.behind = True
        while time.monotonic() < end:
            lines, offset = whole_lines(self.path, self.offset)
            for line in lines:
                self.summary.add(line)
            self.behind, self.offset = offset > self.offset, offset
            if not self.behind:
                return


class _Viewed(_Log):
    """A run that is looked at."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder)
        self.folder = folder
        self.view = RunView(folder.log)

    def read_on(self) -> None:
        """Fold what is new."""
        if self.moved():
            self.folder = RunFolder(self.folder.path)
            self.view = RunView(self.folder.log)
        self.view.read()
        self.offset = self.view.offset


class RunLibrary:
    """The runs below `root`, as plain data. Paths are relative to it, with forward slashes."""

    def __init__(self, root: Path | str) -> None:
        self.root = RunRoot(root)
        self._finder = RunFinder(self.root.path)
        self._listed: dict[Path, _Listed] = {}
        self._viewed: OrderedDict[Path, _Viewed] = OrderedDict()
        self._lock = threading.Lock()

    def list(self) -> dict[str, Any]:
        """Every run, the newest first; `more` counts those left out.

        `partial` says that the root is too large to have been searched as a whole, and of a run
        `reading` that its log is long and has not been read to its end yet.
        """
        with self._lock:
            found = sorted(self._finder.find(), key=_modified, reverse=True)
            kept = found[:MOST_RUNS]
            self._listed = {path: self._known(path) for path in kept}
            end = time.monotonic() + MOST_SECONDS
            rows = [row for path in kept if (row := self._row(path, end)) is not None]
        rows.sort(key=lambda row: row["began"], reverse=True)
        partial = not self._finder.complete
        return {"runs": rows, "more": len(found) - len(kept), "partial": partial}

    def picture(self, path: str) -> dict[str, Any]:
        """One run as its events tell it: numbers, curves, samples, messages.

        Raises:
            PathRefused, RunMissing: see `RunRoot.run`.
        """
        folder = self.root.run(path)
        with self._lock:
            viewed = self._viewed.pop(folder.path, None) or _Viewed(folder)
            self._viewed[folder.path] = viewed
            while len(self._viewed) > MOST_VIEWS:
                self._viewed.popitem(last=False)
            if folder.log.path.is_file():
                viewed.read_on()
            return {
                "path": self.root.relative(folder.path),
                "folder": str(folder.path),
                "name": folder.path.name,
                "state": viewed.folder.state(),
                "requests": sorted(viewed.folder.requests()),
                "error": viewed.view.error,
                **viewed.view.traits(),
            }

    def contents(self, path: str) -> dict[str, Any]:
        """Recipe, plan and files of one run.

        Raises:
            PathRefused, RunMissing: see `RunRoot.run`.
        """
        folder = self.root.run(path)
        return {"recipe": recipe_of(folder), "plan": plan_of(folder), **files_of(folder)}

    def events(self, path: str, offset: int) -> dict[str, Any]:
        """The events after a byte offset of the log, and the offset to ask from next.

        An offset beyond the log's end, as after it was replaced, begins anew: `offset` is then
        smaller than asked for. At most some megabytes are given; ask again for the rest.

        Raises:
            PathRefused, RunMissing: see `RunRoot.run`.
        """
        folder = self.root.run(path)
        if not folder.log.path.is_file():
            return {"events": [], "offset": 0, "end": True}
        size = folder.log.path.stat().st_size
        begin = offset if 0 <= offset <= size else 0
        lines, after = whole_lines(folder.log.path, begin)
        events = [event for line in lines if (event := parsed(line)) is not None]
        return {"events": events, "offset": after, "end": after == begin}

    def ask(self, path: str, wish: Wish) -> dict[str, Any]:
        """Ask a live run for something after the step it is in, as the methods of `Run` do.

        Raises:
            PathRefused, RunMissing: see `RunRoot.run`.
            RunBusy: nobody works on it.
        """
        from tunebook.errors import RunBusy
        from tunebook.training import Run, open_run

        run = open_run(self.root.run(path).path)
        if run.state in RESTING:
            raise RunBusy(
                f"The run {run.name} takes no requests: {wish}.",
                f"it is {run.state}: nobody works on it.",
                "there is nothing to do; `resume()` continues a run that did not complete.",
            )
        methods: dict[Wish, Callable[[Run], None]] = {
            "stop": Run.stop,
            "pause": Run.pause,
            "continue": Run.unpause,
            "save": Run.save_now,
            "sample": Run.sample_now,
        }
        methods[wish](run)
        return {"path": path, "state": run.state, "requests": sorted(run.folder.requests())}

    def _known(self, path: Path) -> _Listed:
        return self._listed.get(path) or _Listed(RunFolder(path))

    def _row(self, path: Path, end: float) -> dict[str, Any] | None:
        listed, folder = self._listed[path], RunFolder(path)
        try:
            listed.read_on(end)
            state = folder.judge(listed.summary.events())
        except OSError:
            return None  # removed meanwhile
        shown = listed.summary.shown(live=state not in RESTING)
        return {
            "path": self.root.relative(path),
            "name": path.name,
            "state": state,
            "requests": sorted(folder.requests()) if state not in RESTING else [],
            "reading": listed.behind,
            **shown,
            "began": shown["began"] or _modified(path),
        }


def _modified(path: Path) -> float:
    try:
        return os.stat(path / "events.jsonl").st_mtime
    except OSError:
        return 0.0
