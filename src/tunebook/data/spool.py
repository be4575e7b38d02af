"""Rows on their way into one Arrow table: in memory while few, in an unnamed file once many.

It finds one schema for all rows and names the row that fits none; what columns mean it does not know.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.tools import tools_as_text
from tunebook.data.turns import describe
from tunebook.errors import DatasetUnreadable, TunebookError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

IN_MEMORY = 128 * 2**20
BATCH = 2000
NAMED = 5


@dataclass
class Skipped:
    """The rows left out because they cannot be used, if the user said that they may be.

    `reasons` tells of the first few.
    """

    allowed: bool = False
    count: int = 0
    reasons: list[str] = field(default_factory=list)

    def take(self, error: TunebookError) -> None:
        """Count one bad row, or raise its error."""
        if not self.allowed:
            raise error
        self.count += 1
        if len(self.reasons) < NAMED:
            self.reasons.append(f"{error.what} {error.why}")


class Spool:
    """Collects Arrow batches of one or of growing schema; beyond `limit` bytes they go to a file.

    The file has no name any more when the table is given out, so nothing is left behind.
    """

    def __init__(self, limit: int = IN_MEMORY) -> None:
        self.limit = limit
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._schema: pa.Schema | None = None
        self._files: list[Path] = []
        self._writer: pa.RecordBatchFileWriter | None = None
        self._written: pa.Schema | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in one batch.

        Raises:
            pyarrow.ArrowException: its columns cannot be brought together with those before.
        """
        import pyarrow as pa

        if self._schema is None:
            self._schema = batch.schema.remove_metadata()
        elif not batch.schema.equals(self._schema, check_metadata=False):
            both = [self._schema, batch.schema.remove_metadata()]
            self._schema = pa.unify_schemas(both, promote_options="permissive")
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes > self.limit:
            self._spill()

    def table(self) -> pa.Table:
        """All rows as one table of one schema, memory-mapped where they went to a file."""
        import pyarrow as pa

        kept = [*self._read_files(), *self._batches]
        if self._schema is None:
            return pa.table({})
        if all(batch.schema.equals(self._schema, check_metadata=False) for batch in kept):
            return pa.Table.from_batches(
                [batch.replace_schema_metadata(None) for batch in kept], self._schema
            )
        even = Spool(self.limit)
        for batch in kept:
            rows = batch.to_pylist()
            even.add(pa.RecordBatch.from_pylist(rows, schema=self._schema))
        return even.table()

    def rewrite(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Change every row taken in so far."""
        import pyarrow as pa

        kept = [*self._read_files(), *self._batches]
        self._batches, self._bytes, self._schema = [], 0, None
        for batch in kept:
            rows = [change(row) for row in batch.to_pylist()]
            self.add(pa.RecordBatch.from_pylist(rows))

    def _spill(self) -> None:
        """Move what waits in memory to a file; one file holds batches of one schema."""
        import pyarrow as pa

        for batch in self._batches:
            if self._writer is None or not batch.schema.equals(self._written, check_metadata=False):
                self._close()
                handle, name = tempfile.mkstemp(prefix="tunebook-", suffix=".arrow")
                os.close(handle)
                self._files.append(Path(name))
                self._written = batch.schema.remove_metadata()
                self._writer = pa.ipc.new_file(name, self._written)
            self._writer.write_batch(batch.replace_schema_metadata(None))
        self._batches, self._bytes = [], 0

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _read_files(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        self._close()
        for path in self._files:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            with contextlib.suppress(OSError):  # Windows keeps a mapped file
                path.unlink()
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)
        self._files = []

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._close()
            for path in self._files:
                path.unlink(missing_ok=True)


class RowSpool:
    """Dicts on their way into a `datasets.Dataset`; a row that fits no column is named.

    Args:
        where: the source, for errors.
        unit: what the numbers given with rows count: "line" (from 1) or "row" (from 0).
        spool: where the rows go; a new one if none is given.
    """

    def __init__(
        self, where: str, skipped: Skipped, *, unit: str = "row", spool: Spool | None = None
    ) -> None:
        self.where, self.skipped, self.unit = where, skipped, unit
        self.spool = spool or Spool()
        self._rows: list[tuple[int, dict[str, Any]]] = []
        self._first: dict[str, Any] = {}
        self._evened = self._parts = False

    def add(self, number: int, row: dict[str, Any]) -> None:
        """Take in one row with its line or row number."""
        self._rows.append((number, tools_as_text(row)))
        if len(self._rows) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Turn the waiting rows into a batch; halve them where they do not fit."""
        rows, self._rows = self._rows, []
        self._write(rows)

    def dataset(self) -> Dataset:
        """The table of all rows taken in."""
        self.flush()
        return dataset_of(self.spool.table())

    def _write(self, rows: list[tuple[int, dict[str, Any]]]) -> None:
        import pyarrow as pa

        if not rows:
            return
        try:
            self._add([row for _, row in rows])
        except (pa.ArrowException, OverflowError, RecursionError, UnicodeEncodeError) as error:
            if len(rows) == 1:
                self.skipped.take(self._misfit(*rows[0], error))
                return
            middle = len(rows) // 2
            self._write(rows[:middle])
            self._write(rows[middle:])

    def _add(self, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa

        for row in rows:
            for name, value in row.items():
                if self._first.get(name) is None:
                    self._first[name] = value
        if not self._evened:
            try:
                self._add_columns(rows)
                return
            except (pa.ArrowException, OverflowError):
                pass
        try:
            self._add_evened(rows)
        except (pa.ArrowException, OverflowError):
            if self._parts or not any(map(_has_parts, [self._first, *rows])):
                raise
            self._evened, self._parts = False, True  # pictures among the words of some turns
            self._add_evened(rows)

    def _add_evened(self, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa

        change = partial(even, parts=self._parts)
        evened = [change(row) for row in rows]
        try:
            self._add_columns(evened)
        except (pa.ArrowException, OverflowError):
            if self._evened:
                raise
            self._evened = True
            self.spool.rewrite(change)
            self._add_columns(evened)

    def _add_columns(self, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa

        names = list(dict.fromkeys(name for row in rows for name in row))
        arrays = [pa.array([row.get(name) for row in rows]) for name in names]
        self.spool.add(pa.RecordBatch.from_arrays(arrays, names=names))

    def _misfit(self, number: int, row: dict[str, Any], error: Exception) -> DatasetUnreadable:
        import pyarrow as pa

        place = f"{self.unit} {number}" + (" (counted from 0)" if self.unit == "row" else "")
        for name, value in row.items():
            try:
                pa.array([self._first.get(name), value])
            except UnicodeEncodeError as misfit:
                return DatasetUnreadable(
                    f"A text in the column `{name}` of {self.where} is damaged.",
                    f"{place} holds half of a character, {misfit.object[misfit.start]!r}.",
                    "write the whole character, or set `data.on_bad_rows` to `skip`.",
                )
            except (pa.ArrowException, OverflowError, RecursionError) as misfit:
                inside = self._first.get(name) is value
                before = kind_of(self._first.get(name))
                return DatasetUnreadable(
                    f"The column `{name}` of {self.where} mixes kinds of values.",
                    f"{place} holds {kind_of(value)} ({describe(value)}), "
                    + (
                        f"in which {_reason(misfit)}."
                        if inside
                        else f"the rows before it {before}."
                    ),
                    "write the same kind in every row (text is best), or leave such rows out "
                    "with `data.on_bad_rows: skip`.",
                )
        return DatasetUnreadable(
            f"A row of {self.where} does not fit the rows before it.",
            f"{place}: {_reason(error)}.",
            "write the same kinds of values in every row, or set `data.on_bad_rows` to `skip`.",
        )


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")


def dataset_of(table: pa.Table) -> Dataset:
    """A Dataset around a table, without hashing all of it for a fingerprint."""
    from datasets import Dataset

    return Dataset(table, fingerprint=uuid.uuid4().hex[:16])


def even(value: Any, key: str = "", *, parts: bool = False) -> Any:
    """The value with the dialects of one chat evened out, so that one column can hold them all.

    Content parts that are all text become text, or with `parts` text becomes a content part;
    arguments of a tool call become JSON text.
    """
    if parts and key == "content" and isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not parts and (
        key == "content"
        and isinstance(value, list)
        and value
        and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value)
    ):
        return "".join(part["text"] for part in value)
    if key in ("arguments", "parameters") and isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return {name: even(item, name, parts=parts) for name, item in value.items()}
    if isinstance(value, list):
        return [even(item, parts=parts) for item in value]
    return value


def _has_parts(value: Any) -> bool:
    """Whether a content of the row is a list of parts."""
    if isinstance(value, dict):
        content = value.get("content")
        return (isinstance(content, list) and bool(content)) or any(map(_has_parts, value.values()))
    return isinstance(value, list) and any(map(_has_parts, value))


def kind_of(value: Any) -> str:
    """What kind of value this is, in the words of an error."""
    words = {"str": "text", "int": "a number", "float": "a number", "dict": "an object"}
    words |= {"NoneType": "nothing", "list": "a list", "bool": "true or false"}
    return words.get(type(value).__name__, f"a {type(value).__name__}")
