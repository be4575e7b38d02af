"""Readers for local files: JSON, JSON lines, CSV, TSV, Parquet, Arrow and plain text.

Every reader names the line or row at which a file is broken; none knows what the columns mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import DatasetEmpty, DatasetUnreadable

if TYPE_CHECKING:
    from datasets import Dataset

FILE_KINDS = {
    ".jsonl": "json lines",
    ".ndjson": "json lines",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}


def read_file(path: Path) -> Dataset:
    """All rows of one file, by its ending; plain text gives one row a line in the column `text`.

    Raises:
        DatasetUnreadable: the ending is unknown, or the content is broken.
        DatasetEmpty: the file has no rows.
    """
    kind = FILE_KINDS.get(path.suffix.lower())
    if kind is None:
        raise DatasetUnreadable(
            f"The file {path} is of no known kind.",
            f"its name ends in `{path.suffix}`.",
            f"use one of {', '.join(FILE_KINDS)}.",
        )
    if path.stat().st_size == 0:
        raise _empty(path)
    if kind in ("parquet", "arrow"):
        table = _read_arrow(path, kind)
    elif kind in ("csv", "tsv"):
        table = _read_csv(path, "," if kind == "csv" else "\t")
    else:
        table = table_from_rows(_READERS[kind](path), str(path))
    if len(table) == 0:
        raise _empty(path)
    return table


def table_from_rows(rows: list[dict[str, Any]], where: str) -> Dataset:
    """A table from dicts; a key that only some rows have is None in the others.

    Raises:
        DatasetUnreadable: one column holds different kinds of values; the first such row is named.
    """
    import pyarrow as pa
    from datasets import Dataset

    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    try:
        return Dataset.from_dict(columns)
    except (pa.ArrowException, OverflowError) as error:
        raise _mixed_kinds(columns, where, error) from None


def _mixed_kinds(columns: dict[str, list[Any]], where: str, error: Exception) -> DatasetUnreadable:
    import pyarrow as pa

    for name, values in columns.items():
        try:
            pa.array(values)
        except (pa.ArrowException, OverflowError):
            row = _first_bad(values)
            return DatasetUnreadable(
                f"The column `{name}` of {where} mixes kinds of values.",
                f"row {row} (counted from 0) holds {_kind(values[row])}, the rows before it "
                f"{_kind(values[0])}.",
                "write the same kind in every row; text is best.",
            )
    why = str(error).split("\n")[0]
    return DatasetUnreadable(f"{where} is not a table.", why, "write one kind of value a column.")


def _first_bad(values: list[Any]) -> int:
    """The length of the longest readable prefix, by bisection."""
    import pyarrow as pa

    good, bad = 0, len(values)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            pa.array(values[:middle])
            good = middle
        except (pa.ArrowException, OverflowError):
            bad = middle
    return bad - 1


def _kind(value: Any) -> str:
    return {"str": "text", "int": "a number", "float": "a number", "dict": "an object"}.get(
        type(value).__name__, f"a {type(value).__name__}"
    )


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise _broken(path, number, f"column {error.colno}: {error.msg}") from None
        if not isinstance(row, dict):
            raise _broken(path, number, f"it holds {_kind(row)}, not an object")
        rows.append(row)
    return rows


def _read_json(path: Path) -> list[dict[str, Any]]:
    """A list of rows, an object that holds one, an object of columns, or JSON lines after all."""
    text = _text(path)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return _read_json_lines(path)
        raise _broken(path, error.lineno, f"column {error.colno}: {error.msg}") from None
    if isinstance(value, dict):
        value = _rows_of_object(value)
    for number, row in enumerate(value if isinstance(value, list) else [value]):
        if not isinstance(row, dict):
            raise DatasetUnreadable(
                f"The file {path} is not a table.",
                f"row {number} (counted from 0) is {_kind(row)}, not an object.",
                "write a list of objects, one for each row.",
            )
    return list(value)


def _rows_of_object(value: dict[str, Any]) -> list[Any]:
    """The rows inside an object such as `{"data": [...]}`; else the object is the only row."""
    lists = [item for item in value.values() if isinstance(item, list)]
    if len(lists) == 1 and lists[0] and all(isinstance(item, dict) for item in lists[0]):
        keys = set(lists[0][0])
        if not ({"role", "content"} <= keys or {"from", "value"} <= keys):
            return lists[0]
    return [value]


def _read_text(path: Path) -> list[dict[str, Any]]:
    return [{"text": line} for line in _text(path).split("\n") if line.strip()]


def _read_csv(path: Path, separator: str) -> Dataset:
    import pandas as pd
    from datasets import Dataset

    try:
        frame = pd.read_csv(
            path,
            sep=separator,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            index_col=False,
        )
    except pd.errors.EmptyDataError:
        raise _empty(path) from None
    except pd.errors.ParserError as error:
        why = str(error).replace("Error tokenizing data. C error: ", "").strip()
        raise DatasetUnreadable(
            f"The file {path} cannot be read as a table.",
            f"{why}.",
            "mend the line named; quote texts that hold the separator.",
        ) from None
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    return Dataset.from_pandas(frame, preserve_index=False)


def _read_arrow(path: Path, kind: str) -> Dataset:
    import pyarrow as pa
    import pyarrow.parquet
    from datasets import Dataset

    try:
        if kind == "parquet":
            return Dataset(pyarrow.parquet.read_table(path))
        with pa.memory_map(str(path)) as source:
            try:
                table = pa.ipc.open_file(source).read_all()
            except pa.ArrowInvalid:
                source.seek(0)
                table = pa.ipc.open_stream(source).read_all()
        return Dataset(table)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetUnreadable(
            f"The file {path} cannot be read.",
            str(error).split("\n")[0],
            f"check that it is really {kind}.",
        ) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None


def _not_utf8(path: Path, error: UnicodeDecodeError) -> DatasetUnreadable:
    line = path.read_bytes()[: error.start].count(b"\n") + 1
    return DatasetUnreadable(
        f"The file {path} is not UTF-8 text.",
        f"line {line} holds a byte that is none.",
        "save it as UTF-8.",
    )


def _broken(path: Path, line: int, why: str) -> DatasetUnreadable:
    return DatasetUnreadable(
        f"Line {line} of {path} is broken.",
        f"{why}.",
        f"mend or delete line {line} and load again.",
    )


def _empty(path: Path) -> DatasetEmpty:
    return DatasetEmpty(
        f"The file {path} is empty.", "it has 0 rows.", "choose a file with rows in it."
    )


_READERS = {"json lines": _read_json_lines, "json": _read_json, "text": _read_text}
