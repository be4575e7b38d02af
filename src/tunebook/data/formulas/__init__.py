"""Rows for the LaTeX-OCR task: pictures of formulas and their LaTeX, from a grammar of the project's own.

Knows `tunebook.latex` and rows; it knows no model. A hundred rows ship as PNG files and need no
matplotlib; any number more are drawn by it.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.latex.grammar import LEVELS, Split, formulas
from tunebook.latex.rendering import Style, random_style, render

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Style", "formula_rows", "formulas", "render", "sample_formulas"]

SAMPLES = Path(__file__).parent / "samples"
"""A hundred pictures, `00.png` to `99.png`, and their formulas in `formulas.txt`, one a line."""


def formula_rows(
    count: int,
    seed: int = 0,
    *,
    levels: tuple[int, ...] = LEVELS,
    split: Split = "train",
) -> Dataset:
    """Rows with the columns `image` and `text`, the same for the same arguments.

    Fonts, sizes, weights and margins vary. No formula is twice in it, and none is in both splits.

    Args:
        levels: the difficulties, 1 to 4, see `tunebook.latex.LEVELS`.
        split: "train" or "test".

    Raises:
        ExtraMissing: matplotlib is not installed.

    Example:
        >>> rows = formula_rows(3000)  # doctest: +SKIP
        >>> rows[0]["text"]  # doctest: +SKIP
        'x _ { i } ^ { 2 } + 3'
    """
    texts = list(formulas(count, seed, levels=levels, split=split))
    return _rows(texts, _drawn(texts, random.Random(f"{seed} {split} styles")))


def sample_formulas() -> Dataset:
    """The hundred rows that ship with the package, columns `image` and `text`; easy ones first."""
    texts = (SAMPLES / "formulas.txt").read_text(encoding="utf-8").splitlines()
    return _rows(texts, (path.read_bytes() for path in sorted(SAMPLES.glob("*.png"))))


def _drawn(texts: list[str], rng: random.Random) -> Iterator[bytes]:
    for text in texts:
        file = io.BytesIO()
        render(text, random_style(rng)).save(file, "PNG", optimize=True)
        yield file.getvalue()


def _rows(texts: list[str], files: Iterator[bytes]) -> Dataset:
    from datasets import Dataset, Features, Image, Value

    images: list[dict[str, Any]] = [{"bytes": file, "path": None} for file in files]
    features = Features({"image": Image(), "text": Value("string")})
    return Dataset.from_dict({"image": images, "text": texts}, features=features)
