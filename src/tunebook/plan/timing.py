"""Seconds of one weight update, estimated from FLOPs, bytes moved and the host's time per layer.

The constants were fitted on measured steps, of a CPU and of an H200; an estimate, not a promise.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunebook.models.shape import ModelShape
from tunebook.plan.hardware import Hardware
from tunebook.plan.memory import Batch
from tunebook.plan.nouns import Strategy
from tunebook.recipe import Recipe


@dataclass(frozen=True)
class Speed:
    """How far a stack stays from a device's sustained rates.

    Attributes:
        efficiency: share of `Hardware.flops` that the products of a step reach.
        passes: times that the elementwise bytes of the source-read count are really moved.
        host: seconds of Python and launches per layer and pass (forward, recompute, backward).
        dequantise: 4-bit weights per second on the CPU; on a GPU it is bound by bandwidth.
        loss: seconds for each logit of the fused head without Triton.
        fixed: seconds per weight update for optimizer, logging and data.
        overlap: whether the host runs ahead of the device, so that only the later one counts.
    """

    efficiency: float
    passes: float
    host: float
    dequantise: float | None
    loss: float
    fixed: float
    overlap: bool


SPEED = {
    "cpu": Speed(
        efficiency=0.7, passes=1.0, host=3e-3, dequantise=0.5e9, loss=2e-8, fixed=0.0, overlap=False
    ),
    "cuda": Speed(
        efficiency=0.95,
        passes=1.4,
        host=5.4e-3,
        dequantise=None,
        loss=0.0,
        fixed=0.01,
        overlap=True,
    ),
}


def flops_per_token(shape: ModelShape, recipe: Recipe, length: int, *, recompute: bool) -> float:
    """FLOPs of forward and backward of the frozen base, attention, LoRA and loss, for one token.

    fwd = 2N + attn + 2 lora;  bwd = 2N + 2.5 attn + 4 lora;  recompute = fwd;  loss = 6 h V, since
    TRL's head recomputes the logits. attn = 2 S q a layer for causal rows of S tokens.
    """
    base, lora = shape.linear_parameters(), shape.lora_parameters(recipe.lora)
    attention = attention_flops_per_token(shape, length)
    forward = 2 * base + attention + 2 * lora
    backward = 2 * base + 2.5 * attention + 4 * lora
    loss = 6 * shape.hidden_size * shape.vocab_size
    return forward * (2 if recompute else 1) + backward + loss


def attention_flops_per_token(shape: ModelShape, length: int) -> float:
    """FLOPs of one token's scores and sums in all layers, forward, for causal rows of `length`."""
    total = 0.0
    local = shape.local_layers if shape.sliding_window else 0
    for layers, span in ((local, shape.sliding_window or 0), (shape.num_hidden_layers - local, 0)):
        window = min(span or length, length)
        total += layers * 4 * shape.query_size * window * (1 - window / (2 * length))
    return total


def elementwise_bytes_per_token(
    shape: ModelShape, recipe: Recipe, width: int, *, recompute: bool
) -> float:
    """Bytes that norms, rotary, activation, residuals and LoRA's glue move for one token.

    PEFT without fused kernels, per layer at 2 bytes a value: forward 2*34h + 12h + 20(q+k) + 10f +
    2 sum(in) + 16 sum(out); backward 2*50h + 12h + 24(q+k) + 18f + 4q + 8 sum(out) + 10 sum(in).
    """
    hidden, wide = shape.hidden_size, shape.intermediate_size
    query, key = shape.query_size, shape.key_size
    adapted = shape.adapted_layers(recipe.lora).values()
    size_in, size_out = sum(i for i, _ in adapted), sum(o for _, o in adapted)
    forward = 80 * hidden + 20 * (query + key) + 10 * wide + 2 * size_in + 16 * size_out
    backward = 112 * hidden + 28 * query + 24 * key + 18 * wide + 8 * size_out + 10 * size_in
    total = shape.num_hidden_layers * (forward * (2 if recompute else 1) + backward)
    return (total + 6 * shape.vocab_size) * width / 2


def seconds_per_step(
    shape: ModelShape, recipe: Recipe, strategy: Strategy, batch: Batch, hardware: Hardware
) -> float:
    """Seconds of one weight update: its micro-steps, and the fixed part once.

    Args:
        batch: a typical micro-batch (mean padded length), not the largest.
    """
    speed = SPEED[hardware.device]
    recompute = strategy.gradient_checkpointing
    width = 4 if strategy.dtype == "float32" else 2
    passes = 3 if recompute else 2
    flops = flops_per_token(shape, recipe, batch.length, recompute=recompute) * batch.tokens
    moved = elementwise_bytes_per_token(shape, recipe, width, recompute=recompute) * batch.tokens
    device = flops / (hardware.flops * speed.efficiency) + speed.passes * moved / hardware.bandwidth
    if recipe.quantization.bits != 16:
        weights = shape.linear_parameters() * passes
        rate = speed.dequantise or hardware.bandwidth / (width + 0.52)
        device += weights / rate
    device += speed.loss * batch.tokens * shape.vocab_size
    host = speed.host * shape.num_hidden_layers * passes
    micro = max(device, host) if speed.overlap else device + host
    return strategy.gradient_accumulation_steps * micro + speed.fixed
