"""The data panel: what the rows are, what is wrong with them, and every token the model will see.

Shows what `tunebook.data` says; the tokens come from the very path that training uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import traitlets as t

from tunebook.data.demo import DEMO_SOURCE, without_demo_knobs
from tunebook.errors import FormatUnknown, RecipeInvalid
from tunebook.recipe import Recipe
from tunebook.widgets import _static
from tunebook.widgets._fixing import FixingPanel
from tunebook.widgets._picking import PickingPanel
from tunebook.widgets._rows import NO_ROW, RowReader, data_size, head_rows
from tunebook.widgets._shaping import NO_MAPPING, ShapingPanel
from tunebook.widgets._state import Studio
from tunebook.widgets._text import count_text, visible
from tunebook.widgets._token_html import rows_html

_STATIC_ROWS = 3
_UNNAMED = "rows in memory"


class DataPanel(PickingPanel, ShapingPanel, FixingPanel):
    """Choose a dataset and look at it as the model will.

    Args:
        rows: rows in memory instead of the recipe's source.
        uploads: the folder for files that are dropped; None is `uploads` in the folder of runs.
        load: read at once, in a thread; False reads when the panel is first seen.
    """

    module = "data"
    purpose = "data"
    parts = ("data",)
    without = ("data.source",)
    reads = ("model.chat_template",)

    format = t.Dict(help="What was detected: name, words, columns, confidence.").tag(sync=True)
    statistics = t.Dict(help="Of all rows, as `DataStatistics`.").tag(sync=True)
    findings: t.List[Any] = t.List(
        help="What is wrong: severity, code, title, count, examples, do, fix, listed."
    ).tag(sync=True)

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        rows: Any = None,
        uploads: Path | str | None = None,
        studio: Studio | None = None,
        load: bool = False,
        **traits: Any,
    ):
        from tunebook.data.names import TEMPLATES

        traits.setdefault("heading", "Data")
        traits.setdefault(
            "lead", "What it learns from: coloured tokens are learned, grey ones read."
        )
        own, *named = TEMPLATES
        traits.setdefault("templates", [["", own.title], *([e.name, e.title] for e in named)])
        self._wanted = 0
        self._loaded_for = self._counted = ""
        super().__init__(recipe, studio=studio, **traits)
        self.upload_folder = str(uploads or Path(self.studio.root) / "uploads")
        if rows is not None:
            self.studio.rows = rows
        if self.studio.rows is not None:
            self.rows_name = self.studio.rows_name or _UNNAMED
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

    def do_read(self) -> None:
        """Read the rows anew: the file may have changed."""
        self._reader = None
        self.do_load()

    def take_source(self, source: str) -> None:
        """Another dataset was named: a file, a hub id or the demo."""
        self._turn_to(None, "")
        before = self._wanted
        self.do_set("data.source", source)
        if self._wanted == before and "data.source" not in self.invalid:
            self.do_load()  # the same name, whose rows may be others now

    def take_rows(self, rows: Any, name: str) -> None:
        """Read rows of the notebook's memory."""
        self._turn_to(rows, name)
        if self.recipe.data.source == DEMO_SOURCE:
            self._loaded_for = ""  # what suits the demo's few short rows does not follow
            self.studio.recipe = without_demo_knobs(self.recipe)
        self.do_load()

    def load(self, wanted: int | None = None) -> None:
        """Read, detect, count and check, in this thread.

        Where nobody can tell what the columns mean, `mapping` says so and offers a guess.
        """
        recipe, given = self.recipe, self.studio.rows
        self.show(error={}, fix_preview={})
        try:
            reader = RowReader(recipe, self.studio.tokenizer(), rows=given, known=self._reader)
        except (FormatUnknown, RecipeInvalid):
            self._show_no_rows()
            self.show_columns(head_rows(recipe, given))
            return
        if wanted not in (None, self._wanted):
            return  # another dataset was named meanwhile
        self._begin(reader)
        if not reader.complete:
            if reader.index() and wanted in (None, self._wanted):
                self._show_all(reader)
                self._show_sample(reader)
            reader.read_all()
            if wanted in (None, self._wanted):
                self._show_all(reader)
        statistics, findings = reader.check()
        if wanted in (None, self._wanted):
            self._show_checked(reader, statistics, findings)

    def _begin(self, reader: RowReader) -> None:
        """Show the first rows that were read, and what they are."""
        before = self._reader
        same = before is not None and reader.has_rows_of(before)
        self._reader, self._fixed = reader, None
        self.show(format=reader.format_dict(), rows=len(reader), summary=self._source())
        self.show_list()
        self.show_row(self.row if same else 0)
        self.show_columns(reader.all.table)
        counted, self._counted = self._counted, _key(reader.recipe, length=False)
        if same and self._tally is not None and counted == self._counted:
            self.show_lengths(self._tally, of=self.lengths.get("of"))  # the limit alone is new
        elif reader.complete:
            self._show_sample(reader)
        self.show(busy="Reading all rows, counting tokens and checking …")

    def _show_sample(self, reader: RowReader) -> None:
        tally = reader.sample_lengths()
        self.show_lengths(tally, of=len(reader) if len(reader) > len(tally) else None)

    def _show_all(self, reader: RowReader) -> None:
        self.show(format=reader.format_dict(), rows=len(reader))
        self.show_list()
        self.show_row(self.row)

    def _show_checked(self, reader: RowReader, statistics: Any, findings: Any) -> None:
        self.show(statistics=statistics, findings=findings, summary=self._source(statistics))
        self.show_list(text=self.listing["text"], only=self.listing["only"])
        self.show_row(self.row)
        if statistics:
            self.show_lengths(reader.all.marks.tally)
        self.show(busy="")
        self.studio.data_size = data_size(statistics)

    def _show_no_rows(self) -> None:
        """Nothing of an earlier dataset stays on the page."""
        self._reader = self._list = None
        nothing: dict[str, Any] = {"format": {}, "statistics": {}, "findings": [], "lines": {}}
        self.show(rows=0, place=-1, listing={}, lengths={}, trial={}, **nothing, **NO_ROW)
        self.show(summary=self._source(), row_error={}, comparison={}, busy="")

    def _name_rows(self, name: str) -> None:
        self.studio.rows_name = name
        self.show(rows_name=name)
        self.refresh_code()

    def _turn_to(self, rows: Any, name: str) -> None:
        """Leave the dataset that was read; a mapping of its columns does not fit another."""
        self._forget_fixes()
        self._reader = self._tally = None
        self.studio.rows = rows
        self._name_rows(name)
        self.show(mapping={}, lengths={}, trial={}, findings=[], statistics={})
        if self.recipe.data.columns or self.recipe.data.merged_prompt:
            self._loaded_for = ""  # this change alone reads nothing
            self.studio.recipe = self.recipe.with_values(NO_MAPPING)

    def load_anew(self) -> None:
        """Read and check the rows, in this thread, in place of what is being read."""
        self._wanted += 1
        self.load(self._wanted)

    def move_to(self, rows: Any, where: dict[str, Any]) -> None:
        """Take other rows (None: the recipe's own) and fields of the recipe; read nothing yet."""
        self.studio.rows = rows
        if rows is None:
            self._name_rows("")
        recipe = self.recipe.with_values(where)
        self._loaded_for = _key(recipe)
        self.studio.recipe = recipe
        self.show(summary=self._source(self.statistics))

    def text_lines(self) -> list[str]:
        """Format, statistics, findings and the row that is shown, trained tokens marked."""
        guessed = self.mapping.get("how") == "guessed"
        about = self.mapping["why"] if guessed else self.format.get("words", "")
        lines = [self.summary, about]
        lines += [f"  {found['severity']}: {found['title']}" for found in self.findings]
        if self.tokens:
            marked = (
                f"«{text}»" if "trained" in kind else text for text, _, kind, *_ in self.tokens
            )
            said = visible("".join(marked).replace("»«", ""))
            lines += [f"Row {self.row + 1} of {self.rows} («…» is learned):", said]
        return lines

    def html_body(self) -> str:
        """What is known of the rows, and the first of them token by token."""
        if self._reader is None or not self.tokens:
            return super().html_body()
        numbers = range(min(_STATIC_ROWS, len(self._reader)))
        rows = [(number, self._reader.view(number, None)) for number in numbers]
        about = [self.summary, self.format.get("words", "")]
        about += [f"{found['severity']}: {found['title']}" for found in self.findings]
        return _static.items(map(visible, about)) + rows_html(rows)

    def _source(self, statistics: dict[str, Any] | None = None) -> str:
        given = self.studio.rows is not None
        name = self.recipe.data.source
        if given:
            name = f"{self.rows_name or name}, fixed" if self.fixes else self.rows_name or _UNNAMED
        if not statistics:
            return name
        share = statistics.get("trained_share", 0.0)
        return (
            f"{name} · {statistics['rows']:,} rows · {count_text(statistics['tokens'])} tokens, "
            f"{share:.0%} trained"
        )

    def _recipe_changed(self, change: object = None) -> None:
        super()._recipe_changed(change)
        before, self._loaded_for = self._loaded_for, _key(self.recipe)
        known = self._reader is not None or self.busy or self.error or self.mapping
        if before and before != self._loaded_for and known:
            self.do_load()
        elif self._reader is not None and self._reader.lands_elsewhere(self.recipe):
            self.work(self._place_anew, during="find where the rows land", lane="places")

    def _place_anew(self) -> None:
        if self._reader is not None:
            self._reader.place_rows(self.recipe)
            self.show_row(self.row)


def _key(recipe: Recipe, *, length: bool = True) -> str:
    """What the rows and their tokens depend on; perhaps whatever their greatest length may be."""
    model = recipe.model
    limit = model.max_seq_length if length else None
    return f"{recipe.data!r} {model.name} {limit} {model.chat_template}"


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
