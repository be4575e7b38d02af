"""Tells by the names of its parts whether a module is laid out as a block of a vision tower.

Knows names only; whether it computes what such a block does is proved in `vision_block.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

LONE_UPS = ("fc1", "linear_fc1")
"""What the first projection of an MLP without a gate is called."""


@dataclass(frozen=True)
class Layout:
    """Names of a block's parts: attention, MLP, and the norms before each."""

    attention: str
    mlp: str
    first_norm: str
    second_norm: str


_LAYOUTS = (
    Layout("attn", "mlp", "norm1", "norm2"),  # Qwen 2, 2.5 and 3 VL
    Layout("self_attn", "mlp", "layer_norm1", "layer_norm2"),  # CLIP, SigLIP, Idefics
    Layout("attention", "feed_forward", "attention_norm", "ffn_norm"),  # Pixtral
    Layout("self_attn", "mlp", "input_layernorm", "post_attention_layernorm"),  # Llama 3.2
)


def layout_of(module: nn.Module) -> Layout | None:
    """The names of a block's parts, or None for other modules."""
    parts = module._modules
    for layout in _LAYOUTS:
        if not {*vars(layout).values()} <= parts.keys():
            continue
        attention, mlp = parts[layout.attention], parts[layout.mlp]
        lone = any(name in _modules(mlp) for name in LONE_UPS)
        if getattr(attention, "is_causal", False) or not hasattr(attention, "num_heads"):
            return None
        # Llama's own decoder layers are laid out as its vision blocks, with a gate
        return layout if lone or layout.first_norm != "input_layernorm" else None
    return None


def _modules(module: nn.Module | None) -> dict[str, nn.Module | None]:
    return {} if module is None else module._modules
