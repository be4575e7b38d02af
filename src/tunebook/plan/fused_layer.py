"""Bytes that one decoder layer of the fused engine keeps, and needs while its backward runs.

Counts what `engine/decoder.py` and the files beside it hold, tensor by tensor and by hand; imports
none of them. Knows no other layer, no head and no budget.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from tunebook.models.shape import ModelShape
from tunebook.plan.memory import BYTES, Batch
from tunebook.plan.nouns import Level, Strategy
from tunebook.recipe import LoraPart, Recipe

_RANK_UNIT = 16
_WIDEST = 128  # head_dim that PyTorch's operations are called with by hand
_STATISTIC = 4  # bytes of one float32 number a row
_GROUPS = {
    "qkv": ("q_proj", "k_proj", "v_proj", "qkv_proj"),
    "o": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj", "gate_up_proj"),
    "down": ("down_proj",),
}


@dataclass(frozen=True)
class Group:
    """Linear layers that read one input and are multiplied as one.

    Attributes:
        rank: of all their adapters together, padded; 0 without adapters.
        packed: whether the weights are unpacked at each use.
        extended: whether weights and adapters stand in one matrix, so that inputs and gradients
            have `rank` columns more.
    """

    size_in: int
    size_out: int
    rank: int
    packed: bool
    extended: bool

    @property
    def spare(self) -> int:
        """Columns that inputs and gradients have more."""
        return self.rank if self.extended else 0

    @property
    def low(self) -> int:
        """Columns of the adapters' own product where it is a tensor of its own."""
        return 0 if self.extended else self.rank

    @property
    def adapter_values(self) -> int:
        """Numbers in A and the block-diagonal B."""
        return self.rank * (self.size_in + self.size_out)

    @property
    def matrix_values(self) -> int:
        """Numbers in the matrix that the product reads."""
        return (self.size_out + self.spare) * (self.size_in + self.spare)

    @property
    def resident_values(self) -> int:
        """Numbers that stay where the weights are kept unpacked, adapters included."""
        return self.matrix_values + (0 if self.extended else self.adapter_values)


def groups_of(shape: ModelShape, recipe: Recipe) -> dict[str, Group]:
    """The four groups of a layer: "qkv", "o", "gate_up", "down"."""
    lora = recipe.lora
    names = (
        lora.target_modules if isinstance(lora.target_modules, str) else tuple(lora.target_modules)
    )
    switches = (lora.language_layers, lora.attention_modules, lora.mlp_modules)
    packed = recipe.quantization.bits != 16
    return _groups(shape, lora.r, names, switches, packed, lora.dropout > 0)


