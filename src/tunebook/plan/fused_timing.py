"""Seconds of one weight update of the fused engine, by what each layer has to make again.

The constants were fitted on steps timed on an H100, and hold there within 3 %; on other cards they
are an estimate.
"""

from __future__ import annotations

from collections import Counter

from tunebook.models.shape import ModelShape
from tunebook.plan.fused_layer import LayerBytes, groups_of
from tunebook.plan.hardware import Hardware
from tunebook.plan.memory import BYTES, Batch
from tunebook.plan.nouns import Level, Strategy
from tunebook.plan.timing import attention_flops_per_token
from tunebook.recipe import Recipe

_PRODUCTS = 1.02
"""Share of `Hardware.flops` that products reach; attention by its kernel, below."""
_ATTENTION = {
    "cudnn": 0.84,
    "flash": 0.45,
    "varlen": 0.45,
    "capped": 0.3,  # not timed: a tanh for each score, and heads of 256
    "efficient": 0.22,
    "eager": 0.3,
}
_ELEMENTWISE = 0.52
"""Share of `Hardware.bandwidth` that the elementwise passes reach, and the unpacking of weights."""
_UNPACKING = 1.0
_PACKED_BYTES = {4: 0.52, 8: 1.0, 16: 0.0}
"""Of a weight, by its bits."""
_EAGER_BYTES = (24, 40)
"""Moved for each score of attention in full: forward, backward; at 2 bytes a number."""
_HOST = 3.8e-3
"""Seconds of Python and launches for a layer's forward and backward; a slow host."""
_HOST_AGAIN = 1.2e-3
_HOST_COPY = 0.2e-3
"""Two copies that are launched, and their events; so many a layer:"""
_COPIES = {"inputs": 1, "sums": 2, "output": 3, "attention": 4}
_FIXED = 5e-3
"""Seconds of an update for optimizer, logging and data."""


def fused_seconds_per_step(
    shape: ModelShape,
    recipe: Recipe,
    strategy: Strategy,
    batch: Batch,
    hardware: Hardware,
    *,
    one_shape: bool = False,
) -> float:
    """Seconds of one weight update: its micro-steps, and the fixed part once.

    Host and device work at the same time, so that the slower counts.

    Args:
        batch: a typical micro-batch (mean padded length), not the largest.
        one_shape: whether all batches have the same shape, so that their steps are replayed as a
            CUDA graph where nothing forbids it, and the host hardly counts.
    """
    device = device_seconds(shape, recipe, strategy, batch, hardware)
    if one_shape and strategy.dtype != "float16" and not recipe.lora.dropout:
        return strategy.gradient_accumulation_steps * device + _FIXED
    levels = LayerBytes(shape, recipe, strategy, batch, local=False).reached
    again = sum(1 - levels(level) / Level.ALL for level in strategy.levels)
    host = _HOST * len(strategy.levels) + _HOST_AGAIN * again
    host += _HOST_COPY * _COPIES[strategy.offloaded] * strategy.offloaded_layers
    return strategy.gradient_accumulation_steps * max(device, host) + _FIXED


def device_seconds(
    shape: ModelShape, recipe: Recipe, strategy: Strategy, batch: Batch, hardware: Hardware
) -> float:
    """Seconds that the device is busy in one forward and backward."""
    cost = _Cost(shape, recipe, strategy, batch, hardware)
    bytes_ = LayerBytes(shape, recipe, strategy, batch, local=False)
    resident, offloaded = strategy.resident_layers, strategy.offloaded_layers
    kinds = Counter(
        (bytes_.reached(level), index < resident, index < offloaded)
        for index, level in enumerate(strategy.levels)
    )
    seconds = cost.head()
    if strategy.host_embedding:  # nothing to do beside it: the first layer needs the rows
        seconds += batch.tokens * shape.hidden_size * cost.width / hardware.link
    for (level, unpacked, stows), count in kinds.items():
        layer = cost.layer(level, unpacked=unpacked)
        if stows:
            copies = sum(bytes_.pieces(level)) / hardware.link
            layer += waiting(copies, cost.forward(), layer)
        seconds += count * layer
    return seconds


def waiting(copies: float, forward: float, layer: float) -> float:
    """Seconds that a layer waits for what it stows to be copied out and back.

    The link is busy with each layer's copies for as long as a layer computes, forward and backward.

    Args:
        copies: seconds of those in one direction.
        forward: of the layer's forward. layer: of forward and backward.
    """
    return max(0.0, copies - forward) + max(0.0, copies - (layer - forward))


