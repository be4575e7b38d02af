"""The rows of a large file of JSON lines, each read when it is looked at: only line ends are sought.

So a million rows can be leafed through a second after the file was named; all rows as a table, to
search and to train on, are read by `files`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.files import file_kind
from tunebook.data.spool import kind_of
from tunebook.data.textfiles import LONGEST_ROW, PACKED, broken

if TYPE_CHECKING:
    import numpy as np

LARGE = 8 * 2**20  # bytes; smaller files are read as quickly as they are indexed
_CHUNK = 2**20


class LineIndex:
    """Where each line that is not blank begins and ends; a row for each, counted from 0.

    A line that is no row raises `DatasetUnreadable` when it is asked for.
    """

    def __init__(self, path: Path, most: int | None = None) -> None:
        self.path = path
        self._starts, self._ends = _line_places(path)
        self._rows = len(self._starts) if most is None else min(most, len(self._starts))

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < self._rows:
            raise IndexError(row)
        start, end = int(self._starts[row]), int(self._ends[row])
        if end - start > LONGEST_ROW:
            raise broken(self.path, row + 1, f"it is {(end - start) / 2**20:,.0f} MiB long")
        with self.path.open("rb") as file:
            file.seek(start)
            line = file.read(end - start)
        try:
            value = json.loads(line.decode("utf-8-sig" if start == 0 else "utf-8"))
        except (ValueError, RecursionError) as error:
            raise broken(self.path, row + 1, f"{error}") from None
        if not isinstance(value, dict):
            raise broken(self.path, row + 1, f"it holds {kind_of(value)}, not an object")
        return value


def can_index(path: Path, least: int = LARGE) -> bool:
    """Whether a file is of JSON lines, not packed, and large enough to be worth an index."""
    packed = path.suffix.lower() in PACKED
    return file_kind(path) == "json lines" and not packed and path.stat().st_size >= least


def _line_places(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The places of the first byte of each line that is not blank, and of its end."""
    import numpy as np

    buffer = np.empty(_CHUNK, np.uint8)
    found, at = [np.array([-1])], 0
    with path.open("rb") as file:  # a small buffer stays in the cache, unlike a mapped file
        while read := file.readinto(buffer.data):
            found.append(np.flatnonzero(buffer[:read] == 10) + at)
            at += read
    ends = np.concatenate(found)
    if ends[-1] != at - 1:
        ends = np.append(ends, at)
    starts, ends = ends[:-1] + 1, ends[1:]
    data = np.memmap(path, np.uint8, "r")
    suspects = np.flatnonzero(data[starts] <= ord(" "))
    blank = [at for at in suspects if not bytes(data[starts[at] : ends[at]]).strip()]
    return np.delete(starts, blank), np.delete(ends, blank)
