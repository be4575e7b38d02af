"""Bytes that one training step of the fused engine needs, by part, at the moment of its peak.

Adds up layers, output head, adapters and optimizer as `engine/` and `training/flat.py` hold them;
knows nothing of budgets or time.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate

from tunebook.models.shape import ModelShape
from tunebook.plan.fused_layer import LayerBytes, groups_of
from tunebook.plan.memory import BYTES, Batch, resident_parts
from tunebook.plan.nouns import PARTS, Strategy
from tunebook.plan.optimizers import makes_a_copy, state_bytes
from tunebook.recipe import Recipe

_FLAT_UNIT = 256
_CHUNK_BYTES = 2**29
FEWEST_ROWS = 1024
_CUBLAS_WORKSPACES = 2 * 32 * 2**20
"""One for the thread that runs the forward, one for autograd's."""
_UNSPLIT = 0.002
"""Of all: blocks of the allocator whose rest is less than the 1 MiB that it would split off."""
_OUTCOME = 9
"""Bytes a token of loss, entropy and correctness."""


def fused_parts(
    shape: ModelShape, recipe: Recipe, strategy: Strategy, batch: Batch, device: str
) -> dict[str, int]:
    """Bytes by part at the moment of the peak; their sum is the peak.

    The moment is one of four: the head's forward, when all that is kept lies beside a chunk of
    logits; the head's backward; the backward of some layer, when what it and earlier ones keep lies
    beside its gradients and what is made again; or the update.
    """
    step = _Step(shape, recipe, strategy, batch)
    kept, head = step.layers_kept(), step.head
    moments = [
        (kept + step.after_layers(), head.forward(), 0),
        (kept + step.after_layers(), head.backward(), 0),
        (step.tables(), 0, step.update()),
        *((before + step.tables(), 0, inside) for before, inside in step.backwards()),
    ]
    activations, logits, scratch = max(moments, key=sum)
    parts = fused_resident_parts(shape, recipe, strategy, device)
    parts |= {"activations": activations, "logits": logits}
    parts["scratch"] = scratch + step.scratch()
    if device == "cuda":
        parts["scratch"] += _CUBLAS_WORKSPACES
        parts["scratch"] += int(sum(parts.values()) * _UNSPLIT)
    return {name: int(parts[name]) for name in PARTS}


def fused_resident_parts(
    shape: ModelShape, recipe: Recipe, strategy: Strategy, device: str
) -> dict[str, int]:
    """Bytes that stay through the run, with the copies of weights and adapters in the compute dtype."""
    parts = resident_parts(shape, recipe, strategy, device)
    width = BYTES[strategy.dtype]
    groups = groups_of(shape, recipe).values()
    copied = sum(group.resident_values for group in groups) * width
    adapters = sum(group.adapter_values for group in groups) * width
    unpacked = strategy.resident_layers
    flat, states = _flat(shape, recipe, strategy)
    parts["weights"] += unpacked * copied
    parts["embeddings"] -= strategy.host_embedding * shape.vocab_size * shape.hidden_size * width
    parts["adapters"] = flat + (shape.num_hidden_layers - unpacked) * adapters
    parts["gradients"] = flat
    parts["optimizer"] = states
    return parts


def kept_bytes(shape: ModelShape, recipe: Recipe, strategy: Strategy, batch: Batch) -> int:
    """What stays alive for the backward when the forward of the whole model has ended."""
    step = _Step(shape, recipe, strategy, batch)
    return step.layers_kept() + step.after_layers() + step.head.kept()


def host_bytes(shape: ModelShape, recipe: Recipe, strategy: Strategy, batch: Batch) -> int:
    """Of pinned host memory: what layers stow there, and the input embedding.

    Each piece takes the next power of two (see `engine/offload`).
    """
    layer = LayerBytes(shape, recipe, strategy, batch, local=False)
    stowed = 0
    for level, layers in Counter(strategy.levels[: strategy.offloaded_layers]).items():
        stowed += layers * sum(1 << (piece - 1).bit_length() for piece in layer.pieces(level))
    embedding = shape.vocab_size * shape.hidden_size * BYTES[strategy.dtype]
    return stowed + strategy.host_embedding * embedding


