"""The lower half of the data panel: the list of rows, its search, and one row in all its stages.

Asks a `RowReader` and shows what it says; reading and checking the dataset is done in `data`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import traitlets as t

from tunebook.errors import as_tunebook_error
from tunebook.widgets._panel import Panel
from tunebook.widgets._rows import NO_ROW, RowReader, line_lists

if TYPE_CHECKING:
    from tunebook.data.browsing import RowList

FIRST_LINES = 40
MOST_LINES = 400  # in one window
_TELL_EVERY = 0.15  # seconds between two words about a search that goes on


class BrowsingPanel(Panel):
    """The rows of a `RowReader` in windows, searched and filtered; the one that is shown."""

    rows = t.Int(0, help="Number of rows.").tag(sync=True)
    row = t.Int(0, help="The row that is shown, from 0.").tag(sync=True)
    place = t.Int(-1, help="Where that row stands in the list; -1: not in it.").tag(sync=True)
    listing = t.Dict(
        help="The list: text, only, total, scanned, searching, ready, and version, which is new "
        "whenever lines known before no longer hold."
    ).tag(sync=True)
    lines = t.Dict(
        help="The lines asked for last: version, start, lines of [row, words, tokens, marks]."
    ).tag(sync=True)
    raw = t.Dict(help="The row's columns.").tag(sync=True)
    conversation: t.List[Any] = t.List(help="The row's messages: role, content, calls.").tag(
        sync=True
    )
    tools = t.Dict(help="What it offers: words, and [name, description, schema] of each.").tag(
        sync=True
    )
    text: t.List[Any] = t.List(help="Its pieces: [text, turn, role, trained].").tag(sync=True)
    tokens: t.List[Any] = t.List(help="Its tokens: [text, id, kinds, turn, value].").tag(sync=True)
    packed = t.Dict(help="Where training puts it, as `Placement`.").tag(sync=True)
    counts = t.Dict(help="Of this row: tokens, trained, truncated, cut, shown, values.").tag(
        sync=True
    )
    row_error = t.Dict(help="Why this row has no further stage, and which; or empty.").tag(
        sync=True
    )
    stage = t.Enum(["raw", "messages", "text", "tokens", "packed"], "tokens").tag(sync=True)
    show_ids = t.Bool(False, help="Whether ids stand beside the tokens.").tag(sync=True)
    values_name = t.Unicode(help="What is measured at each token, such as loss.").tag(sync=True)
    templates: t.List[Any] = t.List(help="Templates to compare with: [name, title].").tag(sync=True)
    comparison = t.Dict(help="The row under another template too; or empty.").tag(sync=True)

    _reader: RowReader | None = None
    _list: RowList | None = None
    _values_of: Callable[[int], Sequence[float]] | None = None
    _window = (0, FIRST_LINES)
    _version = 0
    _search: RowList | None = None

    def do_window(self, start: Any, count: Any) -> None:
        """The page has scrolled: show these lines of the list."""
        self._window = (max(0, int(start)), min(MOST_LINES, max(0, int(count))))
        self._show_lines()

    def do_search(self, text: str = "", only: str = "") -> None:
        """Search in a thread; a search that goes on is left."""
        found = self._begin_search(text, only)
        self.work(lambda: self._go_on(found), during="search the rows", lane="search")

    def search(self, text: str = "", only: str = "") -> list[int]:
        """List the rows that hold a text, and return their numbers, from 0.

        Args:
            text: in any value of the row, whatever the case of its letters; "" is in all.
            only: "finding", "cut", "unusable" or the code of a finding; "" looks at all rows.
        """
        found = self._begin_search(text, only)
        self._go_on(found)
        return [] if found is None else [found.row(place) for place in range(len(found))]

    def do_stop_search(self) -> None:
        """Leave the search; what it found so far stays listed."""
        self._search = None
        self.show(listing={**self.listing, "searching": False})

    def do_row(self, row: Any) -> None:
        """Show another row, counted from 0."""
        if self._reader is not None:
            self.show_row(int(row))

    def do_pick(self, place: Any) -> None:
        """Show the row at a place of the list."""
        if self._list is not None and 0 <= int(place) < len(self._list):
            self.show_row(self._list.row(int(place)))

    def do_step(self, by: Any) -> None:
        """Show the row that many places further on in the list."""
        if self._list is not None:
            self.show_row(self._list.step(self.row, int(by)))

    def show_row(self, row: int) -> None:
        """Show a row in all its stages; a stage that fails shows its error instead."""
        assert self._reader is not None
        row = min(max(0, row), max(0, len(self._reader) - 1))
        try:
            shown = self._reader.view(row, self._values_of)
        except Exception as error:
            named = as_tunebook_error(error, during=f"show row {row + 1}")
            shown = {**NO_ROW, "row_error": {**named.to_dict(), "stage": "raw"}}
        other = self.comparison.get("template")
        self.show(row=row, place=self._place(row), **shown)
        if other is not None:
            self.compare(other)

    def compare(self, template: str | None) -> None:
        """Show the row under another chat template beside the recipe's.

        Args:
            template: as in `model.chat_template`; "" is the model's own; None compares no more.
        """
        if template is None or self._reader is None:
            self.show(comparison={})
            return
        try:
            self.show(comparison=self._reader.compare(self.row, template))
        except Exception as error:
            named = as_tunebook_error(error, during="compare two templates")
            self.show(comparison={"template": template, "error": named.to_dict()})

    def do_compare(self, template: str | None = None) -> None:
        """Another template was chosen to compare with, or none."""
        self.compare(template)

    def do_use_template(self, template: str) -> None:
        """Take the template that is compared with."""
        self.show(comparison={})
        self.do_set("model.chat_template", template)

    def use_values(
        self, values_of: Callable[[int], Sequence[float]] | None, name: str = "loss"
    ) -> None:
        """Colour tokens by what was measured at each, such as its loss.

        Args:
            values_of: gives for a row's number a value for each of its tokens; None: no colours.
            name: what it is, in a word.
        """
        self._values_of = values_of
        self.show(values_name=name if values_of is not None else "")
        if self._reader is not None:
            self.show_row(self.row)

    def show_list(self, *, text: str = "", only: str = "") -> None:
        """List all rows of the reader, or search them anew once it has read all of them."""
        if text or only:
            self.do_search(text, only)
        else:
            self._begin_search("", "")
            self._search = None

    def _begin_search(self, text: str, only: str) -> RowList | None:
        """A list of its own for each search, so that one that was left cannot disturb the next."""
        from tunebook.data.browsing import RowList

        if self._reader is None:
            return None
        every = self._reader.all
        self._list = self._search = found = RowList(every.table, every.detection, every.marks)
        self._version += 1
        self._window = (0, FIRST_LINES)
        if not self._reader.complete:
            text = only = ""
        if text or only:
            found.clear()
        self._tell(text=text, only=only, searching=bool(text or only))
        return found

    def _go_on(self, found: RowList | None) -> None:
        """Search until it is done or left, telling now and then how far it came."""
        told, listing = time.monotonic(), self.listing
        if found is None or self._search is not found or not listing["searching"]:
            return
        for scanned in found.search(listing["text"], listing["only"]):
            if self._search is not found:
                return
            if time.monotonic() - told > _TELL_EVERY:
                self._tell(scanned=scanned)
                told = time.monotonic()
        if self._search is found:
            self._tell(scanned=len(found.table), searching=False)

    def _tell(self, **about: Any) -> None:
        assert self._list is not None
        ready = self._reader is not None and self._reader.complete
        more = {"scanned": 0, "total": len(self._list), "ready": ready, "version": self._version}
        with self._guard, self.hold_sync():
            self.show(listing={**self.listing, **more, **about}, place=self._place(self.row))
            self._show_lines()

    def _show_lines(self) -> None:
        if self._list is not None:
            start, count = self._window
            lines = line_lists(self._list.lines(start, count))
            self.show(lines={"version": self._version, "start": start, "lines": lines})

    def _place(self, row: int) -> int:
        if self._list is None:
            return -1
        place = self._list.place(row)
        listed = place < len(self._list) and self._list.row(place) == row
        return place if listed else -1
