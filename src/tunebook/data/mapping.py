"""Columns mapped by hand: which column is which part, and a question merged from several.

This module knows names and templates with braces; what a format is, `formats` knows.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from tunebook.data.turns import wrong
from tunebook.errors import RecipeInvalid

PARTS = {
    "messages": ["messages", "conversations", "conversation"],
    "prompt": ["prompt", "question", "user"],
    "completion": ["completion", "answer", "response", "assistant"],
    "instruction": ["instruction"],
    "input": ["input"],
    "output": ["output"],
    "system": ["system"],
    "text": ["text"],
    "chosen": ["chosen"],
    "rejected": ["rejected"],
    "label": ["label"],
    "reference": ["reference", "ground_truth", "solution"],
}
_PART_OF = {alias: part for part, aliases in PARTS.items() for alias in aliases}
_BLOCK = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
_FIELD = re.compile(r"\{([^{}]+)\}")


def standard_columns(columns: dict[str, str], names: list[str]) -> dict[str, str]:
    """A mapping by the parts' own names, after looking that the columns are there.

    Raises:
        RecipeInvalid: a part is unknown, or a column is not in the dataset.
    """
    mapped = {}
    for part, column in columns.items():
        if part not in _PART_OF:
            raise RecipeInvalid(
                f"`data.columns` maps an unknown part, `{part}`.",
                f"parts are {', '.join(PARTS)}.",
                f"write one of these before `={column}`.",
            )
        _require(column, names, "data.columns")
        mapped[_PART_OF[part]] = column
    return mapped


def require_fields(template: str, names: list[str]) -> None:
    """Look that every `{column}` of a merged prompt is a column.

    Raises:
        RecipeInvalid: one is not, or there is none, or a block is not closed.
    """
    fields = [name for literal, block in _pieces(template) for name in _FIELD.findall(literal)]
    if not fields:
        raise RecipeInvalid(
            "`data.merged_prompt` names no column.",
            f"{template!r} holds no name in braces.",
            "write columns in braces, such as `{instruction}[[\\nInput: {input}]]`.",
        )
    opened, closed = template.count("[["), template.count("]]")
    if opened != closed:
        raise RecipeInvalid(
            "`data.merged_prompt` has a block that is not closed.",
            f"{template!r} holds {opened} `[[` and {closed} `]]`.",
            "close every `[[` with `]]`.",
        )
    for field in fields:
        _require(field, names, "data.merged_prompt")


def fill(template: str, row: dict[str, Any], place: str) -> str:
    """The merged prompt of one row; a `[[block]]` is left out where one of its columns is empty.

    Raises:
        RowInvalid: a column outside of all blocks is missing.
    """
    text = ""
    for literal, optional in _pieces(template):
        values = {name: row.get(name) for name in _FIELD.findall(literal)}
        empty = [name for name, value in values.items() if value is None or value == ""]
        if empty and optional:
            continue
        missing = [name for name in empty if values[name] is None]
        if missing:
            raise wrong(place, f"`{missing[0]}`", "is missing")
        text += _FIELD.sub(lambda found, values=values: str(values[found[1]]), literal)  # type: ignore[misc]
    return text


@functools.lru_cache(maxsize=8)
def _pieces(template: str) -> list[tuple[str, bool]]:
    """The template in order as (text, whether it is an optional block); `\\n` typed is a new line."""
    parts = _BLOCK.split(template.replace("\\n", "\n"))
    return [(part, bool(index % 2)) for index, part in enumerate(parts) if part]


def _require(column: str, names: list[str], field: str) -> None:
    if column not in names:
        listed = ", ".join(f"`{name}`" for name in names) or "none"
        raise RecipeInvalid(
            f"`{field}` names a column that is not there: `{column}`.",
            f"the columns are {listed}.",
            f"write one of these in `{field}`.",
        )
