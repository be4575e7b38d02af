"""The lines that load or serve what was written. Only lines that work are shown.

Knows names and paths; loads nothing.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from tunebook.models.catalog import find
from tunebook.recipe import Recipe

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes


def usage(form: str, place: str, recipe: Recipe) -> list[tuple[str, str]]:
    """Titles and code for a form of a model.

    Args:
        form: a name of `FORMATS`.
        place: its folder, or its name on the hub.
        recipe: names the base model.
    """
    return _adapter(place, recipe) if form == "adapter" else _whole(place)


def _adapter(place: str, recipe: Recipe) -> list[tuple[str, str]]:
    quoted = json.dumps(place, ensure_ascii=False)
    lines = [
        (
            "Tunebook",
            "from tunebook import FastLanguageModel\n\n"
            f"model, tokenizer = FastLanguageModel.from_pretrained({quoted})",
        )
    ]
    base = _base(recipe)
    if base is None:  # only Tunebook finds the model that ships inside it
        return lines
    peft = (
        "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\n"
        f"model = AutoPeftModelForCausalLM.from_pretrained({quoted})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({quoted})"
    )
    lines.append(("PEFT", peft))
    if rank := next((size for size in _RANKS if size >= recipe.lora.r), None):
        name = Path(place).parent.parent.name or "tuned"
        vllm = (
            f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {rank} \\\n"
            f"  --lora-modules {shlex.quote(f'{name}={place}')}"
        )
        lines.append(("vLLM, as a server", vllm))
    return lines


def _whole(place: str) -> list[tuple[str, str]]:
    quoted = json.dumps(place, ensure_ascii=False)
    return [
        (
            "transformers",
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f"model = AutoModelForCausalLM.from_pretrained({quoted})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({quoted})",
        ),
        ("vLLM, as a server", f"vllm serve {shlex.quote(place)}"),
    ]


def _base(recipe: Recipe) -> str | None:
    """What other programs call the base model; None for the one inside the package."""
    entry = find(recipe.model.name)
    if entry is None:
        return recipe.model.name
    return None if entry.embedded else entry.hub_id
