"""Drawn formulas in one compact file, so that a machine without matplotlib can train on them.

Knows the file's layout; it knows no model. The file is xz: a line of JSON, then for each picture its
height and width (uint16), then all pixels column by column, one byte each, as steps of ink.
"""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from tunebook.latex.grammar import SIGNS, Split, formulas, in_test_split
from tunebook.latex.rendering import random_style, render

STEPS = 7
"""How many shades of ink the file tells apart; 0 is white."""


@dataclass(frozen=True)
class Pictures:
    """Formulas and their pictures.

    Attributes:
        formulas: LaTeX, one a picture.
        sizes: [count, 2] int64, height and width.
        ink: all pixels one after the other, column by column within a picture, uint8, 0 to `STEPS`.
        test: how many at the end are of the test split.
    """

    formulas: list[str]
    sizes: np.ndarray
    ink: np.ndarray
    test: int

    @property
    def offsets(self) -> np.ndarray:
        """Where each picture's pixels begin, [count] int64."""
        return np.concatenate(([0], np.cumsum(self.sizes.prod(axis=1))[:-1]))


def make_pictures(
    train: int, test: int, seed: int, levels: tuple[int, ...], workers: int, styles: int = 30
) -> Pictures:
    """Draw formulas of both splits in random styles; the same for the same arguments.

    Before those to train on come single signs, each in so many `styles`, and as many pairs, with which
    learning begins.
    """
    splits: tuple[tuple[Split, int], ...] = (("train", train), ("test", test))
    texts = [
        text
        for split, count in splits
        for text in formulas(count, seed, levels=levels, split=split)
    ]
    places = range(0, len(texts), 500)
    beginning = first_signs(seed, styles)
    with ProcessPoolExecutor(workers) as pool:
        jobs = [(beginning, f"{seed} signs")]
        jobs += [(texts[at : at + 500], f"{seed} {at}") for at in places]
        drawn = [ink for part in pool.map(_draw, jobs) for ink in part]
    sizes = np.array([ink.shape for ink in drawn], np.int64)
    flat = np.concatenate([ink.T.ravel() for ink in drawn])
    return Pictures(beginning + texts, sizes, flat, test)


def first_signs(seed: int, styles: int) -> list[str]:
    """Every sign many times and as many pairs of signs, none of the test split."""
    rng = random.Random(f"{seed} signs")
    pairs = (f"{rng.choice(SIGNS)} {rng.choice(SIGNS)}" for _ in iter(int, 1))
    many = len(SIGNS) * styles
    return [*SIGNS * styles, *islice((pair for pair in pairs if not in_test_split(pair)), many)]


def _draw(job: tuple[Sequence[str], str]) -> list[np.ndarray]:
    texts, seed = job
    rng = random.Random(seed)
    pictures = (np.asarray(render(text, random_style(rng))) for text in texts)
    return [np.round((255 - picture) / 255 * STEPS).astype(np.uint8) for picture in pictures]


def write_pictures(pictures: Pictures, path: Path) -> None:
    """Write the file; about 370 bytes a picture."""
    header = {"test": pictures.test, "formulas": pictures.formulas}
    with lzma.open(path, "wb", preset=6) as file:
        file.write(json.dumps(header).encode() + b"\n")
        file.write(pictures.sizes.astype("<u2").tobytes())
        file.write(pictures.ink.tobytes())


def read_pictures(path: Path) -> Pictures:
    """Read what `write_pictures` wrote."""
    with lzma.open(path, "rb") as file:
        header = json.loads(file.readline())
        count = len(header["formulas"])
        sizes = np.frombuffer(file.read(4 * count), "<u2").reshape(count, 2).astype(np.int64)
        ink = np.frombuffer(file.read(), np.uint8)
    return Pictures(header["formulas"], sizes, ink, header["test"])


def first(pictures: Pictures, train: int) -> Pictures:
    """The same with fewer pictures to train on, and all of the test split."""
    kept = [*islice(range(len(pictures.formulas) - pictures.test), train)]
    kept += range(len(pictures.formulas) - pictures.test, len(pictures.formulas))
    offsets = pictures.offsets
    areas = pictures.sizes.prod(axis=1)
    ink = np.concatenate([pictures.ink[offsets[i] : offsets[i] + areas[i]] for i in kept])
    return Pictures([pictures.formulas[i] for i in kept], pictures.sizes[kept], ink, pictures.test)
