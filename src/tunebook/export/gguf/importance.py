"""How much each column and row of a matrix matters: mean squares of its inputs and of the gradient.

One pass over calibration rows, forward and backward, on the live model with its adapter. Knows
models and tensors; files of it are in `imatrix`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunebook.engine import model_lock, plain_forwards
from tunebook.engine.state import own_randomness, same_gradients, same_modes
from tunebook.errors import FileInvalid
from tunebook.export.gguf.mixes import is_quantized
from tunebook.export.gguf.tensors import FileTensor
from tunebook.export.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH = 512
"""Tokens that run at a time on a GPU; what a backward keeps of them is all that is held."""
EMBEDDING = "token_embd.weight"
READING = "Reading rows: which columns and rows matter"
"""The pass that measures importance."""


@dataclass(frozen=True)
class Moments:
    """Sums over the tokens that one matrix, or each of a stack of experts, met.

    Attributes:
        columns: (experts, k) float64: of the squares of its input.
        counts: (experts,) float64: tokens.
        rows: (experts, rows) float64: of the squares of the gradient of its output, for labels drawn
            from what the model itself says; None where that was not measured.
    """

    columns: Tensor
    counts: Tensor
    rows: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """(experts, k) float32: mean square of each column; 1 for an expert that met no token."""
        counts = self.counts[:, None]
        return torch.where(counts > 0, self.columns / counts.clamp(min=1), 1.0).float()


@dataclass(frozen=True)
class Importance:
    """What a model's matrices met in calibration, by their names in a GGUF file.

    Attributes:
        tensors: of the matrices that are multiplied with; a tied embedding as the output matrix.
        lookups: of the embedding as a table: `rows` counts each token id, `columns` sums the squares
            of the gradient of what was looked up.
        tokens: that were read.
        datasets: what they were of, for the file.
        chunks, chunk: how many rows of at most how many tokens.
    """

    tensors: Mapping[str, Moments]
    lookups: Moments | None = None
    tokens: int = 0
    datasets: tuple[str, ...] = ()
    chunks: int = 0
    chunk: int = 0
    file: str = field(default="", compare=False)
    """Where it was read from."""

    @property
    def has_gradients(self) -> bool:
        """Whether rows were measured too, as files of llama.cpp's own do not have them."""
        return bool(self.tensors) and all(m.rows is not None for m in self.tensors.values())

    @classmethod
    def of_columns(cls, columns: Mapping[str, Tensor]) -> Importance:
        """Of mean squares alone: (k) or (experts, k) by name."""
        return cls(
            {
                name: Moments(own, torch.ones(len(own), dtype=torch.float64))
                for name, own in (
                    (k, v.double().reshape(-1, v.shape[-1])) for k, v in columns.items()
                )
            }
        )

    def with_columns_of(self, other: Importance) -> Importance:
        """These gradients beside the mean squares of columns that were measured elsewhere."""
        tensors = {
            name: replace(own, columns=other.tensors[name].mean.double() * own.counts[:, None])
            if name in other.tensors
            else own
            for name, own in self.tensors.items()
        }
        return replace(self, tensors=tensors, datasets=other.datasets, file=other.file)

    def columns(self) -> dict[str, Tensor]:
        """Each matrix's mean squares: (k), or (experts, k) for stacked experts, float32."""
        return {
            name: moments.mean[0] if len(moments.mean) == 1 else moments.mean
            for name, moments in self.tensors.items()
        }

    def require_fits(self, tensors: Sequence[FileTensor]) -> None:
        """Raise unless it was measured on a model of these shapes.

        Raises:
            FileInvalid: a size differs, or not one matrix is known.
        """
        where = f" {self.file}" if self.file else ""
        matrices = [t for t in tensors if is_quantized(t.name, t.shape) and t.name in self.tensors]
        for tensor in matrices:
            experts = tensor.shape[0] if len(tensor.shape) == 3 else 1
            wanted, found = (
                (experts, tensor.shape[-1]),
                tuple(self.tensors[tensor.name].columns.shape),
            )
            if wanted != found:
                raise FileInvalid(
                    f"The importance data{where} are of another model.",
                    f"{tensor.name} has {found[0]} x {found[1]} columns in them, and "
                    f"{wanted[0]} x {wanted[1]} in this model.",
                    "measure them on this model: importance='auto'.",
                )
        if not matrices:
            raise FileInvalid(
                f"The importance data{where} are of another model.",
                f"they speak of {', '.join(list(self.tensors)[:2]) or 'nothing'}, and not of "
                "one matrix that this model has.",
                "measure them on this model: importance='auto'.",
            )