@functools.lru_cache(maxsize=64)  # a plan is chosen among hundreds of forecasts
def _groups(
    shape: ModelShape,
    r: int,
    names: str | tuple[str, ...],
    switches: tuple[bool, bool, bool],
    packed: bool,
    dropped: bool,
) -> dict[str, Group]:
    language, attention, mlp = switches
    lora = LoraPart.model_validate(
        {
            "r": r,
            "target_modules": names,
            "language_layers": language,
            "attention_modules": attention,
            "mlp_modules": mlp,
        }
    )
    sizes, adapted = shape.linear_layers(), shape.adapted_layers(lora)
    made = {}
    for name, members in _GROUPS.items():
        present = [sizes[member] for member in members if member in sizes]
        rank = r * sum(member in adapted for member in members)
        rank = -(-rank // _RANK_UNIT) * _RANK_UNIT
        made[name] = Group(
            size_in=present[0][0],
            size_out=sum(size_out for _, size_out in present),
            rank=rank,
            packed=packed,
            extended=packed and rank > 0 and not dropped and name in ("qkv", "gate_up"),
        )
    return made


def by_hand(kernel: str, shape: ModelShape) -> bool:
    """Whether the engine calls an attention's backward itself, so that q, k and v are in no graph.

    As `engine.direct_attention` and the kernel for softcaps do; in float32 none does on a GPU.
    """
    if kernel == "capped":
        return True
    return kernel in ("cudnn", "flash") and shape.head_dim % 8 == 0 and shape.head_dim <= _WIDEST


class LayerBytes:
    """Bytes of one layer of a given attention; `local` layers look back by the model's window."""

    def __init__(
        self, shape: ModelShape, recipe: Recipe, strategy: Strategy, batch: Batch, *, local: bool
    ) -> None:
        self.shape, self.batch, self.strategy = shape, batch, strategy
        self.groups = groups_of(shape, recipe)
        self.width = BYTES[strategy.dtype]
        self.adapter_width = BYTES[strategy.adapter_dtype]
        self.sandwich = shape.norms_per_layer == 4
        self.dropped = recipe.lora.dropout > 0
        self.grouped = shape.num_key_value_heads != shape.num_attention_heads
        self.kernel = self._kernel(packed_rows=recipe.training.packing, local=local)
        self.by_hand = by_hand(self.kernel, shape)
        self.hidden = self._rows(shape.hidden_size)
        self.query = self._rows(shape.query_size)
        self.qkv = self._rows(shape.query_size + 2 * shape.key_size)
        self.wide = self._rows(shape.intermediate_size)
        self._statistics = _STATISTIC * batch.tokens

    # ------------------------------------------------------------------ what stays

    def kept(self, level: int) -> int:
        """After the forward: the input, and what `level` keeps."""
        level = self.reached(level)
        total = self.hidden + self._gone("down")
        if level >= Level.RESIDUAL:
            total += self.hidden
        if level >= Level.OUTPUT:
            total += self._attention_kept() + self._gone("o")
        if level >= Level.ATTENTION:
            total += self._inputs()
        if level >= Level.GATE_UP:
            total += self._entered("gate_up") + 2 * self.wide
        if level >= Level.ALL:
            total += self._normed("qkv") + self._normed("gate_up")
        return total

    def pieces(self, level: int) -> list[int]:
        """Of what `level` keeps that which the strategy stows of an offloaded layer, input first."""
        what, stowed = self.strategy.offloaded, [self.hidden]
        if level >= Level.RESIDUAL and what != "inputs":
            stowed.append(self.hidden)
        # where it is not by hand, q, k, v and the output belong to a graph and stay
        if level >= Level.OUTPUT and what in ("output", "attention") and self.by_hand:
            stowed += [self.query, self.hidden] if self.sandwich else [self.query]
        if level >= Level.ATTENTION and what == "attention" and self.by_hand:
            stowed += [self.qkv] * (1 + (self.shape.qk_norm != "none"))
        return stowed

    def reached(self, level: int) -> int:
        """The level as far as it goes here: a graph's output cannot be kept without q, k and v."""
        return Level.RESIDUAL if level == Level.OUTPUT and not self.by_hand else level

    def _inputs(self) -> int:
        """Statistics of the norm, and q|k|v after the rotation, and before it where there is a norm."""
        total = self._entered("qkv") + self.qkv
        if self.shape.qk_norm != "none":
            heads = self.shape.num_attention_heads + self.shape.num_key_value_heads
            total += self.qkv + heads * self._statistics
        return total

    def _entered(self, name: str) -> int:
        return self._statistics + self._rows(self.groups[name].low)

    def _normed(self, name: str) -> int:
        group = self.groups[name]
        return self._rows(group.size_in + group.spare)

    def _gone(self, name: str) -> int:
        """Of o or down: the adapters' product, and the input of the norm behind, if there is one."""
        behind = self.hidden + self._statistics if self.sandwich else 0
        return self._rows(self.groups[name].low) + behind

    # ------------------------------------------------------------------- backward

    def backward(self, level: int) -> int:
        """The most that its backward adds to what it and earlier layers keep.

        What was kept is released on the way, so that a part of this may be negative.
        """
        return max(self._moments(self.reached(level)))

    def _moments(self, level: int) -> Iterator[int]:
        """In the order of `_Layer.backward`; the incoming gradient stays alive to the end."""
        group, hidden = self.groups, self.hidden
        attended = 0
        if level < Level.ATTENTION:
            attended = self._inputs() + self._normed("qkv")
        if level < Level.OUTPUT:
            attended += self._attention_kept()
        middle = hidden if level < Level.RESIDUAL else 0
        attended += self._gone("o") if level < Level.RESIDUAL else 0
        projected = 2 * self.wide
        entered = 0
        if level < Level.GATE_UP:
            entered = self._entered("gate_up") + self._normed("gate_up")
        # with the sum kept, attention is made again only when the MLP's backward has ended
        start = hidden + middle + (attended if level < Level.RESIDUAL else 0)
        if self._tiled(level):
            gradients = self._adapter_gradients("down") + self._adapter_gradients("gate_up")
            yield from (start + inside for inside in self._tile_moments(gradients))
            yield from self._attention_moments(level, attended, gradients)
            return
        gradients = self._adapter_gradients("down")
        buffer = projected + self._rows(group["gate_up"].spare)
        # the gradient of gate and up is made beside gate, up and the gradient of the hidden rows
        inner = hidden if self.sandwich else 0
        again = projected if level < Level.GATE_UP else 0
        dropout = 3 * self.wide if self.dropped else 0
        low = self._rows(group["down"].rank)
        yield start + entered + again + inner + self.wide + low + max(buffer, dropout)
        # gate and up are gone; the normed input is made again if it was not kept
        normed = self._normed("gate_up") if level == Level.GATE_UP else 0
        freed = projected - again
        gradients += self._adapter_gradients("gate_up")
        dropout = 2 * hidden if self.dropped else 0
        yield start + entered - freed + buffer + normed + max(2 * hidden, dropout) + gradients
        yield from self._attention_moments(level, attended, gradients)

    def _tiled(self, level: int) -> bool:
        tile = self.strategy.mlp_tile
        if tile is None or level >= Level.GATE_UP or self.dropped:
            return False
        return tile < self.batch.tokens

    def _tile_moments(self, gradients: int) -> Iterator[int]:
        """What the MLP adds where it works on some rows at a time: x's gradient, sums, one tile."""
        tile = self.strategy.mlp_tile or 0
        each = tile * self.width
        group = self.groups["gate_up"]
        wide, hidden = each * self.shape.intermediate_size, each * self.shape.hidden_size
        normed = each * (group.size_in + group.spare)
        entered = _STATISTIC * tile + each * group.low + normed
        buffer = 2 * wide + each * group.spare
        inner = hidden if self.sandwich else 0
        low = each * self.groups["down"].rank
        always = self.hidden + gradients + entered
        yield always + 2 * wide + inner + wide + low + buffer
        yield always + buffer + 2 * hidden + gradients

    def _attention_moments(self, level: int, attended: int, gradients: int) -> Iterator[int]:
        group, hidden = self.groups, self.hidden
        start = 2 * hidden + attended + gradients + self._adapter_gradients("o")
        start += self._gone("o") if level == Level.RESIDUAL else 0
        if level >= Level.GATE_UP:  # what the MLP kept is gone
            start -= self._entered("gate_up") + 2 * self.wide
        if level >= Level.ALL:
            start -= self._normed("gate_up")
        if level == Level.RESIDUAL:  # made again here: what its forward holds for a moment, too
            yield start + self._attention_forward()
        inner = hidden if self.sandwich else 0
        yield start + inner + self.query + self._attention_backward()
        buffer = self.qkv + self._rows(group["qkv"].spare)
        yield start + self.qkv + buffer
        normed = self._normed("qkv") if Level.ATTENTION <= level < Level.ALL else 0
        yield start + buffer + normed + 2 * hidden + self._adapter_gradients("qkv")

    def _adapter_gradients(self, name: str) -> int:
        return self.groups[name].adapter_values * self.adapter_width

    # ------------------------------------------------------------------ attention

    def _kernel(self, *, packed_rows: bool, local: bool) -> str:
        """As `engine.attention.attend` chooses, given what the strategy found there is."""
        shape, wanted = self.shape, self.strategy.attention
        if shape.attention_softcap:
            return wanted
        if packed_rows:
            return "varlen" if wanted == "varlen" else "masked"
        if local and shape.sliding_window and shape.sliding_window < self.batch.length:
            return "masked"
        return wanted

    def _attention_kept(self) -> int:
        """Beside q, k and v: the output, a number for each row of scores, copies of keys and values."""
        shape, batch = self.shape, self.batch
        if self.kernel == "eager":
            return self._eager_kept()
        total = self.query + shape.num_attention_heads * self._statistics
        if self.kernel in ("varlen", "masked", "efficient") and self.grouped:
            total += 2 * self.query
        if self.kernel == "masked":
            total += batch.length**2 * self.width
        return total

    def _eager_kept(self) -> int:
        """Scores in full, thrice in 16 bit: after the tanh, the softmax in float32, and rounded."""
        shape, batch = self.shape, self.batch
        each = self.width + 4 + (self.width if self.width < 4 else 0)
        scores = shape.num_attention_heads * batch.tokens * batch.length * each
        output = 2 * self.query  # as the product makes it, and by rows
        copies = 2 * self.query if self.grouped or batch.rows > 1 else 0
        if batch.rows > 1:
            copies += self.query
        return scores + output + copies + batch.length**2

    def _attention_forward(self) -> int:
        """What the attention's forward holds beside what it keeps: scores before the tanh, or q."""
        if self.kernel == "eager":
            shape, batch = self.shape, self.batch
            return self.width * batch.tokens * shape.num_attention_heads * batch.length
        return self.query

    def _attention_backward(self) -> int:
        """The gradients of q, k and v, of copied heads, and sums of dq in float32.

        Capped: gradients, and a number for each row of scores. Eager: gradients of the scores on
        both sides of the softmax, before there are those.
        """
        shape, batch = self.shape, self.batch
        if self.kernel == "eager":
            return (4 + self.width) * batch.tokens * shape.num_attention_heads * batch.length
        if self.kernel == "capped":
            return self.qkv + shape.num_attention_heads * self._statistics
        sums = 4 * batch.tokens * shape.query_size
        copied = self.grouped and self.kernel != "cudnn"
        return self.qkv + sums + (2 * self.query if copied else 0)

    def _rows(self, columns: int) -> int:
        """All tokens times so many numbers of the compute dtype."""
        return self.batch.tokens * columns * self.width
