"""Write rows of formulas into a folder: `python -m tunebook.data.formulas --rows 3000 --out DIR`.

Knows the command line and the files; `train.parquet` and `test.parquet` hold pictures and LaTeX.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tunebook.data.formulas import SAMPLES, formula_rows
from tunebook.errors import TunebookError
from tunebook.latex.grammar import LEVELS, Split


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files; 1 if that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m tunebook.data.formulas")
    parser.add_argument("--rows", type=int, default=3000, help="rows to train on")
    parser.add_argument("--test", type=int, default=200, help="rows to test on")
    parser.add_argument("--out", type=Path, help="the folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--levels", default="1234", help="difficulties from 1 (simple sums) to 4 (nested)"
    )
    parser.add_argument("--samples", action="store_true", help="draw the package's samples again")
    args = parser.parse_args(arguments)
    if not args.out and not args.samples:
        parser.error("say where the files go: --out DIR")
    try:
        if args.samples:
            write_samples(SAMPLES)
        else:
            write_rows(args.out, args.rows, args.test, args.seed, tuple(map(int, args.levels)))
    except (TunebookError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def write_rows(out: Path, train: int, test: int, seed: int, levels: tuple[int, ...]) -> None:
    """Write `train.parquet` and `test.parquet`; a split without rows gets no file."""
    out.mkdir(parents=True, exist_ok=True)
    splits: tuple[tuple[Split, int], ...] = (("train", train), ("test", test))
    for split, count in splits:
        if count:
            rows = formula_rows(count, seed, levels=levels, split=split)
            rows.to_parquet(str(out / f"{split}.parquet"))


def write_samples(folder: Path) -> None:
    """Draw the hundred rows that ship with the package, 25 of each difficulty."""
    folder.mkdir(parents=True, exist_ok=True)
    texts: list[str] = []
    for level in LEVELS:
        for row in formula_rows(25, seed=level, levels=(level,), split="test").cast_column(
            "image", _encoded()
        ):
            (folder / f"{len(texts):02}.png").write_bytes(row["image"]["bytes"])
            texts.append(row["text"])
    (folder / "formulas.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")


def _encoded() -> object:
    from datasets import Image

    return Image(decode=False)


if __name__ == "__main__":
    sys.exit(main())
