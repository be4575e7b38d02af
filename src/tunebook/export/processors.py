"""The tokenizer and the processor of a model, whichever of them is given.

Knows what a processor holds; knows no files of its own.
"""

from __future__ import annotations

import copy
from typing import Any

from tunebook.errors import ModelInvalid, TunebookError
from tunebook.models.vision import load_processor
from tunebook.recipe import ModelPart, Recipe


def words_of(processor: Any) -> Any:
    """A tokenizer itself, or the one in a processor, with the processor's chat template."""
    words = getattr(processor, "tokenizer", None)
    if words is None:
        return processor
    template = getattr(processor, "chat_template", None)
    if template and words.chat_template != template:
        words = copy.copy(words)  # the one in the processor is left as it is
        words.chat_template = template
    return words


def processor_of(base: Any, given: Any, recipe: Recipe | None = None) -> Any:
    """The processor of a model that sees: what is given, or the one beside the model's weights.

    Args:
        base: the model inside the PEFT wrapper.
        given: its processor, or its tokenizer, which is put into the processor that is loaded.
        recipe: names the model.

    Raises:
        ModelInvalid: none is given and none is there.
    """
    if hasattr(given, "image_processor"):
        return given
    part = recipe.model if recipe is not None else ModelPart(name=base.name_or_path or "unknown")
    try:
        processor: Any = load_processor(part)
    except TunebookError as error:
        raise ModelInvalid(
            "The vision tower cannot be written without the picture processor.",
            f"a tokenizer was given alone, and beside {part.name!r} there is none: {error.what}",
            "give the model's processor in place of its tokenizer.",
        ) from error
    processor.tokenizer = given
    processor.chat_template = given.chat_template or processor.chat_template
    return processor
