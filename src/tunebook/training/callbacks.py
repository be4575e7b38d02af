"""From the trainer's callbacks to events: steps, memory, checkpoints, and the stop that is asked for.

This module knows the trainer and the event log; it does not know who watches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunebook.engine import host_failure, model_lock
from tunebook.events import (
    BusyEvent,
    CheckpointEvent,
    EvaluationEvent,
    EventLog,
    MemoryEvent,
    StartedEvent,
    StepEvent,
    WarningEvent,
)
from tunebook.training.busy import BusyMeter
from tunebook.training.folder import this_process
from tunebook.training.meter import MemoryMeter
from tunebook.training.watchdog import Watchdog

if TYPE_CHECKING:
    from torch import nn

    from tunebook.training.trainer import SFTTrainer

_MEMORY_EVERY = 0.5  # seconds between two memory events


class EventCallback(TrainerCallback):
    """Writes one event for whatever happens, and ends training after the step in which a stop is asked.

    Args:
        log: where events go.
        model: the model in training; its lock is held while a step runs, so that a chat waits.
        stop_asked: asked after every step.
        notes: warnings that stand right behind the beginning.
        resumed: the last step that is kept of an earlier part of the run, whose counts go on.
    """

    def __init__(
        self,
        log: EventLog,
        model: nn.Module,
        stop_asked: Callable[[], bool],
        notes: Sequence[WarningEvent] = (),
        resumed: StepEvent | None = None,
    ) -> None:
        self.log = log
        self.stopped = False
        self.meter = MemoryMeter(model)
        self.busy = BusyMeter(next(model.parameters()).device, self._captures)
        self._model = model
        self._lock = model_lock(model)
        self._locked = False
        self._stop_asked = stop_asked
        self._notes = notes
        self._resumed = resumed
        self._trainer: SFTTrainer | None = None
        self._began = self._memory_at = 0.0
        self._seconds: dict[int, float] = {}  # of steps that are not logged yet
        self._host_full = False
        self._watchdog = Watchdog()

    def attach(self, trainer: SFTTrainer) -> None:
        """Tell which trainer calls; it has the token counts and the optimizer."""
        self._trainer = trainer
        trainer.meter = self.meter

    def release(self) -> None:
        """Give the model's lock back if a step ended by an exception."""
        self.busy.cancel()
        self._unlock()

    def _unlock(self) -> None:
        if self._locked:
            self._locked = False
            self._lock.release()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        trainable = sum(p.numel() for p in self._model.parameters() if p.requires_grad)
        self.log.append(
            StartedEvent(
                step=state.global_step,
                device=device_name(self._model),
                total_steps=state.max_steps,
                resumed_from=self._resumed.step if self._resumed else None,
                trainable_parameters=trainable,
                total_parameters=trainable + _frozen_parameters(self._model),
                versions=versions(),
                **this_process(),
            )
        )
        for note in self._notes:
            self.log.append(note)
        self.busy.expect(state.global_step + 1, state.max_steps)
        trainer = self._trainer
        if trainer is not None and trainer.between_steps is not None and self._resumed is None:
            trainer.between_steps.begin(trainer)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._lock.acquire()
        self._locked = True
        self.busy.begin(state.global_step + 1)
        self._began = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        seconds = time.perf_counter() - self._began
        reading = self.busy.end()
        self._unlock()
        if reading is not None:
            seconds = reading.seconds
            self.log.append(BusyEvent(step=state.global_step, **asdict(reading)))
        self._seconds[state.global_step] = seconds
        if self._stop_asked() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_training_stop = True
            control.should_save = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs is None or "loss" not in logs or self._trainer is None:
            return
        loss = float(logs["loss"])
        tokens, trained = self._trainer.token_counts()
        if self._resumed is not None:
            tokens, trained = tokens + self._resumed.tokens, trained + self._resumed.trained_tokens
        event = StepEvent(
            step=state.global_step,
            epoch=float(logs.get("epoch", state.epoch or 0.0)),
            loss=loss,
            learning_rate=float(logs["learning_rate"]),
            grad_norm=float(logs["grad_norm"]) if "grad_norm" in logs else None,
            tokens=tokens,
            trained_tokens=trained,
            seconds=self._seconds.pop(state.global_step, 0.0),
        )
        self.log.append(event)
        for warning in self._watchdog.step(event):
            self.log.append(warning)
        self._memory(state, final=state.global_step >= state.max_steps)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        values = {key.removeprefix("eval_"): float(value) for key, value in (metrics or {}).items()}
        if "loss" in values:
            loss = values.pop("loss")
            event = EvaluationEvent(step=state.global_step, loss=loss, metrics=values)
            self.log.append(event)
            for warning in self._watchdog.evaluation(event):
                self.log.append(warning)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        path = Path(str(args.output_dir)).name + f"/checkpoint-{state.global_step}"
        self.log.append(CheckpointEvent(step=state.global_step, path=path))

    def _captures(self) -> int:
        return 0 if self._trainer is None else self._trainer.captures

    def _memory(self, state: TrainerState, *, final: bool) -> None:
        now = time.monotonic()
        if not final and state.global_step > 3 and now - self._memory_at < _MEMORY_EVERY:
            return
        self._memory_at = now
        assert self._trainer is not None
        reading = self.meter.read(self._trainer.optimizer)
        self.log.append(MemoryEvent(step=state.global_step, **reading))
        failure = None if self._host_full else host_failure(self._model)
        if failure is not None:
            self._host_full = True
            self.log.append(
                WarningEvent(
                    step=state.global_step,
                    code="host_memory",
                    message="The computer could not spare memory for what was to wait there, so it "
                    f"stays on the device, which needs more than was forecast: {failure}.",
                    do="close other programs, or use a smaller `training.batch_size`.",
                )
            )


def device_name(model: nn.Module) -> str:
    """Such as "cpu" or "cuda:0 NVIDIA H200"."""
    import torch

    device = next(model.parameters()).device
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return str(device)


def versions() -> dict[str, str]:
    """Installed versions of what decides the numbers."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("tunebook", "torch", "transformers", "peft", "trl", "bitsandbytes", "datasets"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _frozen_parameters(model: nn.Module) -> int:
    count = 0
    for parameter in model.parameters():
        if not parameter.requires_grad:
            packed = type(parameter).__name__ == "Params4bit" and parameter.element_size() == 1
            count += parameter.numel() * (2 if packed else 1)
    return count
