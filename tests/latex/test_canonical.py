"""Formulas have one canonical form, in which answers are compared with the truth."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from tunebook.latex import LEVELS, canonical, edit_distance, exact_match, formulas, score
from tunebook.latex.scores import levenshtein


@pytest.mark.parametrize(
    ("written", "form"),
    [
        (r"\frac12", r"\frac { 1 } { 2 }"),
        (r"$$ \frac{a}{b}+c $$", r"\frac { a } { b } + c"),
        (r"\(x_i\)", "x _ { i }"),
        ("x^2_i", "x _ { i } ^ { 2 }"),
        ("x^{12}", "x ^ { 1 2 }"),
        (r"\sqrt[3]{x}", r"\sqrt [ 3 ] { x }"),
        (r"\sqrt x", r"\sqrt { x }"),
        (r"a\le b\,\ne c", r"a \leq b \neq c"),
        (r"\hat x", r"\hat { x }"),
        (r"\frac{{a}}{{{b}}}", r"\frac { a } { b }"),
        (r"\left( x \right)", r"\left ( x \right )"),
        ("", ""),
    ],
)
def test_writings_of_one_formula_have_one_form(written: str, form: str) -> None:
    assert canonical(written) == form


def test_every_formula_of_the_grammar_is_canonical() -> None:
    for level in LEVELS:
        for formula in formulas(200, seed=3, levels=(level,)):
            assert canonical(formula) == formula


_GROUPS = st.recursive(
    st.sampled_from(["a", "b", "1", "2", r"\alpha", "+", "x^2_i"]),
    lambda inner: st.one_of(
        inner.map(lambda x: f"{{{x}}}"),
        inner.map(lambda x: rf"\sqrt{{{x}}}"),
        st.tuples(inner, inner).map(lambda x: rf"\frac{{{x[0]}}}{{{x[1]}}}"),
        st.tuples(inner, inner).map(lambda x: f"y^{{{x[0]}}}_{{{x[1]}}}"),
        st.lists(inner, max_size=4).map("".join),
    ),
    max_leaves=8,
)


@given(_GROUPS)
def test_a_form_stays(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)


@given(st.lists(st.sampled_from([*"ab12{}[]_^", r"\frac", r"\sqrt", r"\hat", r"\left"])))
def test_text_that_is_no_formula_loses_nothing_and_is_no_error(pieces: list[str]) -> None:
    form = canonical(" ".join(pieces)).split()
    for piece in ("a", "2", "[", r"\frac", r"\left"):
        assert form.count(piece) == pieces.count(piece)


def test_an_answer_is_right_however_it_is_spaced() -> None:
    assert exact_match(r"$\frac{x}{2}$", r"\frac { x } { 2 }")
    assert not exact_match(r"\frac{x}{3}", r"\frac { x } { 2 }")


def test_the_distance_is_the_share_of_tokens_to_change() -> None:
    assert edit_distance("a + b", "a + b") == 0
    assert edit_distance("a + c", "a + b") == pytest.approx(1 / 3)
    assert edit_distance("a", "a + b") == pytest.approx(2 / 3)
    assert edit_distance("", "") == 0
    assert edit_distance("", "x") == 1
    assert levenshtein("kitten", "sitting") == 3


def test_scores_are_means() -> None:
    scored = score([("a", "a"), ("b", "a"), ("a+b", "a + b"), ("a+c", "a+b")])
    assert (scored.count, scored.exact) == (4, 0.5)
    assert scored.distance == pytest.approx((1 + 1 / 3) / 4)
    assert score([]).count == 0
