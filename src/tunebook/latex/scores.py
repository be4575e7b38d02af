"""How near an answer in LaTeX is to the truth: exact match and edit distance.

Knows texts only; both are compared in canonical form, token by token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunebook.latex.canonical import canonical


@dataclass(frozen=True)
class Score:
    """How well a set of answers fits.

    Attributes:
        count: how many were compared.
        exact: the share that is exactly right, 0 to 1; 0 where nothing was compared.
        distance: mean edit distance by token, as a share of the longer text, 0 (same) to 1.
    """

    count: int
    exact: float
    distance: float


def exact_match(answer: str, truth: str) -> bool:
    r"""Whether both are the same formula in canonical form.

    Example:
        >>> exact_match(r"$\frac12$", r"\frac { 1 } { 2 }")
        True
    """
    return canonical(answer) == canonical(truth)


def edit_distance(answer: str, truth: str) -> float:
    """The fewest tokens to put in, take out or change, by the longer text's tokens: 0 (same) to 1."""
    said, right = canonical(answer).split(), canonical(truth).split()
    longest = max(len(said), len(right))
    return levenshtein(said, right) / longest if longest else 0.0


def score(pairs: Iterable[tuple[str, str]]) -> Score:
    """Exact match and edit distance over pairs of answer and truth."""
    compared = [(exact_match(*pair), edit_distance(*pair)) for pair in pairs]
    count = len(compared)
    if not count:
        return Score(0, 0.0, 0.0)
    exact, distance = (sum(column) / count for column in zip(*compared, strict=True))
    return Score(count, exact, distance)


def levenshtein(a: Sequence[str], b: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions that make one sequence the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
