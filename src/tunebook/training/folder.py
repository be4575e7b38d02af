"""The run folder: where each file of a run is, and what state its files say it is in.

Reads and writes files only; knows neither torch nor threads.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from tunebook.errors import RunMissing
from tunebook.events import (
    CheckpointEvent,
    ContinuedEvent,
    EventBase,
    EventLog,
    FailedEvent,
    FinishedEvent,
    PausedEvent,
    StartedEvent,
    StepEvent,
)
from tunebook.recipe import Recipe

State = Literal[
    "new",
    "preparing",
    "running",
    "paused",
    "stopping",
    "completed",
    "stopped",
    "failed",
    "interrupted",
]
Request = Literal["stop", "pause", "save", "sample"]
_CHANGES: tuple[type[EventBase], ...] = (
    StartedEvent,
    PausedEvent,
    ContinuedEvent,
    FinishedEvent,
    FailedEvent,
)
_STALE = 120.0  # seconds without an event after which a run on another host counts as interrupted


class RunFolder:
    """Paths and file state of one run.

    Layout: `recipe.yaml`, `plan.json`, `events.jsonl`, `checkpoints/checkpoint-<step>/`, `adapter/`,
    `export/`. `stop`, `pause`, `save` and `sample` exist while that is asked for.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.log = EventLog(self.path / "events.jsonl")
        self._lock = threading.Lock()
        self._read_to = 0
        self._started: StartedEvent | None = None
        self._last: EventBase | None = None

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def plan_file(self) -> Path:
        return self.path / "plan.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def exports(self) -> Path:
        return self.path / "export"

    @property
    def stop_file(self) -> Path:
        return self.request_file("stop")

    def request_file(self, request: Request) -> Path:
        """The file that exists while something is asked of the process that trains."""
        return self.path / request

    def requests(self) -> frozenset[Request]:
        """What is asked of the process that trains, and not done yet."""
        return frozenset(r for r in get_args(Request) if self.request_file(r).exists())

    def exists(self) -> bool:
        """Whether a run was written here."""
        return self.recipe_file.is_file()

    def require(self) -> None:
        """Raise `RunMissing` unless this is a run folder."""
        if not self.exists():
            raise RunMissing(
                f"{self.path} is not a run.",
                "it holds no recipe.yaml.",
                "give a folder that `tunebook.train` made, such as runs/<name>.",
            )

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end and still exists."""
        for event in reversed(self.log.of(CheckpointEvent)):
            path = self.path / event.path
            if (path / "trainer_state.json").is_file():
                return path
        return None

    def step_of(self, checkpoint: Path) -> StepEvent | None:
        """The step after which a checkpoint was written."""
        number = int(checkpoint.name.rsplit("-", 1)[1])
        return next((event for event in self.history() if event.step == number), None)

    def state(self) -> State:
        """What the files say: also for a run of another process, or whose process is gone."""
        return self._judged(*self._last_change())

    def judge(self, events: Iterable[EventBase]) -> State:
        """As `state`, from events that were read before.

        The last one of each kind is enough, in the order in which they happened.
        """
        started: StartedEvent | None = None
        last: EventBase | None = None
        for event in events:
            if isinstance(event, _CHANGES):
                last = event
            if isinstance(event, StartedEvent):
                started = event
        return self._judged(started, last)

    def _judged(self, started: StartedEvent | None, last: EventBase | None) -> State:
        if last is None:
            return "new"
        if isinstance(last, FinishedEvent):
            return last.reason
        if isinstance(last, FailedEvent):
            return "failed"
        if started is None:
            return "new"
        if not _alive(started, self.log.path):
            return "interrupted"
        if self.stop_file.exists():
            return "stopping"
        return "paused" if isinstance(last, PausedEvent) else "running"

    def last_started(self) -> StartedEvent | None:
        """The last time that it began or was resumed."""
        return self._last_change()[0]

    def _last_change(self) -> tuple[StartedEvent | None, EventBase | None]:
        """The last beginning, and the last event that changed the state; reads only what is new."""
        with self._lock:
            if self._read_to > self._log_size():  # another file: the run was made anew
                self._read_to, self._started, self._last = 0, None, None
            changes, self._read_to = self.log.since(self._read_to, *_CHANGES)
            for event in changes:
                self._last = event
                if isinstance(event, StartedEvent):
                    self._started = event
            return self._started, self._last

    def _log_size(self) -> int:
        try:
            return self.log.path.stat().st_size
        except FileNotFoundError:
            return 0

    def history(self) -> list[StepEvent]:
        """Each step once, in order: steps that a resumed run did again replace the lost ones."""
        steps: dict[int, StepEvent] = {}
        for event in self.log.of(StartedEvent, StepEvent):
            if isinstance(event, StartedEvent):
                kept = event.resumed_from or 0
                steps = {step: old for step, old in steps.items() if step <= kept}
            elif isinstance(event, StepEvent):
                steps[event.step] = event
        return [steps[step] for step in sorted(steps)]


def new_name(recipe: Recipe, root: Path) -> str:
    """A free folder name: the recipe's own, else made of model, data and time."""
    if recipe.name:
        base = recipe.name
    else:
        model = recipe.model.name.rstrip("/").rsplit("/", 1)[-1]
        data = Path(recipe.data.source.rstrip("/")).stem
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{model}-{data}-{stamp}").strip("-.") or stamp
    name, number = base, 2
    while (root / name).exists():
        name, number = f"{base}-{number}", number + 1
    return name


def this_process() -> dict[str, Any]:
    """`pid`, `process_started` and `host` of a `StartedEvent`."""
    import psutil

    return {
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "host": socket.gethostname(),
    }


def _alive(started: StartedEvent, log: Path) -> bool:
    import psutil

    if started.host != socket.gethostname():
        return time.time() - log.stat().st_mtime < _STALE
    try:
        process = psutil.Process(started.pid)
        return abs(process.create_time() - started.process_started) < 1.0
    except psutil.Error:
        return False
