"""Looks at the numbers of a run and says when something is wrong, in words, with what to do.

Pure arithmetic on losses and gradient norms; knows no trainer and no log. It would rather say
nothing than cry wolf: every finding is weighed against the noise of the curve itself, and each
cause is told once.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median

from tunebook.events import EvaluationEvent, StepEvent, WarningEvent

_WINDOW = 20  # steps whose median counts as "the loss now"
_LOOK = 5  # steps between two looks
_PERSIST = 8  # looks in a row before a rise counts as divergence
_RISE = 0.5  # nats; less is no divergence, however quiet the curve
_FIRST_VERDICT = 60  # steps before a loss can be said not to fall
_LATER = 1.5  # a later verdict comes when there are so many times as many steps
_LAST_VERDICT = 5000  # a loss that is flat after so many steps may have nothing left to learn
_BEGINNINGS = (3, 5, 8, 12, 20, 40, 80)  # steps within which a loss may have fallen already
_FALL = 0.02  # share of the first loss that a falling loss loses
_LEARNT = 0.1  # nats; a loss that begins below has little left to fall
_LOW_RATE = 2e-5  # below this LoRA hardly moves
_SPIKES = 3  # within `_SPIKE_SPAN` steps
_SPIKE_SPAN = 100
_SPIKE_GRADIENT = 4.0  # times the usual gradient
_RISING = 3  # evaluations in a row
_WORSE = 1.01  # times the best evaluation
_OVERFLOWS = 20  # steps in a row; float16 alone has ten while it finds its scale


class Watchdog:
    """Takes in the steps and evaluations of a run in order; returns what is to be said now."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._losses = array("d")
        self._gradients = array("d")
        self._verdict_at = _FIRST_VERDICT
        self._best, self._best_step = math.inf, 0
        self._above = self._overflows = 0
        self._spikes: list[int] = []
        self._evaluations: list[tuple[int, float, int]] = []  # step, loss, losses seen by then

    def step(self, event: StepEvent) -> list[WarningEvent]:
        """Look at a step; mostly nothing."""
        if not math.isfinite(event.loss):
            return self._say("loss_not_finite", event.step, *_not_finite(event))
        said = self._overflow(event)
        said += self._spike(event)
        self._losses.append(event.loss)
        if event.grad_norm is not None and math.isfinite(event.grad_norm):
            self._gradients.append(event.grad_norm)
        seen = len(self._losses)
        if seen >= 2 * _WINDOW and seen % _LOOK == 0:
            said += self._divergence(event)
        if self._verdict_at <= seen <= _LAST_VERDICT:
            self._verdict_at = math.ceil(seen * _LATER)
            said += self._no_fall(event)
        return said

    def evaluation(self, event: EvaluationEvent) -> list[WarningEvent]:
        """Look at an evaluation: overfitting is a rising one under a falling training loss."""
        if not math.isfinite(event.loss):
            return []
        self._evaluations.append((event.step, event.loss, len(self._losses)))
        recent = self._evaluations[-_RISING - 1 :]
        if len(recent) <= _RISING or any(b[1] <= a[1] for a, b in pairwise(recent)):
            return []
        best = min(self._evaluations, key=lambda item: item[1])
        if event.loss <= best[1] * _WORSE or self._training_rose(recent):
            return []
        return self._say(
            "overfitting",
            event.step,
            f"The evaluation loss has risen {_RISING} times in a row, from {best[1]:.4f} at step "
            f"{best[0]} to {event.loss:.4f}, while the training loss fell: it learns by heart.",
            f"stop; the model was best near step {best[0]}. Next time take fewer `training.epochs`, "
            "more rows, a lower `lora.r`, or some `lora.dropout`.",
        )

    def _training_rose(self, recent: Sequence[tuple[int, float, int]]) -> bool:
        """Whether the training loss is higher now than in the stretch before the rise began."""
        (_, _, first), (_, _, second) = recent[0], recent[1]
        length = max(1, second - first)
        before = self._losses[max(0, first - length) : first]
        now = self._losses[-length:]
        return not before or not now or fmean(now) > fmean(before)

    def _overflow(self, event: StepEvent) -> list[WarningEvent]:
        norm = event.grad_norm
        self._overflows = self._overflows + 1 if norm is not None and not math.isfinite(norm) else 0
        if self._overflows < _OVERFLOWS:
            return []
        return self._say(
            "gradient_not_finite",
            event.step,
            f"The gradient has not been a number for {_OVERFLOWS} steps: nothing is learnt.",
            "stop, and lower `training.learning_rate`; on a GPU without bfloat16 try another model.",
        )

    def _spike(self, event: StepEvent) -> list[WarningEvent]:
        recent, gradients = self._losses[-50:], self._gradients[-50:]
        if len(recent) < _WINDOW or len(gradients) < _WINDOW or event.grad_norm is None:
            return []
        jump = event.loss - median(recent) if event.loss > recent[-1] + _RISE else 0.0
        if jump < max(_RISE, 6 * _noise(recent)) or not (
            event.grad_norm > _SPIKE_GRADIENT * median(gradients)
        ):
            return []
        self._spikes = [s for s in self._spikes if s > event.step - _SPIKE_SPAN] + [event.step]
        if len(self._spikes) < _SPIKES:
            return []
        return self._say(
            "learning_rate_high",
            event.step,
            f"The loss has jumped {len(self._spikes)} times within {_SPIKE_SPAN} steps, each time "
            f"with a gradient over {_SPIKE_GRADIENT:.0f} times the usual one: the learning rate "
            f"({event.learning_rate:.1e}) seems too high.",
            "lower `training.learning_rate` to a third, or raise `training.warmup_steps`; if it "
            "jumps at the same rows again, look at those.",
        )

    def _divergence(self, event: StepEvent) -> list[WarningEvent]:
        now = median(self._losses[-_WINDOW:])
        if now < self._best:
            self._best, self._best_step, self._above = now, event.step, 0
            return []
        noise = _noise(self._losses[-10 * _WINDOW :]) if now > self._best + _RISE else 0.0
        margin = max(_RISE, 10 * noise / math.sqrt(_WINDOW))
        self._above = self._above + 1 if now > self._best + margin else 0
        if self._above < _PERSIST:
            return []
        return self._say(
            "loss_diverging",
            event.step,
            f"The loss rises: it was {self._best:.3f} around step {self._best_step} and is "
            f"{now:.3f} now.",
            "stop, and start again with a third of `training.learning_rate` or more "
            "`training.warmup_steps`; what this run learnt is being lost.",
        )

    def _no_fall(self, event: StepEvent) -> list[WarningEvent]:
        """Warn only where the curve is quiet enough to know that it did not fall."""
        losses = self._losses
        quarter = len(losses) // 4
        first, last = fmean(losses[:quarter]), fmean(losses[-quarter:])
        noise = _noise(losses)
        error = noise * math.sqrt(2 / quarter)
        enough = max(_FALL * first, _FALL)
        fell_at_once = any(
            fmean(losses[:n]) - last > 0.01 * first + 2 * noise / math.sqrt(n) for n in _BEGINNINGS
        )
        if first < _LEARNT or error > enough / 2 or first - last + error >= enough or fell_at_once:
            return []
        if {"loss_diverging", "loss_not_falling", "learning_rate_low"} & self._told:
            return []
        low = event.learning_rate < _LOW_RATE
        if first - last > 2 * error and not low:
            return []  # slowly, but for certain
        what = (
            f"The loss hardly falls: {first:.3f} at first, {last:.3f} now, after {event.step} steps"
        )
        if low:
            return self._say(
                "learning_rate_low",
                event.step,
                f"{what}. The learning rate is only {event.learning_rate:.1e}.",
                "raise `training.learning_rate`; 2e-4 suits LoRA.",
            )
        return self._say(
            "loss_not_falling",
            event.step,
            f"{what}.",
            "look in the data panel at what is learnt; then try three times the "
            "`training.learning_rate`, or a higher `lora.r`.",
        )

    def _say(self, code: str, step: int, message: str, do: str) -> list[WarningEvent]:
        if code in self._told:
            return []
        self._told.add(code)
        return [WarningEvent(step=step, code=code, message=message, do=do)]


def _not_finite(event: StepEvent) -> tuple[str, str]:
    return (
        f"The loss became {event.loss} at step {event.step}.",
        "stop, and lower `training.learning_rate`; check the data for odd rows.",
    )


def _noise(losses: Sequence[float]) -> float:
    """Standard deviation of a step's loss about its trend, by the differences of neighbours.

    The median of |x - y| of two normal values is 0.6745 * sqrt(2) standard deviations.
    """
    jumps = [abs(b - a) for a, b in pairwise(losses)]
    return median(jumps) / 0.9539 if jumps else 0.0
