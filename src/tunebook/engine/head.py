"""Loss of a causal language model without its logits: the output head and cross-entropy in one.

Knows the model's own forward and what its head adds to a plain product; knows no trainer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import CausalLMOutputWithPast

from tunebook.engine.locks import unwrapped
from tunebook.engine.modules import Leave, ModuleKind, Swap, swap_forward, swapped_kind
from tunebook_kernels import LinearCrossEntropy, linear_cross_entropy

IGNORED = -100
# What some heads do to their logits that a product and a softcap do not.
_SCALED = ("logit_scale", "logits_scaling", "lm_head_multiplier", "logits_mup_width_multiplier")


@dataclass
class LossRequest:
    """Given to a swapped model's forward as `fused_loss`; its results are written into it.

    Attributes:
        labels: (batch, length), as transformers takes them: not shifted, -100 where not learnt.
        divisor: of the summed loss; None for the number of labelled tokens.
        rows: (kept,) int64 on the device: flat positions whose next token is learnt, so that the
            others are not multiplied; None multiplies all.
        chunk: tokens whose logits are held at once; None lets the kernel choose.
        result: set by the forward: losses, entropy and correctness by position.
    """

    labels: torch.Tensor
    divisor: float | torch.Tensor | None = None
    rows: torch.Tensor | None = None
    chunk: int | None = None
    result: LinearCrossEntropy | None = None


def shifted(labels: torch.Tensor) -> torch.Tensor:
    """Labels moved so that each position holds the token after it; the last holds -100."""
    return functional.pad(labels[..., 1:], (0, 1), value=IGNORED)


def forward(self: Any, *args: Any, fused_loss: LossRequest | None = None, **kwargs: Any) -> Any:
    """The model's own forward; with `fused_loss`, an output with the loss and no logits."""
    if fused_loss is None:
        return type(self).forward(self, *args, **kwargs)
    hidden_states = body_of(self)(*args, **kwargs).last_hidden_state
    return CausalLMOutputWithPast(loss=loss_of(self, hidden_states, fused_loss))


def loss_of(model: Any, hidden_states: torch.Tensor, request: LossRequest) -> torch.Tensor:
    """The loss of what the decoder returned, (batch, length, n), by the model's own head."""
    head = model.get_output_embeddings()
    request.result = linear_cross_entropy(
        hidden_states,
        head.weight,
        shifted(request.labels),
        bias=head.bias,
        softcap=getattr(model.config.get_text_config(), "final_logit_softcapping", None),
        divisor=request.divisor,
        keep=request.rows,
        chunk=request.chunk,
    )
    return request.result.loss


def body_of(model: Any) -> Any:
    """All of a model but its head: its decoder, and a vision tower where there is one."""
    body = model.base_model
    return model.get_decoder() if body is model else body


def examine(module: nn.Module) -> Swap | Leave | None:
    """A fused loss for a causal language model with a plain head, a reason to leave it, or None."""
    model: Any = module
    if "lm_head" not in module._modules or not hasattr(module, "get_decoder"):
        return None
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return Leave(f"its head is a {type(head).__name__}")
    if body_of(model) is module:
        return Leave("its decoder cannot be called without its head")
    config = model.config.get_text_config()
    for name in _SCALED:
        if getattr(config, name, None) not in (None, 1, 1.0):
            return Leave(f"its logits are scaled ({name})")
    return Swap(forward)


HEAD = ModuleKind("output_head", examine)


def has_fused_head(model: nn.Module) -> bool:
    """Whether a model, wrapped or not, takes `fused_loss`; not once PEFT has wrapped its head."""
    inner = unwrapped(model)
    return swapped_kind(inner) == HEAD.name and isinstance(examine(inner), Swap)


@contextmanager
def fused_head_kept(model: nn.Module) -> Iterator[None]:
    """A forward that is put around the fused one inside (TRL does) counts as fused afterwards.

    It must pass `fused_loss` on. `unpatch` then takes both away.
    """
    before = has_fused_head(model)
    yield
    inner = unwrapped(model)
    around = inner.__dict__.get("forward")
    if before and isinstance(around, MethodType) and swapped_kind(inner) is None:
        swap_forward(inner, HEAD.name, around.__func__)
