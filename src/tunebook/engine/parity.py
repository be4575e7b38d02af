"""Compares a patched model with itself unpatched: loss, logits and gradients, on a few tokens.

Knows no kind of module; a swap that changes the function is undone here and reported. 8-bit layers
are taken as what they stand for (see `eight_bits`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from tunebook.engine.apply import patch, plain_forwards, remember, unpatch
from tunebook.engine.eight_bits import exact_eight_bits
from tunebook.engine.locks import model_lock, unwrapped
from tunebook.engine.modules import UNDONE, Report
from tunebook.engine.rehearsal import rehearse
from tunebook.engine.state import own_randomness, same_gradients, same_modes, without_dropout

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tolerance:
    """Largest relative differences that rounding explains; a loss below 1 nat counts as 1."""

    loss: float
    logits: float
    gradients: float

    def of_depth(self, layers: int) -> Tolerance:
        """For a model of so many layers: rounding adds up from layer to layer.

        On models with random weights, which pass it on undamped, the differences in bfloat16 were
        3.6e-2 and 4.6e-2 for 16 layers, 6.7e-2 and 1.0e-1 for 32 (logits, gradients).
        """
        times = max(1.0, layers / _SHALLOW)
        return Tolerance(self.loss * times, self.logits * times, self.gradients * times)


_SHALLOW = 12  # layers whose differences the table allows for


TOLERANCES = {
    torch.float64: Tolerance(1e-9, 1e-8, 1e-8),
    torch.float32: Tolerance(1e-5, 1e-4, 1e-4),
    torch.float16: Tolerance(1e-2, 1e-2, 2e-2),
    torch.bfloat16: Tolerance(2e-2, 5e-2, 1e-1),
}


@dataclass(frozen=True)
class Parity:
    """How far the patched model is from the unpatched one.

    Attributes:
        loss_difference: |loss - loss| over the loss, or over 1 nat if it is less: logits, and with them
            what rounding does to them, are large where a model is surprised.
        logits_difference: largest |difference| over the largest |logit|.
        gradient_difference: norm of the difference over the norm, of all trainable tensors
            together; None if nothing is trainable.
        dtype: of the logits, which chose the tolerance.
        tolerance: what is allowed.
    """

    loss_difference: float
    logits_difference: float
    gradient_difference: float | None
    dtype: str
    tolerance: Tolerance

    @property
    def ok(self) -> bool:
        """Whether every difference is a number and within the tolerance."""
        pairs = [
            (self.loss_difference, self.tolerance.loss),
            (self.logits_difference, self.tolerance.logits),
            (self.gradient_difference or 0.0, self.tolerance.gradients),
        ]
        return all(math.isfinite(value) and value <= limit for value, limit in pairs)

    def __str__(self) -> str:
        gradients = self.gradient_difference
        return (
            f"{'same' if self.ok else 'NOT the same'} function in {self.dtype}: "
            f"loss {self.loss_difference:.1e} of {self.tolerance.loss:.0e}, "
            f"logits {self.logits_difference:.1e} of {self.tolerance.logits:.0e}, "
            + ("no gradients" if gradients is None else f"gradients {gradients:.1e}")
            + f" of {self.tolerance.gradients:.0e}"
        )


def check_parity(
    model: nn.Module,
    input_ids: torch.Tensor,
    labels: torch.Tensor | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Parity:
    """Run forward and backward patched, then unpatched, and compare; the model is left as it was.

    Args:
        model: a causal language model that `patch` went over; called with `input_ids`, `labels`.
        input_ids: (batch, length); a few tokens are enough.
        labels: the same shape; None learns every token of `input_ids`.
        inputs: what belongs to the tokens beside them, such as `pixel_values`; without them a
            vision tower is not compared.
    """
    labels = input_ids if labels is None else labels
    batch = {**(inputs or {}), "input_ids": input_ids}
    layers = _depth(model)
    with model_lock(model), exact_eight_bits(model):
        patched = _step(model, batch, labels)
        with plain_forwards(model):
            plain = _step(model, batch, labels)
    return _compare(patched, plain, layers)


def patch_checked(
    model: nn.Module,
    input_ids: torch.Tensor,
    labels: torch.Tensor | None = None,
    inputs: Mapping[str, Any] | None = None,
    *,
    device: Literal["auto", "any"] = "auto",
) -> Report:
    """`patch`, then `check_parity`; a kind that fails is undone and stands in `left` with why."""
    batch = (input_ids, labels, inputs)
    with model_lock(model):
        done = patch(model, device=device)
        _rehearse(model, input_ids)
        kinds = {kind for _, kind in done.swapped}
        if not kinds or _failure(model, batch) is None:
            return done
        failures = {kind: _failure_of({kind}, model, batch, device) for kind in kinds}
        good = {kind for kind, failure in failures.items() if failure is None}
        together = _failure_of(good, model, batch, device) if good else None
        if together is not None:
            failures = {kind: failures[kind] or together for kind in kinds}
            good = set()
        return _keep_only(good, model, done, failures, device)


def _rehearse(model: nn.Module, input_ids: torch.Tensor) -> None:
    """Compile ahead; whatever is wrong is met again by the check, which undoes what it must."""
    try:
        rehearse(model, input_ids)
    except Exception as error:
        logger.info("Kernels were not compiled ahead: %s: %s", type(error).__name__, error)


_Step = tuple[float, torch.Tensor, list[torch.Tensor] | None]


def _step(model: nn.Module, batch: Mapping[str, Any], labels: torch.Tensor) -> _Step:
    """Loss, logits and gradients, as they would be in training, from fixed random numbers.

    The logits are followed by those with a key cache, where other code runs. Dropout is off: fused
    layers draw masks of their own.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with same_modes(model), same_gradients(model), own_randomness(model, 0):
        model.train()
        without_dropout(model)
        with torch.set_grad_enabled(bool(trainable)):
            output: Any = model(**batch, labels=labels, use_cache=False)
        gradients = None
        if trainable:
            output.loss.backward()
            gradients = [
                torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in trainable
            ]
        with torch.no_grad():
            answered: Any = model(**batch, use_cache=True).logits
        logits = torch.cat([output.logits.detach(), answered])
        return float(output.loss.detach()), logits, gradients


