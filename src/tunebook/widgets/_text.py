"""Numbers and plans as a person reads them: bytes, durations, strategies. Knows nothing of panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunebook.words import (
    bytes_text as bytes_text,
    count_text as count_text,
    duration_text as duration_text,
)

if TYPE_CHECKING:
    from tunebook.plan import Strategy


def strategy_words(strategy: Strategy) -> list[str]:
    """How a plan runs a recipe: "batch 2 × 4", what memory is spent on, dtype, optimizer."""
    batch = f"batch {strategy.micro_batch} × {strategy.gradient_accumulation_steps}"
    return [batch, *strategy.spending(), strategy.dtype, strategy.optimizer]
