"""Text, JSON lines and JSON read row by row, so that the first rows of a large file come at once.

Every broken line is named with its number and, for bytes that are no UTF-8, its place in the file.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tunebook.data.spool import Skipped, kind_of
from tunebook.data.turns import DEEPEST, too_deep
from tunebook.errors import DatasetUnreadable

Numbered = Iterator[tuple[int, dict[str, Any]]]
LONGEST_ROW = 64 * 2**20
PACKED: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_CHUNK = 2**20


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes; `.gz`, `.bz2` and `.xz` are unpacked on the way."""
    opener: Any = PACKED.get(path.suffix.lower(), open)
    file: IO[bytes] = opener(path, "rb")
    return file


def text_rows(path: Path, skipped: Skipped, start: int = 0) -> Numbered:
    """A row for each line that is not blank, in the column `text`; numbered by line from 1."""
    for number, line in lines_of(path, skipped, start):
        yield number, {"text": line}


def json_line_rows(path: Path, skipped: Skipped, start: int = 0) -> Numbered:
    """A row for each line of JSON lines, numbered by line from 1, after the first `start` rows."""
    for number, line in lines_of(path, skipped, start):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            skipped.take(broken(path, number, f"column {error.colno}: {error.msg}"))
            continue
        except RecursionError:
            skipped.take(broken(path, number, f"it is nested more than {DEEPEST} levels deep"))
            continue
        if not isinstance(row, dict):
            skipped.take(broken(path, number, f"it holds {kind_of(row)}, not an object"))
        elif line.count("[") + line.count("{") > DEEPEST and (why := too_deep(row)):
            skipped.take(broken(path, number, why))
        else:
            yield number, row


def json_rows(path: Path, skipped: Skipped, start: int = 0) -> Numbered:
    """The rows of a list, of an object that holds one, or of JSON lines after all; from 0."""
    try:
        first = _first_sign(path)
        if first == "[":
            rows: Iterator[Any] = _items_of_list(path)
        elif _is_lines(path):
            yield from json_line_rows(path, skipped, start)
            return
        else:
            rows = iter(_rows_of_object(_whole(path)))
        for number, row in enumerate(rows):
            if number < start:
                continue
            if not isinstance(row, dict):
                why = f"row {number} (counted from 0) is {kind_of(row)}, not an object."
            elif deep := too_deep(row):
                why = f"row {number} (counted from 0) cannot be used: {deep}."
            else:
                yield number, row
                continue
            todo = "write a list of objects, one for each row."
            skipped.take(DatasetUnreadable(f"The file {path} is not a table.", why, todo))
    except UnicodeDecodeError:
        for _ in lines_of(path, Skipped()):  # raises at the line
            pass
        raise


def lines_of(path: Path, skipped: Skipped, start: int = 0) -> Iterator[tuple[int, str]]:
    """The lines that are not blank with their number from 1, without the first `start` of them.

    Raises:
        DatasetUnreadable: a line is no UTF-8 or longer than a row can be, unless it may be skipped.
    """
    place = number = rows = 0
    with open_bytes(path) as file:
        while chunk := _line(path, file):
            number += 1
            begin, place = place, place + len(chunk)
            if len(chunk) > LONGEST_ROW:
                while not chunk.endswith(b"\n") and (chunk := file.readline(_CHUNK)):
                    place += len(chunk)
                why = (
                    f"it is {(place - begin) / 2**20:,.0f} MiB long, and a row holds at most "
                    f"{LONGEST_ROW // 2**20} MiB"
                )
                skipped.take(broken(path, number, why))
                continue
            if chunk.isspace():
                continue
            rows += 1
            if rows <= start:
                continue
            try:
                text = chunk.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                skipped.take(_not_utf8(path, number, begin + error.start, chunk[error.start]))
                continue
            yield number, text.rstrip("\r\n")


