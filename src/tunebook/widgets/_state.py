"""What the panels share: the recipe, its plan, the run, and the tokenizer once it is loaded.

A Studio asks the layers below and tells whoever observes it; it knows no panel.
"""

from __future__ import annotations

import contextvars
import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any

import traitlets as t

from tunebook.data.demo import DEMO_SOURCE, demo_recipe, without_demo_knobs
from tunebook.errors import TunebookError, as_tunebook_error
from tunebook.recipe import ModelPart, Recipe


def in_colab() -> bool:
    """Whether this is Colab, whose page drops what a thread sends once its cell has ended."""
    return "google.colab" in sys.modules


class Studio(t.HasTraits):
    """The shared state of one guide, or of one panel that stands alone.

    Observe `recipe`, `plan`, `plan_error`, `hardware` or `run`; they may change in any thread. Observe
    `settled` to hear once of a change and all that followed from it.
    """

    recipe = t.Instance(Recipe)
    plan = t.Any(None, allow_none=True, help="Plan of the recipe on this hardware, once known.")
    plan_error = t.Dict(help="Why there is no plan, in three parts; or empty.")
    hardware = t.Any(None, allow_none=True)
    data_size = t.Any(None, allow_none=True, help="DataSize of the rows, once they were read.")
    run = t.Any(None, allow_none=True)
    rows = t.Any(None, allow_none=True, help="Rows in memory instead of the recipe's source.")
    rows_name = t.Unicode(help="The notebook's variable that they come from, if they do.")
    settled = t.Int(0, help="How many changes have been told to all who observe them.")

    def __init__(self, recipe: Recipe | None = None, *, rows: Any = None, root: str = "runs"):
        self._telling, self._changes = threading.local(), itertools.count(1)
        super().__init__(recipe=recipe if recipe is not None else demo_recipe(), rows=rows)
        self.root = root
        self._home = contextvars.copy_context()
        self._lock = threading.RLock()
        self._shapes: dict[tuple[str, str | None], Any] = {}
        self._file_shapes: dict[tuple[str, str | None], Any] = {}
        self._tokenizers: dict[tuple[str, str | None], Any] = {}
        self._generation = 0
        self._planner: threading.Thread | None = None
        self.observe(self._replan, ["recipe", "data_size"])

    @t.validate("recipe")
    def _leave_the_demo(self, proposal: Any) -> Recipe:
        """Knobs that suit the demo's few short rows do not follow to other data."""
        recipe: Recipe = proposal["value"]
        before = self._trait_values.get("recipe")
        left = before is not None and before.data.source == DEMO_SOURCE != recipe.data.source
        return without_demo_knobs(recipe) if left else recipe

    @property
    def changing(self) -> bool:
        """Whether this thread is telling of a change just now; `settled` comes after it."""
        return getattr(self._telling, "depth", 0) > 0

    def notify_change(self, change: Any) -> None:
        """Tell the observers, and once all that they changed is told too, that it is settled."""
        if change["name"] == "settled":
            super().notify_change(change)
            return
        outer = getattr(self._telling, "depth", 0)
        self._telling.depth = outer + 1
        try:
            super().notify_change(change)
        finally:
            self._telling.depth = outer
            if not outer:
                self.settled = next(self._changes)

    def begin(self) -> None:
        """Look at the hardware and make the first plan, in a thread; later calls do nothing."""
        with self._lock:
            if self.hardware is None and not self.planning:
                self._plan_in_thread()

    @property
    def planning(self) -> bool:
        """Whether a plan is being made in the background."""
        return self._planner is not None and self._planner.is_alive()

    def wait_for_plan(self, timeout: float = 30.0) -> Any:
        """The plan, after waiting for it; None if there can be none (see `plan_error`)."""
        self.begin()
        planner = self._planner
        if planner is not None:
            planner.join(timeout)
        return self.plan

    def shape(self, part: ModelPart) -> Any:
        """The model's shape, read once for each name and revision."""
        from tunebook.models.loading import load_shape

        key = (part.name, part.revision)
        if key not in self._shapes:
            self._shapes[key] = load_shape(part)
        return self._shapes[key]

    def known_shape(self) -> Any:
        """The shape of the recipe's model if it was read already, else None; never waits."""
        part = self.recipe.model
        return self._shapes.get((part.name, part.revision))

    def file_shape(self, part: ModelPart) -> Any:
        """The shape of the model's files, read once; also of models that cannot be planned."""
        from tunebook.models.loading import load_file_shape

        key = (part.name, part.revision)
        if key not in self._file_shapes:
            self._file_shapes[key] = load_file_shape(part)
        return self._file_shapes[key]

    def known_file_shape(self) -> Any:
        """That of the recipe's model if it or its plan's shape was read already; never waits."""
        part = self.recipe.model
        return self.known_shape() or self._file_shapes.get((part.name, part.revision))

    def tokenizer(self) -> Any:
        """The model's tokenizer with its own template, loaded once (seconds)."""
        from tunebook.models.loading import load_tokenizer

        part = self.recipe.model
        key = (part.name, part.revision)
        if key not in self._tokenizers:
            self._tokenizers[key] = load_tokenizer(part)
        return self._tokenizers[key]

    def plan_of(self, recipe: Recipe, data: Any) -> Any:
        """The plan of any recipe on this hardware; the studio's own stays as it is."""
        from tunebook.plan import make_plan

        shape = self.shape(recipe.model)
        return make_plan(recipe, shape=shape, hardware=self.hardware, data=data)

    def use_tokenizer(self, tokenizer: Any) -> None:
        """Take this tokenizer for the recipe's model instead of loading one."""
        part = self.recipe.model
        self._tokenizers[part.name, part.revision] = tokenizer

    def thread(self, task: Callable[[], Any]) -> threading.Thread:
        """Start a daemon thread in the context where the studio was made."""
        worker = threading.Thread(target=self._home.copy().run, args=(task,), daemon=True)
        worker.start()
        return worker

    def _replan(self, _change: object) -> None:
        with self._lock:
            self._generation += 1
            known = (self.recipe.model.name, self.recipe.model.revision) in self._shapes
            if self.hardware is not None and known:
                self._plan_now()
            elif self.hardware is not None:
                self._plan_in_thread()

    def _plan_in_thread(self) -> None:
        if in_colab():
            self._detect_and_plan()
        else:
            self._planner = self.thread(self._detect_and_plan)

    def _detect_and_plan(self) -> None:
        from tunebook.plan import Hardware

        if self.hardware is None:
            self.hardware = Hardware.detect()
        generation = -1
        while generation != self._generation:  # the recipe may change while the config is fetched
            generation = self._generation
            self._plan_now(generation)

    def _plan_now(self, generation: int | None = None) -> None:
        recipe = self.recipe
        try:
            plan = self.plan_of(recipe, self.data_size)
            error: dict[str, str] = {}
        except Exception as reason:
            named = as_tunebook_error(reason, during="make a plan")
            plan, error = None, named.to_dict(traceback=not isinstance(reason, TunebookError))
        with self._lock:
            if generation in (None, self._generation):
                with self.hold_trait_notifications():
                    self.plan_error, self.plan = error, plan
