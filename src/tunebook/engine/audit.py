"""Checks, after one forward and backward, that exactly the tensors that should learn do learn.

Knows PEFT's names for LoRA matrices; changes nothing in the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunebook.engine.locks import model_lock, unwrapped
from tunebook.engine.state import own_randomness, same_gradients, same_modes
from tunebook.errors import GradientAudit


@dataclass(frozen=True)
class Audit:
    """What an audit that found nothing wrong saw.

    Attributes:
        trainable: number of tensors that learn; `parameters` their elements.
        waiting: how many lora_A have a zero gradient because their lora_B is still zero.
        gradient_norm: of all trainable tensors together.
        loss: on the batch.
    """

    trainable: int
    parameters: int
    waiting: int
    gradient_norm: float
    loss: float


def audit_gradients(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> Audit:
    """One forward and backward on a tiny batch, and a look at every gradient.

    Mode, gradients and random state are left as they were.

    Args:
        model: a causal language model, usually with LoRA.
        batch: what the model is called with; must hold `labels`.

    Raises:
        GradientAudit: naming the tensors: a trainable one without a finite gradient, a lora_B (or
            everything) with a zero one, a frozen one with any, or tied weights that came apart.
    """
    with model_lock(model):
        _require_trainable(model)
        _require_tied(model)
        with same_modes(model), same_gradients(model), own_randomness(model, 0):
            model.train()
            output: Any = model(**batch, use_cache=False)
            output.loss.backward()
            return _judge(model, float(output.loss.detach()))


def _judge(model: nn.Module, loss: float) -> Audit:
    named = dict(model.named_parameters())
    trainable = {name: p for name, p in named.items() if p.requires_grad}
    _refuse(
        [name for name, p in named.items() if not p.requires_grad and p.grad is not None],
        "A frozen weight received a gradient.",
        "freeze it with `requires_grad_(False)` before training.",
    )
    _refuse(
        [name for name, p in trainable.items() if p.grad is None],
        "A trainable weight received no gradient.",
        "take it out of the target modules, or report the model: a swapped layer lost it.",
    )
    gradients = {name: p.grad.float() for name, p in trainable.items() if p.grad is not None}
    _refuse(
        [name for name, g in gradients.items() if not bool(torch.isfinite(g).all())],
        f"A gradient is not finite (the loss is {loss:.4g}).",
        "use bfloat16 or float32, lower the learning rate, and check that rows have labels.",
    )
    zero = {name for name, g in gradients.items() if not bool(g.any())}
    waiting = {name for name in zero if _waits_for_b(name, named)}
    adapters = {name for name in zero if "lora_" in name}
    _refuse(
        sorted(zero if len(zero) == len(gradients) else adapters - waiting),
        "An adapter's gradient is zero everywhere.",
        "check that the rows have labels to learn, and report the model if they have.",
    )
    norms = torch.stack([gradient.norm().cpu() for gradient in gradients.values()])
    return Audit(
        trainable=len(trainable),
        parameters=sum(p.numel() for p in trainable.values()),
        waiting=len(waiting),
        gradient_norm=float(norms.norm()),
        loss=loss,
    )


def _waits_for_b(name: str, named: Mapping[str, nn.Parameter]) -> bool:
    """Whether this is a lora_A whose lora_B is zero: dA = Bᵀ(…) is then zero, as it should be."""
    b = named.get(name.replace("lora_A", "lora_B").replace("lora_embedding_A", "lora_embedding_B"))
    return b is not None and b is not named[name] and not bool(b.detach().any())


def _require_trainable(model: nn.Module) -> None:
    flags = [parameter.requires_grad for parameter in model.parameters()]
    if not any(flags):
        raise GradientAudit(
            "Nothing would be learned.",
            f"none of the {len(flags)} tensors requires a gradient.",
            "add LoRA (`add_lora`) before training.",
        )


def _require_tied(model: nn.Module) -> None:
    """Raise if the config says that embedding and head are one matrix, and they are two."""
    inner: Any = unwrapped(model)
    config = getattr(inner, "config", None)
    if not getattr(config, "tie_word_embeddings", False):
        return
    embedding, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    if embedding is None or head is None:
        return
    first, second = (getattr(m, "base_layer", m).weight for m in (embedding, head))
    if first.data_ptr() != second.data_ptr() or first.shape != second.shape:
        raise GradientAudit(
            "The tied weights came apart.",
            "the config ties the embedding to the head, but they are two matrices now.",
            "call `model.tie_weights()`, or take embed_tokens and lm_head out of the targets.",
        )


def _refuse(names: list[str], what: str, do: str) -> None:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise GradientAudit(what, f"{', '.join(names[:3])}{more}.", do)
