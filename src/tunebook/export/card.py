"""The model card: what a tuned model is, made from its recipe and its run's numbers.

Knows the recipe and the catalogue; names no path of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunebook import __version__
from tunebook.curves import smooth
from tunebook.export.commands import takes_pictures, usage
from tunebook.models.catalog import find
from tunebook.recipe import Recipe

# Data of a hub name is named; a file of this machine only by its file name.
_FIELDS = (
    "lora.r",
    "lora.alpha",
    "training.learning_rate",
    "training.epochs",
    "training.max_steps",
)
_RELATIONS = {"adapter": "adapter", "gguf": "quantized", "merged_4bit": "quantized"}
_ROWS = 12  # of the table of losses


@dataclass(frozen=True)
class Curve:
    """How a run's loss went: (step, value) in order."""

    losses: Sequence[tuple[int, float]]
    evaluations: Sequence[tuple[int, float]] = ()


def model_card(
    recipe: Recipe,
    *,
    name: str,
    form: str,
    files: list[str] | None = None,
    numbers: Mapping[str, Any] | None = None,
    curve: Curve | None = None,
    repeatable: bool = True,
) -> str:
    """The text of a `README.md` for the hub.

    Args:
        name: of the repository.
        form: a name of `FORMATS`, or what `commands.form_of` says.
        files: what lies in the repository.
        numbers: what the run measured, such as `{"final loss": "0.012"}`; they win over what the
            recipe says, and None leaves a line of it out.
        curve: the run's losses.
        repeatable: whether the recipe is in the repository and trains the model again.
    """
    base, licence = _base(recipe)
    head: dict[str, Any] = {
        "library_name": {"adapter": "peft", "gguf": "gguf"}.get(form, "transformers"),
        "pipeline_tag": "image-text-to-text"
        if takes_pictures(name, files or [])
        else "text-generation",
        "tags": ["tunebook", *(["lora"] if form == "adapter" else [])],
    }
    if base:
        head["base_model"] = base
        head["base_model_relation"] = _RELATIONS.get(form, "finetune")
    if licence:
        head["license"] = licence
    facts: dict[str, Any] = {
        "Base model": base or Path(recipe.model.name).name,
        "Data": _data_name(recipe.data.source),
        **{path: recipe.get(path) for path in _FIELDS},
        "bits of the base while training": recipe.quantization.bits,
        **(numbers or {}),
    }
    rows = [(key, str(value)) for key, value in facts.items() if value is not None]
    again = "; `recipe.yaml` beside this file trains it again" if repeatable else ""
    return "\n".join(
        [
            "---",
            yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip(),
            "---",
            "",
            f"# {_plain(name.rsplit('/', 1)[-1])}",
            "",
            _intro(recipe, form),
            "",
            *_table(("", ""), rows),
            "",
            *(_losses(curve) if curve is not None and curve.losses else ()),
            "## Use",
            "",
            *_use(usage(form, name, recipe, files=files or [])),
            f"Made with Tunebook {__version__}{again}.",
            "",
        ]
    )


def _use(lines: list[tuple[str, str]]) -> list[str]:
    """Each way to load or serve it, under its title."""
    text = []
    for title, code in lines:
        language = "python" if code.startswith("from ") else "shell"
        text += [f"### {title}", "", f"```{language}", code, "```", ""]
    return text


def _losses(curve: Curve) -> list[str]:
    """The curve as a table of some dozen steps, evenly spread, first and last among them."""
    means = smooth(value for _, value in curve.losses)
    last = len(curve.losses) - 1
    places = sorted({round(last * n / (_ROWS - 1)) for n in range(_ROWS)})
    rows = [
        (str(curve.losses[at][0]), _figure(curve.losses[at][1]), _figure(means[at]))
        for at in places
    ]
    text = ["## Loss", "", *_table(("step", "loss", "smoothed"), rows), ""]
    if curve.evaluations:
        evaluated = [(str(step), _figure(value)) for step, value in curve.evaluations[-_ROWS:]]
        text += [*_table(("step", "evaluation loss"), evaluated), ""]
    return text


def _figure(value: float) -> str:
    return f"{value:.4f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *([_plain(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def portable_recipe(recipe: Recipe) -> Recipe:
    """The recipe without the folders of this machine."""
    changed = {"data.source": _data_name(recipe.data.source)}
    if recipe.data.eval_source:
        changed["data.eval_source"] = _data_name(recipe.data.eval_source)
    if Path(recipe.model.name).expanduser().exists():
        changed["model.name"] = Path(recipe.model.name).name
    return recipe.with_values(changed)


def _intro(recipe: Recipe, form: str) -> str:
    kinds = {
        "adapter": "A LoRA adapter",
        "gguf": "GGUF files, for llama.cpp, Ollama and LM Studio, of a model",
        "merged_4bit": "A whole model in 4 bit (NF4), the adapter merged into it,",
    }
    kind = kinds.get(form, "A whole model, the adapter merged into it,")
    return f"{kind} fine-tuned from `{_base(recipe)[0] or Path(recipe.model.name).name}`."


def _base(recipe: Recipe) -> tuple[str | None, str | None]:
    """The base model's name on the hub and its licence, as far as they are known."""
    entry = find(recipe.model.name)
    if entry is not None:
        return entry.hub_id, None if entry.embedded else entry.licence
    on_disk = Path(recipe.model.name).expanduser().exists()
    return (None if on_disk else recipe.model.name), None


def _data_name(source: str) -> str:
    if source.startswith(("http://", "https://", "hf://")):
        return source
    return Path(source).name if Path(source).expanduser().exists() or "\\" in source else source


def _plain(value: str) -> str:
    """Text that stays text inside a table of markdown."""
    kept = value.replace("\\", "\\\\").replace("|", "\\|").replace("`", "'")
    return " ".join(kept.replace("<", "&lt;").split())
