"""Rows from every kind of source, and what a person reads when there are none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tunebook.data.loading import load_rows
from tunebook.errors import DatasetEmpty, DatasetUnreadable, RecipeInvalid, SourceMissing
from tunebook.recipe import DataPart

ROWS = [{"instruction": f"q{i}", "output": f"a{i}, 🦜"} for i in range(10)]


def write(folder: Path, kind: str) -> Path:
    import pandas as pd
    from datasets import Dataset

    path = folder / f"data.{kind}"
    if kind == "json":
        path.write_text(json.dumps(ROWS))
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    elif kind in ("csv", "tsv"):
        pd.DataFrame(ROWS).to_csv(path, index=False, sep="," if kind == "csv" else "\t")
    elif kind == "parquet":
        pd.DataFrame(ROWS).to_parquet(path)
    else:
        Dataset.from_list(ROWS).save_to_disk(folder / "saved")
        os.rename(folder / "saved" / "data-00000-of-00001.arrow", path)
    return path


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv", "parquet", "arrow"])
def test_files(kind, tmp_path, monkeypatch, capfd):
    path = write(tmp_path, kind)
    capfd.readouterr()
    empty = tmp_path / "cwd"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert load_rows(DataPart(source=str(path))).to_list() == ROWS
    cut = load_rows(DataPart(source=str(path), split="train[2:50%]", max_rows=2))
    assert cut["instruction"][:] == ["q2", "q3"]
    assert list(empty.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_text_gives_a_row_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\n two \n")
    assert load_rows(DataPart(source=str(path))).to_list() == [{"text": "one"}, {"text": " two "}]


def test_json_may_hold_its_rows_in_a_key_or_be_lines(tmp_path):
    inner, lines, chat = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"
    inner.write_text(json.dumps({"version": 1, "data": ROWS}))
    lines.write_text("\n".join(map(json.dumps, ROWS)))
    chat.write_text(json.dumps({"messages": [{"role": "user", "content": "q"}]}))
    assert load_rows(DataPart(source=str(inner))).to_list() == ROWS
    assert load_rows(DataPart(source=str(lines))).to_list() == ROWS
    assert len(load_rows(DataPart(source=str(chat)))) == 1


@pytest.mark.parametrize(
    ("split", "count"),
    [("train", 10), ("train[:3]", 3), ("train[-4:]", 4), ("train[10%:30%]", 2), ("train[8:99]", 2)],
)
def test_slices(split, count):
    assert len(load_rows(DataPart(split=split), rows=ROWS)) == count


def test_rows_in_memory():
    import pandas as pd
    from datasets import Dataset, DatasetDict

    table = Dataset.from_list(ROWS)
    for rows in (ROWS, table, DatasetDict(train=table), pd.DataFrame(ROWS), table.to_dict()):
        assert load_rows(DataPart(), rows=rows).to_list() == ROWS
    assert load_rows(DataPart(), rows=["a", "b"]).to_list() == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(SourceMissing, match="`train`"):
        load_rows(DataPart(split="test"), rows=DatasetDict(train=table))


def test_a_saved_folder(tmp_path):
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert load_rows(DataPart(source=str(tmp_path / "saved"))).to_list() == ROWS
    (tmp_path / "rows.csv").write_text("a\n1\n")
    with pytest.raises(SourceMissing, match=r"rows\.csv"):
        load_rows(DataPart(source=str(tmp_path)))


def test_the_demo():
    rows = load_rows(DataPart())
    assert len(rows) > 10
    assert len(load_rows(DataPart(split="heldout[:2]"))) == 2


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "train_data.jsonl").write_text("{}")
    with pytest.raises(SourceMissing, match=r"did you mean `train_data\.jsonl`"):
        load_rows(DataPart(source=str(tmp_path / "train-data.jsonl")))
    with pytest.raises(SourceMissing, match="no folder"):
        load_rows(DataPart(source=str(tmp_path / "nowhere" / "x.csv")))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n{"a": 3}', "Line 2 of .*a.jsonl"),
        ("a.jsonl", '{"a": 1}\n[1]', "(?s)Line 2 of .* not an object"),
        ("a.json", '[{"a": 1},\n{"a" 2}]', "Line 2 of .*a.json"),
        ("a.json", '["x"]', "row 0"),
        ("a.csv", "a,b\n1,2\n1,2,3,4\n", "line 3"),
        ("a.jsonl", b'{"a": "x"}\n{"a": "\xff"}', "line 2"),
        ("a.parquet", "not parquet", r"a\.parquet cannot be read"),
        ("a.xyz", "?", r"\.jsonl"),
        ("a.jsonl", '{"a": "text"}\n{"a": {"b": 1}}', "column `a`.*(\n.*)*row 1"),
    ],
)
def test_broken_files_name_the_place(name, content, words, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetUnreadable, match=words):
        load_rows(DataPart(source=str(path)))


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", ""), ("a.csv", "a,b\n"), ("a.json", "[]")]
)
def test_empty_files(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DatasetEmpty, match="0 rows"):
        load_rows(DataPart(source=str(tmp_path / name)))


def test_empty_slices_and_lists():
    with pytest.raises(DatasetEmpty, match="0 rows"):
        load_rows(DataPart(split="train[5:5]"), rows=ROWS)
    with pytest.raises(DatasetEmpty):
        load_rows(DataPart(), rows=[])
    with pytest.raises(DatasetUnreadable, match="row 1 is a int"):
        load_rows(DataPart(), rows=[{"a": 1}, 2])


def test_splits_that_are_not_there(tmp_path):
    path = write(tmp_path, "jsonl")
    with pytest.raises(SourceMissing, match="no split `test`"):
        load_rows(DataPart(source=str(path), split="test"))
    with pytest.raises(RecipeInvalid, match="cannot be understood"):
        load_rows(DataPart(source=str(path), split="train[1,2]"))


@pytest.mark.parametrize("error", [ConnectionError("no route"), FileNotFoundError("offline")])
def test_a_hub_that_does_not_answer(error, monkeypatch):
    import datasets

    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(SourceMissing, match="cannot be reached"):
        load_rows(DataPart(source="someone/some-data"))


def test_an_unknown_hub_name(monkeypatch):
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    asked = []

    def refuse(*args: object, **kwargs: object) -> None:
        asked.append((args, kwargs))
        raise DatasetNotFoundError("Dataset 'someone/none' doesn't exist on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(SourceMissing, match="was not found"):
        load_rows(DataPart(source="someone/none", config="en", split="test[:5]"))
    assert asked == [(("someone/none", "en"), {"split": "test[:5]"})]


def test_the_progress_bar_setting_comes_back():
    import datasets

    datasets.enable_progress_bars()
    load_rows(DataPart(), rows=ROWS)
    assert datasets.is_progress_bar_enabled()
