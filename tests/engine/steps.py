"""One training step of a model and how it compares with another's; batches of every kind.

Knows transformers' arguments; knows no family and no kind of swap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunebook.engine import CAUSAL, LossRequest, fused_layers, has_fused_head

VOCABULARY = 300
IGNORED = -100
Batch = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """Loss, logits (None where none were made) and the gradient of each trainable tensor."""

    loss: float
    logits: torch.Tensor | None
    gradients: dict[str, torch.Tensor]


def take_step(model: Any, batch: Batch, *, seed: int = 0) -> Step:
    """Forward and backward in training mode; the loss is the model's own."""
    return _step(model, batch, seed, lambda: model(**batch, use_cache=False))


def take_fused_step(model: Any, batch: Batch, *, seed: int = 0) -> Step:
    """The same by the fused head, as the trainer calls a patched model."""
    assert has_fused_head(model)
    given = {name: value for name, value in batch.items() if name != "labels"}
    request = LossRequest(batch["labels"])
    return _step(model, batch, seed, lambda: model(**given, use_cache=False, fused_loss=request))


def _step(model: nn.Module, batch: Batch, seed: int, run: Callable[[], Any]) -> Step:
    model.train()
    model.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    output = run()
    output.loss.backward()
    gradients = {
        name: parameter.grad.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    model.zero_grad(set_to_none=True)
    logits = output.logits
    return Step(float(output.loss.detach()), None if logits is None else logits.detach(), gradients)


def assert_same(ours: Step, theirs: Step, tolerance: float, attended: Any = None) -> None:
    """Loss, logits and each gradient, relative to the size of each.

    Args:
        attended: (batch, length), where logits count; None for everywhere.
    """
    assert abs(ours.loss - theirs.loss) <= tolerance * abs(theirs.loss)
    if ours.logits is not None and theirs.logits is not None:
        where = ... if attended is None else attended.bool()
        assert distance(ours.logits[where], theirs.logits[where]) <= tolerance
    assert ours.gradients.keys() == theirs.gradients.keys()
    for name, gradient in theirs.gradients.items():
        assert gradient.any(), f"{name} learns nothing, so that nothing is compared"
        away = distance(ours.gradients[name], gradient)
        assert away <= tolerance, f"{name} is {away:.1e} away"


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Norm of the difference over the norm, in float64; NaN where either has one."""
    wide = theirs.double()
    return float((ours.double() - wide).norm() / wide.norm())


def error(step: Step, exact: Step) -> float:
    """How far all gradients of a step are from the exact ones, as one number."""
    names = sorted(exact.gradients)
    return distance(*(torch.cat([s.gradients[n].double().flatten() for n in names])
                      for s in (step, exact)))  # fmt: skip


# --------------------------------------------------------------------------------------- batches


def random_batch(kind: str, device: str, *, seed: int = 3) -> Batch:
    """A batch longer than every window: "plain", "padded left", "padded right" or "packed"."""
    if kind == "packed":
        return packed([document(n, device, seed=seed + n) for n in (9, 1, 14)])
    rows = document(40, device, seed=seed)
    batch: Batch = {name: value.view(2, 20) for name, value in rows.items()}
    if kind != "plain":
        mask = torch.ones_like(batch["input_ids"])
        mask[1, :7] = 0
        batch["attention_mask"] = mask if kind == "padded left" else mask.flip(1)
        batch["labels"] = batch["labels"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    return batch


def document(length: int, device: str, *, seed: int) -> dict[str, torch.Tensor]:
    """(length,) random ids, three of four with a label."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (length,), generator=generator)
    unlearnt = torch.rand(length, generator=generator) < 0.25
    return {"input_ids": ids.to(device), "labels": ids.masked_fill(unlearnt, IGNORED).to(device)}


def packed(documents: list[dict[str, torch.Tensor]]) -> Batch:
    """One row of documents; positions start again at each, the first token of each has no label."""
    labels = [one["labels"].clone() for one in documents]
    for row in labels:
        row[0] = IGNORED
    device = labels[0].device
    return {
        "input_ids": torch.cat([one["input_ids"] for one in documents])[None],
        "labels": torch.cat(labels)[None],
        "position_ids": torch.cat([torch.arange(len(row), device=device) for row in labels])[None],
    }


def with_lengths(model: nn.Module, batch: Batch) -> Batch:
    """A packed batch with what the trainer adds for this patched model: lengths, and no mask."""
    positions = batch["position_ids"][0]
    starts = torch.cat([(positions == 0).nonzero()[:, 0], positions.new_tensor([len(positions)])])
    longest = int(starts.diff().max())
    lengths = {
        "cu_seq_lens_q": starts.int(), "cu_seq_lens_k": starts.int(),
        "max_length_q": longest, "max_length_k": longest,
    }  # fmt: skip
    return {**batch, **lengths, **({"attention_mask": CAUSAL} if fused_layers(model) else {})}
