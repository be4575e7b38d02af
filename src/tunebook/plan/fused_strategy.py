"""The ladder of the fused engine: what each decoder layer keeps, and where weights stay unpacked.

Knows which rungs there are and their order, and finds the first that fits; the bytes come from the
caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tunebook.models.shape import ModelShape
from tunebook.plan.fused_layer import by_hand
from tunebook.plan.fused_memory import FEWEST_ROWS, default_chunk
from tunebook.plan.hardware import Hardware
from tunebook.plan.nouns import Forecast, Level, Offload, Strategy
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

_OFFLOADS: tuple[tuple[Level, Offload], ...] = (
    (Level.NOTHING, "inputs"),
    (Level.ATTENTION, "inputs"),
    (Level.ATTENTION, "sums"),
    (Level.ATTENTION, "output"),
    (Level.ATTENTION, "attention"),
    (Level.GATE_UP, "output"),
    (Level.GATE_UP, "attention"),
)
"""What layers still keep when the first of them begins to offload, and what of it."""
_SMALLEST_GAIN = 0.01
"""More goes to the host, or earlier, where a step gets faster by that share."""
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
    if generation < 8 or recipe.model.dtype == "float32":
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
        pinnable: bytes of host memory that what layers keep may take.
    """

    def fits(strategy: Strategy) -> bool:
        return forecast_of(strategy).fits

    ladders = fused_ladders(base, shape, recipe, forecast_of, pinnable)
    tried = [ladders[0][0]]
    if not fits(tried[0]):
        tried.append(_best([_fitting(ladder, fits) for ladder in ladders], forecast_of))
    return [(one, _reason(one)) for one in tried]


