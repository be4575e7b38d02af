"""The ladder of the fused engine: what each decoder layer keeps, and where weights stay unpacked.

Knows which rungs there are and their order, and finds the first that fits; the bytes come from the
caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunebook.models.shape import ModelShape
from tunebook.plan.fused_memory import FEWEST_ROWS, default_chunk
from tunebook.plan.hardware import Hardware
from tunebook.plan.nouns import Level, Strategy
from tunebook.recipe import Recipe

ARCHITECTURES = frozenset(
    {
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "llama",
        "mistral",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
    }
)
"""Model types whose decoder layers the engine runs fused."""

_OLDEST = (7, 0)  # compute capability that Triton compiles for
_LAST_RESORTS: tuple[tuple[int | None, int | None], ...] = (
    (None, 2048),
    (None, 1024),
    (512, 1024),
    (256, 1024),
)
"""Tokens of the loss (None: the usual chunk) and of an MLP at once where nothing else helps: weights
are unpacked for each tile anew, and products get slow below 1024."""


def runs_fused(shape: ModelShape, recipe: Recipe, hardware: Hardware) -> bool:
    """Whether the engine runs this model's layers fused here, as far as a config tells."""
    return (
        hardware.device == "cuda"
        and _capability(hardware) >= _OLDEST
        and shape.architecture in ARCHITECTURES
        and shape.qk_norm != "full"
    )


def resolve_attention(shape: ModelShape, recipe: Recipe, hardware: Hardware) -> str:
    """The kernel that `engine.attention` will choose for plain rows, or packed ones."""
    generation = _capability(hardware)[0]
    if shape.attention_softcap:
        return "capped" if generation >= 8 and shape.head_dim <= 256 else "eager"
    if generation < 8:
        return "efficient"
    if recipe.training.packing:
        return "varlen"
    return "cudnn" if generation >= 9 else "flash"


def fused_rungs(
    base: Strategy, shape: ModelShape, recipe: Recipe, fits: Callable[[Strategy], bool]
) -> list[tuple[Strategy, str]]:
    """Of one micro-batch the fullest rung, and if it does not fit the first that does or the smallest.

    With reasons: what each rung does, in words.
    """
    ladder = _Ladder(base, shape, recipe)
    tried = [ladder[0]]
    if not fits(ladder[0]):
        low, high = 1, len(ladder) - 1
        while low < high:  # each rung needs no more than the one before
            middle = (low + high) // 2
            low, high = (low, middle) if fits(ladder[middle]) else (middle + 1, high)
        relaxed = ladder[low].model_copy(update={"loss_chunk": None})
        tried.append(relaxed if fits(relaxed) else ladder[low])
    return [(one, _reason(one)) for one in tried]


@dataclass(frozen=True)
class _Ladder:
    """Rungs from fast to small for one micro-batch, made when they are asked for.

    What is cheapest to make again for its bytes goes first: logits by 1024 tokens, which costs
    nothing; unpacked weights; the norms' outputs; gate and up; attention; the sums. In a stage the
    first layers give up first. At both moments of a peak (the loss, and the backward of the last
    layer) all that earlier layers keep is alive at once, so that the order among them does not
    matter; but what the last layer gives up is made again just then and frees nothing.
    """

    base: Strategy
    shape: ModelShape
    recipe: Recipe

    def __len__(self) -> int:
        return 2 + (self._last - self._first) + len(_LAST_RESORTS)

    def __getitem__(self, rung: int) -> Strategy:
        spent = self._first + max(0, min(rung - 1, self._last - self._first))
        chunk: int | None = None
        tile: int | None = None
        if rung:
            chunk = self._chunk
            over = rung - 1 - (self._last - self._first)
            if over > 0:
                smaller, tile = _LAST_RESORTS[over - 1]
                chunk = smaller or chunk
        layers = self.shape.num_hidden_layers
        resident = max(0, layers - spent)
        stage, done = divmod(max(0, spent - layers), layers)
        level = Level.ALL - stage
        lower = Level(max(0, level - 1))
        return self.base.model_copy(
            update={
                "engine": "fused",
                "gradient_checkpointing": False,
                "levels": (lower,) * done + (Level(level),) * (layers - done),
                "resident_layers": resident,
                "loss_chunk": chunk,
                "mlp_tile": tile,
            }
        )

    @property
    def _first(self) -> int:
        """Layers' worth of things given up at the start: 16-bit weights need no unpacking."""
        layers = self.shape.num_hidden_layers
        if self.recipe.training.gradient_checkpointing == "on":
            return layers * (1 + Level.ALL)
        return layers if self.recipe.quantization.bits == 16 else 0

    @property
    def _last(self) -> int:
        layers = self.shape.num_hidden_layers
        keeps = self.recipe.training.gradient_checkpointing == "off"
        return layers if keeps else layers * (1 + Level.ALL)

    @property
    def _chunk(self) -> int | None:
        """The usual chunk of the loss of all rungs but the first."""
        return FEWEST_ROWS if default_chunk(self.shape, self.base.dtype) > FEWEST_ROWS else None


def _reason(strategy: Strategy) -> str:
    return f"micro-batch {strategy.micro_batch}, {', '.join(strategy.spending())}"


def _capability(hardware: Hardware) -> tuple[int, int]:
    major, _, minor = (hardware.compute_capability or "0.0").partition(".")
    return int(major), int(minor or 0)
