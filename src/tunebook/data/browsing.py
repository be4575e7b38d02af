"""The rows of a table as a person leafs through them: in windows, all or those that a search finds.

Nothing but the rows of a window becomes Python objects; what is searched stays in Arrow.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tunebook.data.conversations import to_messages
from tunebook.data.findings import TEXTS
from tunebook.data.formats import Detection
from tunebook.data.marks import RowMarks, holds
from tunebook.data.turns import IMAGE_MARK
from tunebook.errors import DatasetUnreadable, RowInvalid

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_WORDS = 120  # characters
_BATCH = 5000  # rows searched between two looks at whether to stop


class RowLine(BaseModel):
    """One row in a list: its number from 0, its first words, and what is known of it.

    `tokens` are those before the cut, None where they are not counted; `marks` are the codes of
    its findings.
    """

    row: int
    words: str
    tokens: int | None = None
    marks: list[str] = []


class RowList:
    """All rows of a table, or after `search` those that it found.

    Args:
        table: of any size; it stays where it is. A `LineIndex` can be listed, not searched.
        detection: what its columns mean.
        marks: what a check found; None while there was none.
    """

    def __init__(self, table: Any, detection: Detection, marks: RowMarks | None = None) -> None:
        self.table, self.detection = table, detection
        self.marks = marks if marks is not None else RowMarks()
        self.hits: array[int] | None = None

    def __len__(self) -> int:
        return len(self.table) if self.hits is None else len(self.hits)

    def row(self, place: int) -> int:
        """The number of the row at a place of the list."""
        return place if self.hits is None else self.hits[place]

    def place(self, row: int) -> int:
        """The place of a row in the list; of a row that is not in it, where the next one stands."""
        return row if self.hits is None else bisect_left(self.hits, row)

    def step(self, row: int, by: int) -> int:
        """The row that stands `by` places further on; the row itself if there is none."""
        place = self.place(row)
        listed = place < len(self) and self.row(place) == row
        place += by - (1 if by > 0 and not listed else 0)
        return self.row(place) if 0 <= place < len(self) else row

    def lines(self, start: int, count: int) -> list[RowLine]:
        """Some lines of the list from a place on."""
        stop = min(len(self), max(0, start) + max(0, count))
        return [self._line(self.row(place)) for place in range(max(0, start), stop)]

    def clear(self) -> None:
        """List nothing, until a search finds something."""
        self.hits = array("i")

    def search(self, text: str, only: str = "") -> Iterator[int]:
        """Let the list hold what is found: iterate to go on, leave off to stop.

        Args:
            text: searched in every value of a row, whatever the case of its letters.
            only: as `RowMarks.rows`; "" looks at all rows.

        Yields:
            How many rows were looked at; what was found so far stands in the list.
        """
        allowed = self.marks.rows(only) if only else None
        if not text:
            self.hits = allowed
            yield len(self.table)
            return
        self.hits = hits = array("i")
        rows = self.table.with_format("arrow")
        for start in range(0, len(self.table), _BATCH):
            stop = min(start + _BATCH, len(self.table))
            for number in found_in(rows[start:stop], text):
                if allowed is None or holds(allowed, start + number):
                    hits.append(start + number)
            yield stop

    def _line(self, row: int) -> RowLine:
        try:
            words = first_words(self.table[row], self.detection)
        except DatasetUnreadable:  # of an index, whose lines nobody has looked at
            words = "(cannot be read)"
        marks = sorted(self.marks.codes(row), key=list(TEXTS).index)
        return RowLine(row=row, words=words, tokens=self.marks.length(row), marks=marks)


def first_words(row: dict[str, Any], detection: Detection) -> str:
    """What a row begins with, in one line: its question, or the first text in it."""
    try:
        messages = to_messages(row, detection, pictures=True)
    except RowInvalid:
        said = next(_texts(row), "")
    else:
        asked = [m["content"] for m in messages if m["role"] in ("user", "text") and m["content"]]
        said = asked[0] if asked else next((m["content"] for m in messages if m["content"]), "")
    words = " ".join(said[: 4 * FIRST_WORDS].replace(IMAGE_MARK, "").split())
    return words if len(words) <= FIRST_WORDS else words[:FIRST_WORDS] + "…"


def found_in(table: pa.Table, text: str) -> list[int]:
    """The numbers, ascending, of the rows that hold a text in any value, nested ones too."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pa.array([False] * len(table), pa.bool_())
    for column in table.columns:
        for chunk_start, chunk in _chunks(column):
            hit = _holding(chunk, text)
            if hit is not None:
                found = pc.or_(found, _at(hit, chunk_start, len(table)))
    return pc.indices_nonzero(found).to_pylist()  # type: ignore[no-any-return]


def _chunks(column: pa.ChunkedArray) -> Iterator[tuple[int, pa.Array]]:
    start = 0
    for chunk in column.chunks:
        yield start, chunk
        start += len(chunk)


def _at(hit: pa.Array, start: int, length: int) -> pa.Array:
    """Booleans of a chunk, set into those of a whole column."""
    import pyarrow as pa

    around = [[False] * start, [False] * (length - start - len(hit))]
    before, after = (pa.array(part, pa.bool_()) for part in around)
    return pa.concat_arrays([before, hit, after])


def _holding(array: pa.Array, text: str) -> pa.Array | None:
    """For each value whether it holds the text; None for kinds that hold none, such as bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _holding(array.storage, text)
    if pa.types.is_dictionary(kind):
        return _holding(array.dictionary_decode(), text)
    if pa.types.is_struct(kind):
        # `flatten`, unlike `field`, heeds what is null and where the array is sliced
        hits = [_holding(part, text) for part in array.flatten()]
        known = [hit for hit in hits if hit is not None]
        return _any(known, len(array))
    if any(is_kind(kind) for is_kind in _lists()):
        hit = _holding(array.flatten(), text)
        if hit is None:
            return None
        rows = pc.list_parent_indices(array).filter(hit).unique()
        return pc.is_in(pa.array(range(len(array)), rows.type), value_set=rows)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.match_substring(array, text, ignore_case=True).fill_null(False)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return pc.match_substring(array.cast(pa.string()), text).fill_null(False)
    return None


def _lists() -> tuple[Callable[[Any], bool], ...]:
    import pyarrow as pa

    return pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list


def _any(hits: list[pa.Array], length: int) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pa.array([False] * length, pa.bool_())
    for hit in hits:
        found = pc.or_(found, hit)
    return found


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value that are not blank, as they come."""
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