class _Cost:
    """FLOPs and bytes of one layer: for one token, but of `unpacked` weights for a micro-batch."""

    def __init__(
        self,
        shape: ModelShape,
        recipe: Recipe,
        strategy: Strategy,
        batch: Batch,
        hardware: Hardware,
    ) -> None:
        self.shape, self.length = shape, batch.length
        self.tokens, self.hardware, self.kernel = batch.tokens, hardware, strategy.attention
        if recipe.training.packing:
            self.length = min(batch.length, recipe.model.max_seq_length)
        self.width = BYTES[strategy.dtype]
        self.tiles = -(-batch.tokens // (strategy.mlp_tile or batch.tokens))
        self.packed_bytes = _PACKED_BYTES[recipe.quantization.bits]
        self.eager = strategy.attention == "eager"
        self.groups = groups_of(shape, recipe)
        self.weights = {name: g.size_in * g.size_out for name, g in self.groups.items()}
        self.scores = attention_flops_per_token(shape, self.length) / shape.num_hidden_layers

    def head(self) -> float:
        """Seconds of the loss."""
        shape = self.shape
        products = 4 * shape.hidden_size * shape.vocab_size
        return self._seconds(products, 0.0, 3 * shape.vocab_size * self.width, 0.0)

    def layer(self, level: int, *, unpacked: bool) -> float:
        """Seconds of one layer, forward and backward. `unpacked`: whether its weights stay so."""
        again = 0.0 if unpacked else self.unpacked(level)
        moved = self.elementwise(level)
        return self._seconds(self.products(level), self.attention(level), moved, again)

    def forward(self) -> float:
        """Seconds of a layer's forward, with weights that are unpacked for it."""
        shape = self.shape
        products = sum(
            2 * self.weights[name] + 2 * group.adapter_values for name, group in self.groups.items()
        )
        moved = 16 * shape.hidden_size + 4 * (shape.query_size + shape.key_size)
        moved += 6 * shape.intermediate_size
        unpacked = sum(self._unpacked_once(name) for name in self.groups)
        return self._seconds(products, self.scores, moved * self.width / 2, unpacked)

    def _seconds(self, products: float, attention: float, moved: float, unpacked: float) -> float:
        """Of FLOPs of products and attention and bytes moved, all a token, and unpacked bytes."""
        flops, bandwidth = self.hardware.flops, self.hardware.bandwidth
        each = products / (flops * _PRODUCTS) + moved / (bandwidth * _ELEMENTWISE)
        each += attention / (flops * _ATTENTION[self.kernel])
        return self.tokens * each + unpacked / (bandwidth * _UNPACKING)

    def products(self, level: int) -> float:
        """2 a weight forward, 2 backward, and 6 an adapter's; forward again for what is not kept."""
        total = 0.0
        for name, group in self.groups.items():
            total += 4 * self.weights[name] + 6 * group.adapter_values
            if _again(name, level):
                total += 2 * self.weights[name] + 2 * group.adapter_values
        return total

    def attention(self, level: int) -> float:
        """1 forward, 2.5 backward."""
        return self.scores * (3.5 if level >= Level.OUTPUT else 4.5)

    def elementwise(self, level: int) -> float:
        """In bytes of two: forward 16h + 4(q + k) + 6f, backward 16h + 4(q + k) + 12f + 4q.

        Made again: the norms 8h, the rotation 4(q + k), the sum 6h.
        """
        shape = self.shape
        hidden, wide = shape.hidden_size, shape.intermediate_size
        heads = shape.query_size + shape.key_size
        total = 32 * hidden + 8 * heads + 18 * wide + 4 * shape.query_size
        total += 8 * hidden * (level < Level.ALL)
        total += 4 * heads * (level < Level.ATTENTION) + 6 * hidden * (level < Level.RESIDUAL)
        if self.eager:
            forward, backward = _EAGER_BYTES
            scores = shape.num_attention_heads * self.length
            total += scores * (forward * (1 + (level < Level.ATTENTION)) + backward)
        return total * self.width / 2

    def unpacked(self, level: int) -> float:
        """Bytes read and written to unpack the weights, once in each direction, and made again.

        Those of an MLP that works by tiles are unpacked for each tile.
        """
        total = 0.0
        tiles = 1 if level >= Level.GATE_UP else self.tiles
        for name in self.groups:
            times = (2 + _again(name, level)) * (tiles if name in ("gate_up", "down") else 1)
            total += times * self._unpacked_once(name)
        return total

    def _unpacked_once(self, name: str) -> float:
        bytes_ = self.packed_bytes + self.width
        return self.weights[name] * self.groups[name].packed * bytes_


def _again(name: str, level: int) -> bool:
    """Whether a group's product is made again in the backward."""
    needs = {"o": Level.RESIDUAL, "qkv": Level.ATTENTION, "gate_up": Level.GATE_UP}
    return name in needs and level < needs[name]
