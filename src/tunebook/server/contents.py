"""What lies in a run folder besides its log: recipe, plan and files, as plain data.

Everything is bounded, and what cannot be read is said in an error's three parts beside the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunebook.errors import TunebookError, as_tunebook_error
from tunebook.fields import recipe_fields
from tunebook.plan import Plan
from tunebook.recipe import PARTS, Recipe
from tunebook.training.folder import RunFolder

MOST_FILES = 500
DEEPEST = 3
MOST_RECIPE_BYTES = 2**18


def recipe_of(folder: RunFolder) -> dict[str, Any]:
    """The recipe as text and, where it is valid, as groups of titled values."""
    try:
        with folder.recipe_file.open("rb") as file:
            text = file.read(MOST_RECIPE_BYTES).decode(errors="replace")
    except OSError as error:
        return {"text": "", "groups": [], "error": _told(error, "read the recipe")}
    try:
        recipe = Recipe.load(folder.recipe_file)
    except Exception as error:  # a recipe is typed by hand: whatever is wrong in it is told
        return {"text": text, "groups": [], "error": _told(error, "read the recipe")}
    return {"text": text, "groups": [_group(recipe, part) for part in PARTS], "error": {}}


def plan_of(folder: RunFolder) -> dict[str, Any] | None:
    """The forecast and how the plan runs it; None where there is no plan that can be read."""
    try:
        plan = Plan.load(folder.plan_file)
    except (OSError, TunebookError):
        return None
    cost = plan.forecast
    return {
        "parts": [
            {"key": key, "title": key.capitalize(), "bytes": size}
            for key, size in cost.parts.items()
        ],
        "total": cost.total,
        "budget": cost.budget,
        "fits": cost.fits,
        "steps": cost.steps,
        "seconds_per_step": cost.seconds_per_step,
        "seconds_total": cost.seconds_total,
        "hardware": plan.hardware.name,
        "strategy": plan.strategy.spending(),
    }


def files_of(folder: RunFolder) -> dict[str, Any]:
    """The files of a run, folders first, none hidden and no link followed; `more` if there are."""
    files: list[dict[str, Any]] = []
    for entry in _walk(folder.path, 1):
        if len(files) == MOST_FILES:
            return {"files": files, "more": True}
        files.append(entry | {"path": os.path.relpath(entry["path"], folder.path)})
    return {"files": files, "more": False}


def _walk(parent: Path, depth: int) -> Iterator[dict[str, Any]]:
    try:
        with os.scandir(parent) as listing:
            entries = [e for e in listing if not e.name.startswith(".") and not e.is_symlink()]
    except OSError:
        return
    for entry in sorted(entries, key=lambda e: (not e.is_dir(), e.name)):
        try:
            told = entry.stat(follow_symlinks=False)
        except OSError:
            continue  # removed meanwhile, as old checkpoints are
        directory = entry.is_dir(follow_symlinks=False)
        yield {
            "path": entry.path,
            "depth": depth - 1,
            "directory": directory,
            "bytes": 0 if directory else told.st_size,
            "modified": told.st_mtime,
        }
        if directory and depth < DEEPEST:
            yield from _walk(Path(entry.path), depth + 1)


def _group(recipe: Recipe, part: str) -> dict[str, Any]:
    values = getattr(recipe, part).model_dump(mode="json")
    rows = []
    for field in recipe_fields(part):
        value = values[field.path.split(".", 1)[1]]
        default = (
            field.default.model_dump() if hasattr(field.default, "model_dump") else field.default
        )
        rows.append(
            {
                "path": field.path,
                "title": field.title,
                "about": field.description,
                "value": _words(value, field.unit),
                "changed": value != default,
            }
        )
    return {"title": Recipe.model_fields[part].title or part, "rows": rows}


def _words(value: Any, unit: str | None) -> str:
    if value is None or value == [] or value == {} or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return f"{value} {unit}" if unit else str(value)


def _told(error: BaseException, during: str) -> dict[str, str]:
    return as_tunebook_error(error, during=during).to_dict()
