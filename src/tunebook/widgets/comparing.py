"""Several runs beside each other: their losses in one figure, and where their recipes differ.

Knows run folders and recipes; knows no panel.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunebook.curves import Curves
from tunebook.errors import RunMissing
from tunebook.recipe import Recipe
from tunebook.widgets._fields import field_titles, flat_values
from tunebook.widgets._figure import compared_figure


class Comparison:
    """Some runs with what tells them apart; shows itself as a figure over a table.

    Attributes:
        runs: as given, in order.
        names: of their folders.
    """

    def __init__(self, runs: Sequence[Any]) -> None:
        self.runs = list(runs)
        self.names = [run.name for run in self.runs]
        self._curves = [run_curves(run) for run in self.runs]

    def differences(self) -> dict[str, list[Any]]:
        """Each recipe field in which the runs differ, by dotted name, with a value for each run."""
        return recipe_differences([run.recipe for run in self.runs])

    def table(self) -> list[dict[str, Any]]:
        """One row a run: name, state, steps, last loss, best evaluation, and the fields that differ."""
        rows = []
        for number, (run, curves) in enumerate(zip(self.runs, self._curves, strict=True)):
            losses, evaluations = curves.steps["loss"], curves.evaluations["loss"]
            row = {
                "run": run.name,
                "state": run.state,
                "steps": len(losses),
                "loss": float(losses[-1]) if len(losses) else None,
                "best evaluation": float(evaluations.min()) if len(evaluations) else None,
            }
            row |= {path: values[number] for path, values in self.differences().items()}
            rows.append(row)
        return rows

    def figure(self, *, smoothing: float = 0.9, log: bool = False) -> Any:
        """The smoothed losses as a `plotly.graph_objects.Figure`."""
        return compared_figure(self._curves, self.names, smoothing=smoothing, log=log)

    def __repr__(self) -> str:
        rows = [[_text(value) for value in row.values()] for row in self.table()]
        head = list(self.table()[0])
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [head, *rows]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The figure where plotly is rendered; the table as text and HTML where it is not."""
        rows = self.table()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_text(v))}</td>" for v in row.values()) + "</tr>"
            for row in rows
        )
        figure = self.figure()
        return {
            "application/vnd.plotly.v1+json": figure.to_plotly_json(),
            "text/html": f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
            "text/plain": repr(self),
        }


def compare(runs: Sequence[Any]) -> Comparison:
    """Compare runs, given as such or by their folders: `compare(["runs/a", "runs/b"])`.

    Example:
        >>> both = compare([first, second])  # doctest: +SKIP
        >>> both.differences()  # doctest: +SKIP
        {'lora.r': [8, 64]}
        >>> both.figure()  # doctest: +SKIP

    Raises:
        RunMissing: there is nothing to compare, or a path is not a run folder.
    """
    if not runs:
        raise RunMissing(
            "There is nothing to compare.",
            "the list of runs is empty.",
            "give runs or their folders, such as `tunebook.compare(tunebook.list_runs())`.",
        )
    opened = []
    for run in runs:
        if isinstance(run, str | Path):
            from tunebook.training import open_run

            run = open_run(run)
        opened.append(run)
    return Comparison(opened)


def run_curves(run: Any) -> Curves:
    """The curves of a run, from its log as it stands."""
    curves = Curves()
    curves.fold(run.log.records()[0])
    return curves


def recipe_differences(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """Each field in which some of the recipes differ, by dotted name, with a value for each."""
    flat = [flat_values(recipe) for recipe in recipes]
    return {
        path: [values[path] for values in flat]
        for path in flat[0]
        if any(values[path] != flat[0][path] for values in flat)
    }


def difference_rows(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    """The same for a page: title, path and each recipe's value as text."""
    titles = field_titles()
    return [
        {"path": path, "title": titles.get(path, path), "values": [_text(v) for v in values]}
        for path, values in recipe_differences(recipes).items()
    ]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
