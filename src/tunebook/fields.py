"""Every knob of a recipe as plain data, for forms, help texts and tables.

Made from the recipe's own fields, so that nothing is described twice; knows no widget.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from tunebook.recipe import PARTS, Part, Recipe


class FieldInfo(BaseModel):
    """One knob as a form, a help text or a table needs it; made from the recipe's own fields."""

    path: str = Field(description='Dotted name, such as "lora.r".')
    title: str
    description: str
    type: Literal["string", "integer", "number", "boolean", "choice", "list"]
    default: Any = None
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None
    choices: list[Any] | None = None
    unit: str | None = None
    step: float | None = None
    link: str | None = None
    advanced: bool = False


def recipe_fields(part: str | None = None) -> list[FieldInfo]:
    """Every knob of one part (or of all), in the order of the form."""
    names = [part] if part else list(PARTS)
    return [info for name in names for info in fields_of(PARTS[name], name)]


def fields_of(part: type[Part], name: str) -> list[FieldInfo]:
    """The knobs of one class of them, under dotted names that begin with `name`."""
    fields = []
    for field, about in part.model_json_schema()["properties"].items():
        default = part.model_fields[field].get_default(call_default_factory=True)
        fields.append(_field_info(f"{name}.{field}", about, default))
    return fields


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe file."""
    return Recipe.model_json_schema()


def _field_info(path: str, about: dict[str, Any], default: Any) -> FieldInfo:
    shown: Any
    kinds = [item for item in about.get("anyOf", [about]) if item.get("type") != "null"]
    kind = next((item for item in kinds if item.get("type") == "array"), kinds[0])
    if kind.get("type") == "array":
        shown, choices = "list", kind.get("items", {}).get("enum")
        if choices is None and "const" in kind.get("items", {}):
            choices = [kind["items"]["const"]]
    elif "enum" in kind or "const" in kind:
        shown, choices = "choice", kind.get("enum", [kind.get("const")])
    else:  # a mapping is typed as text: part=column, part=column
        shown, choices = "string" if kind["type"] == "object" else kind["type"], None
    return FieldInfo(
        path=path,
        title=about["title"],
        description=about["description"],
        type=shown,
        default=default,
        optional=any(item.get("type") == "null" for item in about.get("anyOf", [])),
        minimum=kind.get("minimum"),
        maximum=kind.get("maximum"),
        exclusive_minimum=kind.get("exclusiveMinimum"),
        exclusive_maximum=kind.get("exclusiveMaximum"),
        choices=choices,
        unit=about.get("unit"),
        step=about.get("step"),
        link=about.get("link"),
        advanced=about.get("advanced", False),
    )
