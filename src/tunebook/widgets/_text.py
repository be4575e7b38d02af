"""Numbers and plans as a person reads them: bytes, durations, strategies. Knows nothing of panels."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from tunebook.words import (
    bytes_text as bytes_text,
    count_text as count_text,
    duration_text as duration_text,
)

if TYPE_CHECKING:
    from tunebook.plan import Strategy


def visible(text: str) -> str:
    """The text with characters that would steer what shows it written out, such as `\\u202e`.

    Those are control characters but for new lines and tabs, marks of writing direction, and
    separators; joiners stay, since letters of some scripts need them.
    """
    return "".join(
        _escape(c) if unicodedata.category(c) in _STEERING and c not in _PLAIN else c for c in text
    )


_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
_PLAIN = "\n\t\u200c\u200d\u00ad"  # the joiners, the soft hyphen


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def strategy_words(strategy: Strategy) -> list[str]:
    """How a plan runs a recipe: "batch 2 × 4", what memory is spent on, dtype, optimizer."""
    batch = f"batch {strategy.micro_batch} × {strategy.gradient_accumulation_steps}"
    return [batch, *strategy.spending(), strategy.dtype, strategy.optimizer]
