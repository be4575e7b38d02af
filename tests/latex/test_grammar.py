"""Formulas come from a grammar: repeatable, never twice, never in both splits."""

from __future__ import annotations

import pytest

from tunebook.latex import LEVELS, formulas, in_test_split


def test_the_same_seed_writes_the_same_formulas() -> None:
    assert list(formulas(300, seed=5)) == list(formulas(300, seed=5))
    assert list(formulas(300, seed=5)) != list(formulas(300, seed=6))


def test_no_formula_comes_twice_nor_in_both_splits() -> None:
    train, test = (list(formulas(2000, seed=1, split=split)) for split in ("train", "test"))
    assert len(set(train)) == len(set(test)) == 2000
    assert not set(train) & set(test)
    # whatever the seed, for the split is the formula's own
    assert not set(formulas(2000, seed=2, split="test")) & set(train)
    assert all(map(in_test_split, test))
    assert not any(map(in_test_split, train))


def test_levels_grow_harder() -> None:
    lengths, commands = [], []
    for level in LEVELS:
        made = [formula.split() for formula in formulas(300, seed=0, levels=(level,))]
        lengths.append(sum(map(len, made)) / 300)
        commands.append({token for tokens in made for token in tokens if token[0] == "\\"})
    assert lengths == sorted(lengths)
    assert r"\frac" not in commands[0]
    assert {r"\frac", r"\sqrt", r"\sin"} <= commands[1]
    assert {r"\sum", r"\int", r"\lim", r"\hat", r"\leq"} <= commands[2] - commands[1]
    assert r"\left" in commands[3]


def test_braces_are_balanced() -> None:
    for formula in formulas(1000, seed=8):
        depth = 0
        for token in formula.split():
            depth += (token == "{") - (token == "}")
            assert depth >= 0
        assert depth == 0


@pytest.mark.parametrize("bad", [{"levels": (5,)}, {"levels": ()}, {"split": "eval"}])
def test_what_does_not_exist_is_refused(bad: dict) -> None:
    with pytest.raises(ValueError):
        next(formulas(1, **bad))


def test_more_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunebook.latex.grammar._Writer.formula", lambda self: ["x"])
    with pytest.raises(ValueError, match="no 2 different formulas"):
        list(formulas(2))
