r"""The one way to write a formula, so that two texts of the same formula are the same text.

Knows LaTeX's tokens and a few spellings that draw the same; it does not parse a formula.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[^\s\\]", re.DOTALL)
_MATH = (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)"))
_UNSEEN = frozenset(
    (r"\,", r"\;", r"\:", r"\!", r"\ ", r"\quad", r"\qquad", r"\displaystyle", r"\textstyle",
     r"\limits", r"\nolimits", "~")
)  # fmt: skip
_SPELLINGS = {
    r"\le": r"\leq",
    r"\ge": r"\geq",
    r"\ne": r"\neq",
    r"\rightarrow": r"\to",
    r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
    r"\lbrace": r"\{",
    r"\rbrace": r"\}",
    r"\vert": "|",
    r"\mid": "|",
    r"\ast": "*",
    r"\lbrack": "[",
    r"\rbrack": "]",
}
_ONE_ARGUMENT = frozenset(
    (r"\sqrt", r"\hat", r"\bar", r"\vec", r"\dot", r"\ddot", r"\tilde", r"\overline")
)
_TWO_ARGUMENTS = frozenset((r"\frac", r"\binom"))


def tokens(text: str) -> list[str]:
    r"""The tokens of a formula as written: commands, escaped signs, single letters and digits.

    Example:
        >>> tokens(r"\frac{a}{12}")
        ['\\frac', '{', 'a', '}', '{', '1', '2', '}']
    """
    return _TOKEN.findall(text)


def canonical(text: str) -> str:
    r"""The formula in canonical form: tokens with one space between, scripts and arguments in braces.

    Math marks around it, spacing commands and braces around nothing but one argument's braces are
    dropped; `^` comes after `_`; of spellings that draw the same, one is taken. Text that is no
    formula comes out as its tokens, without an error.

    Example:
        >>> canonical(r"$x^2_i \le \frac12$")
        'x _ { i } ^ { 2 } \\leq \\frac { 1 } { 2 }'
    """
    plain = [_SPELLINGS.get(token, token) for token in tokens(_without_marks(text.strip()))]
    plain = [token for token in plain if token not in _UNSEEN]
    return " ".join(_Reader(plain).sequence())


def _without_marks(text: str) -> str:
    for opening, closing in _MATH:
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening):
            return text[len(opening) : -len(closing)]
    return text


class _Reader:
    """Reads tokens from left to right and writes them canonically; unmatched braces are kept."""

    def __init__(self, plain: list[str]) -> None:
        self._tokens = plain
        self._at = 0

    def sequence(self, until: str | None = None) -> list[str]:
        """Everything up to a closing token of this depth, which is not taken."""
        out: list[str] = []
        while self._at < len(self._tokens) and self._tokens[self._at] != until:
            out += self._scripts() if self._tokens[self._at] in "_^" else self._item()
        return out

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _item(self) -> list[str]:
        token = self._take()
        if token == "{":
            inner = self.sequence("}")
            if self._at == len(self._tokens):
                return ["{", *inner]  # cut off: what is missing stays missing
            self._take()
            return ["{", *inner, "}"] if inner else []
        if token in _TWO_ARGUMENTS:
            return [token, *self._argument(), *self._argument()]
        if token in _ONE_ARGUMENT:
            index = self._index() if token == r"\sqrt" else []
            return [token, *index, *self._argument()]
        return [token]

    def _index(self) -> list[str]:
        """The `[ 3 ]` of a root, if it has one."""
        if self._at < len(self._tokens) and self._tokens[self._at] == "[":
            self._take()
            inner = self.sequence("]")
            closing = [self._take()] if self._at < len(self._tokens) else []
            return ["[", *inner, *closing]
        return []

    def _argument(self) -> list[str]:
        """One argument in braces, whether or not it was written with them."""
        if self._at == len(self._tokens) or self._tokens[self._at] == "}":
            return []
        item = self._item()
        while len(item) > 4 and item[:2] == ["{", "{"] and item[-2:] == ["}", "}"]:
            inner = item[1:-1]
            if not _one_group(inner):
                break
            item = inner
        return item if item[:1] == ["{"] else ["{", *item, "}"]

    def _scripts(self) -> list[str]:
        """A run of scripts, the lower before the upper."""
        found: dict[str, list[str]] = {}
        while self._at < len(self._tokens) and self._tokens[self._at] in "_^":
            kind = self._tokens[self._at]
            if kind in found:
                break
            self._take()
            found[kind] = [kind, *self._argument()]
        return [token for kind in "_^" for token in found.get(kind, [])]


def _one_group(plain: list[str]) -> bool:
    """Whether the first brace is closed by the last token."""
    depth = 0
    for at, token in enumerate(plain):
        depth += (token == "{") - (token == "}")
        if depth == 0:
            return at == len(plain) - 1
    return False
