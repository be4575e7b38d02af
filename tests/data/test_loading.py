"""Rows from every kind of source, and what a person reads when there are none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tunebook.data import textfiles
from tunebook.data.loading import load_rows, read_page, read_rows
from tunebook.data.spool import RowSpool, Skipped, Spool
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
        ("a.jsonl", '{"a": "text"}\n{"a": {"b": 1}}', "column `a`.*(\n.*)*line 2"),
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


def test_a_folder_of_files_is_one_table_by_split(tmp_path):
    (tmp_path / "train-0.jsonl").write_text('{"a": "0"}\n')
    (tmp_path / "train-1.csv").write_text("a\n1\n")
    (tmp_path / "eval.jsonl").write_text('{"a": "2"}\n')
    (tmp_path / "README.md").write_text("words")
    assert load_rows(DataPart(source=str(tmp_path)))["a"][:] == ["0", "1"]
    assert load_rows(DataPart(source=str(tmp_path), split="test"))["a"][:] == ["2"]
    with pytest.raises(SourceMissing, match=r"no split `validation`(?s:.*)`train`"):
        load_rows(DataPart(source=str(tmp_path), split="validation"))


@pytest.mark.parametrize("packed", ["gz", "xz", "bz2"])
def test_packed_files(packed, tmp_path):
    path = write(tmp_path, "jsonl")
    target = tmp_path / f"data.jsonl.{packed}"
    with textfiles.PACKED[f".{packed}"](target, "wb") as file:
        file.write(path.read_bytes())
    assert load_rows(DataPart(source=str(target))).to_list() == ROWS
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(DatasetUnreadable, match="unpacked"):
        load_rows(DataPart(source=str(tmp_path / "bad.jsonl.gz")))


def test_streams_and_their_slices(monkeypatch):
    import datasets

    stream = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
    assert load_rows(DataPart(max_rows=3), rows=stream).to_list() == ROWS[:3]
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: stream)
    part = DataPart(source="someone/data", streaming=True, split="train[2:5]")
    assert load_rows(part).to_list() == ROWS[2:5]
    with pytest.raises(RecipeInvalid, match="cannot be streamed"):
        load_rows(part.model_copy(update={"split": "train[10%:]"}))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_dataset_by_configuration_split_and_slice(streaming, tmp_path, monkeypatch):
    """The folder is laid out as a repository of the hub, and stands in for it."""
    import datasets

    lines = {
        (config, split): [{"text": f"{config} {split} {n}"} for n in range(5)]
        for config in ("one", "two")
        for split in ("train", "test")
    }
    head = "---\nconfigs:\n"
    for config in ("one", "two"):
        head += f"- config_name: {config}\n  data_files:\n"
        for split in ("train", "test"):
            head += f"  - split: {split}\n    path: {config}-{split}.jsonl\n"
            rows = "".join(json.dumps(row) + "\n" for row in lines[config, split])
            (tmp_path / f"{config}-{split}.jsonl").write_text(rows)
    (tmp_path / "README.md").write_text(head + "---\n")
    real = datasets.load_dataset

    def local(name, *args, **keywords):
        assert name == "someone/data"
        return real(str(tmp_path), *args, cache_dir=str(tmp_path / "cache"), **keywords)

    monkeypatch.setattr(datasets, "load_dataset", local)
    part = DataPart(source="someone/data", config="two", split="test[1:3]", streaming=streaming)
    assert load_rows(part).to_list() == lines["two", "test"][1:3]
    whole = part.model_copy(update={"config": "one", "split": "train", "max_rows": 4})
    assert load_rows(whole).to_list() == lines["one", "train"][:4]
    with pytest.raises(SourceMissing, match="no such part"):
        load_rows(part.model_copy(update={"config": "three"}))
    with pytest.raises(SourceMissing, match="no such part"):
        load_rows(part.model_copy(update={"split": "validation"}))


def test_polars_frames():
    polars = pytest.importorskip("polars")
    assert load_rows(DataPart(), rows=polars.DataFrame(ROWS)).to_list() == ROWS
    assert load_rows(DataPart(), rows=polars.LazyFrame(ROWS)).to_list() == ROWS


def test_arrow_tables_of_large_strings():
    import pyarrow as pa

    class Frame:  # as a polars frame gives itself
        def to_arrow(self) -> pa.Table:
            kind = pa.large_list(pa.struct([("role", pa.large_string())]))
            return pa.table({"m": pa.array([[{"role": "user"}]], kind)})

    assert load_rows(DataPart(), rows=Frame()).to_list() == [{"m": [{"role": "user"}]}]


BROKEN = b'{"a": "0"}\n{"a": \n{"a": "\xff"}\n[1]\n{"a": {"b": 1}}\n{"a": "5"}\n' + (
    b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}\n"
)


def test_bad_rows_are_skipped_only_if_the_user_says_so(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(BROKEN)
    with pytest.raises(DatasetUnreadable, match="Line 2"):
        load_rows(DataPart(source=str(path)))
    loaded = read_rows(DataPart(source=str(path), on_bad_rows="skip"))
    assert loaded.table["a"][:] == ["0", "5"]
    assert loaded.skipped.count == 5
    assert next("Line 2" in reason for reason in loaded.skipped.reasons)


def test_a_byte_that_is_no_utf8_is_named_by_its_place(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "0"}\n{"a": "\xff"}\n')
    with pytest.raises(DatasetUnreadable, match=r"line 2 (?s:.*)0xff at byte 18 of"):
        load_rows(DataPart(source=str(path)))
    (tmp_path / "a.json").write_bytes(b'[{"a": "0"},\n{"a": "\xff"}]')
    with pytest.raises(DatasetUnreadable, match="line 2"):
        load_rows(DataPart(source=str(tmp_path / "a.json")))


def test_a_line_that_is_too_long_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(textfiles, "LONGEST_ROW", 1000)
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "0"}\n{"a": "' + "x" * 5000 + '"}\n{"a": "2"}\n')
    with pytest.raises(DatasetUnreadable, match=r"Line 2 (?s:.*)MiB long"):
        load_rows(DataPart(source=str(path)))
    loaded = read_rows(DataPart(source=str(path), on_bad_rows="skip"))
    assert (loaded.table["a"][:], loaded.skipped.count) == (["0", "2"], 1)


def test_rows_that_hold_themselves_or_nest_without_end():
    cycle: dict = {"a": "x"}
    cycle["self"] = [cycle]
    with pytest.raises(DatasetUnreadable, match=r"row 1 (?s:.*)holds itself"):
        load_rows(DataPart(), rows=[{"a": "y"}, cycle])
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(DatasetUnreadable, match=r"row 0 (?s:.*)nested more than 32"):
        load_rows(DataPart(), rows=[{"a": deep}])


def test_a_long_list_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(textfiles, "_CHUNK", 16)
    path = tmp_path / "a.json"
    for text in (json.dumps(ROWS), json.dumps(ROWS, indent=2), " \n[ ]"):
        path.write_text(text)
        if "a1" in text:
            assert load_rows(DataPart(source=str(path))).to_list() == ROWS
        else:
            with pytest.raises(DatasetEmpty):
                load_rows(DataPart(source=str(path)))
    for text in ('[{"a": 1}\n{"a": 2}]', '[{"a": 1},\n]', '[{"a": 1},\n{"a": 2}'):
        path.write_text(text)
        with pytest.raises(DatasetUnreadable, match=r"Line 2 of"):
            load_rows(DataPart(source=str(path)))


def test_dialects_of_one_chat_fit_into_one_column():
    def row(content, arguments):
        call = {"function": {"name": "f", "arguments": arguments}}
        return {"messages": [{"role": "assistant", "content": content, "tool_calls": [call]}]}

    rows = [row("a", {"x": 1})] * 3000 + [row([{"type": "text", "text": "a"}], '{"x": 1}')]
    messages = [chat[0] for chat in load_rows(DataPart(), rows=rows)["messages"]]
    assert {message["content"] for message in messages} == {"a"}
    assert len({message["tool_calls"][0]["function"]["arguments"] for message in messages}) == 1


def test_many_rows_go_to_a_file_and_come_back_as_one_schema():
    import pyarrow as pa

    spool = RowSpool("here", Skipped(), spool=Spool(limit=1000))
    rows = [{"a": None}] * 2000 + [{"a": i, "b": str(i)} for i in range(5000)] + [{"a": 0.5}]
    for number, row in enumerate(rows):
        spool.add(number, row)
    table = spool.dataset()
    assert len(table) == 7001
    assert table[0] == {"a": None, "b": None}
    assert (table[6999], table[7000]) == ({"a": 4999.0, "b": "4999"}, {"a": 0.5, "b": None})
    assert table.data.schema.field("a").type == pa.float64()


def test_a_page_reads_no_further_than_it_must(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text": "{i}"}}\n' for i in range(500)) + "broken\n")
    page, head = read_page(DataPart(source=str(path)), 300, 3)
    assert [row["text"] for row in page] == ["300", "301", "302"]
    assert len(head) == 100
    page, _ = read_page(DataPart(source=str(path), max_rows=2), 0, 10)
    assert len(page) == 2
    for kind in ("csv", "parquet", "arrow", "json"):
        page, _ = read_page(DataPart(source=str(write(tmp_path, kind))), 4, 2)
        assert page == ROWS[4:6]


def test_half_a_character_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "whole"}\n{"text": "half \\ud83e"}\n')
    with pytest.raises(DatasetUnreadable, match="damaged") as caught:
        load_rows(DataPart(source=str(path)))
    assert "line 2 holds half of a character, '\\ud83e'" in caught.value.why
    assert load_rows(DataPart(source=str(path), on_bad_rows="skip"))["text"][:] == ["whole"]


def test_a_row_that_mixes_kinds_by_itself_says_so():
    turns = [{"role": "user", "content": {"image": "x"}}, {"role": "assistant", "content": "a"}]
    with pytest.raises(DatasetUnreadable, match="mixes kinds") as caught:
        load_rows(DataPart(), rows=[{"messages": turns}])
    assert "in which" in caught.value.why
