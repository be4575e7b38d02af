"""TRL's SFTTrainer where its numbers or its waiting would differ from ours; subclassed, never rewritten.

Knows batches and a model that may be patched; knows no recipe, no run folder and no event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from packaging.version import Version
from torch.nn import functional
from trl.trainer.sft_trainer import SFTTrainer as TrlSFTTrainer

from tunebook.data.packing import lean_batch
from tunebook.engine import (
    CAUSAL,
    LAYOUT,
    LossRequest,
    StepGraphs,
    drops,
    fused_head_kept,
    fused_layers,
    has_fused_head,
    host_inputs,
)
from tunebook.models.vision import has_towers
from tunebook.training.flat import FlatOptimizer, flat_optimizer
from tunebook.training.meter import MemoryMeter
from tunebook.training.numbers import Numbers
from tunebook.training.optimizers import name_of, updates_in_backward
from tunebook.training.parts import split_batch

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

    from tunebook.training.between import BetweenSteps

_HEAD_NEEDS_A_GPU = Version(version("trl")) < Version("1.16")

Count = int | torch.Tensor


@dataclass
class StepRecord:
    """What was known when a step ended.

    Attributes:
        steps: that are logged together.
        numbers: `loss` (their sum), `tokens` and `trained` so far, and whatever is logged as it is.
    """

    step: int
    epoch: float
    steps: int
    learning_rate: float
    numbers: Numbers
    start_time: float


class SFTTrainer(TrlSFTTrainer):
    """TRL's trainer with the adapter's dtype kept, and no wait for the device inside of a step.

    TRL casts LoRA weights to bfloat16 whenever the base is quantized; at LoRA's learning rates most
    of an update is then smaller than a bfloat16 step. Here they stay as they were made (float32
    unless the recipe says otherwise).
    AdamW and its like run over flat buffers, with the same numbers (see `tunebook.training.flat`).

    On a patched model with a fused head the loss is taken without logits, and on a GPU a step is
    logged when the next one has been sent to the device, so that it never runs dry.
    """

    meter: MemoryMeter | None = None
    loss_chunk: int | None = None
    between_steps: BetweenSteps | None = None
    """Asked after each step whether there is something to do before the next one, and then does it."""
    step_down: Callable[[], int | None] | None = None
    """Called when a batch does not fit: makes the model need less and returns in how many parts a
    batch is to be run from now on; None if there is nothing left to give up."""

    def __init__(self, model: PreTrainedModel | PeftModel | str, *args: Any, **kwargs: Any) -> None:
        self._flat: FlatOptimizer | None = None
        self.model: Any
        self.optimizer: Any
        rows = {name: kwargs[name] for name in _ROWS if isinstance(kwargs.get(name), Sequence)}
        stand_ins = {name: _stand_in(given) for name, given in rows.items()}
        with _adapter_dtype_kept(model), _head_kept(model):
            super().__init__(model, *args, **{**kwargs, **stand_ins})
        for name, given in rows.items():
            setattr(self, name, given)
        # Models that see say that they take no such number; here the loss is not theirs.
        self.model_accepts_loss_kwargs = True
        self._seen: tuple[Count, Count] = (0, 0)
        self._logged: tuple[Count, Count] = (0, 0)
        self._sums: dict[str, list[torch.Tensor]] = {}
        self._pending: StepRecord | None = None
        self._graphs: StepGraphs | None = None
        self._parts, self._largest, self._accumulating = 1, 0, -1
        self._fused = has_fused_head(self.model)
        self._maskless = bool(fused_layers(self.model))
        if self._fused:
            collate, prepare = self.data_collator, host_inputs(self.model)
            self.data_collator = lambda rows: lean_batch(prepare(collate(rows)))

    def use_graphs(self) -> None:
        """From now on replay steps of a shape that was seen before as one CUDA graph.

        Left alone where a step is not the same kernels every time, or where there is no such thing.
        """
        alone = self.accelerator.num_processes == 1 and not self.args.fp16
        if has_towers(self.model):
            return  # what is done with pictures depends on their sizes, not on the shape of a batch
        if self._fused and self.args.device.type == "cuda" and alone and not drops(self.model):
            step = partial(self._forward_backward, self.model)
            self._graphs = StepGraphs(step, guard=lambda: LAYOUT.version)

    @property
    def captures(self) -> int:
        """How often a step was captured as a graph so far."""
        return 0 if self._graphs is None else self._graphs.captures

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers' training; clearing gradients is one write instead of a walk over the model."""
        with _clears_by(self.model, self._clear_gradients):
            try:
                result = super().train(*args, **kwargs)
            finally:
                pending, self._pending = self._pending, None
                if pending is not None:  # training ended by an exception
                    self._write(pending)
        self.optimizer.eval()  # schedule-free ones put the averaged weights in place
        return result

    def _clear_gradients(self, set_to_none: bool = True) -> None:
        if self._flat is None:
            type(self.model).zero_grad(self.model, set_to_none)
        else:
            self._flat.zero_grad()

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Transformers' loading; PEFT makes a bfloat16 adapter float32 there."""
        before = {n: p.dtype for n, p in self.model.named_parameters() if p.requires_grad}
        super()._load_from_checkpoint(*args, **kwargs)
        for name, parameter in self.model.named_parameters():
            if name in before:
                parameter.data = parameter.data.to(before[name])

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Transformers' optimizer, over flat buffers where that gives the same numbers."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if self.optimizer is None and self.optimizer_cls_and_kwargs is None and not sharded:
            decayed = self.get_decay_parameter_names(self.model)
            self.optimizer = self._flat = flat_optimizer(self.model, self.args, decayed)
        return super().create_optimizer(*args, **kwargs)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip over the flat buffers: the same norm without a walk over all parameters."""
        if self._flat is None:
            clip: Any = super()._clip_grad_norm
            return clip(model)
        self._flat.attach()  # in float16 the scale is taken out of the buffers now
        return self.accelerator.clip_grad_norm_(
            self._flat.flat_parameters(), self.args.max_grad_norm
        )

    # ------------------------------------------------------------------ a step

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One forward and backward pass; counts its tokens without waiting for the device."""
        if self._flat is not None:
            self._flat.attach()  # the trainer sets gradients to None after each update
        self._count(inputs)
        size = inputs["input_ids"].numel()
        take: Callable[..., torch.Tensor] = super().training_step
        if self._fused and not updates_in_backward(name_of(self.args)):
            take = self._fused_step
        step = partial(take, model, inputs, num_items_in_batch)
        return step() if self.meter is None else self.meter.around(step, size)

    def _fused_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any
    ) -> torch.Tensor:
        """As transformers' step, without its walk over all modules and what it prepares for others."""
        if not model.training:
            model.train()
        self.optimizer.train()
        inputs = self._prepare_inputs(inputs)
        inputs.pop("token_counts", None)
        if num_items_in_batch is None:
            labelled = (inputs["labels"][..., 1:] != -100).sum()
            num_items_in_batch = labelled * self.current_gradient_accumulation_steps
        inputs["divisor"] = num_items_in_batch
        restorable, before = self._gradients_before(inputs["input_ids"].numel())
        while True:
            try:
                return self._in_parts(model, inputs)
            except torch.OutOfMemoryError as error:
                full: Exception = error.with_traceback(None)  # whose frames hold tensors
            if self.step_down is None or self._flat is None or not restorable:
                raise full
            self._clear_memory()
            parts = self.step_down()
            if parts is None:
                raise full
            self._parts = parts
            self._flat.restore(before)

    def _in_parts(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """A batch in as many forward and backward passes as memory asks for; the same gradients."""
        run: Callable[..., tuple[torch.Tensor, ...]] = partial(self._forward_backward, model)
        if self._graphs is not None and self._flat is not None:  # whose gradients stay in place
            run = self._graphs
        losses, sums = [], []
        for part in split_batch(inputs, self._parts):
            loss, metrics = run(part)
            losses.append(loss.clone())
            sums.append(metrics.clone())
        self._sums.setdefault("train", []).extend(sums)  # of parts that all fitted
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _gradients_before(self, tokens: int) -> tuple[bool, list[torch.Tensor] | None]:
        """Whether this update's gradients can be had again, and those of its earlier batches.

        None for the first batch. Copies are made only where a batch is larger than all before.
        """
        first = self._accumulating != self.state.global_step
        self._accumulating = self.state.global_step
        known, self._largest = tokens <= self._largest, max(self._largest, tokens)
        if first or known or self._flat is None or self.step_down is None:
            return first, None
        return True, self._flat.gradients()

    def _clear_memory(self) -> None:
        if self._graphs is not None:
            self._graphs.clear()
        torch.cuda.empty_cache()

    def _forward_backward(
        self, model: nn.Module, inputs: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and sums of labels, entropy and hits; gradients are added to the parameters'."""
        given = dict(inputs)
        divisor = given.pop("divisor")
        with self.compute_loss_context_manager():
            loss, metrics = self._fused_loss(model, given, divisor)
        self.accelerator.backward(loss)
        return loss.detach(), metrics

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a batch: by the fused head, by TRL's, or by the model's own.

        TRL before 1.16 has an output head that is a Triton kernel alone; on a CPU the model's own
        loss serves there.
        """
        if self._fused and not return_outputs:
            loss, metrics = self._fused_loss(model, inputs, num_items_in_batch)
            self._sums.setdefault("train" if self.model.training else "eval", []).append(metrics)
            return loss
        inputs = {key: value for key, value in inputs.items() if key not in _OURS}
        head: Any = super().compute_loss
        if self.args.device.type == "cpu" and _HEAD_NEEDS_A_GPU:
            head = self._plain_loss
        return head(model, inputs, return_outputs, num_items_in_batch)

    def _plain_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool, num_items: Any
    ) -> Any:
        """From all logits: models that see have losses of their own, which take no number of tokens."""
        labels = inputs["labels"][..., 1:]
        given = {key: value for key, value in inputs.items() if key != "labels"}
        outputs = model(**given, use_cache=False)
        logits = outputs.logits[..., :-1, :].float()
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        items = (labels != -100).sum() if num_items is None else torch.as_tensor(num_items)
        loss = loss / items.clamp(min=1)
        return (loss, outputs) if return_outputs else loss

    def _fused_loss(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        given = {key: value for key, value in inputs.items() if key not in (*_OURS, "labels")}
        rows = inputs.get("loss_rows")
        request = LossRequest(inputs["labels"], num_items_in_batch, rows, self.loss_chunk)
        sees_ahead = "token_type_ids" in given  # Gemma 3 makes its mask, open within an image
        if self._maskless and given.get("attention_mask") is None and not sees_ahead:
            given["attention_mask"] = CAUSAL
        loss: torch.Tensor = model(**given, use_cache=False, fused_loss=request).loss
        result = request.result
        assert result is not None
        labelled = (request.labels[..., 1:] != -100).sum()
        sums = torch.stack([labelled.float(), result.entropy.sum(), result.correct.sum()])
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return loss, sums

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: transformers' count walks over all parameters at every step, and nobody reads it."""
        return 0

    def _count(self, inputs: dict[str, Any]) -> None:
        if "token_counts" in inputs:  # made on the host
            tokens, trained = inputs["token_counts"]
        else:
            mask = inputs.get("attention_mask")
            tokens = inputs["input_ids"].numel() if mask is None else mask.sum()
            trained = (inputs["labels"] != -100).sum() if "labels" in inputs else 0
        self._seen = (self._seen[0] + tokens, self._seen[1] + trained)

    def token_counts(self) -> tuple[int, int]:
        """Tokens without padding, and tokens with a label, up to the step that is being logged."""
        return int(self._logged[0]), int(self._logged[1])

    # ----------------------------------------------------------------- logging

    def _maybe_log_save_evaluate(
        self, tr_loss: torch.Tensor, grad_norm: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Log the step before this one if nothing else happens now, so that nothing waits."""
        due = self.control.should_log and self.state.global_step > self._globalstep_last_logged
        visit = self.between_steps
        if visit is not None and not visit.due(self):
            visit = None
        alone = not (
            visit is not None
            or self.control.should_save
            or self.control.should_evaluate
            or self.control.should_training_stop
            or self.state.global_step >= self.state.max_steps
        )
        before, self._pending = self._pending, None
        if due and alone and self._may_log_later(tr_loss):
            self._pending = self._record(tr_loss, grad_norm, args, kwargs)
        if before is not None:
            self._write(before)
        self._logged = self._seen
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)
        if visit is not None:
            visit(self)

    def _may_log_later(self, tr_loss: torch.Tensor) -> bool:
        """Whether reading the loss now would wait for the device."""
        return self._fused and tr_loss.is_cuda

    def _record(
        self, tr_loss: torch.Tensor, grad_norm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> StepRecord:
        steps = self.state.global_step - self._globalstep_last_logged
        rate = kwargs.get("learning_rate")
        tokens, trained = self._seen
        numbers = {"loss": tr_loss, "tokens": tokens, "trained": trained, **self._taken("train")}
        if grad_norm is not None:
            numbers["grad_norm"] = grad_norm
        record = StepRecord(
            step=self.state.global_step,
            epoch=float(self.state.epoch or 0.0),
            steps=steps,
            learning_rate=self._get_learning_rate() if rate is None else rate,
            numbers=Numbers(numbers),
            start_time=kwargs.get("start_time", args[4] if len(args) > 4 else 0.0),
        )
        tr_loss.zero_()
        self._globalstep_last_logged = self.state.global_step
        return record

    def _write(self, record: StepRecord) -> None:
        """Log a step that has ended; the state shows its number meanwhile."""
        numbers = record.numbers.read()
        summed_loss = numbers.pop("loss")
        tokens, trained = int(numbers.pop("tokens")), int(numbers.pop("trained"))
        logs = {"loss": summed_loss / record.steps, "learning_rate": record.learning_rate}
        logs |= numbers
        self._total_loss_scalar += summed_loss
        now, self.state.global_step = self.state.global_step, record.step
        epoch, self.state.epoch = self.state.epoch, record.epoch
        self._logged = (tokens, trained)
        sums, self._sums = self._sums, {}  # which belong to later steps
        due = self.control.should_log  # the step that has just ended too, though a log clears it
        try:
            self.log(logs, record.start_time)
        finally:
            self.state.global_step, self.state.epoch = now, epoch
            self._sums, self.control.should_log = sums, due

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's log with entropy and accuracy of the fused head among the numbers."""
        mode = "train" if self.model.training else "eval"
        prefix = "" if mode == "train" else "eval_"
        for name, value in self._taken(mode).items():
            logs[prefix + name] = float(value)
        super().log(logs, start_time)

    def _taken(self, mode: str) -> dict[str, torch.Tensor]:
        """Means over the tokens since the last call; empty without any."""
        sums = self._sums.pop(mode, None)
        if not sums:
            return {}
        labelled, entropy, correct = torch.stack(sums).sum(0)
        labelled = labelled.clamp(min=1)
        return {"entropy": entropy / labelled, "mean_token_accuracy": correct / labelled}


_OURS = ("loss_rows", "token_counts", "image_counts")
_ROWS = ("train_dataset", "eval_dataset")


def _stand_in(rows: Sequence[Any]) -> Dataset:
    """As many rows: TRL wants a `datasets.Dataset`, whose rows would have to be stored."""
    from datasets import Dataset

    return Dataset.from_dict({"row": range(len(rows))})


def _head_kept(model: nn.Module | str) -> AbstractContextManager[None]:
    """TRL puts its head around ours, for evaluation."""
    return nullcontext() if isinstance(model, str) else fused_head_kept(model)


@contextmanager
def _clears_by(model: nn.Module, clear: Callable[..., None]) -> Iterator[None]:
    """Inside, `model.zero_grad` is `clear`."""
    model.__dict__["zero_grad"] = clear
    try:
        yield
    finally:
        del model.__dict__["zero_grad"]


@contextmanager
def _adapter_dtype_kept(model: nn.Module | str) -> Iterator[None]:
    before: dict[str, torch.Tensor] = {}
    if not isinstance(model, str):
        before = {
            name: parameter.data
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
    yield
    if isinstance(model, str):
        return
    for name, parameter in model.named_parameters():
        if name in before and parameter.dtype != before[name].dtype:
            parameter.data = before[name].to(parameter.device)