def measure_importance(
    model: Any,
    tensors: Sequence[FileTensor],
    rows: Sequence[Sequence[int]],
    *,
    datasets: Sequence[str] = (),
    batch: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Importance:
    """Run calibration rows forward and backward through a model and sum up what its matrices meet.

    The model may be in 4, 8 or 16 bit, with LoRA or without, patched or not; it is left as it was.
    The gradient is that of the log-probability of labels drawn from the model's own output, so the
    mean of its square is the diagonal of the Fisher matrix (Martens 2020, arXiv:1412.1193, section
    9.2): half the sum of gradient^2 * input^2 * error^2 estimates the divergence in nats a token.

    Args:
        tensors: of `file_tensors`; those that are ever quantized are measured.
        rows: token ids of each; as they are used, chat template and all.
        datasets: names for the file.
        batch: tokens at a time; None takes what suits the device.
        seed: of the labels.
        progress: told of the tokens that were read, and asked whether to stop.

    Raises:
        Cancelled: a stop was asked for.
    """
    progress = progress or Progress()
    progress.begin_pass(READING, sum(map(len, rows)))
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    with ExitStack() as stack:
        stack.enter_context(model_lock(model))
        stack.enter_context(plain_forwards(model))
        stack.enter_context(same_modes(model))
        stack.enter_context(same_gradients(model))
        stack.enter_context(own_randomness(model, seed))
        model.eval()
        model.requires_grad_(False)
        watch = _Watch(base, tensors)
        stack.callback(watch.remove)
        tokens = 0
        for ids, mask in batches(rows, batch or _batch(base), device_of(base)):
            progress.check()
            watch.mask = mask.flatten()
            tokens += int(mask.sum())
            output: Any = model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
            said = output.logits[mask].float().log_softmax(-1)
            labels = torch.multinomial(said.detach().exp(), 1)
            (-said.gather(1, labels).sum()).backward()
            del output, said
            progress.step(int(mask.sum()))
        return Importance(
            watch.moments(),
            watch.lookups(),
            tokens,
            tuple(datasets),
            len(rows),
            max((len(row) for row in rows), default=0),
        )


def batches(
    rows: Sequence[Sequence[int]], tokens: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of similar length together: ids, (batch, length), and a mask of those that are no padding.

    Args:
        tokens: most in a batch, padding included; a longer row is a batch alone.
    """
    waiting: list[Sequence[int]] = []
    for row in [*sorted((row for row in rows if len(row)), key=len), None]:
        if waiting and (row is None or len(row) * (len(waiting) + 1) > tokens):
            longest = len(waiting[-1])
            ids = torch.zeros(len(waiting), longest, dtype=torch.long)
            mask = torch.zeros(len(waiting), longest, dtype=torch.bool)
            for place, one in enumerate(waiting):
                ids[place, : len(one)] = torch.tensor(one)
                mask[place, : len(one)] = True
            yield ids.to(device), mask.to(device)
            waiting = []
        if row is not None:
            waiting.append(row)


def device_of(base: PreTrainedModel) -> torch.device:
    """Where token ids go in."""
    place: torch.device = base.get_input_embeddings().weight.device  # type: ignore[assignment]
    return place


def _batch(base: PreTrainedModel) -> int:
    return BATCH if device_of(base).type != "cpu" else 4 * BATCH


class _Watch:
    """Hooks on the modules whose matrices are measured; `mask` says which tokens count."""

    def __init__(self, base: PreTrainedModel, tensors: Sequence[FileTensor]) -> None:
        self.mask = torch.ones(0, dtype=torch.bool)
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._tensors = {
            t.name: t for t in tensors if t.source is not None and is_quantized(t.name, t.shape)
        }
        embedding: Any = base.get_input_embeddings()
        self._handles = [embedding.register_forward_hook(_differentiable)]
        experts: dict[nn.Module, dict[str, str]] = {}
        head: Any = base.get_output_embeddings()  # type: ignore[no-untyped-call]
        own_head = False
        for name, tensor in self._tensors.items():
            weight = tensor.source.weight  # type: ignore[union-attr]
            if isinstance(weight.holder, nn.Linear):
                own_head |= weight.module is head
                self._watch(weight.module, name, self._linear)
            elif isinstance(weight.holder, nn.Embedding):
                self._watch(weight.module, name, self._lookup)
            elif len(tensor.shape) == 3:
                part = tensor.source.part  # type: ignore[union-attr]
                role = "down" if part is None else ("gate", "up")[part]
                experts.setdefault(weight.holder, {})[role] = name
        if head is not None and not own_head and EMBEDDING in self._tensors:
            self._watch(head, EMBEDDING, self._linear)
        for module, names in experts.items():
            self._watch(module, names, self._experts)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def moments(self) -> dict[str, Moments]:
        """What was summed, in the order of the file."""
        found = {}
        for name, tensor in self._tensors.items():
            columns = self._sums.get((name, "columns"))
            if columns is None:  # a module that no token went through
                continue
            rows = self._sums.get((name, "rows"))
            turn = tensor.source.turn  # type: ignore[union-attr]
            if rows is not None and len(tensor.shape) == 2:
                rows = turn(rows[0])[None]
            found[name] = Moments(columns, self._sums[name, "counts"], rows)
        return found

    def lookups(self) -> Moments | None:
        ids = self._sums.get((EMBEDDING, "ids"))
        if ids is None:
            return None
        squares = self._sums[EMBEDDING, "looked up"]
        return Moments(squares[None], ids.sum()[None], ids[None])

    def _watch(self, module: nn.Module, name: Any, met: Any) -> None:
        def hook(
            _: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Tensor
        ) -> None:
            met(module, name, [*given, *named.values()], output)

        self._handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def _add(self, name: str, what: str, value: Tensor) -> None:
        value = value.cpu().double()
        key = (name, what)
        self._sums[key] = self._sums[key] + value if key in self._sums else value

    def _counted(self, value: Tensor) -> Tensor:
        """The squares of what tokens met that count: (tokens, width) float32."""
        rows = value.detach().reshape(-1, value.shape[-1])
        return rows[self.mask.to(rows.device)].float().square()

    def _back(self, output: Any, met: Callable[[Tensor], None]) -> None:
        """Call it with the gradient of an output; a part of the model that has none is passed over."""
        if output.requires_grad:
            output.register_hook(met)

    def _linear(self, module: nn.Module, name: str, given: list[Any], output: Tensor) -> None:
        squares = self._counted(given[0])
        self._add(name, "columns", squares.sum(0)[None])
        self._add(name, "counts", torch.tensor([float(len(squares))]))
        self._back(output, lambda g: self._add(name, "rows", self._counted(g).sum(0)[None]))

    def _lookup(self, module: nn.Module, name: str, given: list[Any], output: Tensor) -> None:
        ids = given[0].flatten()[self.mask.to(given[0].device)]
        self._add(name, "ids", torch.bincount(ids, minlength=self._tensors[name].shape[0]))
        self._back(output, lambda g: self._add(name, "looked up", self._counted(g).sum(0)))

    def _experts(
        self, module: Any, names: dict[str, str], given: list[Any], output: Tensor
    ) -> None:
        """Stacked experts compute in one function: what is inside is computed again, one by one.

        Their own weights are used, without an adapter on them.
        """
        states, index, scores = (value.detach() for value in given[:3])

        def backward(gradient: Tensor) -> None:
            flat = states.reshape(-1, states.shape[-1])
            counts = torch.zeros(len(module.down_proj), device=flat.device)
            sums: dict[str, list[Tensor]] = {key: [] for key in ("x", "h", "gate", "up", "down")}
            for expert in range(len(counts)):
                token, place = torch.where((index == expert) & self.mask[:, None])
                counts[expert] = len(token)
                both = nn.functional.linear(flat[token], module.gate_up_proj[expert]).detach()
                g = gradient.reshape(flat.shape)[token] * scores[token, place, None]
                with torch.enable_grad():
                    both.requires_grad_()
                    gate, up = both.chunk(2, dim=-1)
                    hidden = module.act_fn(gate) * up
                    down = nn.functional.linear(hidden, module.down_proj[expert].detach())
                    (inner,) = torch.autograd.grad(down, both, g.to(down.dtype))
                at_gate, at_up = inner.chunk(2, dim=-1)
                values = (flat[token], hidden.detach(), at_gate, at_up, g)
                for key, value in zip(sums, values, strict=True):
                    sums[key].append(value.float().square().sum(0))
            for role, (columns, rows) in _ROLES.items():
                self._add(names[role], "columns", torch.stack(sums[columns]))
                self._add(names[role], "counts", counts)
                self._add(names[role], "rows", torch.stack(sums[rows]))

        self._back(output, backward)


_ROLES = {"gate": ("x", "gate"), "up": ("x", "up"), "down": ("h", "down")}


def _differentiable(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    """Nothing of the model learns, so the gradient begins at what is looked up."""
    return output.requires_grad_()
