"""Changes of a recipe that would make it fit, the mildest first.

Tries them by forecast, in the strategy at hand; chooses no strategy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunebook.models.shape import ModelShape
from tunebook.plan.forecast import make_forecast
from tunebook.plan.hardware import Hardware
from tunebook.plan.nouns import DataSize, Level, Strategy, size
from tunebook.recipe import Recipe

_LENGTHS = (4096, 2048, 1024, 512, 256, 128)


@dataclass(frozen=True)
class Change:
    """Some fields with other values, and what the recipe would need then.

    Attributes:
        words: such as "set `quantization.bits` to 4".
        values: by dotted name.
        total: bytes.
    """

    words: str
    values: dict[str, Any]
    total: int

    @property
    def text(self) -> str:
        """The words with the size in brackets."""
        return f"{self.words} ({size(self.total)})"


def changes_that_fit(
    recipe: Recipe,
    shape: ModelShape,
    strategy: Strategy,
    hardware: Hardware,
    budget: int,
    data: DataSize | None = None,
) -> list[Change]:
    """One change of each kind that would do: recompute, fewer bits, shorter rows, the two together.

    Args:
        strategy: the smallest one that there is for the recipe as it stands.
    """
    found: list[Change] = []
    for alternatives in _tries(_longest(recipe, data)):
        for words, values in alternatives:
            other = recipe.with_values(dict(values))
            if other == recipe or (found and " and " in words):
                continue
            small = _recomputing(strategy) if "gradient" in words else strategy
            forecast = make_forecast(other, shape, small, hardware, budget, data)
            if forecast.fits:
                found.append(Change(words, values, forecast.total))
                break
    return found


def _tries(longest: int) -> list[list[tuple[str, dict[str, Any]]]]:
    both = "set `quantization.bits` to 4 and `model.max_seq_length` to"
    return [
        [
            (
                "turn on `training.gradient_checkpointing`",
                {"training.gradient_checkpointing": "auto"},
            )
        ],
        [("set `quantization.bits` to 4", {"quantization.bits": 4})],
        [
            (f"set `model.max_seq_length` to {length}", {"model.max_seq_length": length})
            for length in _LENGTHS
            if length < longest
        ],
        [
            (
                f"{both} {length}",
                {"quantization.bits": 4, "model.max_seq_length": length},
            )
            for length in (512, 256, 128)
            if length <= longest
        ],
    ]


def _longest(recipe: Recipe, data: DataSize | None) -> int:
    limit = recipe.model.max_seq_length
    return min(limit, data.max_length) if data else limit


def _recomputing(strategy: Strategy) -> Strategy:
    if strategy.engine == "stock":
        return strategy.model_copy(update={"gradient_checkpointing": True})
    return strategy.model_copy(update={"levels": (Level.NOTHING,) * len(strategy.levels)})
