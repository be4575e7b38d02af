"""The model panel: choose what is fine-tuned, with what each model needs on this hardware.

Knows the catalogue and the plan's verdict; loads no weights.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import traitlets as t

from tunebook.models.catalog import find
from tunebook.models.local import find_local
from tunebook.recipe import Recipe
from tunebook.widgets._models import Candidate, catalogue, judged, on_this_disk, typed
from tunebook.widgets._panel import Panel
from tunebook.widgets._state import Studio
from tunebook.widgets._text import bytes_text

MOST_COMPARED = 3
_QUIET = 0.3
"""Seconds without a change after which the models are judged anew."""


class ModelPanel(Panel):
    """Choose a model of the catalogue, of this disk or of the hub.

    Example:
        >>> panel = ModelPanel()
        >>> panel.choose("tunebook-tiny")
        >>> panel.recipe.model.name
        'tunebook-tiny'
        >>> panel.compare("Qwen3-0.6B", "Llama-3.2-1B-Instruct")
        >>> panel.compared
        ['Qwen3-0.6B', 'Llama-3.2-1B-Instruct']
    """

    module = "model"
    purpose = "model"
    parts = ("model",)
    without = ("model.name",)

    models: t.List[Any] = t.List(help="All models as rows of plain data.").tag(sync=True)
    hardware = t.Unicode(help="This machine in a few words.").tag(sync=True)
    about = t.Dict(help="What is known of the chosen model.").tag(sync=True)
    compared: t.List[Any] = t.List(help="Names of the models side by side.").tag(sync=True)
    in_sight = t.Bool(True, help="Whether the page shows the list of models.").tag(sync=True)
    view = t.Dict(help="What is searched, filtered and sorted by.").tag(sync=True)

    def __init__(
        self, recipe: Recipe | None = None, *, studio: Studio | None = None, **traits: Any
    ) -> None:
        traits.setdefault("heading", "Model")
        traits.setdefault(
            "lead", "Which model learns: smaller ones train faster and need less memory."
        )
        self._asked, self._judged_for, self._judging = 0, 0, False
        self._candidates = catalogue()
        self._looked_at_disk = False
        rows = [candidate.row for candidate in self._candidates]
        super().__init__(recipe, studio=studio, models=rows, **traits)
        self.studio.observe(self._plan_changed, ["plan", "plan_error"])
        self.studio.observe(self._hardware_known, "hardware")
        self.studio.observe(self._judge_soon, "data_size")
        self._plan_changed()
        if self.studio.hardware is not None:
            self._hardware_known()
        self.studio.begin()

    def choose(self, name: str) -> None:
        """Make `name` (catalogue, hub id or folder) the recipe's model."""
        self.recipe = self.recipe.with_values({"model.name": name})

    def compare(self, *names: str) -> None:
        """Show up to three models side by side; the last three of more."""
        self.show(compared=list(dict.fromkeys(names))[-MOST_COMPARED:])

    def make_fit(self, name: str) -> None:
        """Choose a model together with the first change of the recipe that lets it fit."""
        rows: list[dict[str, Any]] = [row for row in self.models if row["name"] == name]
        change = rows[0]["change"] if rows else {}
        self.recipe = self.recipe.with_values({"model.name": name, **change})

    def do_choose(self, name: str) -> None:
        """A row was picked, or a name typed."""
        if name.strip():
            self.choose(name.strip())

    def do_compare(self, name: str, on: bool) -> None:
        """A row was added to the comparison, or taken away."""
        others = [other for other in self.compared if other != name]
        self.compare(*others, *([name] if on else []))

    def do_make_fit(self, name: str) -> None:
        """The change that a verdict names was taken."""
        self.make_fit(name)

    def text_lines(self) -> list[str]:
        """The chosen model and the machine."""
        return [self.summary, self.hardware]

    def _hardware_known(self, _change: object = None) -> None:
        machine = self.studio.hardware
        described = f"{machine.name}, {bytes_text(machine.free_memory)} free"
        self.show(hardware=described)
        self._judge_soon()

    def _judge_soon(self, _change: object = None) -> None:
        """Give the models their verdicts in a thread, once more if something changed meanwhile.

        Verdicts that nobody sees wait: their arithmetic would hold up what is looked at instead.
        """
        if self.studio.hardware is None:
            return
        with self._guard:
            self._asked += 1
            unseen = not self.in_sight and bool(self.models) and self.models[0]["verdict"]
            if self._judging or unseen:
                return
            self._judging = True
        self.work(self._judge, during="judge the models", busy="")

    @t.observe("in_sight")
    def _sight_changed(self, _change: object) -> None:
        if self.in_sight and self._asked != self._judged_for:
            self._judge_soon()

    def _judge(self) -> None:
        try:
            self._look_at_disk()
            while self._judging:
                asked = self._wait_for_quiet()
                self._judge_once(asked)
                with self._guard:
                    self._judging = asked != self._asked
        except BaseException:
            self._judging = False
            raise

    def _judge_once(self, asked: int) -> None:
        studio = self.studio
        rows = judged(
            [*self._typed(), *self._candidates],
            self.recipe,
            studio.hardware,
            studio.data_size,
            lambda: asked == self._asked,
        )
        if rows is not None:
            self._judged_for = asked
            self.show(models=rows)

    def _wait_for_quiet(self) -> int:
        """Whoever drags a slider is served first. Returns what is asked for."""
        asked = -1
        while asked != self._asked and self.models and self.models[0]["verdict"]:
            asked = self._asked
            time.sleep(_QUIET)
        return self._asked

    def _look_at_disk(self) -> None:
        if not self._looked_at_disk:
            self._looked_at_disk = True
            self._candidates = [*on_this_disk(find_local(Path())), *self._candidates]

    def _typed(self) -> list[Candidate]:
        """The recipe's model, if no row stands for it."""
        name, plan = self.recipe.model.name, self.studio.plan
        known = find(name) is not None or any(one.row["name"] == name for one in self._candidates)
        if known or plan is None or plan.recipe["model"] != name:
            return []
        return [typed(name, self.studio.shape(self.recipe.model))]

    def _plan_changed(self, _change: object = None) -> None:
        plan, part = self.studio.plan, self.recipe.model
        error = self.studio.plan_error
        self.show(about=_about(self.recipe, plan), error=error, summary=_summary(part.name, plan))
        self._judge_soon()

    def _recipe_changed(self, change: object = None) -> None:
        super()._recipe_changed(change)
        name, plan = self.recipe.model.name, self.studio.plan
        mine = plan is not None and plan.recipe["model"] == name
        self.show(summary=_summary(name, plan if mine else None))


def _about(recipe: Recipe, plan: Any) -> dict[str, Any]:
    entry = find(recipe.model.name)
    about: dict[str, Any] = {"name": recipe.model.name, "known": entry is not None}
    if entry is not None:
        about |= {"catalogue": entry.name, "title": entry.title, "languages": list(entry.languages)}
    if plan is not None:
        about |= {"total": plan.forecast.total, "fits": plan.forecast.fits}
    return about


def _summary(name: str, plan: Any) -> str:
    if plan is None:
        return name
    verdict = "fits" if plan.forecast.fits else "does not fit"
    return f"{name} · needs {bytes_text(plan.forecast.total)}, {verdict}"
