"""The metadata of a GGUF file that a model's configuration decides: sizes, rotary scaling, windows.

Keys are those of ggml's docs/gguf.md. Knows configurations; the tokenizer's part is elsewhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tunebook.export.gguf.architectures import Architecture, head_dim, rope_of

if TYPE_CHECKING:
    import gguf
    import torch


def write_metadata(
    writer: gguf.GGUFWriter, architecture: Architecture, text: Any, *, name: str, vocabulary: int
) -> None:
    """Add what the configuration says.

    Args:
        text: configuration of the text decoder.
        name: `general.name`.
        vocabulary: rows of the token embedding.
    """
    prefix = architecture.name
    writer.add_type("model")
    writer.add_name(name)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_context_length(text.max_position_embeddings)
    writer.add_embedding_length(text.hidden_size)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    writer.add_head_count_kv(text.num_key_value_heads)
    writer.add_key_length(head_dim(text))
    writer.add_value_length(head_dim(text))
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_vocab_size(vocabulary)
    for key, field in architecture.stated.items():
        value = getattr(text, field, None)
        if value is not None:
            add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
            add(f"{prefix}.{key}", value)
    _write_rope(writer, text)
    if architecture.windows:
        writer.add_sliding_window(text.sliding_window)
        writer.add_sliding_window_pattern([kind != "full_attention" for kind in text.layer_types])
    elif prefix == "phi3":  # zero tells Phi-4 from the others
        writer.add_sliding_window(text.sliding_window or 0)


def _write_rope(writer: gguf.GGUFWriter, text: Any) -> None:
    from gguf.constants import RopeScalingType

    rope = rope_of(text)
    writer.add_rope_dimension_count(_rotated(text))
    writer.add_rope_freq_base(rope["rope_theta"])
    local = rope_of(text, "sliding_attention")
    if local is not rope and local.get("rope_theta") != rope["rope_theta"]:
        writer.add_rope_freq_base_swa(local["rope_theta"])
    if sections := rope.get("mrope_section"):  # time, height, width, and a fourth of no use here
        writer.add_rope_dimension_sections([*sections, 0])
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(_trained_length(text))
        optional = {
            "attention_factor": writer.add_rope_scaling_yarn_attn_factor,
            "beta_fast": writer.add_rope_scaling_yarn_beta_fast,
            "beta_slow": writer.add_rope_scaling_yarn_beta_slow,
        }
        for field, add in optional.items():
            if rope.get(field) is not None:
                add(rope[field])
    elif kind == "longrope":
        writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(_trained_length(text))
        writer.add_rope_scaling_attn_factors(_long_attention_factor(text))


def rope_tensors(text: Any) -> dict[str, torch.Tensor]:
    """Factors of the rotary frequencies that llama.cpp wants as float32 tensors, by name."""
    import torch

    rope = rope_of(text)
    kind = rope.get("rope_type", "default")
    if kind == "llama3":
        return {"rope_freqs.weight": _llama3_factors(rope, head_dim(text))}
    if kind == "longrope":
        return {
            f"rope_factors_{length}.weight": torch.tensor(
                rope[f"{length}_factor"], dtype=torch.float32
            )
            for length in ("long", "short")
        }
    return {}


def _llama3_factors(rope: dict[str, Any], width: int) -> torch.Tensor:
    """(width / 2,): 1 for high frequencies, `factor` for low ones, smoothly changing between.

    The formula is `_compute_llama3_parameters` of transformers' modeling_rope_utils.py; a factor
    here divides the frequency.
    """
    import torch

    exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
    wavelength = 2 * math.pi * rope["rope_theta"] ** exponents
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = (rope["original_max_position_embeddings"] / wavelength - low) / (high - low)
    smooth = smooth.clamp(0, 1)
    factors: torch.Tensor = 1 / ((1 - smooth) / factor + smooth)
    return factors


def _long_attention_factor(text: Any) -> float:
    """What LongRoPE scales the rotated queries and keys by, once each."""
    rope, trained = rope_of(text), _trained_length(text)
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    scale = rope.get("factor") or text.max_position_embeddings / trained
    return math.sqrt(1 + math.log(scale) / math.log(trained)) if scale > 1 else 1.0


def _trained_length(text: Any) -> int:
    """The context before it was stretched."""
    rope = rope_of(text)
    length = rope.get("original_max_position_embeddings") or getattr(
        text, "original_max_position_embeddings", None
    )
    return int(length or text.max_position_embeddings)


def _rotated(text: Any) -> int:
    """How much of a head is rotated."""
    part: float = rope_of(text).get("partial_rotary_factor") or 1.0
    return int(part * head_dim(text))
