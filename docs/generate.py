"""Write the pages of this folder, and the JSON schema, from the code's own tables.

Run by `make docs`; a test fails when the files are not what this would write.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunebook.data.files import FILE_KINDS
from tunebook.data.findings import TEXTS
from tunebook.data.fixes import FIXES
from tunebook.data.formats import INSTRUCTION, detect_format
from tunebook.data.images import MOST_PIXELS
from tunebook.data.names import TEMPLATES
from tunebook.export import FORMATS, predicted_sizes
from tunebook.export.gguf.architectures import ARCHITECTURES
from tunebook.export.gguf.mixes import ALIASES
from tunebook.export.gguf.quality import Choice, choices
from tunebook.export.gguf.vision_families import VISION_FAMILIES
from tunebook.fields import FieldInfo, json_schema, recipe_fields
from tunebook.models.catalog import find
from tunebook.recipe import PARTS, Recipe, write_atomic

HERE = Path(__file__).parent
# A row of each format; what is said of it is what detection says.
ROWS = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
    {"instruction": "Translate.", "input": "Hi", "output": "Ho"},
    {"prompt": "Hi", "completion": "Ho"},
    {"question": "Hi", "answer": "Ho"},
    {"text": "Any words."},
    {"prompt": "Hi", "chosen": "Ho", "rejected": "No"},
    {"prompt": "Hi", "completion": "Ho", "label": True},
    {"prompt": "Hi", "reference": "Ho"},
]


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


_PICTURES = f"""## Pictures

A model that sees learns from rows of any of these formats that hold pictures as well:

| where | such as |
| --- | --- |
| in the parts of a turn | `{{"type": "image", "image": ...}}`, `{{"type": "image_url", ...}}` |
| in a column, with places | `images` beside `{{"type": "image"}}` parts, or `<image>` in the text |
| in a column, with no places | before the first question |
| in a column beside a text alone | the text is the answer to `data.merged_prompt`, else to "{INSTRUCTION}" |

