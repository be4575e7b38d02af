r"""Formulas from a grammar, in canonical LaTeX that matplotlib's mathtext can draw.

Knows which signs look alike and leaves one of each pair out, so that a picture has one right
answer. It draws nothing and knows no model.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Literal

Split = Literal["train", "test"]

LEVELS = (1, 2, 3, 4)
"""1: sums of letters, digits and simple scripts. 2: fractions, roots, functions, brackets.
3: sums, integrals, limits, accents, relations. 4: the same, nested and longer."""

TEST_SHARE = 10
"""One formula of so many belongs to the test split, by its own text: whatever the seed, no formula
is in both splits."""

# Without l, o, v, I, O and the capitals that differ from small letters in size only.
_SMALL = tuple("abcdefghijkmnpqrstuwxyz")
_CAPITAL = tuple("ABDEFGHLMNQRT")
_GREEK = (
    r"\alpha", r"\beta", r"\gamma", r"\delta", r"\varepsilon", r"\theta", r"\lambda", r"\mu",
    r"\pi", r"\rho", r"\sigma", r"\tau", r"\phi", r"\psi", r"\omega",
)  # fmt: skip
_CAPITAL_GREEK = (r"\Gamma", r"\Delta", r"\Theta", r"\Lambda", r"\Phi", r"\Psi", r"\Omega")
_INDEX = tuple("ijkmn")
_FUNCTIONS = (r"\sin", r"\cos", r"\tan", r"\log", r"\ln", r"\exp")
_ACCENTS = (r"\hat", r"\bar", r"\vec", r"\dot", r"\tilde")
_RELATIONS = (
    r"\leq",
    r"\geq",
    r"\neq",
    r"\approx",
    r"\equiv",
    r"\in",
    r"\subset",
    r"\to",
    "<",
    ">",
)
_TALL = frozenset((r"\frac", r"\sum", r"\prod", r"\int", r"\binom", r"\lim"))
_LONGEST = {1: 22, 2: 34, 3: 48, 4: 72}

SIGNS = (
    *"0123456789", *_SMALL, *_CAPITAL, *_GREEK, *_CAPITAL_GREEK, *_FUNCTIONS, "+", "-", "=", r"\times", r"\pm"
)  # fmt: skip
"""What can stand alone: letters, digits, functions and signs of reckoning."""

Tokens = list[str]


def formulas(
    count: int,
    seed: int = 0,
    *,
    levels: tuple[int, ...] = LEVELS,
    split: Split = "train",
) -> Iterator[str]:
    """Formulas in canonical LaTeX, none twice, the same for the same arguments.

    Args:
        levels: of which difficulties, each as often as the others.
        split: "train" or "test"; no formula is in both.

    Raises:
        ValueError: a level or split does not exist, or the levels have fewer formulas than `count`.
    """
    if not levels or not set(levels) <= set(LEVELS):
        raise ValueError(f"levels are of {LEVELS}, not {levels!r}")
    if split not in ("train", "test"):
        raise ValueError(f"split is 'train' or 'test', not {split!r}")
    rng = random.Random(f"{seed} {split}")
    seen: set[str] = set()
    tries = 0
    while len(seen) < count:
        level = levels[len(seen) % len(levels)]
        formula = " ".join(_Writer(rng, level).formula())
        tries += 1
        if tries > 50 * count + 10_000:
            raise ValueError(f"levels {levels} have no {count} different formulas")
        if formula not in seen and in_test_split(formula) == (split == "test"):
            seen.add(formula)
            yield formula


def in_test_split(formula: str) -> bool:
    """Whether a formula, in canonical form, belongs to the test split."""
    digest = hashlib.sha256(formula.encode()).digest()
    return int.from_bytes(digest[:4], "big") % TEST_SHARE == 0


def _group(inner: Tokens) -> Tokens:
    return ["{", *inner, "}"]


class _Writer:
    """Writes one formula of a level."""

    def __init__(self, rng: random.Random, level: int) -> None:
        self._rng = rng
        self._level = level

    def formula(self) -> Tokens:
        """A whole formula: one side, or two with a relation between."""
        while True:
            out = self._sum()
            if self._chance(0.55):
                out += [self._relation(), *self._sum(1 if len(out) > 14 else 2)]
            if 2 <= len(out) <= _LONGEST[self._level]:
                return out

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share

    def _relation(self) -> str:
        if self._level >= 3 and self._chance(0.4):
            return self._rng.choice(_RELATIONS)
        return "="

    def _sum(self, longest: int = 3, depth: int = 0) -> Tokens:
        """Terms with signs between."""
        out = ["-"] if self._chance(0.06) else []
        for number in range(self._rng.randint(1, longest)):
            if number:
                out.append(self._rng.choice(("+", "+", "+", "-", "-", r"\cdot", r"\times", r"\pm")))
            out += self._term(depth)
        return out

    def _term(self, depth: int) -> Tokens:
        """A number, or one or two factors, or one of what the level allows."""
        if depth < self._depth and self._chance((0.0, 0.45, 0.5, 0.6)[self._level - 1]):
            return self._rng.choice(self._constructions())(depth + 1)
        if self._chance(0.2):
            return self._number()
        out = [self._rng.choice("23456789")] if self._chance(0.25) else []
        return out + self._scripted() + (self._letter() if self._chance(0.15) else [])

    @property
    def _depth(self) -> int:
        return (0, 1, 1, 3)[self._level - 1]

    def _constructions(self) -> list[Callable[[int], Tokens]]:
        known: list[Callable[[int], Tokens]] = []
        if self._level in (2, 4):
            known += [self._fraction, self._fraction, self._root, self._function, self._brackets]
        if self._level == 3:
            known += [self._fraction]
        if self._level >= 3:
            known += [self._big, self._big, self._integral, self._limit, self._accent]
            known += [self._binomial, self._prime, self._derivative, self._applied]
        return known

    def _number(self) -> Tokens:
        return list(str(self._rng.randint(*((1, 9) if self._chance(0.7) else (10, 99)))))

    def _letter(self) -> Tokens:
        tables = (_SMALL, _SMALL, _SMALL, _GREEK, _CAPITAL, _CAPITAL_GREEK)
        table = self._rng.choices(tables, (3, 3, 3, 3, 2, 0.5))[0]
        return [self._rng.choice(table)]

    def _scripted(self) -> Tokens:
        """A letter with nothing, an index, a power or both."""
        letter, kind = self._letter(), self._rng.random()
        lower = ["_", *_group([self._rng.choice((*_INDEX, *"012"))])] if 0.5 < kind < 0.8 else []
        upper = ["^", *_group(self._power())] if kind > 0.7 else []
        return letter + lower + upper

    def _power(self) -> Tokens:
        if self._level >= 2 and self._chance(0.2):
            return [self._rng.choice(_INDEX), self._rng.choice("+-"), "1"]
        if self._level >= 2 and self._chance(0.15):
            return ["-", self._rng.choice(_INDEX)]
        return [self._rng.choice(("2", "2", "3", "4", *_INDEX))]

    def _inner(self, depth: int) -> Tokens:
        """What stands inside of something: short."""
        return self._sum(2, depth)

    def _fraction(self, depth: int) -> Tokens:
        return [r"\frac", *_group(self._inner(depth)), *_group(self._inner(depth))]

    def _root(self, depth: int) -> Tokens:
        index = ["[", self._rng.choice("3n"), "]"] if self._chance(0.2) else []
        return [r"\sqrt", *index, *_group(self._inner(depth))]

    def _function(self, depth: int) -> Tokens:
        name = self._rng.choice(_FUNCTIONS)
        if self._chance(0.5):
            return [name, *self._letter()]
        return [name, *self._bracketed(self._inner(depth))]

    def _brackets(self, depth: int) -> Tokens:
        power = ["^", *_group(self._power())] if self._chance(0.4) else []
        return self._bracketed(self._sum(2, depth)) + power

    def _bracketed(self, inner: Tokens) -> Tokens:
        r"""In round brackets, with `\left` and `\right` where something tall is inside."""
        if _TALL.intersection(inner):
            return [r"\left", "(", *inner, r"\right", ")"]
        return ["(", *inner, ")"]

    def _big(self, depth: int) -> Tokens:
        index = self._rng.choice("ijk")
        top = self._rng.choice(("n", "m", "N", r"\infty"))
        bounds = ["_", *_group([index, "=", self._rng.choice("01")]), "^", *_group([top])]
        body = [*self._letter(), "_", *_group([index])]
        if self._level == 4 and self._chance(0.4):
            body = self._fraction(depth)
        return [self._rng.choice((r"\sum", r"\prod")), *bounds, *body]

    def _integral(self, depth: int) -> Tokens:
        top = self._rng.choice(("1", "2", "b", r"\pi", r"\infty"))
        bounds = ["_", *_group([self._rng.choice("0a")]), "^", *_group([top])]
        body = self._term(depth) if self._level == 4 else self._scripted()
        return [
            r"\int",
            *(bounds if self._chance(0.7) else []),
            *body,
            "d",
            self._rng.choice("txyz"),
        ]

    def _limit(self, depth: int) -> Tokens:
        letter = self._rng.choice("nxyh")
        goal = self._rng.choice(("0", "1", "a", r"\infty"))
        return [r"\lim", "_", *_group([letter, r"\to", goal]), *self._scripted()]

    def _accent(self, depth: int) -> Tokens:
        if self._chance(0.2):
            return [r"\overline", *_group([*self._letter(), "+", *self._letter()])]
        letter = self._rng.choice([c for c in (*_SMALL, *_CAPITAL) if c not in "ij"])
        return [self._rng.choice(_ACCENTS), *_group([letter])]

    def _binomial(self, depth: int) -> Tokens:
        return [r"\binom", *_group([self._rng.choice("nmN")]), *_group([self._rng.choice("k23")])]

    def _prime(self, depth: int) -> Tokens:
        return [self._rng.choice("fghxyAB"), "^", *_group([r"\prime"])]

    def _derivative(self, depth: int) -> Tokens:
        sign = self._rng.choice(("d", r"\partial"))
        top, below = self._rng.choice("fguwy"), self._rng.choice("txz")
        return [r"\frac", *_group([sign, top]), *_group([sign, below])]

    def _applied(self, depth: int) -> Tokens:
        return [
            self._rng.choice(("f", "g", "h", "F", r"\phi")),
            *self._bracketed(self._inner(depth)),
        ]
