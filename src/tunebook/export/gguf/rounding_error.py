"""What rounding a matrix to a type will cost, estimated in nats a token without running the model.

With e the error of the weights, x the input and g the gradient of the output, the divergence is about
half the mean of (sum of g_i e_ij x_j)^2: to second order in e, the Hessian of the divergence being
the Fisher matrix. Its diagonal leaves half the sum of mean g_i^2 * mean x_j^2 * e_ij^2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from tunebook.errors import FileInvalid
from tunebook.export.gguf.importance import EMBEDDING, Importance
from tunebook.export.gguf.tensors import FileTensor

_ROWS = 128  # of a matrix that are tried, those of larger gradients more often
_EXPERTS = 8

Round = Callable[[Tensor, str, Tensor | None], Tensor]
"""Weights (rows, k) float32, type, importance of columns (k), to the weights as they will be read."""


def estimated_errors(
    tensor: FileTensor,
    kinds: Sequence[str],
    importance: Importance,
    rounding: Round,
    columns: Tensor | None = None,
    *,
    rows: int = _ROWS,
) -> dict[str, float]:
    """The divergence in nats a token that rounding one tensor to each type would cause.

    Args:
        importance: with gradients.
        columns: what `rounding` is told of the columns: (k) or (experts, k).
        rows: of a matrix that are tried.

    Raises:
        FileInvalid: the importance tells nothing of this tensor, so that any type would seem free.
    """
    terms = list(_terms(tensor, importance))
    if not terms:
        raise FileInvalid(
            "It is not known what a tensor's rounding costs.",
            f"{tensor.name} is not in the importance data, or no token went through it.",
            "measure on this model, with more rows of `calibration`; or take a mix such as 'q4_k_m'.",
        )
    weight = tensor.load()
    stack = weight if weight.ndim == 3 else weight[None]
    told = None if columns is None else columns.view(-1, weight.shape[-1])
    errors = dict.fromkeys(kinds, 0.0)
    for expert, by_row, by_column, share in terms:
        chosen = _sample(by_row, rows)
        total = float(by_row.sum())
        places, counts = torch.unique(chosen, return_counts=True)
        part = stack[expert][places.to(weight.device)].float()
        scale = by_column.to(weight.device, torch.float32)
        own = None if told is None else told[expert if len(told) > 1 else 0]
        times = counts.to(weight.device, torch.float32) / len(chosen)
        for kind in kinds:
            error = (rounding(part, kind, own) - part).square() @ scale
            errors[kind] += 0.5 * share * total * float(error @ times)
    return errors


def _terms(
    tensor: FileTensor, importance: Importance
) -> Iterator[tuple[int, Tensor, Tensor, float]]:
    """Expert, mean squares at rows and at columns, and a factor: their products add up."""
    tokens = max(importance.tokens, 1)
    moments = importance.tensors.get(tensor.name)
    if moments is not None and moments.rows is not None:
        met = torch.nonzero(moments.counts).flatten()
        tried = met[torch.linspace(0, len(met) - 1, min(len(met), _EXPERTS)).round().long()]
        for expert in sorted(set(tried.tolist())):
            count = float(moments.counts[expert])
            share = count / tokens * len(met) / len(tried)
            yield expert, moments.rows[expert] / count, moments.columns[expert] / count, share
    lookups = importance.lookups
    if tensor.name == EMBEDDING and lookups is not None and lookups.rows is not None:
        yield 0, lookups.rows[0] / tokens, lookups.columns[0] / tokens, 1.0


def _sample(by_row: Tensor, count: int) -> Tensor:
    """Numbers of rows, each as often as its share of the whole asks for, spread evenly."""
    if len(by_row) <= count and bool((by_row == by_row[0]).all()):
        return torch.arange(len(by_row))
    running = by_row.double().cumsum(0)
    at = (torch.arange(count, dtype=torch.float64) + 0.5) / count * running[-1]
    return torch.searchsorted(running, at).clamp(max=len(by_row) - 1)


def correction_factors(
    errors: Mapping[str, Mapping[str, float]],
    measured: Mapping[str, tuple[Mapping[str, str], float]],
) -> dict[str, float]:
    """By class of tensors, what was measured over what was estimated.

    Args:
        errors: by tensor and type.
        measured: by class, the types that its tensors had and the divergence that was seen.
    """
    factors = {}
    for name, (kinds, seen) in measured.items():
        foreseen = sum(errors[tensor][kind] for tensor, kind in kinds.items())
        factors[name] = seen / foreseen if foreseen > 0 else 1.0
    return factors
