"""What the watchdog says of a curve, and above all of which curves it says nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

import pytest

from tunebook.events import EvaluationEvent, StepEvent, WarningEvent
from tunebook.training.watchdog import Watchdog


def step(number: int, loss: float, *, rate: float = 2e-4, norm: float | None = 1.0) -> StepEvent:
    return StepEvent(
        step=number, epoch=0, loss=loss, learning_rate=rate, grad_norm=norm, tokens=0, seconds=1
    )


def said(losses: Iterable[float], *, rate: float = 2e-4) -> list[WarningEvent]:
    dog = Watchdog()
    return [w for at, loss in enumerate(losses, 1) for w in dog.step(step(at, loss, rate=rate))]


def codes(losses: Iterable[float], *, rate: float = 2e-4) -> list[str]:
    return [warning.code for warning in said(losses, rate=rate)]


def noisy(curve: Callable[[int], float], noise: float, seed: int, steps: int) -> list[float]:
    draw = random.Random(seed)
    return [max(0.0, curve(n) + draw.gauss(0, noise)) for n in range(1, steps + 1)]


HEALTHY = {
    "the demo": lambda n: 7.5 * math.exp(-n / 20) + 0.001,
    "a usual one": lambda n: 1.2 + 0.8 * math.exp(-n / 150),
    "slow but falling": lambda n: 2.0 - 0.0006 * n,
    "a fall at once, then flat": lambda n: 1.35 if n < 12 else 1.15,
    "a rise in the warm-up": lambda n: 2.0 + (0.4 * n / 15 if n < 15 else 0.4 * math.exp(-n / 60)),
}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("name", HEALTHY)
def test_a_falling_loss_however_noisy_is_left_alone(name: str, noise: float, seed: int) -> None:
    assert codes(noisy(HEALTHY[name], noise, seed, 1500)) == []


@pytest.mark.parametrize("seed", range(8))
def test_a_loss_that_is_learnt_already_need_not_fall(seed: int) -> None:
    assert codes(noisy(lambda n: 0.02, 0.01, seed, 600)) == []


@pytest.mark.parametrize("seed", range(8))
def test_a_heavy_tail_of_hard_rows_is_no_alarm(seed: int) -> None:
    draw = random.Random(seed)
    curve = [1.5 + 0.5 * math.exp(-n / 200) + draw.expovariate(3) for n in range(1200)]
    assert codes(curve) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_flat_loss_is_told_once_and_by_its_likely_cause(seed: int) -> None:
    flat = noisy(lambda n: 2.0, 0.1, seed, 1500)
    assert codes(flat) == ["loss_not_falling"]
    (low,) = said(flat, rate=1e-6)
    assert low.code == "learning_rate_low"
    assert "1.0e-06" in low.message
    assert "2e-4" in low.do


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_a_loss_that_climbs_is_told_soon(noise: float) -> None:
    def curve(n: int) -> float:
        return 2.0 - 0.004 * n if n <= 200 else 1.2 + 0.03 * (n - 200)

    (warning,) = said(noisy(curve, noise, 0, 400))
    assert warning.code == "loss_diverging"
    assert 200 < warning.step < 300
    assert "learning_rate" in warning.do


def test_a_loss_that_is_no_number_is_told_once() -> None:
    (warning,) = said([2.0, math.nan, math.inf, 2.0, math.nan])
    assert (warning.code, warning.step) == ("loss_not_finite", 2)


def jumping(norm_at_jump: float) -> list[str]:
    dog, draw = Watchdog(), random.Random(0)
    found = []
    for n in range(1, 200):
        jump = n in (100, 120, 140)
        loss = 2.0 - 0.005 * n + draw.gauss(0, 0.05) + (2.0 if jump else 0)
        event = step(n, loss, norm=norm_at_jump if jump else 0.5 + draw.random() / 4)
        found += [warning.code for warning in dog.step(event)]
    return found


def test_jumps_with_their_gradients_speak_of_the_learning_rate_and_hard_rows_do_not() -> None:
    assert jumping(8.0) == ["learning_rate_high"]
    assert jumping(0.6) == []


def test_gradients_that_overflow_are_told_when_it_goes_on() -> None:
    def told(count: int) -> list[str]:
        dog = Watchdog()
        return [w.code for n in range(count) for w in dog.step(step(n, 2.0, norm=math.inf))]

    assert told(12) == []  # as float16 does while it looks for its scale
    assert told(30) == ["gradient_not_finite"]


def evaluated(train: Callable[[int], float], evaluations: list[float]) -> list[WarningEvent]:
    dog, found = Watchdog(), []
    for round_, loss in enumerate(evaluations):
        for n in range(round_ * 20, round_ * 20 + 20):
            found += dog.step(step(n + 1, train(n)))
        found += dog.evaluation(EvaluationEvent(step=round_ * 20 + 20, loss=loss))
    return found


def test_a_rising_evaluation_under_a_falling_loss_is_overfitting() -> None:
    rising = [2.0, 1.6, 1.5, 1.55, 1.62, 1.7, 1.8]
    (warning,) = evaluated(lambda n: 2.0 * math.exp(-n / 60), rising)
    assert (warning.code, warning.step) == ("overfitting", 120)
    assert "step 60" in warning.do


def test_an_evaluation_that_wavers_or_rises_with_the_loss_is_not() -> None:
    falling = lambda n: 2.0 * math.exp(-n / 60)  # noqa: E731
    assert evaluated(falling, [2.0, 1.6, 1.5, 1.51, 1.52, 1.49, 1.5, 1.48]) == []
    assert evaluated(falling, [1.5, 1.501, 1.502, 1.503]) == []
    rising = evaluated(lambda n: 1.0 + n / 300, [1.5, 1.6, 1.7, 1.8, 1.9])
    assert [warning.code for warning in rising] == ["loss_not_falling"]
