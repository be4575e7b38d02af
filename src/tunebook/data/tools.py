"""The tools that a row offers the model, in whatever dialect they were written, as JSON schemas.

This module knows no template: how the schemas become text is the template's matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tunebook.data.turns import DEEPEST, describe, too_deep, without_empty, wrong
from tunebook.errors import RowInvalid

Tool = dict[str, Any]
TOOL_COLUMNS = ("tools", "functions")
_NONE: tuple[Any, ...] = (None, "", [], {})


def to_tools(value: Any, place: str, name: str) -> list[Tool] | None:
    """The schemas in a row's value, each as `{"type": "function", "function": {"name", ...}}`.

    A list of objects or its JSON text is understood, with or without the outer object. Schemas that
    have it stay as they are, so that a template writes what it was given.

    Args:
        place: which row, for the error; `name`: the column.

    Returns:
        None where the row offers no tool: templates tell that from an empty list.

    Raises:
        RowInvalid: naming the row, the column and what is no tool.
    """
    where = f"`{name}`"
    # Arrow gives every object the keys of all the others; text keeps its own, with their nulls.
    value = _parsed(value, place, where) if isinstance(value, str) else without_empty(value)
    if value in _NONE:
        return None
    items = value if isinstance(value, list) else [value]
    return [_tool(item, place, where) for item in items]


def named_in(text: str, tools: Any) -> bool:
    """Whether a text holds the name of every tool in quotes, as a written schema does.

    Args:
        tools: as in a row; what is no tool is named nowhere.
    """
    if not text:
        return False
    try:
        found = to_tools(tools, "", "tools") or []
    except RowInvalid:
        return False
    return bool(found) and all(f'"{tool["function"]["name"]}"' in text for tool in found)


def about(tool: Tool) -> tuple[str, str, str]:
    """Name, description and indented schema of a tool, for reading."""
    function = tool["function"]
    rest = {key: value for key, value in function.items() if key not in ("name", "description")}
    schema = json.dumps(rest.get("parameters", rest), indent=2, ensure_ascii=False, default=str)
    return function["name"], str(function.get("description") or ""), schema


def tools_column(names: Iterable[str], sample: list[dict[str, Any]]) -> str | None:
    """The column that holds tools by its name and by the first value in it; None if none does."""
    for name in TOOL_COLUMNS:
        value = next((row[name] for row in sample if row.get(name) not in _NONE), None)
        if name in names and value is not None:
            try:
                if to_tools(value, "", name):
                    return name
            except RowInvalid:
                continue
    return None


def tools_as_text(row: dict[str, Any]) -> dict[str, Any]:
    """The row with lists of tools as JSON text: Arrow would merge the keys of all schemas."""
    changed = {
        name: json.dumps(row[name], ensure_ascii=False, default=str)
        for name in TOOL_COLUMNS
        if isinstance(row.get(name), list | dict)
    }
    return {**row, **changed} if changed else row


def _tool(item: Any, place: str, where: str) -> Tool:
    item = _parsed(item, place, where) if isinstance(item, str) else item
    inner = item.get("function", item) if isinstance(item, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise wrong(place, where, f"holds {describe(item)}, which is no tool with a `name`")
    if isinstance(inner.get("parameters"), str):
        inner = {**inner, "parameters": _parsed(inner["parameters"], place, where)}
    if "function" in item:
        return {**item, "function": inner}
    return {
        "type": "function",
        "function": {key: part for key, part in inner.items() if key != "type"},
    }


def _parsed(text: str, place: str, where: str) -> Any:
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        raise wrong(place, where, f"holds {describe(text)}, which is no JSON") from None
    why = too_deep(value) if text.count("[") + text.count("{") > DEEPEST else None
    if why:
        raise wrong(place, where, f"cannot be used: {why}")
    return value
