"""How large GGUF files will be, from the shape of a model alone.

Knows shapes and mixes; no weights, no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunebook.export.gguf.mixes import DYNAMIC, Network, mix_named, tensor_bytes, tensor_type
from tunebook.models.shape import ExpertShape, ModelShape

_NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def predicted_bytes(shape: ModelShape, quantization: str) -> int:
    """Bytes of the tensors of a GGUF file; a dynamic one has the size of Q4_K_M.

    Raises:
        RecipeInvalid: no such quantization.
    """
    mix = mix_named("q4_k_m" if quantization.lower() == DYNAMIC else quantization)
    network = Network(
        layers=shape.num_hidden_layers,
        heads=shape.num_attention_heads,
        key_value_heads=shape.num_key_value_heads,
        experts=shape.num_experts if isinstance(shape, ExpertShape) else 0,
        tied=shape.tie_word_embeddings,
    )
    kinds = ((size, tensor_type(name, size, mix, network)) for name, size in _matrices(shape))
    return sum(tensor_bytes(size, kind) for size, kind in kinds) + 4 * shape.small_parameters()


def predicted_projector_bytes(shape: ModelShape) -> int:
    """Bytes of the tensors of the projector file in 16 bit; none of a model that does not see."""
    return 2 * shape.vision.parameters if shape.vision is not None else 0


def _matrices(shape: ModelShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names in the file and shapes, rows first; of stacked experts their number before that."""
    table = (shape.vocab_size, shape.hidden_size)
    yield "token_embd.weight", table
    if not shape.tie_word_embeddings:
        yield "output.weight", table
    for layer in range(shape.num_hidden_layers):
        for name, (columns, rows) in _layers(shape).items():
            yield f"blk.{layer}.{name}.weight", (rows, columns)
        if isinstance(shape, ExpertShape):
            for name, (columns, rows) in shape.expert_layers().items():
                yield f"blk.{layer}.ffn_{name}_exps.weight", (shape.num_experts, rows, columns)


def _layers(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """The matrices of a layer, (in, out); what a family stores fused is chosen a type for as one."""
    layers = {_NAMES[name]: size for name, size in shape.linear_layers().items()}
    if shape.fused_projections:
        columns, _ = layers["attn_q"]
        parts = [layers.pop(name)[1] for name in ("attn_q", "attn_k", "attn_v")]
        layers["attn_qkv"] = (columns, sum(parts))
    return layers
