"""Formulas in LaTeX: how one is written canonically, compared, made from a grammar and drawn.

Knows no model, no dataset and no torch; only `rendering` needs matplotlib (`tunebook[formulas]`).
"""

from tunebook.latex.canonical import canonical, tokens
from tunebook.latex.grammar import LEVELS, formulas, in_test_split
from tunebook.latex.scores import Score, edit_distance, exact_match, score

__all__ = [
    "LEVELS",
    "Score",
    "canonical",
    "edit_distance",
    "exact_match",
    "formulas",
    "in_test_split",
    "score",
    "tokens",
]
