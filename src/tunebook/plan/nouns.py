"""The nouns of planning: the strategy of a run, its forecast, and the plan that holds both.

They are data with a file form; how they are computed stands in the modules beside this one.
"""

from __future__ import annotations

import re
from collections import Counter
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunebook.errors import RecipeInvalid
from tunebook.plan.hardware import GIB, Hardware
from tunebook.recipe import write_atomic

SCHEMA_VERSION = 1
PARTS = (
    "weights",
    "embeddings",
    "adapters",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "scratch",
)


class DataSize(BaseModel):
    """How much there is to learn from; lengths in tokens, already cut to the longest allowed."""

    model_config = ConfigDict(frozen=True)

    rows: int = Field(ge=1)
    mean_length: float = Field(gt=0)
    max_length: int = Field(ge=1, description="Of the longest row.")


class Level(IntEnum):
    """How much of a decoder layer the fused engine keeps for the backward; each adds to the last.

    The input of the layer stays always, on the device or in the host's memory (`offloaded_layers`),
    and down's product is never made again.
    """

    NOTHING = 0
    RESIDUAL = 1  # the sum after the attention: o's product is not made again
    OUTPUT = 2  # the attention's output: q, k and v are made again, but not attention
    ATTENTION = 3  # q, k and v
    GATE_UP = 4  # gate and up
    ALL = 5  # the outputs of the two norms


_LEVEL_WORDS = {
    Level.NOTHING: "keeps only the inputs",
    Level.RESIDUAL: "keeps the sums",
    Level.OUTPUT: "keeps attention's outputs",
    Level.ATTENTION: "keeps attention",
    Level.GATE_UP: "keeps attention and MLP",
    Level.ALL: "keeps everything",
}
Offload = Literal["inputs", "sums", "output", "attention"]
OFFLOADED_WORDS: dict[Offload, str] = {
    "inputs": "inputs",
    "sums": "inputs and sums",
    "output": "inputs, sums and attention's outputs",
    "attention": "inputs, sums and attention",
}


class Strategy(BaseModel):
    """How a recipe is run on a device.

    The fused engine decides for each decoder layer what it keeps (`levels`) and whether its weights
    stay unpacked; the stock one recomputes all layers or none (`gradient_checkpointing`).
    """

    model_config = ConfigDict(frozen=True)

    micro_batch: int = Field(ge=1, description="Rows of one forward pass.")
    gradient_accumulation_steps: int = Field(ge=1)
    gradient_checkpointing: bool
    dtype: Literal["bfloat16", "float16", "float32"] = Field(description="Compute dtype.")
    optimizer: str = Field(description='Resolved: never "auto".')
    attention: str = Field(default="sdpa", description="Kernel that is expected to serve.")
    adapter_dtype: Literal["bfloat16", "float16", "float32"] = "float32"
    engine: Literal["fused", "stock"] = "stock"
    levels: tuple[Level, ...] = Field(
        default=(), description="Of each decoder layer, first to last; empty for the stock engine."
    )
    resident_layers: int = Field(
        default=0, ge=0, description="Layers, from the first, whose weights stay unpacked."
    )
    loss_chunk: int | None = Field(
        default=None, ge=1, description="Tokens whose logits are held at once; None: the kernel's."
    )
    mlp_tile: int | None = Field(
        default=None, ge=1, description="Tokens that an MLP which keeps nothing works on at a time."
    )
    offloaded_layers: int = Field(
        default=0,
        ge=0,
        description="Layers, from the first, of which something waits in pinned host memory.",
    )
    offloaded: Offload = Field(
        default="inputs",
        description="What of them waits there, as far as it is kept, each with what stands before it.",
    )
    host_embedding: bool = Field(
        default=False,
        description="Whether the input embedding lies in the host's memory and is read over the link.",
    )

    @property
    def effective_batch(self) -> int:
        """Rows per weight update."""
        return self.micro_batch * self.gradient_accumulation_steps

    def spending(self) -> list[str]:
        """In words, what memory is spent on: "keeps everything", "weights unpacked in 12 layers"."""
        if self.engine == "stock":
            return [
                "recomputes activations" if self.gradient_checkpointing else "keeps activations"
            ]
        counts = sorted(Counter(self.levels).items(), reverse=True)
        words = [
            _LEVEL_WORDS[level] + (f" of {_layers(count)}" if len(counts) > 1 else "")
            for level, count in counts
        ]
        if self.resident_layers:
            everywhere = self.resident_layers == len(self.levels)
            where = "" if everywhere else f" in {_layers(self.resident_layers)}"
            words.append(f"weights stay unpacked{where}")
        if self.host_embedding:
            words.append("input embedding in the host's memory")
        if self.offloaded_layers:
            what = OFFLOADED_WORDS[self.offloaded]
            words.append(f"{what} of {_layers(self.offloaded_layers)} wait in the host's memory")
        if self.loss_chunk:
            words.append(f"loss by {self.loss_chunk} tokens")
        if self.mlp_tile:
            words.append(f"MLP by {self.mlp_tile} tokens")
        return words


