"""The guide: all six panels in order, over one studio, on one page.

Only puts panels together; each of them works alone.
"""

from __future__ import annotations

from typing import Any

import ipywidgets
import traitlets as t

from tunebook.recipe import Recipe
from tunebook.widgets import _static
from tunebook.widgets._forecasting import Forecasting
from tunebook.widgets._kept import KeptView
from tunebook.widgets._panel import Panel
from tunebook.widgets._state import Studio
from tunebook.widgets._steps import next_step, standings
from tunebook.widgets.chat import TryPanel
from tunebook.widgets.data import DataPanel
from tunebook.widgets.method import MethodPanel
from tunebook.widgets.model import ModelPanel
from tunebook.widgets.takeaway import TakeAwayPanel
from tunebook.widgets.train import TrainPanel

STEPS: tuple[type[Panel], ...] = (
    ModelPanel,
    DataPanel,
    MethodPanel,
    TrainPanel,
    TryPanel,
    TakeAwayPanel,
)


class Overview(Panel):
    """The guide's head: its title and one line for each step."""

    module = "guide"

    steps: t.List[Any] = t.List(help="number, heading, summary, state, note of each step.").tag(
        sync=True
    )
    next_step = t.Int(0, help="Number of the step to take now, 0 at the end.").tag(sync=True)
    hint = t.Unicode(help="What to do now, in a sentence.").tag(sync=True)

    def __init__(self, panels: list[Panel], *, studio: Studio):
        self._panels = panels
        super().__init__(
            studio=studio,
            heading="Fine-tune a model",
            lead="Six steps from a model to your model. Each shows the code that does the same.",
        )
        for panel in panels:
            seen = {"summary", "error", "findings", "state", "turns", "files"}
            panel.observe(self._told, sorted(seen & set(panel.trait_names())))
        studio.observe(self._told, "settled")
        self._told()

    def _told(self, _change: object = None) -> None:
        if self.studio.changing:
            return  # `settled` follows: one message then, behind those of the panels
        found = standings(self.studio, {panel.purpose: panel for panel in self._panels})
        following, hint = next_step(found)
        steps = [
            {
                "number": panel.number,
                "heading": panel.heading,
                "summary": panel.summary,
                "state": found[panel.purpose].state,
                "note": found[panel.purpose].note,
            }
            for panel in self._panels
        ]
        numbers = {panel.purpose: panel.number for panel in self._panels}
        self.show(steps=steps, next_step=numbers.get(following, 0), hint=hint)


class Guide(KeptView, ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Fine-tune a model step by step.

    Args:
        recipe: what to begin with; None is the demo, which needs no network.
        rows: rows in memory (list, `datasets.Dataset`, data frame) instead of the recipe's source.
        run: a run to begin with.
        root: folder of runs.

    Example:
        >>> guide = Guide()  # doctest: +SKIP
        >>> guide.recipe, guide.run  # doctest: +SKIP
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        rows: Any = None,
        run: Any = None,
        root: str = "runs",
        **traits: Any,
    ):
        if recipe is None and run is not None:
            recipe = run.recipe
        self._studio = Studio(recipe, rows=rows, root=root)
        self._studio.run = run
        # who is made first hears first of a change: the forecast, which follows every key
        order = sorted(STEPS, key=lambda step: not issubclass(step, Forecasting))
        made = {step: step(studio=self._studio, number=STEPS.index(step) + 1) for step in order}
        self._panels = panels = [made[step] for step in STEPS]
        super().__init__(children=[Overview(panels, studio=self._studio), *panels], **traits)
        self.add_class("tunebook-guide")
        made[TrainPanel].at_rest.append(self.keep)
        made[TryPanel].observe(lambda _change: self.keep(), "turns")
        made[TakeAwayPanel].observe(lambda _change: self.keep(), "files")

    @property
    def panels(self) -> dict[str, Panel]:
        """The panels by what they are for: model, data, method, train, try, takeaway."""
        return {panel.purpose: panel for panel in self._panels}

    @property
    def recipe(self) -> Recipe:
        """The recipe as it stands; assign a new one to change every panel."""
        return self._studio.recipe

    @recipe.setter
    def recipe(self, recipe: Recipe) -> None:
        self._studio.recipe = recipe

    @property
    def plan(self) -> Any:
        """The plan of the recipe on this machine, or None while it is not known yet."""
        return self._studio.plan

    @property
    def run(self) -> Any:
        """The run that was started last, or None."""
        return self._studio.run

    def as_text(self) -> str:
        """The guide in plain text, for places where no widget can be shown."""
        cards = [f"{at}. {panel.as_text()}" for at, panel in enumerate(self._panels, 1)]
        return "\n\n".join(["Tunebook: fine-tune a model", *cards])

    def as_html(self) -> str:
        """The guide as small static HTML, every text escaped."""
        return _static.section(
            "Tunebook: fine-tune a model", *(panel.as_html() for panel in self._panels)
        )

    def close(self) -> None:
        """Take the guide and its panels away; a run goes on."""
        for panel in self.children:
            panel.close()
        super().close()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if isinstance(bundle, dict):
            return {**bundle, "text/plain": self.as_text(), "text/html": self.as_html()}
        return bundle
