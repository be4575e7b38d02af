"""Local files of every known kind as one table, or their first rows without reading the rest.

Every reader names the line or row at which a file is broken; none knows what the columns mean.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.spool import RowSpool, Skipped, Spool, dataset_of
from tunebook.data.textfiles import (
    PACKED,
    Numbered,
    json_line_rows,
    json_rows,
    open_bytes,
    text_rows,
)
from tunebook.data.turns import too_deep
from tunebook.errors import DatasetEmpty, DatasetUnreadable

if TYPE_CHECKING:
    import pyarrow as pa
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
_READERS = {"json lines": json_line_rows, "json": json_rows, "text": text_rows}
_CSV_ROWS = 20_000


def file_kind(path: Path) -> str | None:
    """What a file's ending means, looking past `.gz` and its like; None if nothing."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    kind = FILE_KINDS.get(suffixes[-1]) if suffixes else None
    packed = path.suffix.lower() in PACKED
    return None if packed and kind in ("parquet", "arrow") else kind


def read_file(path: Path, skipped: Skipped | None = None) -> Dataset:
    """All rows of one file, by its ending; plain text gives one row a line in the column `text`.

    Args:
        skipped: counts the rows left out, where that is allowed.

    Raises:
        DatasetUnreadable: the ending is unknown, or the content is broken.
        DatasetEmpty: the file has no rows.
    """
    return read_files([path], skipped)


def read_files(paths: list[Path], skipped: Skipped | None = None) -> Dataset:
    """All rows of several files, one after the other, as one table; else as `read_file`."""
    import pyarrow as pa

    skipped = skipped or Skipped()
    spool = Spool()
    for path in paths:
        kind = _require_kind(path)
        if len(paths) == 1 and kind == "arrow":
            spool.limit = 2**62  # memory-mapped already
        try:
            for batch in _batches(path, kind, skipped, spool):
                spool.add(batch)
        except pa.ArrowException as error:
            raise DatasetUnreadable(
                f"The file {path} has other columns than the files before it.",
                f"{str(error).splitlines()[0]}.",
                "name one file, or write the same kinds of values in all of them.",
            ) from None
    table = dataset_of(spool.table())
    if len(table) == 0:
        raise _empty(paths[0] if len(paths) == 1 else paths[0].parent, skipped)
    return table


def first_rows(path: Path, start: int, count: int, skipped: Skipped) -> list[dict[str, Any]]:
    """`count` rows of a file from row `start` on, reading no further than that.

    Raises:
        DatasetUnreadable: one of the rows read is broken.
        DatasetEmpty: the file holds nothing at all.
    """
    kind = _require_kind(path)
    if kind in _READERS:
        rows = _READERS[kind](path, skipped, start)
        return [row for _, row in itertools.islice(rows, count)]
    taken: list[dict[str, Any]] = []
    for batch in _tables(path, kind, skipped):
        if start < batch.num_rows:
            taken += batch.slice(start, count - len(taken)).to_pylist()
        start = max(0, start - batch.num_rows)
        if len(taken) >= count:
            break
    return taken


def table_from_rows(
    rows: list[dict[str, Any]], where: str, skipped: Skipped | None = None
) -> Dataset:
    """A table from dicts; a key that only some rows have is None in the others.

    Raises:
        DatasetUnreadable: one column holds different kinds of values, or a row holds itself or is
            nested too deep; the first such row is named.
    """
    spool = RowSpool(where, skipped or Skipped())
    for number, row in enumerate(rows):
        why = too_deep(row)
        if why is None:
            spool.add(number, row)
            continue
        spool.skipped.take(
            DatasetUnreadable(
                f"A row of {where} cannot be used.",
                f"row {number} (counted from 0): {why}.",
                "mend or delete the row, or set `data.on_bad_rows` to `skip`.",
            )
        )
    return spool.dataset()


def _require_kind(path: Path) -> str:
    kind = file_kind(path)
    if kind is None:
        raise DatasetUnreadable(
            f"The file {path} is of no known kind.",
            f"its name ends in `{path.suffix}`.",
            f"use one of {', '.join(FILE_KINDS)}; text kinds may end in .gz too.",
        )
    if path.stat().st_size == 0:
        raise _empty(path, Skipped())
    return kind


def _batches(path: Path, kind: str, skipped: Skipped, spool: Spool) -> Iterator[pa.RecordBatch]:
    if kind not in _READERS:
        yield from _tables(path, kind, skipped)
        return
    lines = kind != "json" or path.suffix.lower() in (".jsonl", ".ndjson")
    rows: Numbered = _READERS[kind](path, skipped)
    collected = RowSpool(str(path), skipped, unit="line" if lines else "row", spool=spool)
    for number, row in rows:
        collected.add(number, row)
    collected.flush()


def _tables(path: Path, kind: str, skipped: Skipped) -> Iterator[pa.RecordBatch]:
    if kind in ("csv", "tsv"):
        return _csv_batches(path, "," if kind == "csv" else "\t", skipped)
    return _arrow_batches(path, kind)


def _csv_batches(path: Path, separator: str, skipped: Skipped) -> Iterator[pa.RecordBatch]:
    import pandas as pd
    import pyarrow as pa

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", pd.errors.ParserWarning)
            frames = pd.read_csv(
                open_bytes(path),
                sep=separator,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
                chunksize=_CSV_ROWS,
                on_bad_lines="warn" if skipped.allowed else "error",
                encoding_errors="replace" if skipped.allowed else "strict",
            )
            for frame in frames:
                yield from pa.Table.from_pandas(frame, preserve_index=False).to_batches()
        for line in "\n".join(str(item.message) for item in caught).splitlines():
            if "kipping line" in line:
                skipped.take(_bad_csv(path, line.strip()))
    except pd.errors.EmptyDataError:
        raise _empty(path, skipped) from None
    except pd.errors.ParserError as error:
        raise _bad_csv(path, str(error)) from None
    except UnicodeDecodeError:
        for _ in text_rows(path, Skipped()):  # raises at the line
            pass
        raise


def _bad_csv(path: Path, why: str) -> DatasetUnreadable:
    why = why.replace("Error tokenizing data. C error: ", "").strip()
    return DatasetUnreadable(
        f"The file {path} cannot be read as a table.",
        f"{why}.",
        "mend the line named; quote texts that hold the separator.",
    )


def _arrow_batches(path: Path, kind: str) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        if kind == "parquet":
            yield from pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=2000)
            return
        source = pa.memory_map(str(path))
        try:
            reader = pa.ipc.open_file(source)
            yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            yield from pa.ipc.open_stream(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetUnreadable(
            f"The file {path} cannot be read.",
            str(error).split("\n")[0],
            f"check that it is really {kind}.",
        ) from None


def _empty(path: Path, skipped: Skipped) -> DatasetEmpty:
    if skipped.count:
        why = f"all of its {skipped.count} rows are broken: {skipped.reasons[0]}"
        return DatasetEmpty(f"The file {path} has no row that can be used.", why, "mend the file.")
    return DatasetEmpty(
        f"The file {path} is empty.", "it has 0 rows.", "choose a file with rows in it."
    )
