"""The fixes of the data panel: looked at, applied to the rows in memory, saved or taken back.

The fixes are those of `tunebook.data`; the source that the rows come from is never written to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import traitlets as t

from tunebook.errors import DatasetEmpty, RecipeInvalid
from tunebook.widgets._browsing import BrowsingPanel
from tunebook.widgets._code import code_lines

_WHERE = ("data.source", "data.config", "data.split", "data.max_rows", "data.streaming")
_IN_MEMORY = {"data.split": "train", "data.max_rows": None}


class FixingPanel(BrowsingPanel):
    """Goes on with fixed rows in memory until they are saved, and knows the way back."""

    fix_preview = t.Dict(help="What a fix would change; or empty.").tag(sync=True)
    fixes: t.List[Any] = t.List(help="The fixes applied, each with what it did.").tag(sync=True)
    fix_file = t.Unicode(help="A new file that the fixed rows could go to.").tag(sync=True)
    saved = t.Unicode(help="The file that they were written to.").tag(sync=True)

    _fixed: Any = None

    def __init__(self, *args: Any, **traits: Any):
        self._before_fixes: list[tuple[Any, dict[str, Any]]] = []
        super().__init__(*args, **traits)

    def move_to(self, rows: Any, where: dict[str, Any]) -> None:
        """Take other rows (None: the recipe's own) and fields of the recipe; read nothing yet."""
        raise NotImplementedError

    def load_anew(self) -> None:
        """Read and check the rows of the studio, in this thread."""
        raise NotImplementedError

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
        # What cannot be read is not among the rows; it goes by its own fix and no other.
        broken, first = self._reader.broken, fix == "drop_invalid"
        more = broken if first else 0
        changed, left = fixed.changed[fix] + more, len(fixed.table)
        rows = len(self._reader) + more
        drops = left < rows
        words = f"{rows - left if drops else changed:,} of {rows:,} rows: {FIXES[fix]}."
        preview: dict[str, Any] = {
            "fix": fix,
            "words": f"{'Leaves out' if drops else 'Changes'} {words} Your data stays as it is."
            + (" Leave out the rows that cannot be read before." if broken and not first else ""),
            "applied": f"{'Left out' if drops else 'Changed'} {words}",
            "able": bool(changed and left and (first or not broken)),
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
        self.load_anew()

    def do_undo_fix(self) -> None:
        """Go back to the rows before the last fix, read in a thread."""
        self.work(self.undo_fix, during="undo a fix", busy="Reading the rows …")

    def undo_fix(self) -> None:
        """Go back to the rows before the last fix."""
        if self._before_fixes:
            rows, where = self._before_fixes.pop()
            self._take(rows, where, self.fixes[:-1])
            self.load_anew()

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
        return written

    def code_now(self) -> dict[str, str]:
        """How the rows are checked; once some are fixed, how the same fixes write a new file."""
        if not self.fixes or not self._before_fixes or self.saved:
            return super().code_now()
        read = self.recipe.with_values(self._before_fixes[0][1])
        names = [applied["fix"] for applied in self.fixes]
        rows, out = self.studio.rows_name, self.fix_file
        return code_lines(read, "data", rows=rows, fixes=names, out=out)

    def _take(self, rows: Any, where: dict[str, Any], fixes: list[Any], *, saved: str = "") -> None:
        self.move_to(rows, where)
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
