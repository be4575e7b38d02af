"""The nouns of planning: the strategy of a run, its forecast, and the plan that holds both.

They are data with a file form; how they are computed stands in the modules beside this one.
"""

from __future__ import annotations

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


class Strategy(BaseModel):
    """How a recipe is run on a device."""

    model_config = ConfigDict(frozen=True)

    micro_batch: int = Field(ge=1, description="Rows of one forward pass.")
    gradient_accumulation_steps: int = Field(ge=1)
    gradient_checkpointing: bool
    dtype: Literal["bfloat16", "float16", "float32"] = Field(description="Compute dtype.")
    optimizer: str = Field(description='Resolved: never "auto".')
    attention: str = "sdpa"
    adapter_dtype: Literal["bfloat16", "float16", "float32"] = "float32"

    @property
    def effective_batch(self) -> int:
        """Rows per weight update."""
        return self.micro_batch * self.gradient_accumulation_steps


class Forecast(BaseModel):
    """What a run will take. Bytes are those live at the moment of the peak of one step."""

    model_config = ConfigDict(frozen=True)

    parts: dict[str, int] = Field(description="Bytes by part, in the order of the bar.")
    total: int = Field(description="Bytes at the peak: the sum of the parts.")
    budget: int = Field(description="Bytes that may be used.")
    fits: bool
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

    @property
    def fits(self) -> bool:
        """Whether the forecast stays within the budget."""
        return self.forecast.fits

    def save(self, path: Path | str) -> Path:
        """Write as JSON, atomically. Returns the path."""
        path = Path(path)
        write_atomic(path, self.model_dump_json(indent=2) + "\n")
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
        recompute = "on" if strategy.gradient_checkpointing else "off"
        verdict = "fits" if forecast.fits else "DOES NOT FIT"
        lines = [
            f"{self.recipe.get('model')} on {self.hardware.name} ({self.hardware.device})",
            f"  memory  {size(forecast.total)} of {size(forecast.budget)}: {verdict}",
            f"          {parts}",
            f"  steps   {strategy.micro_batch} rows x {strategy.gradient_accumulation_steps} "
            f"of up to {forecast.sequence_length} tokens, {strategy.dtype}, {strategy.optimizer}, "
            f"recompute {recompute}",
            f"  time    about {duration(forecast.seconds_per_step)} a step"
            + (
                f", {duration(forecast.seconds_total)} for {forecast.steps} steps"
                if forecast.seconds_total is not None
                else ""
            ),
        ]
        return "\n".join(lines + [f"  change  {item}" for item in self.advice])

    def __str__(self) -> str:
        return self.summary()


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