def _depth(model: nn.Module) -> int:
    """How many layers a token passes through; 0 if the model's config does not say."""
    config: Any = getattr(unwrapped(model), "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(getattr(text, "num_hidden_layers", 0) or 0)


def _compare(patched: _Step, plain: _Step, layers: int) -> Parity:
    dtype = plain[1].dtype
    logits, other = patched[1].double(), plain[1].double()
    scale = float(other.abs().max()) or 1.0
    gradients = None
    if patched[2] is not None and plain[2] is not None:
        pairs = list(zip(patched[2], plain[2], strict=True))
        difference = math.hypot(*(float((a.double() - b.double()).norm()) for a, b in pairs))
        norm = math.hypot(*(float(b.double().norm()) for _, b in pairs))
        gradients = difference / norm if norm else difference
    return Parity(
        loss_difference=abs(patched[0] - plain[0]) / max(1.0, abs(plain[0])),
        logits_difference=float((logits - other).abs().max()) / scale,
        gradient_difference=gradients,
        dtype=str(dtype).removeprefix("torch."),
        tolerance=TOLERANCES.get(dtype, TOLERANCES[torch.float32]).of_depth(layers),
    )


_Batch = tuple[torch.Tensor, torch.Tensor | None, Mapping[str, Any] | None]
"""Arguments of `check_parity`."""


def _failure(model: nn.Module, batch: _Batch) -> str | None:
    """Why the model as patched now may not stay so, or None."""
    try:
        parity = check_parity(model, *batch)
    except Exception as error:  # a kernel that does not build or launch here must not stop a run
        return f"it failed on a few tokens: {type(error).__name__}: {error}"
    return None if parity.ok else str(parity)


def _failure_of(
    kinds: Collection[str],
    model: nn.Module,
    batch: _Batch,
    device: Literal["auto", "any"],
) -> str | None:
    unpatch(model)
    patch(model, kinds=kinds, device=device)
    return _failure(model, batch)


def _keep_only(
    good: Collection[str],
    model: nn.Module,
    first: Report,
    failures: dict[str, str | None],
    device: Literal["auto", "any"],
) -> Report:
    unpatch(model)
    patch(model, kinds=good, device=device)
    undone = [(name, kind, f"{UNDONE}{failures[kind]}") for name, kind in first.swapped]
    done = Report(
        swapped=[pair for pair in first.swapped if pair[1] in good],
        left=first.left + [row for row in undone if row[1] not in good],
    )
    remember(model, done)
    return done
