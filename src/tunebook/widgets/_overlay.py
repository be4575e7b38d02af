"""Other runs laid over the one that a train panel shows: which there are, their curves, what differs.

Knows run folders and curves; knows no widget.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunebook.curves import Curves, packed
from tunebook.errors import RunMissing, TunebookError
from tunebook.recipe import Recipe
from tunebook.widgets.comparing import difference_rows, run_curves

MOST_LISTED = 50
MOST_CHOSEN = 8


class Overlays:
    """The runs chosen, with curves that are read again only when a log has grown."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Curves]] = {}

    def available(self, root: str, *, without: Any) -> list[dict[str, Any]]:
        """Runs under a folder, the newest first: name and state."""
        from tunebook.training import list_runs

        own = None if without is None else Path(without.path).absolute()
        try:
            runs = [run for run in list_runs(root) if run.path.absolute() != own]
        except TunebookError:  # a folder whose recipe nobody can read hides no other run for long
            runs = []
        return [{"name": run.name, "state": run.state} for run in runs[:MOST_LISTED]]

    def choose(self, names: Sequence[str], root: str, run: Any, recipe: Recipe) -> dict[str, Any]:
        """The traits that show these runs over `run`.

        Raises:
            RunMissing: there is no such run under the root.
        """
        from tunebook.training import open_run

        chosen = list(dict.fromkeys(names))[:MOST_CHOSEN]
        for name in chosen:
            if Path(name).name != name:
                raise RunMissing(
                    f"{name} is not a run.",
                    "a run is named, not its path.",
                    "choose one of the list.",
                )
        runs = [open_run(Path(root) / name) for name in chosen]
        about, columns = [], []
        for other in runs:
            curves = self._curves(other)
            rows = curves.loss_rows(curves.points("steps", "loss"))
            about.append({"name": other.name, "points": len(rows[0])})
            columns.append(packed(rows))
        own = recipe if run is None else run.recipe
        return {
            "chosen": chosen,
            "overlays": about,
            "overlay_points": b"".join(columns),
            "differences": difference_rows([own, *(r.recipe for r in runs)]) if runs else [],
        }

    def _curves(self, run: Any) -> Curves:
        size = run.log.path.stat().st_size if run.log.path.exists() else 0
        known = self._known.get(str(run.path))
        if known is None or known[0] != size:
            known = self._known[str(run.path)] = (size, run_curves(run))
        return known[1]
