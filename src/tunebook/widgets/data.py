"""The data panel: what the rows are, what is wrong with them, and every token the model will see.

Shows what `tunebook.data` says; the tokens come from the very path that training uses.
"""

from __future__ import annotations

from typing import Any

import traitlets as t

from tunebook.recipe import Recipe
from tunebook.widgets._fixing import FixingPanel
from tunebook.widgets._rows import RowReader, data_size
from tunebook.widgets._state import Studio
from tunebook.widgets._text import count_text


class DataPanel(FixingPanel):
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
    statistics = t.Dict(help="Of all rows, as `DataStatistics`.").tag(sync=True)
    findings: t.List[Any] = t.List(
        help="What is wrong: severity, code, title, count, examples, do, fix, listed."
    ).tag(sync=True)

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        rows: Any = None,
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
            self._forget_fixes()
            self.studio.rows = None
            before = self._wanted
            self.do_set("data.source", source)
            if self._wanted == before and "data.source" not in self.invalid:
                self.do_load()  # the same name, whose rows may be others now

    def load(self, wanted: int | None = None) -> None:
        """Read, detect, count and check, in this thread."""
        recipe, given = self.recipe, self.studio.rows
        self.show(error={}, fix_preview={})
        reader = RowReader(recipe, self.studio.tokenizer(), rows=given)
        if wanted not in (None, self._wanted):
            return  # another dataset was named meanwhile
        row = self.row if self._reader is not None and reader.has_rows_of(self._reader) else 0
        self._reader, self._fixed = reader, None
        self.show(format=reader.format_dict(), rows=len(reader), summary=self._source())
        self.show_list()
        self.show_row(row)
        self.show(busy="Reading all rows, counting tokens and checking …")
        if not reader.complete:
            reader.read_all()
            if wanted in (None, self._wanted):
                self.show(format=reader.format_dict(), rows=len(reader))
                self.show_list()
                self.show_row(row)
        statistics, findings = reader.check()
        if wanted in (None, self._wanted):
            self.show(statistics=statistics, findings=findings, summary=self._source(statistics))
            self.show_list(text=self.listing["text"], only=self.listing["only"])
            self.show_row(self.row)
            self.show(busy="")
            self.studio.data_size = data_size(statistics)

    def load_anew(self) -> None:
        """Read and check the rows, in this thread, in place of what is being read."""
        self._wanted += 1
        self.load(self._wanted)

    def move_to(self, rows: Any, where: dict[str, Any]) -> None:
        """Take other rows (None: the recipe's own) and fields of the recipe; read nothing yet."""
        self.studio.rows = rows
        recipe = self.recipe.with_values(where)
        self._loaded_for = _key(recipe)
        self.studio.recipe = recipe
        self.show(summary=self._source(self.statistics))

    def text_lines(self) -> list[str]:
        """Format, statistics, findings and the row that is shown, trained tokens marked."""
        lines = [self.summary, self.format.get("words", "")]
        lines += [f"  {found['severity']}: {found['title']}" for found in self.findings]
        if self.tokens:
            marked = (
                f"«{text}»" if "trained" in kind else text for text, _, kind, *_ in self.tokens
            )
            said = "".join(marked).replace("»«", "")
            lines += [f"Row {self.row + 1} of {self.rows} («…» is learned):", said]
        return lines

    def _source(self, statistics: dict[str, Any] | None = None) -> str:
        given = self.studio.rows is not None
        name = self.recipe.data.source
        if given:
            name = f"{name}, fixed" if self.fixes else "rows in memory"
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
        known = self._reader is not None or self.busy or self.error
        if before and before != self._loaded_for and known:
            self.do_load()
        elif self._reader is not None and self._reader.lands_elsewhere(self.recipe):
            self.work(self._place_anew, during="find where the rows land", lane="places")

    def _place_anew(self) -> None:
        if self._reader is not None:
            self._reader.place_rows(self.recipe)
            self.show_row(self.row)


def _key(recipe: Recipe) -> str:
    """What the rows and their tokens depend on."""
    model = recipe.model
    return f"{recipe.data!r} {model.name} {model.max_seq_length} {model.chat_template}"


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
