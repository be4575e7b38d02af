"""The schedule that is drawn is the one that transformers follows."""

from __future__ import annotations

import pytest

from tunebook.plan.schedule import learning_rate, schedule_points, warmup_of
from tunebook.recipe import TrainingPart

KINDS = ["linear", "cosine", "constant", "constant_with_warmup"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "warmup"), [(100, 10), (7, 0), (5, 5), (3, 8), (1, 0)])
def test_every_step_agrees_with_transformers(kind, steps, warmup):
    import torch
    from transformers import get_scheduler

    training = TrainingPart(lr_scheduler_type=kind, warmup_steps=warmup, learning_rate=3e-4)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=training.learning_rate)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    for step in range(steps):
        expected = scheduler.get_last_lr()[0]
        assert learning_rate(training, step, steps) == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_a_long_run_is_drawn_by_few_points_with_its_corners():
    training = TrainingPart(lr_scheduler_type="linear", warmup_steps=333, learning_rate=1e-3)
    points = schedule_points(training, 100_000)
    assert len(points) < 200
    assert points[0] == (0, 0.0)
    assert points[-1] == (100_000, 0.0)
    assert (333, pytest.approx(1e-3)) in points


def test_a_constant_rate_has_no_warmup():
    assert warmup_of(TrainingPart(lr_scheduler_type="constant", warmup_steps=9), 100) == 0
    assert warmup_of(TrainingPart(lr_scheduler_type="linear", warmup_steps=9), 4) == 4
