"""The model card: what a tuned model is, made from its recipe and its run's numbers.

Knows the recipe and the catalogue; names no path of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tunebook import __version__
from tunebook.export.commands import usage
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


def model_card(
    recipe: Recipe,
    *,
    name: str,
    form: str,
    numbers: Mapping[str, Any] | None = None,
) -> str:
    """The text of a `README.md` for the hub.

    Args:
        name: of the repository.
        form: a name of `FORMATS`.
        numbers: what the run measured, such as `{"final loss": "0.012"}`.
    """
    base, licence = _base(recipe)
    head: dict[str, Any] = {
        "library_name": "peft" if form == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["tunebook", *(["lora"] if form == "adapter" else [])],
    }
    if base:
        head["base_model"] = base
        head["base_model_relation"] = "adapter" if form == "adapter" else "finetune"
    if licence:
        head["license"] = licence
    facts = {"Base model": base or recipe.model.name, "Data": _data_name(recipe.data.source)}
    for path in _FIELDS:
        value = recipe.get(path)
        if value is not None:
            facts[path] = str(value)
    facts["bits of the base while training"] = str(recipe.quantization.bits)
    facts.update({key: str(value) for key, value in (numbers or {}).items()})
    code = usage(form, name, recipe)[0][1]
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
            "| | |",
            "| --- | --- |",
            *(f"| {_plain(key)} | {_plain(value)} |" for key, value in facts.items()),
            "",
            "## Use",
            "",
            "```python",
            code,
            "```",
            "",
            f"Made with Tunebook {__version__}; `recipe.yaml` beside this file trains it again.",
            "",
        ]
    )


def portable_recipe(recipe: Recipe) -> Recipe:
    """The recipe without the folders of this machine."""
    changed = {"data.source": _data_name(recipe.data.source)}
    if recipe.data.eval_source:
        changed["data.eval_source"] = _data_name(recipe.data.eval_source)
    if Path(recipe.model.name).expanduser().exists():
        changed["model.name"] = Path(recipe.model.name).name
    return recipe.with_values(changed)


def _intro(recipe: Recipe, form: str) -> str:
    kind = "A LoRA adapter" if form == "adapter" else "A whole model, the adapter merged into it,"
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
