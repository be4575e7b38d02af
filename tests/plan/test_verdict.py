"""A verdict is true: with the change that it names, the recipe fits."""

from __future__ import annotations

import pytest

from tunebook.models.catalog import find
from tunebook.plan import Hardware, make_plan
from tunebook.plan.verdict import fit_word, judge
from tunebook.recipe import Recipe


def verdict_of(model: str, card: str, **knobs):
    entry = find(model)
    assert entry is not None
    return judge(Recipe.of(model, **knobs), entry.shape, Hardware.of(card)), entry.shape


def test_spare_memory_that_is_spent_on_speed_does_not_make_it_tight():
    verdict, _ = verdict_of("Llama-3.1-8B-Instruct", "RTX 4090")
    assert verdict.word == "fits"
    assert verdict.total > 0.95 * verdict.budget > verdict.least
    assert verdict.cure == ""


@pytest.mark.parametrize(
    ("card", "knobs", "field"),
    [
        ("RTX 3060", {"bits": 16}, "quantization.bits"),
        ("RTX 3060", {"memory_budget": "1GiB"}, "training.memory_budget"),
        ("RTX 3060", {"max_seq_length": 65536}, "model.max_seq_length"),
    ],
)
def test_the_first_change_that_is_named_lets_it_fit(card, knobs, field):
    verdict, shape = verdict_of("Llama-3.1-8B-Instruct", card, **knobs)
    assert verdict.word == "no"
    assert list(verdict.change) == [field]
    recipe = Recipe.of("Llama-3.1-8B-Instruct", **knobs).with_values(verdict.change)
    assert make_plan(recipe, shape=shape, hardware=Hardware.of(card)).fits
    assert verdict.cure.startswith("fits with ")


def test_where_no_change_helps_a_card_is_named():
    verdict, shape = verdict_of("Llama-3.3-70B-Instruct", "RTX 3060")
    assert verdict.change == {}
    name = verdict.card.split(" (")[0]
    recipe = Recipe.of("Llama-3.3-70B-Instruct")
    assert make_plan(recipe, shape=shape, hardware=Hardware.of(name)).fits
    assert name in verdict.cure


def test_words_by_the_share_that_the_smallest_plan_takes():
    assert [fit_word(least, 100) for least in (50, 90, 101)] == ["fits", "tight", "no"]
