"""The forecast of the studio's plan: what panels that show it share, and the bar alone.

Turns a plan into plain data for the bar; makes no plan.
"""

from __future__ import annotations

from typing import Any

import traitlets as t

from tunebook.plan.rungs import least_memory
from tunebook.plan.verdict import fit_word
from tunebook.recipe import Recipe
from tunebook.widgets._panel import Panel
from tunebook.widgets._state import Studio
from tunebook.widgets._text import bytes_text, duration_text, strategy_words

TITLES = {
    "weights": "Weights",
    "embeddings": "Embeddings",
    "adapters": "Adapters",
    "gradients": "Gradients",
    "optimizer": "Optimizer",
    "activations": "Activations",
    "logits": "Logits",
    "scratch": "Scratch",
}


class Forecasting(Panel):
    """A panel that shows the studio's forecast."""

    forecast = t.Dict(help="The forecast as plain data, see `forecast_dict`.").tag(sync=True)
    plan_error = t.Dict(help="Why there is no forecast, in three parts; or empty.").tag(sync=True)

    def __init__(
        self, recipe: Recipe | None = None, *, studio: Studio | None = None, **traits: Any
    ) -> None:
        super().__init__(recipe, studio=studio, **traits)
        self.studio.observe(self._plan_changed, ["plan", "plan_error"])
        self._plan_changed()
        self.studio.begin()

    def text_lines(self) -> list[str]:
        """The forecast, a line for each part."""
        parts = self.forecast.get("parts", [])
        lines = [f"  {part['title']:<12} {bytes_text(part['bytes']):>10}" for part in parts]
        return [self.summary, *lines]

    def _plan_changed(self, _change: object = None) -> None:
        plan, recipe = self.studio.plan, self.recipe
        shown: dict[str, Any] = {}
        shape = self.studio.known_shape()
        if plan is not None and shape is not None:
            least = least_memory(plan, recipe, shape, self.studio.data_size)
            shown = {**forecast_dict(plan), "fit": fit_word(least, plan.forecast.budget)}
        self.show(forecast=shown, plan_error=self.studio.plan_error, summary=self._one_line(plan))

    def _one_line(self, plan: Any) -> str:
        if plan is None:
            return "No forecast yet"
        cost = plan.forecast
        fits = "" if cost.fits else " — does not fit"
        about = f"{bytes_text(cost.total)} of {bytes_text(cost.budget)}{fits}"
        if cost.seconds_total is None:
            return about
        return f"{about} · about {duration_text(cost.seconds_total)}"


class ForecastBar(Forecasting):
    """The forecast alone, to look at."""

    module = "forecast"
    purpose = "method"

    def __init__(
        self, recipe: Recipe | None = None, *, studio: Studio | None = None, **traits: Any
    ) -> None:
        traits.setdefault("heading", "Forecast")
        super().__init__(recipe, studio=studio, **traits)


def forecast(recipe: Recipe | None = None) -> ForecastBar:
    """What a recipe will cost on this machine, as a bar by part.

    Example:
        >>> forecast(Recipe.of(r=64))  # doctest: +SKIP
    """
    panel = ForecastBar(recipe)
    panel.studio.wait_for_plan()
    return panel


def forecast_dict(plan: Any) -> dict[str, Any]:
    """A plan's forecast and strategy as plain data: bytes, seconds and words."""
    cost, strategy = plan.forecast, plan.strategy
    return {
        "parts": [
            {"key": key, "title": TITLES.get(key, key.capitalize()), "bytes": size}
            for key, size in cost.parts.items()
        ],
        "total": cost.total,
        "budget": cost.budget,
        "fits": cost.fits,
        "steps": cost.steps,
        "seconds_per_step": cost.seconds_per_step,
        "seconds_total": cost.seconds_total,
        "tokens_per_step": cost.tokens_per_step,
        "hardware": plan.hardware.name,
        "strategy": strategy_words(strategy),
        "rungs": list(plan.rungs),
        "advice": [*plan.advice, *plan.notes],
    }
