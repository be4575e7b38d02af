"""The data panel: what the rows are, what is wrong with them, and every token the model will see.

Shows what `tunebook.data` says; the tokens come from the very path that training uses.
"""

from __future__ import annotations

from typing import Any

import traitlets as t

from tunebook.errors import as_tunebook_error
from tunebook.recipe import Recipe
from tunebook.widgets._panel import Panel
from tunebook.widgets._rows import RowReader, data_size
from tunebook.widgets._state import Studio
from tunebook.widgets._text import count_text


class DataPanel(Panel):
    """Choose a dataset and look at it as the model will.

    Args:
        rows: rows in memory instead of the recipe's source.
        load: read at once, in a thread; False reads when the panel is first seen.
    """

    module = "data"
    purpose = "data"
    parts = ("data",)
    without = ("data.source",)

    format = t.Dict(help="What was detected: name, words, columns, confidence.").tag(sync=True)
    rows = t.Int(0, help="Number of rows.").tag(sync=True)
    row = t.Int(0, help="The row that is shown, from 0.").tag(sync=True)
    conversation: t.List[Any] = t.List(help="The row's messages: role, content.").tag(sync=True)
    tokens: t.List[Any] = t.List(help="The row's tokens: [text, id, kind].").tag(sync=True)
    counts = t.Dict(help="Of this row: tokens, trained, truncated, shown.").tag(sync=True)
    statistics = t.Dict(help="Of all rows, as `DataStatistics`.").tag(sync=True)
    findings: t.List[Any] = t.List(help="What is wrong: severity, title, count, examples, do.").tag(
        sync=True
    )
    row_error = t.Dict(help="Why this row cannot be shown; or empty.").tag(sync=True)

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        rows: Any = None,
        studio: Studio | None = None,
        load: bool = False,
        **traits: Any,
    ):
        traits.setdefault("heading", "Data")
        traits.setdefault(
            "lead", "What it learns from: coloured tokens are learned, grey ones read."
        )
        self._reader: RowReader | None = None
        self._wanted = 0
        self._loaded_for = ""
        super().__init__(recipe, studio=studio, **traits)
        if rows is not None:
            self.studio.rows = rows
        self.show(summary=self._source())
        if load:
            self.do_load()

    def do_seen(self) -> None:
        """The panel came into view: read the rows unless that was done."""
        if self._reader is None and not self.busy:
            self.do_load()

    def do_load(self) -> None:
        """Read, detect, count and check, in a thread."""
        self._wanted += 1
        wanted = self._wanted
        self.work(lambda: self.load(wanted), during="read the dataset", busy="Reading the rows …")

    def do_source(self, source: str) -> None:
        """Another dataset was named."""
        if source.strip():
            self.studio.rows = None
            self.do_set("data.source", source)

    def do_row(self, row: Any) -> None:
        """Show another row, counted from 0."""
        if self._reader is not None:
            self.show_row(int(row))

    def show_row(self, row: int) -> None:
        """Show a row's messages and tokens; an unusable row shows its error instead."""
        assert self._reader is not None
        row = min(max(0, row), max(0, len(self._reader) - 1))
        try:
            shown = {**self._reader.view(row), "row_error": {}}
        except Exception as error:
            named = as_tunebook_error(error, during=f"show row {row + 1}")
            shown = {"conversation": [], "tokens": [], "counts": {}, "row_error": named.to_dict()}
        self.show(row=row, **shown)

    def load(self, wanted: int | None = None) -> None:
        """Read, detect, count and check, in this thread."""
        recipe, given = self.recipe, self.studio.rows
        self.show(error={})
        reader = RowReader(recipe, self.studio.tokenizer(), rows=given)
        if wanted not in (None, self._wanted):
            return  # another dataset was named meanwhile
        self._reader = reader
        self.show(format=reader.format_dict(), rows=len(reader), summary=self._source())
        self.show_row(0)
        self.show(busy="Reading all rows, counting tokens and checking …")
        reader.read_all()
        if wanted in (None, self._wanted):
            self.show(format=reader.format_dict(), rows=len(reader))
        statistics, findings = reader.check()
        if wanted in (None, self._wanted):
            self.show(statistics=statistics, findings=findings, summary=self._source(statistics))
            self.studio.data_size = data_size(statistics)

    def text_lines(self) -> list[str]:
        """Format, statistics, findings and the row that is shown, trained tokens marked."""
        lines = [self.summary, self.format.get("words", "")]
        lines += [f"  {found['severity']}: {found['title']}" for found in self.findings]
        if self.tokens:
            marked = (f"«{text}»" if "trained" in kind else text for text, _, kind in self.tokens)
            said = "".join(marked).replace("»«", "")
            lines += [f"Row {self.row + 1} of {self.rows} («…» is learned):", said]
        return lines

    def _source(self, statistics: dict[str, Any] | None = None) -> str:
        given = self.studio.rows is not None
        name = "rows in memory" if given else self.recipe.data.source
        if not statistics:
            return name
        share = statistics.get("trained_share", 0.0)
        return (
            f"{name} · {statistics['rows']:,} rows · {count_text(statistics['tokens'])} tokens, "
            f"{share:.0%} trained"
        )

    def _recipe_changed(self, change: object = None) -> None:
        super()._recipe_changed(change)
        part, model = self.recipe.data, self.recipe.model
        key = f"{part!r} {model.name} {model.max_seq_length} {model.chat_template}"
        before, self._loaded_for = self._loaded_for, key
        if before and before != key and (self._reader is not None or self.busy or self.error):
            self.do_load()


def preview(data: Any = "tunebook-demo", tokenizer: Any = "tunebook-tiny") -> DataPanel:
    """Look at data as a model will see it, token by token.

    Args:
        data: a path, a hub id, `tunebook-demo`, or rows in memory (list, `Dataset`, data frame).
        tokenizer: a model's name, or a tokenizer that is loaded already.
    """
    named = isinstance(tokenizer, str)
    model = tokenizer if named else None
    source = str(data) if isinstance(data, str) or hasattr(data, "__fspath__") else None
    studio = Studio(Recipe.of(model, source), rows=data if source is None else None)
    if not named:
        studio.use_tokenizer(tokenizer)
    panel = DataPanel(studio=studio)
    try:
        panel.load()
    except Exception as error:
        panel.show_error(error, during="read the dataset")
    finally:
        panel.show(busy="")
    return panel