def _line(path: Path, file: IO[bytes]) -> bytes:
    try:
        return file.readline(LONGEST_ROW + 1)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, OSError) as error:
        if path.suffix.lower() not in PACKED:
            raise
        raise DatasetUnreadable(
            f"The file {path} cannot be unpacked.",
            f"{error}.",
            f"check that it is whole and really {path.suffix}.",
        ) from None


def _first_sign(path: Path) -> str:
    with open_bytes(path) as file:
        return file.read(4096).decode("utf-8-sig", "ignore").lstrip()[:1]


def _is_lines(path: Path) -> bool:
    """Whether the first line is a whole object and another follows."""
    with open_bytes(path) as file:
        first = file.readline(LONGEST_ROW)
        following = file.readline(_CHUNK)
    try:
        json.loads(first.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return bool(following.strip())


def _whole(path: Path) -> Any:
    with open_bytes(path) as file:
        data = file.read()
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise broken(path, error.lineno, f"column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise broken(path, 1, f"it is nested more than {DEEPEST} levels deep") from None


def _rows_of_object(value: Any) -> list[Any]:
    """The rows inside an object such as `{"data": [...]}`; else the object is the only row."""
    lists = [v for v in value.values() if isinstance(v, list)] if isinstance(value, dict) else []
    if len(lists) == 1 and lists[0] and all(isinstance(item, dict) for item in lists[0]):
        keys = set(lists[0][0])
        if not ({"role", "content"} <= keys or {"from", "value"} <= keys):
            return lists[0]
    return [value]


def _items_of_list(path: Path) -> Iterator[Any]:
    """The items of one JSON list, decoded as they are read."""
    import io

    decoder = json.JSONDecoder()
    with open_bytes(path) as file:
        reader = io.TextIOWrapper(file, encoding="utf-8-sig")
        buffer, done, line = reader.read(_CHUNK), 0, 1
        done = buffer.index("[") + 1
        first = True
        while True:
            done = _skip_blanks(buffer, done)
            comma = not first and buffer[done : done + 1] == ","
            after = _skip_blanks(buffer, done + 1) if comma else done
            if buffer[after : after + 1] == "]" and after == done:
                return
            try:
                if not first and after == done:
                    raise json.JSONDecodeError("Expecting ',' delimiter", buffer, done)
                item, end = decoder.raw_decode(buffer, after)
                if end == len(buffer):
                    raise json.JSONDecodeError("Unterminated list", buffer, end)
            except RecursionError:
                raise broken(path, line, f"it is nested more than {DEEPEST} levels deep") from None
            except json.JSONDecodeError as error:
                line += buffer.count("\n", 0, done)
                buffer, done = buffer[done:], 0
                more = reader.read(max(_CHUNK, len(buffer)))
                if not more:
                    number = line + error.doc.count("\n", len(error.doc) - len(buffer), error.pos)
                    why = f"column {error.colno}: {error.msg}"
                    raise broken(path, number, why) from None
                if len(buffer) > LONGEST_ROW:
                    raise broken(
                        path, line, f"a row is longer than {LONGEST_ROW // 2**20} MiB"
                    ) from None
                buffer += more
                continue
            yield item
            done, first = end, False


def _skip_blanks(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\n", "\t", "\r") and place < len(text):
        place += 1
    return place


def _not_utf8(path: Path, line: int, place: int, byte: int) -> DatasetUnreadable:
    return DatasetUnreadable(
        f"The file {path} is not UTF-8 text.",
        f"line {line} holds a byte that is none: 0x{byte:02x} at byte {place:,} of the file.",
        "save it as UTF-8, or leave such lines out with `data.on_bad_rows: skip`.",
    )


def broken(path: Path, line: int, why: str) -> DatasetUnreadable:
    """The error of one line of a file."""
    return DatasetUnreadable(
        f"Line {line} of {path} is broken.",
        f"{why}.",
        f"mend or delete line {line} and load again, or set `data.on_bad_rows` to `skip`.",
    )
