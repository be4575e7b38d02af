"""Recipe fields for a form: their description as plain data, and typed text turned into values.

Knows the recipe and nothing of widgets.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from tunebook.errors import RecipeInvalid
from tunebook.fields import FieldInfo, fields_of, recipe_fields
from tunebook.recipe import PARTS, Recipe, columns_as_text
from tunebook.sampling import Sampling

_SAMPLING = "sampling"  # not of the recipe: how the Try panel's answers are drawn


@functools.cache
def _known() -> dict[str, FieldInfo]:
    return {info.path: info for info in [*recipe_fields(), *fields_of(Sampling, _SAMPLING)]}


def field_titles() -> dict[str, str]:
    """What each field is called, by its dotted name."""
    return {path: info.title for path, info in _known().items()}


def field_dicts(parts: tuple[str, ...], without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The fields of some parts as plain data, in the order of the form.

    Args:
        parts: part names (`lora`) or single paths (`model.max_seq_length`).
        without: paths to leave out, because the panel draws them itself.
    """
    chosen = []
    for info in _known().values():
        part = info.path.split(".")[0]
        if (part in parts or info.path in parts) and info.path not in without:
            about = (Sampling if part == _SAMPLING else PARTS[part]).__doc__ or ""
            title = "Sampling" if part == _SAMPLING else Recipe.model_fields[part].title or part
            chosen.append({**info.model_dump(mode="json"), "group": title, "about": about})
    return chosen


def flat_values(recipe: Recipe) -> dict[str, Any]:
    """Every field's value by its dotted name, as JSON data; a mapping as it is typed."""
    nested = recipe.model_dump(mode="json")
    return {
        f"{part}.{field}": columns_as_text(value) if isinstance(value, dict) else value
        for part, fields in nested.items()
        if isinstance(fields, dict)
        for field, value in fields.items()
    }


def parse_typed(path: str, typed: Any) -> Any:
    """The value that a person meant by what was typed or chosen.

    Raises:
        RecipeInvalid: the text is not of the field's type or out of its range; `why` is a sentence
            to put beside the field.
    """
    info = _known().get(path)
    if info is None:
        raise RecipeInvalid(f"There is no field `{path}`.", "no part has it.", "reload the page.")
    if not isinstance(typed, str):
        return typed
    text = typed.strip()
    if not text and info.optional:
        return None
    if info.type in ("integer", "number"):
        return _number(info, text)
    if info.type == "choice":
        return next((choice for choice in info.choices or [] if str(choice) == text), text)
    return text


def _number(info: FieldInfo, text: str) -> float | int:
    kind = int if info.type == "integer" else float
    try:
        value = kind(text.replace("_", ""))
    except ValueError:
        noun = "a whole number" if kind is int else "a number"
        raise _refused(info, f"Write {noun}{_range(info)}." if text else f"Needs {noun}.") from None
    if not math.isfinite(value) or not _inside(info, value):
        raise _refused(info, f"Must be{_range(info)}.")
    return value


def _inside(info: FieldInfo, value: float) -> bool:
    return not (
        (info.minimum is not None and value < info.minimum)
        or (info.maximum is not None and value > info.maximum)
        or (info.exclusive_minimum is not None and value <= info.exclusive_minimum)
        or (info.exclusive_maximum is not None and value >= info.exclusive_maximum)
    )


def _range(info: FieldInfo) -> str:
    limits = [
        ("at least", info.minimum),
        ("more than", info.exclusive_minimum),
        ("at most", info.maximum),
        ("less than", info.exclusive_maximum),
    ]
    said = [f"{word} {limit:,g}" for word, limit in limits if limit is not None]
    return f" {' and '.join(said)}" if said else ""


def _refused(info: FieldInfo, sentence: str) -> RecipeInvalid:
    return RecipeInvalid(f"`{info.path}` cannot be that.", sentence, f"change {info.title}.")
