"""The forms in which a tuned model can be taken away: what each is for, its size, who writes it.

One table that panels, runs and the command line read; a new form is a new row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tunebook.models.shape import ModelShape
from tunebook.recipe import Recipe


@dataclass(frozen=True)
class Format:
    """One form.

    Attributes:
        name: as in `export.formats`; also the name of its folder.
        predicted: bytes of its weights, from the model's shape alone.
        save: `(model, tokenizer, folder, *, recipe, replace, progress) -> Path`.
    """

    name: str
    title: str
    description: str
    predicted: Callable[[ModelShape, Recipe], int]
    save: Callable[..., Path]


def _adapter_bytes(shape: ModelShape, recipe: Recipe) -> int:
    return shape.lora_parameters(recipe.lora) * (
        2 if recipe.lora.adapter_dtype == "bfloat16" else 4
    )


def _merged_bytes(shape: ModelShape, recipe: Recipe) -> int:
    return 2 * shape.total_parameters()


def _gguf_bytes(shape: ModelShape, recipe: Recipe) -> int:
    from tunebook.export.gguf.sizes import predicted_bytes, predicted_projector_bytes

    files = (predicted_bytes(shape, name) for name in recipe.export.gguf_quantization)
    return sum(files) + predicted_projector_bytes(shape)


def _small_bytes(shape: ModelShape, recipe: Recipe) -> int:
    from tunebook.export import four_bits

    linear = shape.linear_parameters()
    rest = shape.total_parameters() - linear
    return int(linear * four_bits.BYTES + 2 * rest)


def _save_adapter(*arguments: Any, **options: Any) -> Path:
    from tunebook.export.adapter import save_adapter

    return save_adapter(*arguments, **options)


def _save_merged(*arguments: Any, **options: Any) -> Path:
    from tunebook.export.merge import save_merged

    return save_merged(*arguments, **options)


def _save_gguf(*arguments: Any, **options: Any) -> Path:
    from tunebook.export.gguf.writer import save_gguf

    return save_gguf(*arguments, **options)


FORMATS: dict[str, Format] = {
    item.name: item
    for item in (
        Format(
            "adapter",
            "Adapter",
            "Only what was learned: small, and put onto the base model when it is loaded.",
            _adapter_bytes,
            _save_adapter,
        ),
        Format(
            "merged_16bit",
            "Merged model, 16 bit",
            "A whole model that needs nothing else: for vLLM, transformers and further conversion.",
            _merged_bytes,
            _save_merged,
        ),
        Format(
            "merged_4bit",
            "Merged model, 4 bit",
            "The same in NF4, a third of the size: for transformers and vLLM on small cards. "
            "Rounding once more costs some quality.",
            _small_bytes,
            partial(_save_merged, method="merged_4bit"),
        ),
        Format(
            "gguf",
            "GGUF",
            "One file with everything in it: for llama.cpp, Ollama, LM Studio and Open WebUI.",
            _gguf_bytes,
            _save_gguf,
        ),
    )
}


def predicted_sizes(recipe: Recipe, shape: ModelShape) -> dict[str, int]:
    """Bytes of each form's weights, before anything is written."""
    return {name: form.predicted(shape, recipe) for name, form in FORMATS.items()}
