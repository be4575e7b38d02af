"""The rows of the model panel as plain data: catalogue, this disk, and what was typed.

Asks the catalogue and the plan's verdict; knows no widget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tunebook.errors import TunebookError
from tunebook.models.catalog import CatalogEntry, catalog_entries
from tunebook.models.local import LocalModel
from tunebook.models.shape import ModelShape
from tunebook.plan import DataSize, Hardware
from tunebook.plan.verdict import judge
from tunebook.recipe import Recipe

_BREATH = 0.002
"""Seconds between two verdicts, so that a click in another panel is not kept waiting."""


@dataclass(frozen=True)
class Candidate:
    """A model that could be chosen: its row, and its shape if it can be planned."""

    row: dict[str, Any]
    shape: ModelShape | None


def catalogue() -> list[Candidate]:
    """The models of the catalogue, the embedded one first."""
    return [Candidate(_entry_row(entry), entry.shape) for entry in catalog_entries()]


def on_this_disk(found: Iterable[LocalModel]) -> list[Candidate]:
    """Models that were found on the disk; one that cannot be planned says why."""
    candidates = []
    for model in found:
        row = _blank(model.name, model.source)
        try:
            shape = ModelShape.from_config(model.config)
        except (TunebookError, TypeError, ValueError) as error:
            row["why"] = error.why if isinstance(error, TunebookError) else str(error)
            candidates.append(Candidate(row, None))
        else:
            candidates.append(Candidate({**row, **_shape_facts(shape)}, shape))
    return candidates


def typed(name: str, shape: ModelShape) -> Candidate:
    """A model that is neither in the catalogue nor on the disk, once its config is known."""
    return Candidate({**_blank(name, "typed"), **_shape_facts(shape)}, shape)


def judged(
    candidates: Iterable[Candidate],
    recipe: Recipe,
    hardware: Hardware,
    data: DataSize | None,
    goes_on: Callable[[], bool] = lambda: True,
) -> list[dict[str, Any]] | None:
    """The rows with their verdicts; None if it was not to go on before all had theirs."""
    rows = []
    for candidate in candidates:
        if not goes_on():
            return None
        rows.append({**candidate.row, **_verdict(candidate, recipe, hardware, data)})
        time.sleep(_BREATH)
    return rows


def _verdict(
    candidate: Candidate, recipe: Recipe, hardware: Hardware, data: DataSize | None
) -> dict[str, Any]:
    if candidate.shape is None:
        return {}
    wanted = recipe.with_values({"model.name": candidate.row["name"]})
    try:
        verdict = judge(wanted, candidate.shape, hardware, data)
    except TunebookError as error:  # the recipe itself is at odds, such as a dtype with the card
        return {"why": error.why}
    return {
        "verdict": verdict.word,
        "memory": verdict.least,
        "seconds": verdict.seconds_per_step,
        "cure": verdict.cure,
        "change": verdict.change,
    }


def _entry_row(entry: CatalogEntry) -> dict[str, Any]:
    row = _blank(entry.name, "catalogue")
    return {
        **row,
        "title": entry.title,
        "family": entry.family,
        "parameters": entry.parameters,
        "context": entry.context,
        "licence": entry.licence,
        "languages": list(entry.languages),
        "modality": list(entry.modality),
        "template": entry.template or "",
        "hub_id": entry.hub_id or "",
    }


def _shape_facts(shape: ModelShape) -> dict[str, Any]:
    return {
        "family": shape.architecture,
        "parameters": shape.total_parameters(),
        "context": shape.max_position_embeddings,
    }


def _blank(name: str, source: str) -> dict[str, Any]:
    """A row of which only the name is known."""
    return {
        "name": name,
        "title": name,
        "source": source,
        "family": "",
        "parameters": 0,
        "context": 0,
        "licence": "",
        "languages": [],
        "modality": ["text"],
        "template": "",
        "hub_id": "",
        "verdict": "",
        "memory": 0,
        "seconds": 0.0,
        "cure": "",
        "change": {},
        "why": "",
    }
