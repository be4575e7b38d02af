"""A Run: one execution of a recipe, in a thread of this process, with everything about it in a folder.

Start it, watch it, stop it, resume it, talk to its model, export it; reopen it by path in a new
kernel. This module knows no widget: panels read the events and call these methods.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import RunBusy, TunebookError, as_tunebook_error
from tunebook.events import FailedEvent, StepEvent
from tunebook.recipe import Recipe
from tunebook.training.controls import Controls
from tunebook.training.folder import Request, RunFolder, State, new_name
from tunebook.training.results import Results

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from tunebook.plan import Plan

_WORKING = ("preparing", "running", "paused", "stopping")
_live: dict[str, Run] = {}  # runs whose thread is alive, by folder


class Run(Results):
    """One execution of a recipe. Make one with `Run.create`, or reopen one with `Run.open`.

    Attributes:
        recipe: what is run.
        log: the events so far, on the disk.
        error: what ended it, or None.
        phase: what it is doing just now, in a few words.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, *, rows: Any = None) -> None:
        self.folder = folder
        self.recipe = recipe
        self.error: TunebookError | None = None
        self.phase = ""
        self._rows = rows
        self._stop = threading.Event()
        self._controls = Controls(folder)
        # not Thread.is_alive(): an interrupted join leaves it wrong (python/cpython#90882)
        self._ended = threading.Event()
        self._ended.set()
        # a thread without the cell's context loses clicks and prints in ipykernel 7
        self._home = contextvars.copy_context()
        self._model: PeftModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None

    @classmethod
    def create(cls, recipe: Recipe, *, root: Path | str = "runs", rows: Any = None) -> Run:
        """A new run under `root`; nothing is written until its model and data are ready.

        Args:
            recipe: what to run.
            root: folder of runs.
            rows: rows in memory (list, `datasets.Dataset`, data frame) instead of the recipe's source.
        """
        root = Path(root)
        return cls(RunFolder(root / new_name(recipe, root)), recipe, rows=rows)

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """A run that exists, from this or another process, finished or not.

        Raises:
            RunMissing: the path is not a run folder.
        """
        folder = RunFolder(path)
        live = _live.get(_key(folder.path))
        if live is not None:
            return live
        folder.require()
        return cls(folder, Recipe.load(folder.recipe_file))

    @property
    def plan(self) -> Plan | None:
        """The plan it runs by, once it has begun."""
        from tunebook.plan import Plan

        return Plan.load(self.folder.plan_file) if self.folder.plan_file.is_file() else None

    @property
    def alive(self) -> bool:
        """Whether this process is working on it now."""
        return not self._ended.is_set()

    @property
    def state(self) -> State:
        """Where it stands; true for runs of other processes and of dead kernels too."""
        if self.alive:
            if self._stop.is_set():
                return "stopping"
            if self._controls.resting:
                return "paused"
            return "running" if self.folder.exists() else "preparing"
        if self.error is not None:
            return "failed"
        state = self.folder.state()
        foreign = state in ("running", "paused", "stopping") and self._is_mine()
        return "interrupted" if foreign else state

    def history(self) -> list[StepEvent]:
        """Each step once, in order, whatever was lost and done again."""
        return self.folder.history()

    def start(self) -> Run:
        """Begin in the background and return at once.

        Raises:
            RunBusy: it has begun before.
        """
        if self.alive or self.state != "new":
            raise RunBusy(
                f"The run {self.name} cannot be started.",
                f"it is {self.state}.",
                "use `resume()` to continue it, or `Run.create(recipe)` for a new one.",
            )
        return self._launch(None)

    def resume(self) -> Run:
        """Continue in the background from the last checkpoint, to the same loss curve.

        Raises:
            RunBusy: it is running, or has completed, or has no checkpoint yet.
        """
        state = self.state
        checkpoint = self.folder.last_checkpoint()
        why = None
        if state in _WORKING:
            why = f"it is {state}."
        elif state == "completed":
            why = "it has completed all its steps."
        elif checkpoint is None:
            why = "it has no checkpoint yet."
        if why:
            raise RunBusy(
                f"The run {self.name} cannot be resumed.",
                why,
                "start a new one with `train(recipe)`.",
            )
        return self._launch(checkpoint)

    def wait(self) -> Run:
        """Wait until it ends; an interrupt (the stop button of a cell, Ctrl-C) stops it gracefully.

        Raises:
            TunebookError: what ended the run, if it failed.
        """
        while self.alive:
            try:
                self._ended.wait(0.2)
            except KeyboardInterrupt:
                if self._stop.is_set():
                    raise  # the second one: the user does not want to wait for the step
                self.stop()
        if self.error is not None:
            raise self.error
        return self

    def stop(self) -> None:
        """Ask it to end after the step it is in, with a checkpoint; works from any process."""
        if self.alive:
            self._stop.set()
            self._controls.wake()
        elif self.state in ("running", "paused"):
            self.folder.stop_file.touch()

    def pause(self) -> None:
        """Ask it to rest after the step it is in; works from any process.

        The model stays in memory and the next step is the one that would have come anyway. What a
        pause is for: letting something else have the machine, asking the model, having a look.

        Raises:
            RunBusy: it is not training; so it is for the three methods below.
        """
        self._ask("pause", "paused")

    def unpause(self) -> None:
        """Let it go on after a pause; `resume` continues a run that has stopped."""
        self._require_working("continued")
        self._controls.drop("pause")

    def save_now(self) -> None:
        """Ask for a checkpoint after the step it is in; works from any process and in a pause."""
        self._ask("save", "saved now")

    def sample_now(self) -> None:
        """Ask the model its sample prompts after the step it is in; answers are `SampleEvent`s."""
        self._ask("sample", "asked now")

    @property
    def requests(self) -> frozenset[Request]:
        """What was asked for and is not done yet: "pause" until it is taken back, "save", "sample"."""
        return self._controls.asked

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, with the template that it was trained with."""
        if self._tokenizer is None:
            from tunebook.data.tokenizers import tokenizer_for

            self._tokenizer = tokenizer_for(self.recipe)
        return self._tokenizer

    @property
    def model(self) -> PeftModel:
        """The tuned model; loaded from the folder if this process did not train it.

        Raises:
            RunBusy: there is no adapter to load yet.
        """
        if self._model is None:
            self._model = self._load_model()
        return self._model

    def __repr__(self) -> str:
        done = self.history()
        steps = f", step {done[-1].step}, loss {done[-1].loss:.4f}" if done else ""
        return f"Run({str(self.path)!r}, {self.state}{steps})"

    def _ask(self, request: Request, verb: str) -> None:
        self._require_working(verb)
        if self.alive:
            self._controls.ask(request)
        else:
            self.folder.request_file(request).touch()

    def _require_working(self, verb: str) -> None:
        if not self.alive and self.state not in _WORKING:
            raise RunBusy(
                f"The run {self.name} cannot be {verb}.",
                f"it is {self.state}; only a run that is training can.",
                "start it, or continue a stopped one with `resume()`.",
            )

    def _launch(self, checkpoint: Path | None) -> Run:
        self._stop.clear()
        self._controls.clear()
        self.folder.stop_file.unlink(missing_ok=True)
        self.error = None
        self._model = None
        self._ended.clear()
        _live[_key(self.path)] = self
        threading.Thread(
            target=self._home.copy().run,
            args=(self._work, checkpoint),
            name=f"tunebook-{self.name}",
            daemon=True,
        ).start()
        return self

    def _work(self, checkpoint: Path | None) -> None:
        from tunebook.models.quiet import quiet

        try:
            with quiet():  # the imports are heavy and talk, too
                from tunebook.training.worker import execute, prepare

                prepared = prepare(self.recipe, self._rows, self._tell)
            self._tokenizer = prepared.tokenizer
            if self._stop.is_set():
                return  # stopped before anything was written
            execute(
                self.folder,
                self.recipe,
                prepared,
                controls=self._controls,
                stop_asked=self._stop_asked,
                checkpoint=checkpoint,
                tell=self._tell,
            )
            self._model = prepared.model
        except Exception as error:
            self.error = as_tunebook_error(error, during=f"train {self.name}")
            self.error.__cause__ = error if error is not self.error else error.__cause__
            if self.folder.exists():
                step = max((event.step for event in self.history()), default=0)
                self.log.append(FailedEvent(step=step, error=self.error.to_dict(traceback=True)))
        finally:
            self.folder.stop_file.unlink(missing_ok=True)
            self._controls.clear()
            self._tell("")
            _live.pop(_key(self.path), None)
            self._ended.set()

    def _tell(self, phase: str) -> None:
        self.phase = phase

    def _stop_asked(self) -> bool:
        return self._stop.is_set() or self.folder.stop_file.exists()

    def _is_mine(self) -> bool:
        started = self.folder.last_started()
        mine = started is not None and started.pid == os.getpid()
        return mine and _key(self.path) not in _live

    def _require_ended(self, verb: str) -> None:
        if self.state in (*_WORKING, "new"):
            raise RunBusy(
                f"The run {self.name} cannot be {verb} yet.",
                f"it is {self.state}.",
                "wait until training has ended: `run.wait()`.",
            )

    def _load_model(self) -> PeftModel:
        from tunebook.models.adapters import load_adapter
        from tunebook.models.loading import load_model
        from tunebook.models.quiet import quiet

        self._require_ended("talked to")
        adapter = self.folder.adapter
        if not adapter.is_dir():
            checkpoint = self.folder.last_checkpoint()
            if checkpoint is None:
                raise RunBusy(
                    f"The run {self.name} has no adapter.",
                    "it ended before its first checkpoint.",
                    "start it again with `train(recipe)`.",
                )
            adapter = checkpoint
        with quiet():
            base = load_model(self.recipe.model, self.recipe.quantization)
            return load_adapter(base, adapter)


def train(
    recipe: Recipe | Path | str,
    *,
    wait: bool | None = None,
    root: Path | str = "runs",
    rows: Any = None,
) -> Run:
    """Train a recipe, given as such or as its file.

    Args:
        recipe: a `Recipe` or the path of one.
        wait: True returns when training has ended, False at once; None returns at once in
            JupyterLab, where panels stay live, and waits everywhere else (Colab, scripts, nbconvert).
        root: folder of runs.
        rows: rows in memory instead of the recipe's source.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    run = Run.create(recipe, root=root, rows=rows).start()
    return run.wait() if (not in_jupyterlab() if wait is None else wait) else run


def open_run(path: Path | str) -> Run:
    """Reopen a run by its folder; see `Run.open`."""
    return Run.open(path)


def list_runs(root: Path | str = "runs") -> list[Run]:
    """All runs under a folder, newest first."""
    root = Path(root)
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if RunFolder(path).exists()]
    return [
        Run.open(path) for path in sorted(folders, key=lambda p: p.stat().st_mtime, reverse=True)
    ]


def in_jupyterlab() -> bool:
    """Whether this is a kernel whose page stays live while no cell runs (not Colab, not nbconvert)."""
    return "JPY_SESSION_NAME" in os.environ and "google.colab" not in sys.modules


def _key(path: Path) -> str:
    return str(path.absolute())
