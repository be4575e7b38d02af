"""Bytes that one training step needs, by part, counted tensor by tensor.

Counts what transformers' eager layers, PEFT's LoRA layers, bitsandbytes and TRL's fused head keep
for backward; the counts were checked with saved-tensor hooks and allocator traces (see
`benchmarks/forecast_error.py`). Knows nothing of budgets or time.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunebook.models.shape import ModelShape
from tunebook.plan.nouns import PARTS, Strategy
from tunebook.plan.optimizers import state_bytes
from tunebook.recipe import LoraPart, Recipe

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_NF4_BLOCK, _NESTED_BLOCK = 64, 256
_HEAD_ROWS, _HEAD_COLUMNS = 4096, 32768
_TORCH_HEAD_BYTES = 29
"""Per element of the largest tile in TRL's torch backward: seven fp32 temporaries and a mask."""
_CUBLAS_WORKSPACE = 32 * 2**20
_SHARED_INPUT = {
    "q_proj": "attention",
    "k_proj": "attention",
    "v_proj": "attention",
    "qkv_proj": "attention",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "gate_up_proj": "mlp",
}


@dataclass(frozen=True)
class Batch:
    """One micro-batch as it lies in memory.

    Attributes:
        rows: number of rows.
        length: tokens of a row, padding included.
        masked: whether an attention mask is made (padding or packed documents); plain causal rows
            need none.
    """

    rows: int
    length: int
    masked: bool

    @property
    def tokens(self) -> int:
        """All tokens, padding included."""
        return self.rows * self.length


def memory_parts(
    shape: ModelShape, recipe: Recipe, strategy: Strategy, batch: Batch, device: str
) -> dict[str, int]:
    """Bytes by part at the moment of the peak; their sum is the peak.

    Two moments can be highest: the backward of the loss, when everything kept for backward is alive
    together with the loss's tiles, and the backward of the last layer's MLP, when gradients of the
    activations are alive (with checkpointing, beside that layer's recomputed activations).
    """
    resident = resident_parts(shape, recipe, strategy, device)
    step = _Step(shape, recipe, strategy, batch, device)
    kept, head = step.kept_for_backward(), step.head()
    inside, transient = step.layer_backward()
    at_head = kept + step.after_layers() + head
    at_layer = kept + inside + transient
    if at_head >= at_layer:
        moment = {"activations": kept + step.after_layers(), "logits": head, "scratch": 0}
    else:
        moment = {"activations": kept + inside, "logits": 0, "scratch": transient}
    if device == "cuda":
        moment["scratch"] += _CUBLAS_WORKSPACE
    parts = {**resident, **moment}
    return {name: int(parts[name]) for name in PARTS}


def resident_parts(
    shape: ModelShape, recipe: Recipe, strategy: Strategy, device: str
) -> dict[str, int]:
    """Bytes that stay through the run: weights, embeddings, adapters, gradients, optimizer."""
    width = BYTES[strategy.dtype]
    lora = shape.lora_parameters(recipe.lora)
    adapter_width = BYTES[strategy.adapter_dtype]
    tower = shape.vision.parameters if shape.vision else 0
    small = (shape.small_parameters() + shape.extra_parameters + tower) * width
    return {
        "weights": _linear_bytes(shape, recipe, width) + small,
        "embeddings": shape.embedding_parameters() * width,
        "adapters": lora * adapter_width,
        "gradients": lora * adapter_width,
        "optimizer": _optimizer_bytes(shape, recipe.lora, strategy),
    }


