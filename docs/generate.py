"""Write docs/recipe.md, docs/recipe.schema.json and docs/templates.md from the code's own tables.

Run by `make docs`; a test fails when the files are not what this would write.
"""

from __future__ import annotations

import json
from pathlib import Path

from tunebook.data.names import TEMPLATES
from tunebook.fields import FieldInfo, json_schema, recipe_fields
from tunebook.recipe import PARTS, write_atomic

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


def templates_page() -> str:
    """The page of chat templates by name."""
    lines = [
        "# Chat templates",
        "",
        "A chat template is the text in which a model reads a conversation. A model that was trained",
        "to chat should keep its own (`tunebook`, the default); another one is for a base model, or",
        "for data that must look in a certain way. `tunebook.check` says when a template is not the",
        "one that the model was trained with.",
        "",
        'Set one by name (`Recipe.of(chat_template="chatml")`,',
        '`get_chat_template(tokenizer, "chatml")`), as the path of a `.jinja` file, or as Jinja text.',
        "Case, dots and dashes in names do not matter. Each file marks what the assistant says with",
        "`{% generation %}`, so the tokens that are learnt need no search. Templates are programs and",
        "run in a sandbox: one that reaches out of it, or never ends, is refused.",
        "",
        'A message with `"train": false` is never learnt, whatever `data.train_on` says.',
        "",
        "| name | what it is | also called | ends a turn with |",
        "| --- | --- | --- | --- |",
    ]
    for entry in TEMPLATES:
        also = ", ".join(f"`{name}`" for name in entry.aliases)
        # The model's own template ends turns in its own way.
        own = "" if entry.file is None else "the tokenizer's end token"
        stop = f"`{entry.stop}`".replace("|", "\\|") if entry.stop else own
        about = entry.about.replace("|", "\\|")
        lines.append(f"| `{entry.name}` | **{entry.title}.** {about} | {also} | {stop} |")
    lines += [
        "",
        "The masks of all of these, and of the models' own templates, are held against an independent",
        "reference by `benchmarks/mask_table.py`.",
        "",
        "This page is made from `src/tunebook/data/names.py` by `make docs`.",
    ]
    return "\n".join(lines) + "\n"


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
    write_atomic(HERE / "templates.md", templates_page())