def fused_ladders(
    base: Strategy,
    shape: ModelShape,
    recipe: Recipe,
    forecast_of: Callable[[Strategy], Forecast],
    pinnable: int,
) -> list[_Ladder]:
    """Ladders of one micro-batch, each from fast to small, by what is offloaded and when.

    Arguments as for `fused_rungs`.
    """
    ladder = _Ladder(base, shape, recipe)

    def host(strategy: Strategy, **changes: object) -> int:
        return forecast_of(strategy.model_copy(update=changes)).host

    embedding = host(ladder.spending(ladder.last), host_embedding=True)
    hosts = not shape.tie_word_embeddings and embedding <= pinnable
    pinnable -= embedding if hosts else 0
    ladders = []
    for kept, offloaded in _OFFLOADS:
        one = replace(ladder, hosts=hosts, kept=kept, offloaded=offloaded)
        each = host(one.spending(one.before_offload), offloaded_layers=1, offloaded=offloaded)
        ladders.append(replace(one, pinnable=pinnable // each))
    return ladders


def fused_ladder(
    base: Strategy,
    shape: ModelShape,
    recipe: Recipe,
    forecast_of: Callable[[Strategy], Forecast],
    pinnable: int,
    like: Strategy,
) -> _Ladder:
    """Of `fused_ladders` the one that has the rung `like`, else the last that offloads what it does."""
    ladders = fused_ladders(base, shape, recipe, forecast_of, pinnable)
    same = [ladder for ladder in ladders if ladder.offloaded == like.offloaded]
    return next((ladder for ladder in same if like in ladder), same[-1])


def _best(found: list[Strategy], forecast_of: Callable[[Strategy], Forecast]) -> Strategy:
    """The first, or a later one that fits and is faster by so much that its memory is worth it."""
    best, forecast = found[0], forecast_of(found[0])
    for one in found[1:]:
        other = forecast_of(one)
        gain = 1 - other.seconds_per_step / forecast.seconds_per_step
        if other.fits and (gain > _SMALLEST_GAIN or not forecast.fits):
            best, forecast = one, other
    return best


def _fitting(ladder: _Ladder, fits: Callable[[Strategy], bool]) -> Strategy:
    """The first rung below the fullest that fits, else the smallest."""
    rung = _first_fitting(1, len(ladder) - 1, lambda rung: fits(ladder[rung]))
    return _relaxed(ladder[rung], ladder, fits)


def _first_fitting(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The first number that fits, where each needs no more than the one before; else `high`."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def _relaxed(found: Strategy, ladder: _Ladder, fits: Callable[[Strategy], bool]) -> Strategy:
    """The same with what it need not have given up: tiles save more than was missing."""
    if found.mlp_tile and fits(found):
        names = {"loss_chunk", "mlp_tile", "offloaded_layers", "offloaded", "host_embedding"}
        resorts = found.model_dump(include=names)

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
    gate and up; q, k and v; the attention's output; the sums. Then inputs wait in the host's memory,
    or earlier and with more that is kept (`_OFFLOADS`); at last products are made by tiles. In a
    stage the first layers give up first. At both moments of a peak (the loss, and the
    backward of the last layer) all that earlier layers keep is alive at once, so that the order among
    them does not matter; but what the last layer gives up is made again just then and frees nothing.
    What two layers offload is on the device during every backward, so that the last two offload
    nothing.

    Attributes:
        hosts: whether the input embedding can go to the host.
        pinnable: layers whose inputs the host has room for.
        kept: what layers still keep when the first is offloaded.
        offloaded: what of them.
    """

    base: Strategy
    shape: ModelShape
    recipe: Recipe
    hosts: bool = False
    pinnable: int = 0
    kept: Level = Level.NOTHING
    offloaded: Offload = "inputs"

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
        before = self.before_offload - self.first
        offloaded = min(max(0, steps - before), self._offloadable)
        spent = min(self.first + steps - offloaded, self.last)
        over = steps - offloaded - (spent - self.first)
        chunk, tile = _LAST_RESORTS[over - 1] if over else (None, None)
        resorts: dict[str, object] = {
            "offloaded_layers": offloaded,
            "loss_chunk": chunk or self._chunk,
        }
        resorts |= {"mlp_tile": tile, "host_embedding": self.hosts and rung > 1}
        resorts |= {"offloaded": self.offloaded} if offloaded else {}
        return self.spending(spent).model_copy(update=resorts)

    def spending(self, spent: int) -> Strategy:
        """So many layers' worth given up: unpacked weights of a layer count one, each level one."""
        layers = self.shape.num_hidden_layers
        stage, done = divmod(max(0, spent - layers), layers)
        level, lower = (*self.levels, Level.NOTHING)[stage : stage + 2]
        return self.base.model_copy(
            update={
                "engine": "fused",
                "gradient_checkpointing": False,
                "levels": (lower,) * done + (level,) * (layers - done),
                "resident_layers": max(0, layers - spent),
            }
        )

    @property
    def levels(self) -> tuple[Level, ...]:
        """From high to low; the attention's output alone only where it can be kept so."""
        all_ = tuple(sorted(Level, reverse=True))
        outputs = by_hand(self.base.attention, self.shape)
        return all_ if outputs else tuple(level for level in all_ if level != Level.OUTPUT)

    @property
    def first(self) -> int:
        """Layers' worth of things given up at the start: 16-bit weights need no unpacking."""
        layers = self.shape.num_hidden_layers
        if self.recipe.training.gradient_checkpointing == "on":
            return layers * len(self.levels)
        return layers if self.recipe.quantization.bits == 16 else 0

    @property
    def last(self) -> int:
        """The same where nothing is left to give up."""
        layers = self.shape.num_hidden_layers
        keeps = self.recipe.training.gradient_checkpointing == "off"
        return layers if keeps else layers * len(self.levels)

    @property
    def before_offload(self) -> int:
        """Layers' worth given up before any input is offloaded."""
        given_up = self.shape.num_hidden_layers * (1 + self.levels.index(self.kept))
        return min(max(self.first, given_up), self.last)

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
