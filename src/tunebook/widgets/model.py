"""The model panel: choose what is fine-tuned, with what each model needs on this hardware.

Knows the catalogue and the plan's verdict; loads no weights.
"""

from __future__ import annotations

from typing import Any

import traitlets as t

from tunebook.recipe import Recipe
from tunebook.widgets._panel import Panel
from tunebook.widgets._state import Studio
from tunebook.widgets._text import bytes_text, count_text

TIGHT = 0.85  # share of the budget above which a model fits, but only just


class ModelPanel(Panel):
    """Choose a model of the catalogue, a hub id or a folder.

    Example:
        >>> panel = ModelPanel()
        >>> panel.choose("tunebook-tiny")
        >>> panel.recipe.model.name
        'tunebook-tiny'
    """

    module = "model"
    purpose = "model"
    parts = ("model",)
    without = ("model.name",)

    models: t.List[Any] = t.List(help="The catalogue as rows of plain data.").tag(sync=True)
    hardware = t.Unicode(help="This machine in a few words.").tag(sync=True)
    about = t.Dict(help="What is known of the chosen model.").tag(sync=True)

    def __init__(
        self, recipe: Recipe | None = None, *, studio: Studio | None = None, **traits: Any
    ) -> None:
        traits.setdefault("heading", "Model")
        traits.setdefault(
            "lead", "Which model learns: smaller ones train faster and need less memory."
        )
        self._asked, self._judging = 0, False
        super().__init__(recipe, studio=studio, models=catalog_rows(None, None), **traits)
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

    def do_choose(self, name: str) -> None:
        """A row was picked, or a name typed."""
        if name.strip():
            self.choose(name.strip())

    def text_lines(self) -> list[str]:
        """The chosen model and the machine."""
        return [self.summary, self.hardware]

    def _hardware_known(self, _change: object = None) -> None:
        machine = self.studio.hardware
        described = f"{machine.name}, {bytes_text(machine.free_memory)} free"
        self.show(hardware=described)
        self._judge_soon()

    def _judge_soon(self, _change: object = None) -> None:
        """Give the models their verdicts in a thread, once more if something changed meanwhile."""
        if self.studio.hardware is None:
            return
        with self._guard:
            self._asked += 1
            if self._judging:
                return
            self._judging = True
        self.work(self._judge, during="judge the models", busy="")

    def _judge(self) -> None:
        try:
            while self._judging:
                asked, studio = self._asked, self.studio
                rows = catalog_rows(self.recipe, studio.hardware, studio.data_size)
                self.show(models=rows)
                with self._guard:
                    self._judging = asked != self._asked
        except BaseException:
            self._judging = False
            raise

    def _plan_changed(self, _change: object = None) -> None:
        plan, part = self.studio.plan, self.recipe.model
        error = self.studio.plan_error
        self.show(about=_about(self.recipe, plan), error=error, summary=_summary(part.name, plan))
        self._judge_soon()

    def _recipe_changed(self, change: object = None) -> None:
        super()._recipe_changed(change)
        self.show(summary=_summary(self.recipe.model.name, None))


def catalog_rows(recipe: Recipe | None, hardware: Any, data: Any = None) -> list[dict[str, Any]]:
    """The catalogue as plain rows; with a recipe and hardware, each with a verdict.

    The verdict is "fits", "tight", "no", or "" while the hardware is not known yet.
    """
    from tunebook.models.catalog import CATALOG

    rows = []
    for entry in CATALOG:
        verdict, memory = "", ""
        if recipe is not None and hardware is not None:
            verdict, memory = _verdict(recipe, entry, hardware, data)
        rows.append(
            {
                "name": entry.name,
                "title": entry.title,
                "size": count_text(entry.parameters),
                "licence": entry.licence,
                "context": count_text(entry.context),
                "embedded": entry.embedded,
                "verdict": verdict,
                "memory": memory,
            }
        )
    return rows


def _verdict(recipe: Recipe, entry: Any, hardware: Any, data: Any) -> tuple[str, str]:
    from tunebook.plan import make_plan

    wanted = recipe.with_values({"model.name": entry.hub_id or entry.name})
    forecast = make_plan(wanted, shape=entry.shape, hardware=hardware, data=data).forecast
    share = forecast.total / max(forecast.budget, 1)
    word = "no" if not forecast.fits else "tight" if share > TIGHT else "fits"
    return word, bytes_text(forecast.total)


def _about(recipe: Recipe, plan: Any) -> dict[str, Any]:
    from tunebook.models.catalog import find

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
