"""Has the kernels of a patched model compiled side by side, before its first forward needs them in turn.

Knows the fused layers, norms and head; computes nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tunebook.engine.decoder import fused
from tunebook.engine.decoder_blocks import Norm
from tunebook.engine.head import LossRequest, has_fused_head, loss_of
from tunebook.engine.locks import unwrapped
from tunebook.engine.memory import fused_layers
from tunebook.engine.modules import swapped_kind
from tunebook.engine.norm import NORM, convention_of
from tunebook_kernels import compile_ahead


class _Reached(Exception):
    """Carries what a layer was called with out of the model's forward."""

    def __init__(self, hidden_states: torch.Tensor, kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.call = hidden_states, kwargs


def rehearse(model: nn.Module, input_ids: torch.Tensor) -> None:
    """Compile what a step of the patched model launches; nothing where nothing is compiled.

    Args:
        input_ids: (batch, length) on the model's device. Kernels do not depend on these sizes.
    """
    layers = fused_layers(model)
    if not layers or input_ids.device.type != "cuda":
        return
    hidden_states, kwargs = _call_of(layers[0], model, input_ids)
    windows = {fused(layer).attention.window: fused(layer) for layer in layers}
    with compile_ahead(input_ids.device):
        for layer in windows.values():
            layer.rehearse(hidden_states, kwargs)
        for norm in [m for m in model.modules() if swapped_kind(m) == NORM.name][-1:]:
            _rehearse_norm(norm, hidden_states)
        if has_fused_head(model):
            last = hidden_states.detach().requires_grad_()
            loss_of(unwrapped(model), last, LossRequest(input_ids))


@torch.no_grad()
def _call_of(
    layer: nn.Module, model: nn.Module, input_ids: torch.Tensor
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Hidden states and keywords that the model calls its first layer with."""

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest = dict(kwargs)
        raise _Reached(args[0] if args else rest.pop("hidden_states"), rest)

    hook = layer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(input_ids=input_ids, use_cache=False)
    except _Reached as reached:
        return reached.call
    finally:
        hook.remove()
    raise RuntimeError("the model's forward passes its first layer by")


@torch.no_grad()
def _rehearse_norm(module: nn.Module, x: torch.Tensor) -> None:
    """The norm before the head, whose gradient has no residual to add."""
    convention = convention_of(module)
    if convention is None or module.weight.numel() != x.shape[-1]:  # type: ignore[operator]
        return
    norm = Norm(module, *convention)
    rows = x.reshape(-1, x.shape[-1])
    y, rstd = norm.forward(rows)
    norm.backward(y, rows, rstd)
