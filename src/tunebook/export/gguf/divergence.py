"""What a choice of types costs, measured: the live model beside itself with its weights rounded.

No file is needed: the weights are held packed, as the file would have them, and unpacked as layers
run. Knows models, tensors and types; chooses nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tunebook.engine import model_lock, plain_forwards
from tunebook.engine.modules import stand_in
from tunebook.engine.state import same_modes
from tunebook.export.gguf.blocks import dequantize, quantize
from tunebook.export.gguf.importance import EMBEDDING, batches, device_of
from tunebook.export.gguf.tensors import FileTensor, Source
from tunebook.export.progress import Progress

_LOGITS = 1 << 25  # of a batch: two float32 copies of them are held
_BATCH = 4096  # tokens
_HELD = 1 << 28  # bytes of the live model's probabilities that are not computed again


@dataclass(frozen=True)
class Divergence:
    """How far rounded weights move the next token's probabilities, over tokens of held-out text.

    Attributes:
        mean, percentile_99, percentile_99_9: of the Kullback-Leibler divergence, in nats.
        same_top: share of tokens at which the likeliest next one is the same.
        tokens: that were read.
    """

    mean: float
    percentile_99: float
    percentile_99_9: float
    same_top: float
    tokens: int


Load = Callable[..., Tensor]
"""Rows of a weight in the model's order, float32: all of them, or those of the ids given."""


