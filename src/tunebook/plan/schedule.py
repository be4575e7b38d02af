"""The learning rate of every step, by the formulas of transformers' schedulers; knows no optimizer."""

from __future__ import annotations

import math

from tunebook.recipe import TrainingPart

_POINTS = 160


def learning_rate(training: TrainingPart, step: int, steps: int) -> float:
    """The rate of the update that follows `step` others, as `transformers.get_scheduler` gives it.

    Linear falls by (steps - step) / (steps - warmup), cosine by half a wave of the same; `constant`
    knows no warm-up.
    """
    kind, warmup = training.lr_scheduler_type, training.warmup_steps
    if kind == "constant":
        return training.learning_rate
    if step < warmup:
        return training.learning_rate * step / max(1, warmup)
    if kind == "constant_with_warmup":
        return training.learning_rate
    if kind == "linear":
        return training.learning_rate * max(0.0, (steps - step) / max(1, steps - warmup))
    progress = (step - warmup) / max(1, steps - warmup)
    return training.learning_rate * max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))


def schedule_points(training: TrainingPart, steps: int) -> list[tuple[int, float]]:
    """(step, rate) of some steps from the first to the last, the end of the warm-up among them."""
    stride = max(1, steps / _POINTS)
    chosen = {round(at * stride) for at in range(int(steps / stride) + 1)}
    chosen |= {0, min(training.warmup_steps, steps), steps}
    return [(step, learning_rate(training, step, steps)) for step in sorted(chosen)]


def warmup_of(training: TrainingPart, steps: int) -> int:
    """Steps over which the rate rises; 0 where the schedule knows no warm-up."""
    return 0 if training.lr_scheduler_type == "constant" else min(training.warmup_steps, steps)
