"""What can be trained on is found near a notebook and in it, and comes in pieces from a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from tunebook.data.lines import LineIndex, can_index
from tunebook.data.nearby import dropped_path, nearby_files, source_of_text
from tunebook.data.uploads import Upload, safe_name
from tunebook.data.variables import find_variables
from tunebook.errors import DatasetUnreadable, RecipeInvalid


class Hostile:
    """An object whose every special method would be a user's code."""

    def __len__(self) -> int:
        raise AssertionError("called")

    def __iter__(self) -> Any:
        raise AssertionError("called")

    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise AssertionError("called")


class Sublist(list[Any]):
    def __len__(self) -> int:
        raise AssertionError("called")


def test_rows_in_variables_are_found_and_no_code_of_a_user_runs() -> None:
    rows = [{"prompt": "a", "completion": "b"}] * 3
    table = {"text": ["a", "b"]}
    namespace = {
        "rows": rows,
        "table": table,
        "frame": pd.DataFrame(table),
        "dataset": datasets.Dataset.from_dict(table),
        "texts": ["one"] * 9,
        "hostile": Hostile(),
        "sub": Sublist(),
        "few": ["a"],
        "numbers": [1, 2],
        "uneven": {"a": [1], "b": [1, 2]},
        "_hidden": rows,
        "In": ["x"] * 9,
    }
    found = {item.name: (item.rows, item.columns) for item in find_variables(namespace)}
    assert found == {
        "rows": (3, ["prompt", "completion"]),
        "table": (2, ["text"]),
        "frame": (2, ["text"]),
        "dataset": (2, ["text"]),
        "texts": (9, ["text"]),
    }


def test_data_files_are_found_near_and_settings_packages_and_runs_are_not(tmp_path: Path) -> None:
    names = ["a.jsonl", "sub/b.csv", "sub/c.jsonl.gz", ".hidden/d.jsonl", "node_modules/e.csv"]
    names += ["tokenizer.json", "small.json", "notes.txt", "runs/x/events.jsonl", "runs/x/f.csv"]
    for name in [*names, "runs/x/recipe.yaml"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (tmp_path / "empty.jsonl").touch()
    assert [f.path for f in nearby_files(tmp_path)] == ["a.jsonl", "sub/b.csv", "sub/c.jsonl.gz"]
    assert len(nearby_files(tmp_path, most=1)) == 1


def test_a_dragged_path_is_found_from_the_root_or_a_folder_above(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "books").mkdir()
    file = tmp_path / "data" / "a.jsonl"
    file.touch()
    assert dropped_path("data/a.jsonl", str(tmp_path)) == file
    assert dropped_path("RTC:data/a.jsonl", None, tmp_path / "books") == file
    assert dropped_path("data/b.jsonl", str(tmp_path)) is None


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("file:///tmp/a%20b.jsonl", "/tmp/a b.jsonl"),
        ("https://huggingface.co/datasets/org/name/tree/main", "org/name"),
        (' "data.csv"\nmore', "data.csv"),
        ("org/name", "org/name"),
        ("", ""),
    ],
)
def test_dropped_text_means_a_source(text: str, source: str) -> None:
    assert source_of_text(text) == source


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/x.jsonl", "x.jsonl"),
        ("C:\\data\\x.csv", "x.csv"),
        (".x.jsonl", "x.jsonl"),
        ("a\x00\u202eb\n.jsonl", "ab.jsonl"),
        ("con.csv", "data-con.csv"),
        ('a"<b>.parquet', "a__b_.parquet"),
        ("x" * 300 + ".jsonl.gz", "x" * 111 + ".jsonl.gz"),
    ],
)
def test_the_name_of_an_upload_is_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(DatasetUnreadable, match="no data file"):
        safe_name("run.sh")


def test_pieces_make_a_file_and_nothing_is_overwritten(tmp_path: Path) -> None:
    for expected in ("a.jsonl", "a-2.jsonl"):
        upload = Upload("a.jsonl", 5, tmp_path / "uploads")
        upload.add(0, b"abc")
        upload.add(3, b"de")
        assert upload.finish().name == expected
    folder = tmp_path / "uploads"
    assert (folder / "a-2.jsonl").read_bytes() == b"abcde"
    stopped = Upload("b.csv", 5, folder)
    with pytest.raises(RecipeInvalid, match="order"):
        stopped.add(1, b"x")
    with pytest.raises(RecipeInvalid, match="order"):
        stopped.add(0, b"too many")
    stopped.cancel()
    assert sorted(path.name for path in folder.iterdir()) == ["a-2.jsonl", "a.jsonl"]
    with pytest.raises(DatasetUnreadable, match="empty"):
        Upload("c.csv", 0, folder)


def test_an_index_gives_each_line_of_a_file_as_the_reader_would(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = ['{"text": "é"}', "", "  ", "{broken", "[1]", '{"text": "last"}']
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    index = LineIndex(path)
    assert len(index) == 4
    assert [index[0], index[3]] == [{"text": "é"}, {"text": "last"}]
    for row in (1, 2):
        with pytest.raises(DatasetUnreadable):
            index[row]
    assert len(LineIndex(path, most=2)) == 2
    assert not can_index(path)
    path.write_text(json.dumps({"text": "x" * 100}) + "\n")
    assert can_index(path, least=10)
