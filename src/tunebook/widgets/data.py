"""The data panel: what the rows are, what is wrong with them, and every token the model will see.

Shows what `tunebook.data` says; the tokens come from the very path that training uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import traitlets as t

from tunebook.errors import DatasetEmpty, RecipeInvalid
from tunebook.recipe import Recipe
from tunebook.widgets._browsing import BrowsingPanel
from tunebook.widgets._code import code_lines
from tunebook.widgets._rows import RowReader, data_size
from tunebook.widgets._state import Studio
from tunebook.widgets._text import count_text

_WHERE = ("data.source", "data.config", "data.split", "data.max_rows", "data.streaming")
_IN_MEMORY = {"data.split": "train", "data.max_rows": None}


class DataPanel(BrowsingPanel):
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
    fix_preview = t.Dict(help="What a fix would change; or empty.").tag(sync=True)
    fixes: t.List[Any] = t.List(help="The fixes applied, each with what it did.").tag(sync=True)
    fix_file = t.Unicode(help="A new file that the fixed rows could go to.").tag(sync=True)
    saved = t.Unicode(help="The file that they were written to.").tag(sync=True)

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
        self._fixed: Any = None
        self._before_fixes: list[tuple[Any, dict[str, Any]]] = []
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

    def do_preview_fix(self, fix: str) -> None:
        """Work out in a thread what a fix would change."""
        words = "Working out what would change …"
        self.work(lambda: self.preview_fix(fix), during="preview a fix", busy=words)

    def preview_fix(self, fix: str) -> None:
        """Show what a fix would change; nothing is changed.

        Args:
            fix: a name of `tunebook.data.FIXES`.
        """
        from tunebook.data import FIXES

        assert self._reader is not None
        self._fixed = fixed = self._reader.fixed(fix)
        changed, rows, left = fixed.changed[fix], len(self._reader), len(fixed.table)
        drops = left < rows
        words = f"{rows - left if drops else changed:,} of {rows:,} rows: {FIXES[fix]}."
        preview: dict[str, Any] = {
            "fix": fix,
            "words": f"{'Leaves out' if drops else 'Changes'} {words} Your data stays as it is.",
            "applied": f"{'Left out' if drops else 'Changed'} {words}",
            "able": bool(changed and left),
        }
        if fix in fixed.examples:
            change = fixed.examples[fix]
            where, before, after = change.excerpt()
            preview |= {"row": change.row, "where": where, "before": before}
            preview |= {"after": after if change.after is not None else None}
        self.show(fix_preview=preview)

    def do_drop_preview(self) -> None:
        """The fix is not wanted."""
        self._fixed = None
        self.show(fix_preview={})

    def do_apply_fix(self) -> None:
        """Go on with the rows of the preview, read in a thread."""
        self.work(self.apply_fix, during="apply a fix", busy="Reading the rows …")

    def apply_fix(self) -> None:
        """Go on with the rows of the preview, in memory; the source stays as it is.

        Raises:
            DatasetEmpty: the fix would leave no row.
        """
        fixed = self._fixed
        if fixed is None:
            return
        if len(fixed.table) == 0:
            raise DatasetEmpty(
                "The fix would leave no row.", "every row has the fault.", "mend the data."
            )
        self._before_fixes.append((self.studio.rows, self._place_of_data()))
        applied = {name: self.fix_preview[name] for name in ("fix", "applied")}
        self._fixed = None
        self._take(fixed.table, _IN_MEMORY, [*self.fixes, applied])
        self._load_anew()

    def do_undo_fix(self) -> None:
        """Go back to the rows before the last fix, read in a thread."""
        self.work(self.undo_fix, during="undo a fix", busy="Reading the rows …")

    def undo_fix(self) -> None:
        """Go back to the rows before the last fix."""
        if self._before_fixes:
            rows, where = self._before_fixes.pop()
            self._take(rows, where, self.fixes[:-1])
            self._load_anew()

    def do_save_fixed(self, path: str) -> None:
        """Write the fixed rows to a new file, in a thread, and read that from now on."""
        self.work(lambda: self.save_fixed(path), during="write the rows", busy="Writing …")

    def save_fixed(self, path: str) -> Path:
        """Write the fixed rows to a new file and make it the recipe's source.

        Raises:
            FolderExists: the file is there already; nothing is ever overwritten.
            RecipeInvalid: no fix was applied, or it does not end in .jsonl, .json, .csv or .parquet.
        """
        from tunebook.data import write_rows

        if not self.fixes or self.saved:
            raise RecipeInvalid(
                "There is nothing to write.", "no fix was applied.", "apply a fix first."
            )
        written = write_rows(self.studio.rows, Path(path).expanduser())
        source = {"data.source": str(written), "data.config": None, "data.streaming": False}
        self._take(None, {**_IN_MEMORY, **source}, self.fixes, saved=str(written))
        self.show(summary=self._source(self.statistics))
        return written

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

    def _load_anew(self) -> None:
        self._wanted += 1
        self.load(self._wanted)

    def _take(self, rows: Any, where: dict[str, Any], fixes: list[Any], *, saved: str = "") -> None:
        """Other rows from another place, without reading them yet."""
        self.studio.rows = rows
        recipe = self.recipe.with_values(where)
        self._loaded_for = _key(recipe)
        self.studio.recipe = recipe
        self.show(fixes=fixes, fix_preview={}, fix_file=self._new_file(), saved=saved)
        self._recipe_changed()

    def _forget_fixes(self) -> None:
        self._fixed, self._before_fixes = None, []
        self.show(fixes=[], fix_preview={}, saved="")

    def _place_of_data(self) -> dict[str, Any]:
        return {name: self.recipe.get(name) for name in _WHERE}

    def _new_file(self) -> str:
        """A name beside the source, or in the working directory, that no file has yet."""
        source = Path(self.recipe.data.source)
        local = source.expanduser().is_file()
        keeps = local and source.suffix.lower() in (".jsonl", ".json", ".csv", ".parquet")
        ending = source.suffix if keeps else ".jsonl"
        stem = str(source.with_name(source.stem)) if local else source.name
        names = [f"{stem}.fixed{ending}", *(f"{stem}.fixed-{n}{ending}" for n in range(2, 100))]
        return next((name for name in names if not Path(name).expanduser().exists()), names[-1])

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
        names = [applied["fix"] for applied in self.fixes] if not self.saved else []
        if names:
            read = self.recipe.with_values(self._before_fixes[0][1])
            self.show(code=code_lines(read, "data", fixes=names, out=self.fix_file))
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
