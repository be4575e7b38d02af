"""The tokenizer of a model, be it given alone or in the processor of a model that sees.

Knows what a processor holds; loads nothing.
"""

from __future__ import annotations

import copy
from typing import Any


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
