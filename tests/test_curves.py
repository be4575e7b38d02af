"""The numbers of a run: folded from its log, thinned for a picture, written as a table."""

from __future__ import annotations

import csv
import io
import math
import random

import numpy as np
import pytest

from tunebook.curves import MOST_POINTS, SMOOTHING, Curves, Thinning, smooth
from tunebook.events import EvaluationEvent, StartedEvent, StepEvent

ABOUT = {"pid": 1, "process_started": 0.0, "host": "h", "device": "cpu", "total_steps": 9,
         "trainable_parameters": 1, "total_parameters": 1}  # fmt: skip


def step(number: int, loss: float) -> dict:
    event = StepEvent(
        step=number, epoch=0, loss=loss, learning_rate=1e-4, tokens=100 * number, seconds=0.5
    )
    return event.model_dump(mode="json")


def run_of(losses: list[float]) -> Curves:
    curves = Curves()
    curves.fold([step(number, loss) for number, loss in enumerate(losses, 1)])
    return curves


def noisy(count: int) -> list[float]:
    draw = random.Random(0)
    return [2 * math.exp(-n / count) + draw.gauss(0, 0.1) for n in range(count)]


def test_a_resumed_run_drops_the_steps_that_were_lost() -> None:
    curves = run_of([4.0, 3.0, 2.0, 1.0])
    curves.fold([EvaluationEvent(step=4, loss=9.0).model_dump(mode="json")])
    others = curves.fold(
        [StartedEvent(**ABOUT, resumed_from=3).model_dump(mode="json"), step(4, 0.5)]
    )
    assert curves.steps["loss"].tolist() == [4.0, 3.0, 2.0, 0.5]
    assert curves.steps["clock"].tolist() == [0.5, 1.0, 1.5, 2.0]
    assert len(curves.evaluations) == 0
    assert [event.kind for event in others] == ["started"]


def test_tokens_a_second_are_those_of_the_last_steps_whatever_the_batch_of_reading() -> None:
    records = [step(number, 1.0) for number in range(1, 60)]
    whole, parts = Curves(), Curves()
    whole.fold(records)
    for record in records:
        parts.fold([record])
    speeds = whole.steps["tokens_per_second"]
    assert math.isnan(speeds[0])
    assert speeds[1:].tolist() == pytest.approx([200.0] * 58)
    assert parts.steps["tokens_per_second"][1:].tolist() == speeds[1:].tolist()


def test_numbers_that_are_none_and_lines_of_other_kinds_do_no_harm() -> None:
    curves = Curves()
    curves.fold([step(1, math.nan), step(2, 2.0), {"kind": "memory"}, {"kind": "of 2031"}, {}])
    assert np.isnan(curves.steps["loss"][0])
    assert np.isnan(curves.steps["grad_norm"]).all()
    rows = curves.loss_rows(curves.points("steps", "loss"))
    assert rows[3].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("count", [2001, 5000, 30_000, 131_072])
def test_a_long_curve_is_thinned_and_keeps_every_spike_and_its_ends(count: int) -> None:
    y = np.array(noisy(count))
    y[count // 3], y[count // 2] = 9.0, -9.0
    rows = Thinning().rows(y)
    assert len(rows) <= MOST_POINTS
    assert {0, count // 3, count // 2, count - 1} <= set(rows.tolist())
    assert (np.diff(rows) > 0).all()


def test_thinning_goes_on_where_it_was_while_the_curve_grows() -> None:
    y = np.array(noisy(20_000))
    growing = Thinning()
    for end in range(2_000, 20_001, 97):
        rows = growing.rows(y[:end])
        assert len(rows) <= MOST_POINTS
    at_once = Thinning().rows(y[:end])
    shared = len(np.intersect1d(rows, at_once)) / len(at_once)
    assert shared > 0.95  # a stretch that was the last one did not know its neighbour
    growing.rows(y[:3_000])  # cut back
    assert growing.rows(y[:3_000]).max() == 2_999


def test_a_window_is_looked_at_more_closely_and_the_rest_stays() -> None:
    curves = run_of(noisy(50_000))
    whole = curves.points("steps", "loss")
    near = curves.points("steps", "loss", window=(10_000, 11_000))
    inside = [row for row in near if 9_999 <= row <= 10_999]
    assert len(inside) == 1001
    assert len(near) - len(inside) > 0.9 * len(whole)


def test_the_smoothed_loss_can_be_had_from_the_points_that_are_drawn() -> None:
    losses = noisy(40_000)
    curves = run_of(losses)
    drawn = curves.points("steps", "loss")
    _, _, means, counts = curves.loss_rows(drawn)
    exact, mean, seen = smooth(losses), 0.0, 0.0
    for at, (value, count) in enumerate(zip(means, counts, strict=True)):
        kept = min(SMOOTHING**count, seen / (seen + count))
        mean, seen = kept * mean + (1 - kept) * value, seen + count
        assert mean == pytest.approx(exact[drawn[at]], abs=0.25)
    assert seen == 40_000


def test_smoothing_passes_over_what_is_no_number() -> None:
    assert smooth([2.0, math.nan, 4.0]) == [2.0, 2.0, 3.0]
    assert math.isnan(smooth([math.nan])[0])


def test_the_table_holds_every_step_and_what_was_measured_at_it() -> None:
    curves = run_of(noisy(5_000))
    curves.fold([EvaluationEvent(step=7, loss=1.5).model_dump(mode="json")])
    lines = list(csv.DictReader(io.StringIO(curves.csv())))
    assert len(lines) == 5_000
    assert float(lines[6]["loss"]) == curves.steps["loss"][6]
    assert (lines[6]["evaluation_loss"], lines[7]["evaluation_loss"]) == ("1.5", "")
    assert lines[0]["grad_norm"] == ""
    assert lines[9]["step"] == "10"
