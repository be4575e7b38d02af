"""Formulas as pictures, drawn by matplotlib's mathtext: black on white, in a tight box.

Needs matplotlib, which comes with `tunebook[formulas]`; needs no LaTeX and no display.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tunebook.errors import ExtraMissing, FormulaInvalid
from tunebook.latex.canonical import tokens

if TYPE_CHECKING:
    from PIL.Image import Image

Font = Literal["dejavusans", "dejavuserif", "cm", "stix", "stixsans"]
FONTS: tuple[Font, ...] = ("dejavusans", "dejavuserif", "cm", "stix", "stixsans")
SIZES = (18, 30)
"""The smallest and largest letters that `random_style` takes, in pixels to the em."""

_FINER = 3  # how much finer a bold formula is drawn before it is thickened


@dataclass(frozen=True)
class Style:
    """How a formula is drawn.

    Attributes:
        font: one of mathtext's font sets.
        size: pixels to the em.
        bold: whether every stroke is thickened.
        margin: white pixels left, above, right and below of the ink.
    """

    font: Font = "cm"
    size: float = 20.0
    bold: bool = False
    margin: tuple[int, int, int, int] = (3, 3, 3, 3)


def random_style(rng: random.Random, sizes: tuple[float, float] = SIZES) -> Style:
    """A font, size, weight and margins."""
    return Style(
        font=rng.choice(FONTS),
        size=round(rng.uniform(*sizes), 1),
        bold=rng.random() < 0.25,
        margin=(rng.randint(1, 6), rng.randint(1, 6), rng.randint(1, 6), rng.randint(1, 6)),
    )


def render(formula: str, style: Style | None = None) -> Image:
    """The picture of a formula, in mode L.

    Args:
        formula: LaTeX without `$` around it.

    Raises:
        FormulaInvalid: mathtext cannot read it.
        ExtraMissing: matplotlib is not installed.
    """
    from PIL import Image

    style = style or Style()
    ink = _ink(formula, style.font, style.size * (_FINER if style.bold else 1))
    if style.bold:
        ink = _thickened(ink)
    left, above, right, below = style.margin
    padded = np.pad(_cropped(ink), ((above, below), (left, right)))
    return Image.fromarray(255 - padded)


def _ink(formula: str, font: Font, size: float) -> np.ndarray:
    """How much of each pixel is ink, uint8."""
    parser, properties = _parser()
    try:
        parsed = parser.parse(
            f"${_compact(formula)}$", dpi=72, prop=properties(size=size, math_fontfamily=font)
        )
    except ValueError as error:
        raise FormulaInvalid(
            f"The formula {formula!r} cannot be drawn.",
            f"mathtext does not know it: {str(error).strip().splitlines()[-1].strip()}.",
            "write it in the part of LaTeX that matplotlib draws, without environments.",
        ) from None
    return np.asarray(parsed.image, dtype=np.uint8)


def _compact(formula: str) -> str:
    """The formula without the spaces that mathtext would take for the base of a script."""
    plain = tokens(formula)
    named = [token[0] == "\\" and token[-1].isalpha() for token in plain]
    follows = [*(token[0].isalpha() for token in plain[1:]), False]
    return "".join(
        token + " " * (name and letter)
        for token, name, letter in zip(plain, named, follows, strict=True)
    )


@cache
def _parser() -> tuple[Any, Any]:
    try:
        from matplotlib.font_manager import FontProperties
        from matplotlib.mathtext import MathTextParser
    except ImportError:
        raise ExtraMissing(
            "Formulas cannot be drawn here.",
            "matplotlib is not installed.",
            "run `pip install 'tunebook[formulas]'`; `sample_formulas()` needs nothing.",
        ) from None
    return MathTextParser("agg"), FontProperties


def _thickened(ink: np.ndarray) -> np.ndarray:
    """Every stroke wider by a third of a pixel on each side; a third of the size comes out."""
    from PIL import Image, ImageFilter

    high, wide = (-(-side // _FINER) * _FINER + 2 * _FINER for side in ink.shape)
    canvas = np.zeros((high, wide), np.uint8)
    canvas[_FINER : _FINER + ink.shape[0], _FINER : _FINER + ink.shape[1]] = ink
    wider = Image.fromarray(canvas).filter(ImageFilter.MaxFilter(3))
    return np.asarray(wider.resize((wide // _FINER, high // _FINER), Image.Resampling.BOX))


def _cropped(ink: np.ndarray) -> np.ndarray:
    """The box around what is visible."""
    rows, columns = np.flatnonzero(ink.max(1) > 16), np.flatnonzero(ink.max(0) > 16)
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