A picture is a path (from the data file's folder), bytes, a Pillow image, `datasets.Image`, a data URL
or base64 text. Nothing is fetched: an address is an error. CMYK, palettes, 16 bits, transparency
(laid on white), animations (the first frame), turned photos and giants beyond {MOST_PIXELS / 1e6:.1f}
million pixels are mended when they are opened, and a check says which; what cannot be read is named
with its row. Pictures are opened when a batch is made, by workers where there is a GPU, and none is
kept, so memory does not grow with their number.

The model's own processor says how many tokens a picture takes; `data.min_pixels` and
`data.max_pixels` change that. No token of a picture is learnt, and none is cut off: a row too long is
cut behind its last picture, or where a picture does not fit any more, behind the last answer before
it. A picture that leaves no room for any answer is an error of its row.

In scripts: `VisionDataCollator(model, processor)` from `tunebook`, and from `tunebook.data`
`encode_vision_row(messages, images, processor)` for one row with the tokens of each picture.""".split(
    "\n"
)


def data_page() -> str:
    """The page of sources, formats, findings and fixes."""
    kinds = ", ".join(f"`{ending}`" for ending in FILE_KINDS)
    return "\n".join(
        [
            "# Data",
            "",
            "Rows become token ids and a mask by one path, which the data panel, the checks and the",
            "training share: what you see is what is learnt. `tunebook.preview(source, model)` is the",
            "panel: every row raw, as messages, as text, as tokens and where training puts it.",
            "",
            "The panel offers what it finds: rows in the notebook's variables (whose names win over a",
            "hub id of the same name), data files near it, and files dropped from the computer (copied",
            "to `runs/uploads`) or from JupyterLab's file browser. Where the columns cannot be told it",
            "asks which is which, with the first row read that way; in Python `panel.use_variable(name)`",
            "and `panel.use_columns(kind, {part: column})`. The line in the histogram of lengths is",
            "`model.max_seq_length`: what it cuts is counted exactly, what it costs comes from the plan",
            "(`panel.try_length(tokens)`). Control characters and marks of direction are shown as escapes.",
            "",
            "```console",
            "tunebook check rows.jsonl --model Qwen/Qwen3-0.6B     # or a recipe.yaml: as it would train",
            "tunebook check rows.jsonl --fix drop_duplicates --out new.jsonl",
            "```",
            "",
            "In Python: `tunebook.check(source_or_recipe)`, and from `tunebook.data` `preview_rows`,",
            "`follow_row`, `compare_templates`, `apply_fixes` and `write_rows`.",
            "",
            "## Where rows come from",
            "",
            "| source | what is read |",
            "| --- | --- |",
            f"| a file | {kinds}; those of text may be packed, as `.jsonl.gz` |",
            "| a folder | its data files as one table, by split where their names say one; or what "
            "`save_to_disk` wrote |",
            "| a Hugging Face dataset | `owner/name`, by `data.config` and `data.split`, whole or "
            "by `data.streaming` |",
            "| memory | a list of rows, a `Dataset`, a pandas, polars or Arrow table |",
            "| `tunebook-demo` | a small dataset inside the package |",
            "",
            "A row that cannot be read stops the training; `data.on_bad_rows: skip` leaves it out. A check",
            "reports it and goes on with the others.",
            "",
            "## What rows may look like",
            "",
            "The format is found from the columns; `data.format` and `data.columns` say it instead.",
            "",
            "| format | such as | what is read |",
            "| --- | --- | --- |",
            *map(_format, ROWS),
            "",
            "A column `system` goes before a conversation. A column `tools` (or `functions`) with JSON",
            "schemas, as a list or as its text, is given to the chat template, which writes it where the",
            "model was trained to read it; the panel shows the tools above the conversation.",
            'A message with `"train": false` is never learnt.',
            "",
            *_PICTURES,
            "",
            "## What a check finds",
            "",
            "Beside these, an error that stops the reading of all rows is a finding of its own.",
            "",
            "| code | severity | finding | what to do | fix |",
            "| --- | --- | --- | --- | --- |",
            *map(_finding, TEXTS),
            "",
            "## Fixes",
            "",
            "A fix drops rows or changes texts, shows what it would do first, and goes to a new file or",
            "stays in memory: the source is never written to.",
            "",
            "| fix | what it does |",
            "| --- | --- |",
            *(f"| `{name}` | {words} |" for name, words in FIXES.items()),
            "",
            "## Formulas",
            "",
            "Rows for the LaTeX-OCR task, pictures and LaTeX, come from a grammar of the project's own:",
            "`python -m tunebook.data.formulas --rows 3000 --out DIR` draws `train.parquet` and",
            "`test.parquet` (with `tunebook[formulas]`), and `formula_rows(3000)` of",
            "`tunebook.data.formulas` gives the same in Python; `sample_formulas()` is a hundred rows that",
            "ship with the package. No formula is in both splits, whatever the seed. `exact_match`,",
            "`edit_distance` and `score` of `tunebook.latex` compare answers with the truth in one canonical",
            "form, so that `x^2_i` and `x _ { i } ^ { 2 }` are the same.",
            "",
            "This page is made from the tables in `src/tunebook/data/` by `make docs`.",
            "",
        ]
    )


def export_page(text: str) -> str:
    """The page of exports with its tables made again; the words around them stay."""
    shape = find("Llama-3.1-8B-Instruct").shape
    sizes = predicted_sizes(Recipe(), shape)
    tables = {
        "forms": [
            "| form | what it is | size |",
            "| --- | --- | --- |",
            *(f"| `{f.name}` | {f.description} | {_gb(sizes[f.name])} |" for f in FORMATS.values()),
        ],
        "types": [
            "| type | bits a weight of Llama 3.1 8B | size | closeness | good for |",
            "| --- | --- | --- | --- | --- |",
            *(_type(choice) for choice in choices(shape)),
        ],
        "names": [
            "| name | is written as |",
            "| --- | --- |",
            *(f"| `{name}` | `{mix.lower()}` |" for name, mix in ALIASES.items()),
        ],
        "families": [
            "| `model_type` | llama.cpp calls it |",
            "| --- | --- |",
            *(f"| `{name}` | `{family.name}` |" for name, family in ARCHITECTURES.items()),
        ],
        "vision families": [
            "| family | llama.cpp's projector |",
            "| --- | --- |",
            *(f"| `{name}` | `{family.projector}` |" for name, family in VISION_FAMILIES.items()),
        ],
    }
    for name, lines in tables.items():
        begin, end = f"<!-- made: {name} -->\n", "<!-- end -->"
        before, _, rest = text.partition(begin)
        text = before + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2]
    return text


def _type(choice: Choice) -> str:
    quality = choice.quality
    words = f"{quality.closeness} | {quality.sentence}"
    return f"| `{choice.name}` | {choice.bits:.2f} | {_gb(choice.bytes)} | {words} |"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def _format(row: dict[str, Any]) -> str:
    found = detect_format([row])
    return f"| `{found.format}` | `{json.dumps(row)}` | {found.reason} |"


def _finding(code: str) -> str:
    severity, title, do, fix = TEXTS[code]
    words = {"n": "N", "rows": "M", "share": "P %", "why": "…"}
    title, do = (text.format(**words).replace("….", "…") for text in (title, do))
    return f"| `{code}` | {severity} | {title} | {do} | {f'`{fix}`' if fix else ''} |"


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
    write_atomic(HERE / "data.md", data_page())
    export = HERE / "export.md"
    write_atomic(export, export_page(export.read_text(encoding="utf-8")))