class Replaced:
    """A model that can compute with other weights than its own.

    Args:
        tensors: of the model, as `file_tensors` gives them.
        loads: what gives the weight of each tensor that is replaced, by name; others stay.
    """

    def __init__(
        self, model: Any, tensors: Sequence[FileTensor], loads: Mapping[str, Load]
    ) -> None:
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        self._biases = {
            t.source.weight.module: t.source.weight
            for t in tensors
            if t.source is not None and t.source.weight.key == "bias"
        }
        touched = {t.source.weight.module for t in tensors if t.source and t.name in loads}
        self._parts: dict[nn.Module, list[tuple[str, Load]]] = defaultdict(list)
        self._holders: dict[nn.Module, nn.Module] = {}
        for tensor in tensors:
            source = tensor.source
            if source is None or source.weight.module not in touched:
                continue
            load = loads.get(tensor.name)
            if load is None:
                if len(tensor.shape) != 3:
                    continue
                load = partial(_as_it_is, source)  # what is stacked beside it
            self._parts[source.weight.module].append((source.weight.key, load))
            self._holders[source.weight.module] = source.weight.holder
        names = {tensor.name for tensor in tensors}
        if EMBEDDING in loads and "output.weight" not in names:
            (table,) = (t for t in tensors if t.name == EMBEDDING)
            head: Any = base.get_output_embeddings()
            self._parts[head] = self._parts[table.source.weight.module]  # type: ignore[union-attr]
            self._holders[head] = head

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While it lasts the model computes with the other weights; then all is as it was."""
        before = {module: module.__dict__.get("forward") for module in self._parts}
        try:
            for module in self._parts:
                module.__dict__["forward"] = MethodType(self._forward, module)
            yield
        finally:
            for module, forward in before.items():
                if forward is None:
                    module.__dict__.pop("forward", None)
                else:
                    module.__dict__["forward"] = forward

    def _forward(self, module: nn.Module, *given: Any, **named: Any) -> Any:
        holder = self._holders[module]
        parts = self._parts[module]
        if isinstance(holder, nn.Embedding):
            ((_, load),) = parts
            ids = given[0] if given else named["input"]
            found, places = ids.unique(return_inverse=True)  # rows are unpacked that are asked for
            rows = load(found).to(holder.weight.dtype)
            table = stand_in(holder, parameters={"weight": rows})
            table.padding_idx = None  # counts rows of the whole table
            return table.forward(places)
        values: dict[str, Any] = defaultdict(list)
        for key, load in parts:
            values[key].append(load())
        if "weight" in values:
            x = given[0] if given else next(iter(named.values()))
            bias = self._biases.get(module)
            ours = None if bias is None else bias.value().to(x.dtype)
            return F.linear(x, values["weight"][0].to(x.dtype), ours)
        stacked = {
            key: torch.cat(value, dim=1).to(getattr(holder, key).dtype)
            for key, value in values.items()
        }
        return stand_in(holder, parameters=stacked).forward(*given, **named)


class Rounded(Replaced):
    """A model whose weights are rounded: packed into types of blocks, and unpacked as layers run.

    Args:
        kinds: the type of each tensor that is rounded, by name; others stay as they are.
        importance: of columns, by name.
        progress: a step for each tensor.
    """

    def __init__(
        self,
        model: Any,
        tensors: Sequence[FileTensor],
        kinds: Mapping[str, str],
        importance: Mapping[str, Tensor],
        progress: Progress | None = None,
    ) -> None:
        loads = {}
        for tensor in tensors:
            source, kind = tensor.source, kinds.get(tensor.name)
            if source is None or kind is None:
                continue
            if progress is not None:
                progress.step()
            # rows are packed one by one, so that their order in the file does not matter
            value = source.piece(source.weight.value()).float()
            packed = quantize(value, kind, importance.get(tensor.name))
            loads[tensor.name] = partial(_unpacked, packed, kind)
        super().__init__(model, tensors, loads)


def _unpacked(packed: Tensor, kind: str, rows: Tensor | None = None) -> Tensor:
    return dequantize(packed if rows is None else packed[rows], kind)


def _as_it_is(source: Source) -> Tensor:
    return source.piece(source.weight.value()).float()


class Reference:
    """What the live model says of some rows, beside which rounded weights are held.

    Args:
        rows: token ids.
        progress: asked now and then whether to stop.
    """

    def __init__(
        self, model: Any, rows: Sequence[Sequence[int]], progress: Progress | None = None
    ) -> None:
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        self._model, self._progress = model, progress or Progress()
        vocabulary = base.config.get_text_config().vocab_size
        tokens = min(max(1, _LOGITS // vocabulary), _BATCH)
        self._batches = list(batches(rows, tokens, device_of(base)))
        self._said: dict[int, Tensor] = {}
        self._hold = 4 * vocabulary * sum(map(len, rows)) <= _HELD

    def __len__(self) -> int:
        """Batches, each a step of the progress."""
        return len(self._batches)

    def divergence(self, rounded: Replaced) -> Divergence:
        """The model with rounded weights beside itself, at every token.

        Probabilities of few tokens are there at a time, so that large vocabularies fit.

        Raises:
            Cancelled: a stop was asked for.
        """
        gaps, same = [], []
        with ExitStack() as stack:
            stack.enter_context(model_lock(self._model))
            stack.enter_context(plain_forwards(self._model))
            stack.enter_context(same_modes(self._model))
            stack.enter_context(torch.no_grad())
            self._model.eval()
            for number, (ids, mask) in enumerate(self._batches):
                self._progress.step()
                true = self._said.get(number)
                if true is None:
                    true = _said(self._model, ids, mask)
                    if self._hold:
                        self._said[number] = true
                with rounded.applied():
                    ours = _said(self._model, ids, mask)
                same.append((true.argmax(-1) == ours.argmax(-1)).cpu())
                gaps.append((true.exp() * (true - ours)).sum(-1).clamp(min=0).cpu().double())
        all_gaps = torch.cat(gaps).sort().values
        count = len(all_gaps)

        def percentile(share: float) -> float:
            return float(all_gaps[min(count - 1, int(share * count))])

        agrees = float(torch.cat(same).double().mean())
        return Divergence(
            float(all_gaps.mean()), percentile(0.99), percentile(0.999), agrees, count
        )


def _said(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities of the next token at each place: (tokens, vocabulary) float32."""
    output: Any = model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
    said: Tensor = output.logits[mask].float().log_softmax(-1)
    return said
