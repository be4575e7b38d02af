"""A type for every single tensor: those that a model's answers hang on get more bits, others fewer.

What each tensor loses by each type is estimated, the estimates are corrected by a few measurements,
the best types for a number of bytes are chosen, and the result is measured on held-out text beside
llama.cpp's mix of that size. Knows models and tensors; files are the writer's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from tunebook.errors import RecipeInvalid
from tunebook.export.gguf.blocks import BLOCK_TYPES, dequantize, quantize
from tunebook.export.gguf.calibration import Calibration
from tunebook.export.gguf.divergence import Divergence, Reference, Rounded
from tunebook.export.gguf.importance import EMBEDDING, READING, Importance
from tunebook.export.gguf.knapsack import choose
from tunebook.export.gguf.mixes import (
    MIXES,
    Mix,
    Network,
    is_quantized,
    tensor_bytes,
    tensor_type,
)
from tunebook.export.gguf.report import Choice, DynamicReport
from tunebook.export.gguf.rounding_error import correction_factors, estimated_errors
from tunebook.export.gguf.tensors import FileTensor
from tunebook.export.progress import Progress

# From fewest bits to most. The older types serve rows that are no multiple of 256.
_KINDS = ("Q2_K", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "BF16")
_SHORT_KINDS = ("IQ4_NL", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16")
# Fewest bits a weight of a class of tensors: beyond these an error is no small one any more, and
# estimates to second order mean little.
_FLOORS = {"output": 6.5, "attn_k": 3.4, "attn_v": 3.4, "attn_qkv": 3.4, "attn_output": 3.4}
_EMBEDDING_FLOOR = 3.4
# The mixes of llama.cpp that people choose by size; of the others each has a better one that is smaller.
_COMPARED = (
    *("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "IQ4_XS"),
    *("Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"),
)
ESTIMATING = "Trying every type on every tensor"
CORRECTING = "Measuring the divergence of a few mixes"
COMPARING = "Comparing with llama.cpp's mix on held-out text"
PASSES = (READING, ESTIMATING, CORRECTING, COMPARING)
_PROBE = "Q4_K"  # the type of a class of tensors whose divergence is measured
_PROBED_TOKENS = 2048


def class_of(name: str) -> str:
    """What a tensor is for, whatever its layer: "attn_v", "ffn_down", "token_embd"."""
    return (name.split(".", 2)[2] if name.startswith("blk.") else name).removesuffix(".weight")


def make_dynamic(
    model: Any,
    tensors: Sequence[FileTensor],
    network: Network,
    importance: Importance,
    text: Calibration,
    limit: int,
    *,
    progress: Progress | None = None,
) -> tuple[Mix, DynamicReport]:
    """The mix of least divergence within a number of bytes, and what is known of it.

    llama.cpp's largest mix within that size is measured too, with the same importance; it is what is
    given back where it is as good.

    Args:
        importance: with gradients.
        text: `rows` for choosing between candidates, `held_out` for the report.
        limit: bytes of all tensors together.
        progress: told of `PASSES` but the first, and asked whether to stop.

    Raises:
        RecipeInvalid: not even the fewest bits that are allowed fit.
        Cancelled: a stop was asked for.
    """
    analysis = _Analysis(model, tensors, network, importance, progress or Progress())
    few = analysis.reference(_spread(text.rows, _PROBED_TOKENS))
    held_out = analysis.reference(text.held_out)
    estimates = analysis.estimates()
    factors, scaled = analysis.corrections(estimates, few)
    candidates = [analysis.best(errors, limit) for errors in (estimates, scaled)]
    if candidates[0] != candidates[1]:
        candidates.sort(key=lambda kinds: analysis.divergence(kinds, few).mean)
    kinds = candidates[0]
    stock = _stock_of(tensors, network, limit)
    analysis.begin(COMPARING, 1 if stock is None else 2, held_out)
    measured = analysis.divergence(kinds, held_out)
    stock_kinds = analysis.kinds_of(stock) if stock is not None else {}
    theirs = analysis.divergence(stock_kinds, held_out) if stock is not None else None
    used = theirs is None or measured.mean < theirs.mean
    size = analysis.bytes(kinds)
    nearest = stock or MIXES["Q2_K"]
    mix = replace(nearest, name=f"dynamic-{nearest.name}", types=kinds, like=nearest.name)
    chosen = [
        Choice(
            name=t.name,
            shape=t.shape,
            type=kinds[t.name],
            bytes=tensor_bytes(t.shape, kinds[t.name]),
            stock_type=stock_kinds.get(t.name),
            errors=scaled[t.name],
        )
        for t in analysis.matrices
    ]
    report = DynamicReport(
        name=mix.name,
        limit=limit,
        bytes=size,
        weights=sum(_weights(t.shape) for t in tensors),
        dynamic=measured,
        stock_name=stock.name if stock is not None else None,
        stock_bytes=analysis.bytes(stock_kinds) if stock is not None else None,
        stock=theirs,
        uses_dynamic=used,
        calibration_tokens=importance.tokens,
        corrections=factors,
        tensors=chosen,
    )
    return (mix if used or stock is None else stock), report


class _Analysis:
    """One model with what was measured of it."""

    def __init__(
        self,
        model: Any,
        tensors: Sequence[FileTensor],
        network: Network,
        importance: Importance,
        progress: Progress,
    ) -> None:
        self._model, self._tensors, self._network = model, tensors, network
        self._importance, self._progress = importance, progress
        self._columns: dict[str, Tensor] = importance.columns()
        self.matrices = [t for t in tensors if is_quantized(t.name, t.shape)]
        self._fixed = sum(tensor_bytes(t.shape, "F32") for t in tensors) - sum(
            tensor_bytes(t.shape, "F32") for t in self.matrices
        )
        self._classes = {t.name: class_of(t.name) for t in self.matrices}

    def estimates(self) -> dict[str, dict[str, float]]:
        """Nats a token that each tensor costs in each type it may have."""
        found = {}
        self._progress.begin_pass(ESTIMATING, len(self.matrices))
        for tensor in self.matrices:
            kinds = {*self._allowed(tensor), self._probe(tensor)}
            found[tensor.name] = estimated_errors(
                tensor, sorted(kinds), self._importance, _rounded, self._columns.get(tensor.name)
            )
            self._progress.step()
        return found

    def begin(self, title: str, mixes: int, reference: Reference, *, probes: int = 0) -> None:
        """A pass in which so many mixes of all matrices are measured, and some of fewer.

        Args:
            probes: mixes that together hold each matrix once.
        """
        each = len(self.matrices)
        steps = mixes * (each + len(reference)) + (probes > 0) * each + probes * len(reference)
        self._progress.begin_pass(title, steps)

    def corrections(
        self, estimates: Mapping[str, Mapping[str, float]], few: Reference
    ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """What was measured of each class over its estimates, and the estimates times that."""
        measured = {}
        classes = list(dict.fromkeys(self._classes.values()))
        self.begin(CORRECTING, 2, few, probes=len(classes))  # and the two candidates after them
        for name in classes:
            own = [t for t in self.matrices if self._classes[t.name] == name]
            kinds = {t.name: self._probe(t) for t in own}
            measured[name] = kinds, self.divergence(kinds, few).mean
        factors = correction_factors(estimates, measured)
        scaled = {
            tensor: {kind: error * factors[self._classes[tensor]] for kind, error in own.items()}
            for tensor, own in estimates.items()
        }
        return factors, scaled

    def best(self, errors: Mapping[str, Mapping[str, float]], limit: int) -> dict[str, str]:
        """The type of each matrix for the least sum of errors within so many bytes."""
        options = [self._allowed(tensor) for tensor in self.matrices]
        sizes = [
            [tensor_bytes(t.shape, kind) for kind in own]
            for t, own in zip(self.matrices, options, strict=True)
        ]
        costs = [
            [errors[t.name][kind] for kind in own]
            for t, own in zip(self.matrices, options, strict=True)
        ]
        chosen = choose(costs, sizes, limit - self._fixed)
        if chosen is None:
            least = self._fixed + sum(map(min, sizes))
            bits = 8 * least / sum(_weights(t.shape) for t in self._tensors)
            raise RecipeInvalid(
                "The model does not become that small.",
                f"{limit:,} bytes are asked for, and {least:,} ({bits:.2f} bits a weight) are the "
                "fewest with which it can be expected to answer.",
                f"set `bits` to {bits + 0.1:.1f} or more, or `size` accordingly.",
            )
        pairs = zip(self.matrices, options, chosen, strict=True)
        return {tensor.name: own[number] for tensor, own, number in pairs}

    def reference(self, rows: Sequence[Sequence[int]]) -> Reference:
        """The live model on these rows."""
        return Reference(self._model, rows, self._progress)

    def divergence(self, kinds: Mapping[str, str], reference: Reference) -> Divergence:
        """What rounding to these types does, measured."""
        rounded = Rounded(self._model, self._tensors, kinds, self._columns, self._progress)
        return reference.divergence(rounded)

    def kinds_of(self, mix: Mix) -> dict[str, str]:
        """The types that a mix gives the matrices."""
        return {t.name: tensor_type(t.name, t.shape, mix, self._network) for t in self.matrices}

    def bytes(self, kinds: Mapping[str, str]) -> int:
        """Of all tensors."""
        return self._fixed + sum(tensor_bytes(t.shape, kinds[t.name]) for t in self.matrices)

    def _allowed(self, tensor: FileTensor) -> list[str]:
        """The types that a tensor may get, from fewest bits to most."""
        width = tensor.shape[-1]
        known = _SHORT_KINDS if width % 256 else _KINDS
        floor = self._floor(tensor.name)
        fitting = [
            kind
            for kind in known
            if width % BLOCK_TYPES[kind].weights == 0 and BLOCK_TYPES[kind].bits_per_weight >= floor
        ]
        return fitting if len(fitting) > 1 else ["F16", "BF16"]

    def _probe(self, tensor: FileTensor) -> str:
        allowed = self._allowed(tensor)
        return _PROBE if _PROBE in allowed else allowed[0]

    def _floor(self, name: str) -> float:
        if name == EMBEDDING:
            return _FLOORS["output"] if self._network.tied else _EMBEDDING_FLOOR
        return _FLOORS.get(class_of(name), 0.0)


def _rounded(weight: Tensor, kind: str, columns: Tensor | None) -> Tensor:
    return dequantize(quantize(weight, kind, columns), kind)


def _stock_of(tensors: Sequence[FileTensor], network: Network, limit: int) -> Mix | None:
    """The largest of llama.cpp's mixes within so many bytes."""
    sizes = {
        name: sum(
            tensor_bytes(t.shape, tensor_type(t.name, t.shape, MIXES[name], network))
            for t in tensors
        )
        for name in _COMPARED
    }
    fitting = [name for name, size in sizes.items() if size <= limit]
    return MIXES[max(fitting, key=sizes.__getitem__)] if fitting else None


def _spread(rows: Sequence[Sequence[int]], tokens: int) -> list[Sequence[int]]:
    """Rows spread evenly over all, of about so many tokens."""
    step = max(1, sum(map(len, rows)) // tokens)
    return list(rows[::step])


def _weights(shape: Sequence[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