def default_chunk(shape: ModelShape, dtype: str) -> int:
    """Tokens whose logits are held at once, as the kernel chooses them on a GPU."""
    fitting = _CHUNK_BYTES // (shape.vocab_size * BYTES[dtype])
    return max(FEWEST_ROWS, fitting // 128 * 128)


def _flat(shape: ModelShape, recipe: Recipe, strategy: Strategy) -> tuple[int, int]:
    """Bytes of the flat adapter buffers, and of the optimizer's states over them.

    Each tensor is padded to 256 values.
    """
    r, width = recipe.lora.r, BYTES[strategy.adapter_dtype]
    values = states = 0
    for sizes in shape.adapted_layers(recipe.lora).values():
        for size in sizes:
            values += -(-r * size // _FLAT_UNIT) * _FLAT_UNIT
            states += state_bytes(strategy.optimizer, r, size, width, unit=_FLAT_UNIT)
    layers = shape.num_hidden_layers
    return layers * values * width, layers * states


class _Head:
    """Bytes of the final norm's output, the loss and its gradient (`linear_cross_entropy`)."""

    def __init__(self, shape: ModelShape, strategy: Strategy, batch: Batch) -> None:
        self.tokens, self.width = batch.tokens, BYTES[strategy.dtype]
        self.hidden = self.tokens * shape.hidden_size * self.width
        largest = strategy.loss_chunk or default_chunk(shape, strategy.dtype)
        chunk = -(-self.tokens // -(-self.tokens // largest))
        self.chunk = chunk * (shape.vocab_size + shape.hidden_size) * self.width

    def kept(self) -> int:
        """The gradient of the hidden states, and the results."""
        return self.hidden + _OUTCOME * self.tokens

    def forward(self) -> int:
        """The hidden states, their gradient, and a chunk of logits with its own hidden states."""
        return self.kept() + self.hidden + self.chunk

    def backward(self) -> int:
        """The gradient that was kept, the product with each token's factor (float32), the same
        rounded, and the result that it is copied into."""
        wide = self.hidden * 4 // self.width
        return self.kept() + 2 * self.hidden + wide


class _Step:
    """The model in one forward and backward."""

    def __init__(self, shape: ModelShape, recipe: Recipe, strategy: Strategy, batch: Batch) -> None:
        self.shape, self.strategy, self.batch = shape, strategy, batch
        self.width = BYTES[strategy.dtype]
        self.recipe = recipe
        self.head = _Head(shape, strategy, batch)
        kinds = [LayerBytes(shape, recipe, strategy, batch, local=local) for local in (True, False)]
        local = shape.local_layers  # which of them is not known here, and changes no sum
        counts: dict[tuple[int, int], tuple[int, int, int]] = {}
        self.layers = []
        before = 0
        for index, level in enumerate(strategy.levels):
            kind = int(index >= local)
            if (kind, level) not in counts:
                layer = kinds[kind]
                stowed = sum(layer.pieces(level))
                counts[kind, level] = layer.kept(level), layer.backward(level), stowed
            kept, inside, stowed = counts[kind, level]
            if index >= strategy.offloaded_layers:
                stowed = 0
            # on the device again during its backward are its own cargo and that of the one before
            self.layers.append((kept - stowed, inside + stowed + before))
            before = stowed

    def layers_kept(self) -> int:
        """By all layers, and the rotary tables."""
        return sum(kept for kept, _ in self.layers) + self.tables()

    def tables(self) -> int:
        """Rotary tables, which all layers share; Gemma 3 has one for each kind of layer."""
        kinds = 2 if self.shape.architecture in ("gemma3", "gemma3_text") else 1
        return kinds * 2 * self.batch.length * self.shape.head_dim * self.width

    def after_layers(self) -> int:
        """The final norm's input and statistics."""
        return self.batch.tokens * (self.shape.hidden_size * self.width + 4)

    def backwards(self) -> list[tuple[int, int]]:
        """For each layer what it and those before it keep, and what its backward adds."""
        before = accumulate(kept for kept, _ in self.layers)
        return [(kept, inside) for kept, (_, inside) in zip(before, self.layers, strict=True)]

    def update(self) -> int:
        """What torch's optimizers make beside their states, such as AdamW one root of them."""
        flat, _ = _flat(self.shape, self.recipe, self.strategy)
        return flat if makes_a_copy(self.strategy.optimizer) else 0

    def scratch(self) -> int:
        """The buffer that weights are unpacked into, as large as the largest group."""
        groups = groups_of(self.shape, self.recipe).values()
        if self.strategy.resident_layers >= len(self.strategy.levels):
            return 0
        return max(group.matrix_values * group.packed for group in groups) * self.width
