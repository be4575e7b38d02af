"""The ladder of the fused engine: what each decoder layer keeps, and where weights stay unpacked.

Knows which rungs there are and their order, and finds the first that fits; the bytes come from the
caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tunebook.models.shape import ModelShape
from tunebook.plan.fused_memory import FEWEST_ROWS, default_chunk
from tunebook.plan.hardware import Hardware
from tunebook.plan.nouns import Forecast, Level, Strategy
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
        "qwen2_5_vl_text",
        "qwen2_vl_text",
        "qwen3",
        "qwen3_vl_text",
        "smollm3",
    }
)
"""Model types whose decoder layers the engine runs fused."""

_OLDEST = (7, 0)  # compute capability that Triton compiles for
_LAST_RESORTS: tuple[tuple[int | None, int | None], ...] = (
    (None, 4096),
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
    base: Strategy,
    shape: ModelShape,
    recipe: Recipe,
    forecast_of: Callable[[Strategy], Forecast],
    pinnable: int,
) -> list[tuple[Strategy, str]]:
    """Of one micro-batch the fullest rung, and if it does not fit the first that does or the smallest.

    With reasons: what each rung does, in words.

    Args:
        pinnable: bytes of host memory that inputs of layers may take.
    """

    def fits(strategy: Strategy) -> bool:
        return forecast_of(strategy).fits

    ladder = fused_ladder(base, shape, recipe, forecast_of, pinnable)
    tried = [ladder[0]]
    if not fits(ladder[0]):
        rung = _first_fitting(1, len(ladder) - 1, lambda rung: fits(ladder[rung]))
        tried.append(_relaxed(ladder[rung], ladder, fits))
    return [(one, _reason(one)) for one in tried]


def fused_ladder(
    base: Strategy,
    shape: ModelShape,
    recipe: Recipe,
    forecast_of: Callable[[Strategy], Forecast],
    pinnable: int,
) -> _Ladder:
    """All rungs of one micro-batch, from fast to small; arguments as for `fused_rungs`."""
    ladder = _Ladder(base, shape, recipe)

    def changed(**changes: object) -> Forecast:
        return forecast_of(ladder.spending(ladder.last).model_copy(update=changes))

    embedding, offloaded = changed(host_embedding=True).host, changed(offloaded_layers=1)
    hosts = not shape.tie_word_embeddings and embedding <= pinnable
    pinnable -= embedding if hosts else 0
    free = offloaded.seconds_per_step <= changed().seconds_per_step
    return replace(ladder, hosts=hosts, pinnable=pinnable // offloaded.host, early=free)


def _first_fitting(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The first number that fits, where each needs no more than the one before; else `high`."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def _relaxed(found: Strategy, ladder: _Ladder, fits: Callable[[Strategy], bool]) -> Strategy:
    """The same with what it need not have given up: tiles save more than was missing."""
    if found.mlp_tile and fits(found):
        resorts = found.model_dump(
            include={"loss_chunk", "mlp_tile", "offloaded_layers", "host_embedding"}
        )

        def spending(spent: int) -> Strategy:
            return ladder.spending(spent).model_copy(update=resorts)

        spent = _first_fitting(ladder.first, ladder.last, lambda spent: fits(spending(spent)))
        found = spending(spent)
    relaxed = found.model_copy(update={"loss_chunk": None})
    return relaxed if fits(relaxed) else found


@dataclass(frozen=True)
class _Ladder(Sequence[Strategy]):
    """Rungs from fast to small for one micro-batch, made when they are asked for.

    What is cheapest for its bytes goes first: logits by 1024 tokens, which costs nothing; the input
    embedding to the host, of which a batch reads a few rows; unpacked weights; the norms' outputs;
    gate and up; attention; the sums. Then inputs wait in the host's memory, or before attention is
    given up where the link is fast enough for that to cost nothing; at last products are made by
    tiles. In a stage the first layers give up first. At both moments of a peak (the loss, and the
    backward of the last layer) all that earlier layers keep is alive at once, so that the order among
    them does not matter; but what the last layer gives up is made again just then and frees nothing.
    Two inputs are on the device during every backward, so that those of the last two layers are not
    offloaded.

    Attributes:
        hosts: whether the input embedding can go to the host.
        pinnable: layers whose inputs the host has room for.
        early: whether their copies cost no time.
    """

    base: Strategy
    shape: ModelShape
    recipe: Recipe
    hosts: bool = False
    pinnable: int = 0
    early: bool = False

    def __len__(self) -> int:
        steps = (self.last - self.first) + self._offloadable + len(_LAST_RESORTS)
        return 2 + self.hosts + steps

    def __getitem__(self, rung: int) -> Strategy:  # type: ignore[override]  # no slices
        if rung < 0:
            rung += len(self)
        if not 0 <= rung < len(self):
            raise IndexError(rung)
        if not rung:
            return self.spending(self.first)
        steps = max(0, rung - 1 - self.hosts)
        before = self._before_offload - self.first
        offloaded = min(max(0, steps - before), self._offloadable)
        spent = min(self.first + steps - offloaded, self.last)
        over = steps - offloaded - (spent - self.first)
        chunk, tile = _LAST_RESORTS[over - 1] if over else (None, None)
        resorts = {"offloaded_layers": offloaded, "loss_chunk": chunk or self._chunk}
        resorts |= {"mlp_tile": tile, "host_embedding": self.hosts and rung > 1}
        return self.spending(spent).model_copy(update=resorts)

    def spending(self, spent: int) -> Strategy:
        """So many layers' worth given up: unpacked weights of a layer count one, each level one."""
        layers = self.shape.num_hidden_layers
        stage, done = divmod(max(0, spent - layers), layers)
        level = Level.ALL - stage
        lower = Level(max(0, level - 1))
        return self.base.model_copy(
            update={
                "engine": "fused",
                "gradient_checkpointing": False,
                "levels": (lower,) * done + (Level(level),) * (layers - done),
                "resident_layers": max(0, layers - spent),
            }
        )

    @property
    def first(self) -> int:
        """Layers' worth of things given up at the start: 16-bit weights need no unpacking."""
        layers = self.shape.num_hidden_layers
        if self.recipe.training.gradient_checkpointing == "on":
            return layers * (1 + Level.ALL)
        return layers if self.recipe.quantization.bits == 16 else 0

    @property
    def last(self) -> int:
        """The same where nothing is left to give up."""
        layers = self.shape.num_hidden_layers
        keeps = self.recipe.training.gradient_checkpointing == "off"
        return layers if keeps else layers * (1 + Level.ALL)

    @property
    def _before_offload(self) -> int:
        """Layers' worth given up before any input is offloaded."""
        if not self.early:
            return self.last
        kept = 1 + Level.ALL - Level.ATTENTION
        return min(max(self.first, self.shape.num_hidden_layers * kept), self.last)

    @property
    def _offloadable(self) -> int:
        if self.recipe.training.gradient_checkpointing == "off":
            return 0
        return max(0, min(self.shape.num_hidden_layers - 2, self.pinnable))

    @property
    def _chunk(self) -> int | None:
        """The usual chunk of the loss of all rungs but the first."""
        return FEWEST_ROWS if default_chunk(self.shape, self.base.dtype) > FEWEST_ROWS else None


def _reason(strategy: Strategy) -> str:
    return f"micro-batch {strategy.micro_batch}, {', '.join(strategy.spending())}"


def _capability(hardware: Hardware) -> tuple[int, int]:
    major, _, minor = (hardware.compute_capability or "0.0").partition(".")
    return int(major), int(minor or 0)
