"""The ladder that is shown is the one that the planner climbs."""

from __future__ import annotations

import pytest

from tunebook.models.catalog import find
from tunebook.plan import Hardware, describe_ladder, make_plan
from tunebook.plan.rungs import StrategyLadder, least_memory
from tunebook.recipe import Recipe

CASES = [
    ("Llama-3.1-8B-Instruct", "T4"),
    ("Llama-3.3-70B-Instruct", "H100"),
    ("Phi-3.5-mini-instruct", "RTX 3060"),
    ("tunebook-tiny", "cpu"),
]


def ladder_of(model: str, card: str, **knobs) -> tuple[StrategyLadder, object]:
    recipe, entry = Recipe.of(model, **knobs), find(model)
    assert entry is not None
    plan = make_plan(recipe, shape=entry.shape, hardware=Hardware.of(card))
    return describe_ladder(plan, recipe, entry.shape), plan


@pytest.mark.parametrize(("model", "card"), CASES)
def test_it_goes_down_in_memory_from_the_fullest_to_the_smallest(model, card):
    ladder, plan = ladder_of(model, card)
    totals = [rung.total for rung in ladder.rungs]
    assert ladder.most == totals[0]
    assert ladder.least == min(*totals, plan.forecast.total)
    assert totals[-1] < totals[0]
    for before, after in zip(ladder.rungs, ladder.rungs[1:], strict=False):
        assert after.saves == before.total - after.total
        assert after.costs == pytest.approx(after.seconds - before.seconds)


@pytest.mark.parametrize(("model", "card"), CASES)
def test_what_is_taken_comes_before_what_is_not(model, card):
    ladder, _ = ladder_of(model, card)
    # the loss is put back in one piece where it fits after all
    rungs = [rung for rung in ladder.rungs if not rung.title.startswith("Loss")]
    taken = [rung.taken / rung.steps for rung in rungs]
    assert taken[0] == 1
    assert taken == sorted(taken, reverse=True)


def test_a_plan_between_two_rungs_needs_something_between_them():
    ladder, plan = ladder_of("Llama-3.1-8B-Instruct", "T4")
    rung = ladder.next_rung
    assert rung is not None
    before = ladder.rungs[ladder.rungs.index(rung) - 1]
    assert rung.title == "Make the norms again"
    assert 0 < rung.taken < rung.steps == 32
    assert rung.total < plan.forecast.total <= before.total


def test_nothing_is_given_up_where_all_fits():
    ladder, plan = ladder_of("Llama-3.1-8B-Instruct", "H100")
    assert [rung.taken for rung in ladder.rungs[1:]] == [0] * (len(ladder.rungs) - 1)
    assert plan.forecast.total == ladder.most


@pytest.mark.parametrize(("model", "card"), CASES)
def test_with_the_least_budget_the_smallest_plan_is_made(model, card):
    ladder, plan = ladder_of(model, card)
    recipe, entry = Recipe.of(model), find(model)
    assert entry is not None
    hardware = Hardware.of(card)
    assert least_memory(plan, recipe, entry.shape) == ladder.least
    small = recipe.with_values({"training.memory_budget": f"{ladder.least}B"})
    assert make_plan(small, shape=entry.shape, hardware=hardware).fits
    smaller = recipe.with_values({"training.memory_budget": f"{int(0.99 * ladder.least)}B"})
    assert not make_plan(smaller, shape=entry.shape, hardware=hardware).fits


def test_what_the_recipe_forbids_is_not_on_the_ladder():
    ladder, _ = ladder_of("tunebook-tiny", "cpu", gradient_checkpointing="off")
    assert "Recompute activations" not in [rung.title for rung in ladder.rungs]
