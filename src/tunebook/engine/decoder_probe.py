"""Proves that a decoder layer's class computes what the fused blocks compute, by running a small one.

Knows how transformers builds a layer from a config; knows nothing of the layer's real weights.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from torch import nn

from tunebook.engine.modules import facts_of

_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
_LENGTH, _WINDOW = 6, 3
_SECTIONS = (2, 1, 1)  # of half a head
_TOLERANCE = 1e-4

_DONE: dict[tuple[Any, ...], str | None] = {}


def difference(layer: nn.Module) -> str | None:
    """Why layers of this class and config may not be fused, or None; each is tried once.

    Output and all gradients of a small random layer, by its own code with an explicit mask, are
    compared with those of its fused form.
    """
    attention: Any = layer.self_attn
    config, index = attention.config, int(attention.layer_idx or 0)
    parts = {name: type(part) for name, part in layer.named_children()}
    facts = *facts_of(layer), *facts_of(attention), *parts.items()
    key = (type(layer), config.to_json_string(use_diff=False), *facts)
    if key not in _DONE:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                _DONE[key] = _compare(type(layer), config, index, parts)
            except Exception as error:  # a stranger's class may want anything; then it is left
                _DONE[key] = f"it could not be tried out: {type(error).__name__}: {error}"
    return _DONE[key]


def _compare(
    kind: type[nn.Module], config: Any, index: int, parts: dict[str, type[nn.Module]]
) -> str | None:
    from tunebook.engine.decoder import FusedLayer, window_of

    with torch.device("cpu"):
        layer = _small_layer(kind, config, index)
        for name, part in layer.named_children():
            if type(part) is not parts.get(name):
                return f"its {name} is not the {type(part).__name__} that such a layer has"
        fused = FusedLayer(layer)
        x = torch.randn((2, _LENGTH, _SMALL["hidden_size"]))
        tables = _rotary(fused.attention.head_dim, config, wants_axes(layer))
        mask = _mask(window_of(layer.self_attn))
        upstream = torch.randn_like(x)

    def step(run: Any) -> list[torch.Tensor]:
        start = x.clone().requires_grad_()
        output = run(start)
        return [output.detach(), *torch.autograd.grad(output, [start, *fused.trainable], upstream)]

    theirs = step(lambda start: layer(start, attention_mask=mask, position_embeddings=tables))
    ours = step(lambda start: fused.run(start, {"position_embeddings": tables}))
    worst = max(
        float((a - b).norm() / b.norm().clamp_min(1e-6)) for a, b in zip(ours, theirs, strict=True)
    )
    if worst <= _TOLERANCE:
        return None
    return f"its forward is not that of a pre-norm decoder layer (differs by {worst:.0e})"


def _small_layer(kind: type[nn.Module], config: Any, index: int) -> Any:
    small = copy.deepcopy(config)
    for name, value in _SMALL.items():
        if getattr(small, name, None) is not None:
            setattr(small, name, value)
    if getattr(small, "sliding_window", None) is not None:
        small.sliding_window = _WINDOW
    parameters = getattr(small, "rope_parameters", None) or {}
    if "mrope_section" in parameters:
        small.rope_parameters = {**parameters, "mrope_section": list(_SECTIONS)}
    small._attn_implementation = "eager"
    layer: Any = kind(small, index)
    layer.float().eval().requires_grad_(True)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return layer


def wants_axes(layer: Any) -> bool:
    """Whether its code takes rotary tables for time, height and width apart (transformers < 5.16)."""
    module = sys.modules[type(layer.self_attn).__module__]
    return hasattr(module, "apply_multimodal_rotary_pos_emb")


def _rotary(head_dim: int, config: Any, axes: bool) -> tuple[torch.Tensor, torch.Tensor]:
    parameters = getattr(config, "rope_parameters", None) or {}
    share = parameters.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", 1.0)
    shape = (1, _LENGTH, int(head_dim * (share or 1.0)) // 2)
    angles = torch.randn((3, *shape) if axes else shape)
    both = torch.cat([angles, angles], dim=-1)
    return both.cos(), both.sin()


def _mask(window: int | None) -> torch.Tensor:
    at = torch.arange(_LENGTH)
    back = at[:, None] - at[None, :]
    allowed = (back >= 0) & (back < (window or _LENGTH))
    return torch.zeros((1, 1, _LENGTH, _LENGTH)).masked_fill(~allowed, torch.finfo(torch.float).min)