def _layers(count: int) -> str:
    return f"{count} layer" if count == 1 else f"{count} layers"


class Forecast(BaseModel):
    """What a run will take. Bytes are those live at the moment of the peak of one step."""

    model_config = ConfigDict(frozen=True)

    parts: dict[str, int] = Field(description="Bytes by part, in the order of the bar.")
    total: int = Field(description="Bytes at the peak: the sum of the parts.")
    budget: int = Field(description="Bytes that may be used.")
    fits: bool
    host: int = Field(default=0, description="Bytes of pinned host memory, beside the total.")
    sequence_length: int = Field(description="Tokens of the longest padded row.")
    tokens_per_step: int = Field(description="Non-padding tokens of one weight update.")
    seconds_per_step: float = Field(description="Of one weight update, an estimate.")
    steps: int | None = Field(default=None, description="None while the rows are not counted.")
    seconds_total: float | None = None

    @property
    def resident(self) -> int:
        """Bytes that stay between steps: weights, adapters, gradients, optimizer state."""
        return sum(self.parts[name] for name in PARTS[:5])


class Plan(BaseModel):
    """A strategy, what it will cost, and what else was tried; the content of `plan.json`."""

    schema_version: Literal[1] = 1
    recipe: dict[str, Any] = Field(description="The fields of the recipe that the plan rests on.")
    hardware: Hardware
    strategy: Strategy
    forecast: Forecast
    rungs: list[str] = Field(default_factory=list, description="What was tried, in order, and why.")
    advice: list[str] = Field(default_factory=list, description="Changes that would make it fit.")
    notes: list[str] = Field(default_factory=list, description="What the forecast rests on.")

    @property
    def fits(self) -> bool:
        """Whether the forecast stays within the budget."""
        return self.forecast.fits

    @property
    def forecast_error(self) -> float:
        """How far, as a share, the measured peak has been from the forecast in the benchmarks.

        `benchmarks/NOTES.md`: within 5 % on a GPU; on a CPU, where blocks of steps are profiled, 15 %.
        """
        return 0.15 if self.hardware.device == "cpu" else 0.05

    def save(self, path: Path | str) -> Path:
        """Write as JSON, atomically. Returns the path."""
        path = Path(path)
        text = re.sub(r"\[[\d,\s]+\]", _on_one_line, self.model_dump_json(indent=2))
        write_atomic(path, text + "\n")
        return path

    @classmethod
    def load(cls, path: Path | str) -> Plan:
        """A plan from its file.

        Raises:
            RecipeInvalid: the file is not a plan of this schema.
            FileNotFoundError: there is no such file.
        """
        path = Path(path)
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise RecipeInvalid(
                f"The plan {path} cannot be read.",
                str(error),
                "delete it: a plan is made anew at any time.",
            ) from None

    def summary(self) -> str:
        """A few lines of text: strategy, memory by part against the budget, time."""
        forecast, strategy = self.forecast, self.strategy
        parts = ", ".join(
            f"{name} {size(value)}" for name, value in forecast.parts.items() if value
        )
        verdict = "fits" if forecast.fits else "DOES NOT FIT"
        lines = [
            f"{self.recipe.get('model')} on {self.hardware.name} ({self.hardware.device})",
            f"  memory  {size(forecast.total)} of {size(forecast.budget)}: {verdict}",
            f"          {parts}",
            f"  steps   {strategy.micro_batch} rows x {strategy.gradient_accumulation_steps} "
            f"of up to {forecast.sequence_length} tokens, {strategy.dtype}, {strategy.optimizer}, "
            + ", ".join(strategy.spending()),
            f"  time    about {duration(forecast.seconds_per_step)} a step"
            + (
                f", {duration(forecast.seconds_total)} for {forecast.steps} steps"
                if forecast.seconds_total is not None
                else ""
            ),
        ]
        lines += [f"  change  {item}" for item in self.advice]
        return "\n".join(lines + [f"  note    {item}" for item in self.notes])

    def __str__(self) -> str:
        return self.summary()


def _on_one_line(numbers: re.Match[str]) -> str:
    return " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]")


def size(count: int) -> str:
    """Bytes for reading: "512 MiB", "7.49 GiB"."""
    if count >= GIB:
        return f"{count / GIB:.2f} GiB"
    return f"{count / 2**20:.0f} MiB" if count >= 10 * 2**20 else f"{count / 2**20:.1f} MiB"


def duration(seconds: float) -> str:
    """Seconds for reading: "0.3 s", "4 min", "2.5 h"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
