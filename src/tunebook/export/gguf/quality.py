"""What each GGUF quantization is good for, in words, beside what it takes: the table people choose from.

The words follow the divergences that llama.cpp publishes for Llama 3 8B (tools/perplexity/README.md).
Knows mixes and shapes; no weights, no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tunebook.export.gguf.sizes import predicted_bytes
from tunebook.models.shape import ModelShape


@dataclass(frozen=True)
class Quality:
    """How close a quantization stays to the model.

    Attributes:
        closeness: in a word or two.
        sentence: what it is good for.
        usual: whether it is one of the few that serve nearly everybody.
    """

    closeness: str
    sentence: str
    usual: bool = False


QUALITIES: dict[str, Quality] = {
    "F32": Quality("32 bit", "For comparing digit by digit; twice as large as 16 bit."),
    "BF16": Quality("16 bit", "The whole model, for converting it again later.", usual=True),
    "F16": Quality("16 bit", "For programs and cards that know no bf16."),
    "Q8_0": Quality(
        "like 16 bit", "Half of 16 bit and as good: the choice where room is no matter.", usual=True
    ),
    "Q6_K": Quality("very close", "For when q8_0 is just too large.", usual=True),
    "Q5_K_M": Quality(
        "close", "Clearly closer than the 4-bit types for a little more room.", usual=True
    ),
    "Q5_K_S": Quality("close", "A little smaller than q5_k_m, a little further off."),
    "Q5_1": Quality("close", "An older type, for programs that know no K types."),
    "Q5_0": Quality("close", "An older type, smaller than q5_1."),
    "DYNAMIC": Quality(
        "good",
        "A type for each tensor by what it costs on your rows, in q4_k_m's size; takes minutes.",
        usual=True,
    ),
    "Q4_K_M": Quality(
        "good", "Under a third of 16 bit and still good: begin with this one.", usual=True
    ),
    "Q4_K_S": Quality("good", "A little smaller than q4_k_m, a little further off."),
    "Q4_1": Quality("fair", "An older type, a little larger than q4_0."),
    "Q4_0": Quality(
        "fair", "An older, simple type that many programs know; q4_k_s is closer at its size."
    ),
    "IQ4_NL": Quality("good", "Like iq4_xs, for rows that no block of 256 divides."),
    "IQ4_XS": Quality(
        "good",
        "The smallest of 4 bit; with importance data nearly as close as q4_k_s.",
        usual=True,
    ),
    "Q3_K_L": Quality("weak", "The largest of 3 bit."),
    "Q3_K_M": Quality("weak", "Only if nothing larger fits: answers begin to suffer.", usual=True),
    "Q3_K_S": Quality("weak", "The smallest of 3 bit."),
    "Q2_K": Quality("poor", "The last resort: many times as far off as 4 bit.", usual=True),
    "Q2_K_L": Quality("poor", "q2_k whose embeddings have 8 bit."),
}


@dataclass(frozen=True)
class Choice:
    """A row of the table.

    Attributes:
        name: as in the recipe, such as "q4_k_m".
        bytes: of the file's tensors.
        bits: of a weight, on average.
    """

    name: str
    quality: Quality
    bytes: int
    bits: float


@lru_cache(maxsize=8)
def choices(shape: ModelShape) -> tuple[Choice, ...]:
    """What each quantization makes of a model of this shape, the largest first."""
    weights = shape.total_parameters()
    sizes = {name: predicted_bytes(shape, name) for name in QUALITIES}
    rows = [
        Choice(name.lower(), quality, sizes[name], 8 * sizes[name] / weights)
        for name, quality in QUALITIES.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.bytes))