def _linear_bytes(shape: ModelShape, recipe: Recipe, width: int) -> int:
    """The frozen matrices: 16-bit (32 on the CPU), int8 with a scale a row, or 4-bit with scales.

    4 bit: N/2 of codes and N/64 scales, of 4 bytes, or of 1 byte with 4 bytes for each 256 of them
    when quantized too; a book of 16 codes a matrix (and of 256 for the scales).
    """
    total = 0
    for size_in, size_out in shape.linear_layers().values():
        weights = size_in * size_out
        if recipe.quantization.bits == 16:
            total += weights * width
        elif recipe.quantization.bits == 8:
            total += weights + 4 * size_out
        else:
            scales = -(-weights // _NF4_BLOCK)
            total += weights // 2 + 16 * 4
            if recipe.quantization.double_quant:
                total += scales + 4 * -(-scales // _NESTED_BLOCK) + 256 * 4 + 4
            else:
                total += 4 * scales
    return total * shape.num_hidden_layers


def _optimizer_bytes(shape: ModelShape, lora: LoraPart, strategy: Strategy) -> int:
    """The optimizer's states of all adapters."""
    width = BYTES[strategy.adapter_dtype]
    total = 0
    for sizes in shape.adapted_layers(lora).values():
        for size in sizes:
            total += state_bytes(strategy.optimizer, lora.r, size, width)
    return total * shape.num_hidden_layers


class _Step:
    """Counts of one forward and backward; symbols as in the table of widths: bytes per token."""

    def __init__(
        self, shape: ModelShape, recipe: Recipe, strategy: Strategy, batch: Batch, device: str
    ) -> None:
        self.shape, self.recipe, self.strategy, self.batch = shape, recipe, strategy, batch
        self.width = BYTES[strategy.dtype]
        self.on_cpu = device == "cpu"
        self.adapted = shape.adapted_layers(recipe.lora)

    def kept_for_backward(self) -> int:
        """All layers' saved tensors, or each layer's input if checkpointed; and rotary tables."""
        tokens, layers = self.batch.tokens, self.shape.num_hidden_layers
        rotary = 2 * self.batch.length * self.shape.head_dim * self.width
        mask = self.batch.length**2 * self.batch.rows if self.batch.masked else 0
        if self.strategy.gradient_checkpointing:
            return layers * tokens * self.shape.hidden_size * self.width + rotary + mask
        return layers * self._layer() + self._weight_casts(layers) + rotary + mask

    def layer_backward(self) -> tuple[int, int]:
        """What the last layer's MLP adds in its backward: (recomputed activations, temporaries).

        The input of down_proj is released before its two gradients (LoRA's, the base's) meet; then
        three MLP-wide gradients live beside gate, activation and up, or two and the weight.
        """
        shape, tokens = self.shape, self.batch.tokens
        wide = tokens * shape.intermediate_size * self.width
        dequantised = self._dequantised("down_proj")
        released = wide if "down_proj" in self.adapted else 0
        gradients = max(3 * wide, (2 * wide if released else wide) + dequantised) - released
        if shape.attention_softcap:  # or the gradients of the scores, a few at a time
            scores = 3 * 4 * tokens * shape.num_attention_heads * self.batch.length
            gradients = max(gradients, scores)
        temporaries = gradients + tokens * shape.hidden_size * self.width
        if not self.strategy.gradient_checkpointing:
            return 0, temporaries
        inside = self._layer() + self._weight_casts(1)
        if self.width == 4:  # the first norm's input is the checkpoint itself
            inside -= 4 * tokens * shape.hidden_size
        return inside, temporaries

    def after_layers(self) -> int:
        """The final norm's float32 input and the hidden states that the head keeps."""
        return self.batch.tokens * self.shape.hidden_size * (4 + self.width)

    def head(self) -> int:
        """Temporaries of the loss's backward in TRL's fused head: one tile of logits at a time.

        A buffer of min(T, 4096) x 32768, always that wide, and the float32 gradient of the hidden
        states; without Triton (on the CPU) the arithmetic on the tile makes copies of it.
        """
        tokens = self.batch.tokens
        rows, columns = min(tokens, _HEAD_ROWS), min(self.shape.vocab_size, _HEAD_COLUMNS)
        buffer = rows * _HEAD_COLUMNS * self.width
        hidden_gradient = 4 * tokens * self.shape.hidden_size
        each = _TORCH_HEAD_BYTES + (4 if self.shape.logit_softcap else 0)
        copies = each * rows * columns if self.on_cpu else 0
        return buffer + hidden_gradient + copies

    def _layer(self) -> int:
        """Saved tensors of one decoder layer."""
        shape, width, tokens = self.shape, self.width, self.batch.tokens
        hidden, query, key = shape.hidden_size, shape.query_size, shape.key_size
        norms = 4 * hidden * shape.norms_per_layer  # RMSNorm computes in float32
        if shape.qk_norm != "none":
            norms += 4 * (query + key)
        eager = shape.attention_softcap
        # with a mask SDPA gets repeated heads, and so does eager attention always
        keys = 2 * (query if self.batch.masked or eager else key)
        if shape.fused_projections:
            keys += query + key  # the value is a view that keeps the whole fused output
        scores = self.batch.length * (4 + width + (width if width < 4 else 0)) if eager else 4
        attention = width * (2 * query + keys) + shape.num_attention_heads * scores
        mlp = width * 3 * shape.intermediate_size
        per_token = norms + attention + mlp + self._lora_inputs() + 4 * shape.norms_per_layer
        return tokens * per_token + self._mask()

    def _lora_inputs(self) -> int:
        """Bytes per token that LoRA keeps: each projection's input once, and A's outputs."""
        shared: dict[str, int] = {}
        copies = 0
        for name, (size_in, _) in self.adapted.items():
            if name != "o_proj":  # its input is the attention output, kept anyway
                shared[_SHARED_INPUT.get(name, name)] = size_in
            if self._copies_inputs():
                copies += size_in
        rank = self.recipe.lora.r * len(self.adapted)
        total = self.width * (rank + (copies or sum(shared.values())))
        if self.recipe.lora.dropout > 0:
            total += sum(size_in * (1 + self.width) for size_in, _ in self.adapted.values())
        return total

    def _copies_inputs(self) -> bool:
        """PEFT casts an unquantized layer's input to the adapter's dtype; autocast casts back."""
        unquantized = self.recipe.quantization.bits == 16
        return unquantized and self.strategy.adapter_dtype != self.strategy.dtype

    def _mask(self) -> int:
        """SDPA turns a boolean mask into an additive one of the compute dtype, for each layer."""
        if not self.batch.masked or self.shape.attention_softcap:
            return 0
        return self.batch.rows * self.batch.length**2 * self.width

    def _weight_casts(self, layers: int) -> int:
        """Autocast's copies of adapter weights whose dtype is not the compute dtype."""
        if self.strategy.adapter_dtype == self.strategy.dtype:
            return 0
        per_layer = self.shape.lora_parameters(self.recipe.lora) // self.shape.num_hidden_layers
        return layers * per_layer * self.width

    def _dequantised(self, name: str) -> int:
        """A frozen matrix in the compute dtype, and its scales in float32, as backward needs it."""
        size_in, size_out = self.shape.linear_layers()[name]
        if self.recipe.quantization.bits == 16:
            return 0
        return size_in * size_out * self.width + 4 * size_in * size_out // _NF4_BLOCK
