"""What happens between two steps: a pause, a checkpoint now, answers of the model.

Knows the trainer, the requests and the event log; knows no thread and no panel.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tunebook.errors import as_tunebook_error
from tunebook.events import ContinuedEvent, EventLog, PausedEvent, SampleEvent, WarningEvent
from tunebook.training.controls import Controls
from tunebook.training.samples import Sampler

if TYPE_CHECKING:
    from tunebook.training.trainer import SFTTrainer

_SIGN = 30.0  # seconds between two signs of life, by which other hosts know that a pause goes on


class BetweenSteps:
    """Called by the trainer after each step is logged; does what was asked, in the trainer's thread.

    The model's lock is free and its gradients are cleared then, so the next step is the one that
    would have come anyway, to the bit.

    Args:
        log: where events go.
        controls: what is asked for.
        stop_asked: whether a pause is to end, because the run is.
        sampler: lets the model answer.
    """

    def __init__(
        self,
        log: EventLog,
        controls: Controls,
        stop_asked: Callable[[], bool],
        sampler: Sampler,
    ) -> None:
        self.paused_seconds = 0.0
        self.stopped = False
        self._log = log
        self._controls = controls
        self._stop_asked = stop_asked
        self._sampler = sampler
        self._sampled_at: int | None = None

    def begin(self, trainer: SFTTrainer) -> None:
        """Before the first step: answers of the model as it is."""
        if self._sample_due(trainer):
            self._sample(trainer.state.global_step)

    def due(self, trainer: SFTTrainer) -> bool:
        """Whether there is something to do after the step that has just ended."""
        return bool(self._controls.asked) or self._sample_due(trainer)

    def __call__(self, trainer: SFTTrainer) -> None:
        """Do it."""
        self._do_once(trainer, planned=self._sample_due(trainer))
        unfinished = trainer.state.global_step < trainer.state.max_steps
        if "pause" in self._controls.asked and unfinished and not self._stop_asked():
            self._pause(trainer)

    def _sample_due(self, trainer: SFTTrainer) -> bool:
        step = trainer.state.global_step
        last = step >= trainer.state.max_steps
        return step != self._sampled_at and self._sampler.due(step, last=last)

    def _do_once(self, trainer: SFTTrainer, *, planned: bool = False) -> None:
        if self._controls.take("save"):
            save_now(trainer)
        if self._controls.take("sample") or planned:
            self._sample(trainer.state.global_step)

    def _pause(self, trainer: SFTTrainer) -> None:
        step, began = trainer.state.global_step, time.monotonic()
        signed = began
        self._log.append(PausedEvent(step=step))
        self._controls.resting = True
        try:
            while "pause" in self._controls.asked and not self._stop_asked():
                self._do_once(trainer)
                self._controls.wait()
                if time.monotonic() - signed > _SIGN:
                    signed = time.monotonic()
                    os.utime(self._log.path)
        finally:
            self._controls.resting = False
        if self._stop_asked():
            save_now(trainer)
            self.stopped = trainer.control.should_training_stop = True
        seconds = time.monotonic() - began
        self.paused_seconds += seconds
        self._log.append(ContinuedEvent(step=step, seconds=seconds))

    def _sample(self, step: int) -> None:
        self._sampled_at = step
        try:
            for asked, answer in self._sampler.answers(self._stop_asked):
                event = SampleEvent(
                    step=step,
                    prompt=asked.shown,
                    answer=answer,
                    expected=asked.expected,
                    images=asked.paths,
                )
                self._log.append(event)
        except Exception as error:  # training is worth more than a sample of it
            named = as_tunebook_error(error, during="answer a sample")
            self._sampler.every = None
            self._log.append(
                WarningEvent(
                    step=step,
                    code="sample_failed",
                    message=f"The model could not answer. {named.what} {named.why}",
                    do=f"training goes on without samples; {named.do}",
                )
            )


def save_now(trainer: SFTTrainer) -> None:
    """Write a checkpoint of this very step, unless there is one."""
    folder = Path(str(trainer.args.output_dir)) / f"checkpoint-{trainer.state.global_step}"
    if (folder / "trainer_state.json").is_file():
        return
    save: Callable[..., None] = trainer._save_checkpoint
    save(trainer.model, trial=None)
    trainer.control = trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)
