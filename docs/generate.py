"""Write docs/recipe.md and docs/recipe.schema.json from the recipe's own fields.

Run by `make docs`; a test fails when the files are not what this would write.
"""

from __future__ import annotations

import json
from pathlib import Path

from tunebook.recipe import PARTS, FieldInfo, json_schema, recipe_fields, write_atomic

HERE = Path(__file__).parent


def recipe_page() -> str:
    """The page of all knobs, a table for each part."""
    lines = [
        "# The recipe",
        "",
        "Every knob of a fine-tuning run. The same names work in Python (`Recipe.of(r=32)`), in a",
        "`recipe.yaml`, on the command line (`tunebook train --r 32`) and in the panels.",
        "This page is made from the fields in `src/tunebook/recipe.py` by `make docs`.",
    ]
    for part, cls in PARTS.items():
        about = (cls.__doc__ or "").strip().splitlines()[0]
        lines += ["", f"## `{part}`", "", about, ""]
        lines += ["| field | what it does | values | default |", "| --- | --- | --- | --- |"]
        lines += [_row(field) for field in recipe_fields(part)]
    return "\n".join(lines) + "\n"


def schema_file() -> str:
    """The JSON schema, for editors."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _row(field: FieldInfo) -> str:
    name = f"`{field.path.split('.')[1]}`"
    text = f"**{field.title}.** {field.description}"
    if field.link:
        text += f" [More]({field.link})"
    default = ", ".join(field.default) if isinstance(field.default, list) else field.default
    shown = "" if default is None else f"`{json.dumps(default) if default == '' else default}`"
    return f"| {name} | {text} | {_values(field)} | {shown} |"


def _values(field: FieldInfo) -> str:
    unit = f" {field.unit}" if field.unit else ""
    if field.choices:
        some = " or " if field.type == "choice" else ", "
        return some.join(f"`{choice}`" for choice in field.choices) + unit
    low, high = field.minimum, field.maximum
    words = []
    if low is not None:
        words.append(f"from {low:.10g}")
    if field.exclusive_minimum is not None:
        words.append(f"above {field.exclusive_minimum:g}")
    if high is not None:
        words.append(f"to {high:.10g}")
    if field.exclusive_maximum is not None:
        words.append(f"below {field.exclusive_maximum:g}")
    return (
        " ".join([field.type, *words]) + unit + (", or empty" if field.optional else "")
    ).strip()


if __name__ == "__main__":
    write_atomic(HERE / "recipe.md", recipe_page())
    write_atomic(HERE / "recipe.schema.json", schema_file())
