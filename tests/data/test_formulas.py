"""LaTeX-OCR rows: every formula is drawn, the picture shows the formula, and a hundred ship."""

from __future__ import annotations

import builtins
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunebook.data.formulas import SAMPLES, Style, formula_rows, formulas, render, sample_formulas
from tunebook.data.formulas.__main__ import main
from tunebook.errors import ExtraMissing, FormulaInvalid
from tunebook.latex import in_test_split, rendering


@pytest.fixture(autouse=True)
def mathtext() -> None:
    pytest.importorskip("matplotlib")


def test_every_formula_is_drawn_in_every_font() -> None:
    for number, formula in enumerate(formulas(100, seed=11)):
        font = rendering.FONTS[number % len(rendering.FONTS)]
        picture = np.asarray(render(formula, Style(font=font, size=20, bold=number % 3 == 0)))
        assert picture.min() < 100
        assert picture.shape[0] >= 12
        edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
        assert all((edge == 255).all() for edge in edges)


def test_scripts_fractions_and_roots_are_drawn_as_such() -> None:
    assert render("x ^ { 2 }").height > render("x 2").height
    assert render(r"\frac { a } { b }").height > render("a b").height


def test_the_picture_depends_on_formula_and_style() -> None:
    base = render("a + b", Style()).tobytes()
    assert render("a + b", Style()).tobytes() == base
    assert render("a + c", Style()).tobytes() != base
    assert render("a + b", Style(font="stix")).tobytes() != base
    bold = np.asarray(render("a + b", Style(bold=True)))
    assert (255.0 - bold).sum() > 1.1 * (255.0 - np.asarray(render("a + b"))).sum()
    assert render("a + b", Style(size=30)).width > render("a + b", Style(size=20)).width
    wider = render("a + b", Style(margin=(9, 3, 3, 3)))
    assert wider.width == render("a + b").width + 6


def test_the_box_is_tight() -> None:
    ink = 255 - np.asarray(render("x", Style(margin=(2, 2, 2, 2))))
    assert ink[2].max() > 16
    assert ink[:, 2].max() > 16
    assert ink[:2].max() == 0


def test_what_mathtext_cannot_draw_is_an_error_with_the_formula() -> None:
    with pytest.raises(FormulaInvalid, match=r"begin"):
        render(r"\begin { matrix } a \end { matrix }")


def test_rows_are_the_same_for_the_same_seed() -> None:
    first, again = formula_rows(20, seed=4), formula_rows(20, seed=4)
    assert first.column_names == ["image", "text"]
    assert [row["image"].tobytes() for row in first] == [row["image"].tobytes() for row in again]
    assert first["text"] == list(formulas(20, seed=4))
    assert len({row["image"].size for row in first}) > 10


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **more)

    rendering._parser.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    try:
        with pytest.raises(ExtraMissing, match=r"tunebook\[formulas\]"):
            render("x")
        assert len(sample_formulas()) == 100
    finally:
        rendering._parser.cache_clear()


def test_the_command_writes_files_that_load(tmp_path: Path) -> None:
    from datasets import load_dataset

    assert main(["--rows", "12", "--test", "4", "--out", str(tmp_path), "--levels", "12"]) == 0
    files = {name: str(tmp_path / f"{name}.parquet") for name in ("train", "test")}
    loaded = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 12, "test": 4}
    assert loaded["train"][0]["image"].width > 10
    assert not set(loaded["train"]["text"]) & set(loaded["test"]["text"])


def test_the_command_refuses_what_does_not_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path), "--levels", "7"]) == 1
    assert "levels are of" in capsys.readouterr().err


def test_a_hundred_small_pictures_ship() -> None:
    from PIL import Image

    rows = sample_formulas()
    assert len(rows) == len(set(rows["text"])) == 100
    assert all(map(in_test_split, rows["text"]))
    files = sorted(SAMPLES.glob("*.png"))
    assert len(files) == 100
    assert sum(file.stat().st_size for file in files) < 300_000
    for file, row in zip(files, rows, strict=True):
        assert Image.open(io.BytesIO(file.read_bytes())).size == row["image"].size
