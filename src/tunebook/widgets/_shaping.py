"""What the columns mean and how long the rows may be: tried on the page before it is taken.

Asks `tunebook.data` and the studio's plan; training takes what is set in the recipe.
"""

from __future__ import annotations

from typing import Any

import traitlets as t

from tunebook.errors import RecipeInvalid
from tunebook.recipe import DataPart
from tunebook.widgets._panel import Panel

NO_MAPPING = {"data.columns": None, "data.format": "auto", "data.merged_prompt": None}
LENGTH = "model.max_seq_length"


class ShapingPanel(Panel):
    """The mapping of the columns, and the histogram of lengths with its limit."""

    mapping = t.Dict(
        help="The columns, and what they are taken for: as `ColumnView`, with `kinds`, `example` "
        "(the first row's messages, or an error) and `tried`; or empty."
    ).tag(sync=True)
    lengths = t.Dict(
        help="As `LengthView`, its stops as [limit, rows, cut, left out, lost, lost trained]; or empty."
    ).tag(sync=True)
    trial = t.Dict(
        help="What another limit would cost: limit, memory, seconds, fits, and memory and seconds now; the "
        "limit alone where nothing would be learnt; or empty."
    ).tag(sync=True)

    _head: Any = ()
    _tally: Any = None

    def show_columns(self, rows: Any) -> None:
        """Show what the columns of some rows are taken for, with the first row."""
        from tunebook.data.columns import ABOUT_PARTS, KINDS, column_view

        self._head = rows
        view = column_view(rows, self.recipe.data)
        kinds = [
            {"name": name, "title": title, "needs": needs, "may": may}
            for name, (title, needs, may) in KINDS.items()
        ]
        shown = {**view.model_dump(mode="json"), "kinds": kinds, "parts": ABOUT_PARTS}
        self.show(mapping={**shown, "example": {}, "tried": False})
        if view.how == "guessed":
            self.try_columns(view.kind, view.chosen)
        else:
            self.show(mapping={**self.mapping, "example": self._example(self.recipe.data)})

    def do_try_columns(self, kind: str, chosen: dict[str, str]) -> None:
        """Another column was chosen: show the first row with it."""
        self.try_columns(kind, chosen)

    def try_columns(self, kind: str, chosen: dict[str, str]) -> None:
        """Show the first row under a mapping, without taking it.

        Args:
            kind: of `tunebook.data.columns.KINDS`.
            chosen: part to column.
        """
        if not self.mapping:
            return
        tried = {"kind": kind, "chosen": chosen, "tried": True}
        try:
            recipe = self.recipe.with_values(_mapped(kind, chosen))
            example = self._example(recipe.data)
        except RecipeInvalid as error:
            example = {"messages": [], "error": error.to_dict()}
        self.show(mapping={**self.mapping, **tried, "example": example})

    def do_use_columns(self) -> None:
        """Take the mapping that is shown."""
        self.use_columns(self.mapping.get("kind", ""), self.mapping.get("chosen", {}))

    def use_columns(self, kind: str, chosen: dict[str, str]) -> None:
        """Take a mapping: it goes into the recipe's data part, and the rows are read with it.

        Raises:
            RecipeInvalid: a part that the kind needs has no column.
        """
        self.recipe = self.recipe.with_values(_mapped(kind, chosen))

    def do_detect_columns(self) -> None:
        """Leave the mapping: let the columns be found out."""
        if self.recipe == (recipe := self.recipe.with_values(NO_MAPPING)):
            self.show_columns(self._head)
        else:
            self.recipe = recipe

    def show_lengths(self, tally: Any, of: int | None = None) -> None:
        """Show how long the rows are.

        Args:
            tally: a `LengthTally`.
            of: the number of all rows if it counts only some of them.
        """
        self._tally = tally
        view = tally.view(self.recipe.model.max_seq_length, of=of)
        if view is None:
            self.show(lengths={}, trial={})
            return
        shown = view.model_dump(mode="json")
        shown["stops"] = [
            [stop.limit, stop.rows, stop.cut, stop.left_out, stop.lost, stop.lost_trained]
            for stop in view.stops
        ]
        self.show(lengths=shown, trial={})

    def do_try_length(self, limit: Any) -> None:
        """The line is being moved: what would training cost with that limit?"""
        self.work(lambda: self.try_length(int(limit)), during="plan another length", lane="trial")

    def try_length(self, limit: int) -> None:
        """Show what another maximum length would cost in memory and time, without taking it."""
        studio = self.studio
        if self._tally is None or studio.wait_for_plan() is None:
            return
        size, now = self._size(limit), self._size(self.recipe.model.max_seq_length)
        if size is None or now is None:
            self.show(trial={"limit": limit})  # nothing is left to learn, so nothing to plan
            return
        plan = studio.plan_of(self.recipe.with_values({LENGTH: limit}), size)
        before = studio.plan_of(self.recipe, now)
        cost, cost_now = plan.forecast, before.forecast
        self.show(
            trial={
                "limit": limit,
                "memory": cost.total,
                "memory_now": cost_now.total,
                "budget": cost.budget,
                "fits": cost.fits,
                "seconds": cost.seconds_total,
                "seconds_now": cost_now.seconds_total,
            }
        )

    def do_length(self, limit: Any) -> None:
        """The line was let go: take that limit."""
        self.do_set(LENGTH, int(limit))

    def _size(self, limit: int) -> Any:
        from tunebook.plan import DataSize

        cut, of = self._tally.cut_at(limit), self.lengths.get("of")
        if not cut.rows:
            return None
        rows = round(cut.rows * of / len(self._tally)) if of else cut.rows
        return DataSize(rows=rows, mean_length=cut.mean_length, max_length=cut.longest)

    def _example(self, part: DataPart) -> dict[str, Any]:
        from tunebook.data.columns import mapped_row
        from tunebook.data.tokens import json_safe

        row = mapped_row(self._head, part)
        said = [{"role": m["role"], "content": str(m["content"])} for m in row.messages]
        return {"messages": shortened(json_safe(said)), "error": row.error}


def shortened(messages: list[dict[str, Any]], most: int = 600) -> list[dict[str, Any]]:
    """Messages with no more than the beginning of what they say."""
    return [
        {**m, "content": m["content"][:most] + " …" * (len(m["content"]) > most)} for m in messages
    ]


def _mapped(kind: str, chosen: dict[str, str]) -> dict[str, Any]:
    from tunebook.data.columns import mapping_values

    return mapping_values(kind, chosen)
