"""The upper part of the data panel: a file, a hub id, a variable of the notebook, or an upload.

Asks `tunebook.data` what is there and hands on what was chosen; it reads no rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import traitlets as t

from tunebook.data.demo import DEMO_SOURCE
from tunebook.data.nearby import dropped_path, nearby_files, source_of_text
from tunebook.data.uploads import Upload
from tunebook.data.variables import FoundVariable, find_variables
from tunebook.errors import SourceMissing
from tunebook.widgets._panel import Panel
from tunebook.widgets._text import bytes_text

_NAMED = 4  # columns


class PickingPanel(Panel):
    """Offers what can be trained on, and takes what is dropped."""

    sources: t.List[Any] = t.List(
        help="What was found: groups of title and options, each of kind, value, title, about."
    ).tag(sync=True)
    rows_name = t.Unicode(help="The notebook's variable that the rows come from, if any.").tag(
        sync=True
    )
    upload = t.Dict(
        help="The file on its way: id, name, size, received, state, path; or empty."
    ).tag(sync=True)
    upload_folder = t.Unicode(help="Where files go that are dropped.").tag(sync=True)

    _upload: Upload | None = None

    def take_source(self, source: str) -> None:
        """Read another source; given by the panel that does."""
        raise NotImplementedError

    def take_rows(self, rows: Any, name: str) -> None:
        """Read rows of the notebook's memory; given by the panel that does."""
        raise NotImplementedError

    def do_source(self, source: str) -> None:
        """A source was typed: a variable of that name, or else a file or a hub id."""
        source = source_of_text(source)
        if not source:
            return
        if source.isidentifier() and source in self._variables():
            self.use_variable(source)
        else:
            self.take_source(source)

    def do_choose(self, kind: str, value: str) -> None:
        """Something of the list was chosen."""
        if kind == "variable":
            self.use_variable(value)
        else:
            self.take_source(value)

    def use_variable(self, name: str) -> None:
        """Train on rows that the notebook holds.

        Args:
            name: of a data frame, a dataset, a list of dicts or of texts, or a dict of lists.

        Raises:
            SourceMissing: there is no variable of that name with rows in it.
        """
        if name not in self._variables():
            known = ", ".join(f"`{other}`" for other in self._variables()) or "none"
            raise SourceMissing(
                f"The notebook holds no rows called `{name}`.",
                f"variables with rows are: {known}.",
                "run the cell that makes it, or choose another one.",
            )
        self.take_rows(user_namespace()[name], name)

    def do_find_sources(self) -> None:
        """The list was opened: look around."""
        self.work(self.find_sources, during="look for data", lane="sources")

    def find_sources(self) -> None:
        """List the notebook's variables with rows, the data files near it, and what is built in."""
        variables = [_variable_option(found) for found in self._variables().values()]
        files = [
            {"kind": "file", "value": file.path, "title": file.path, "about": bytes_text(file.size)}
            for file in nearby_files()
        ]
        demo = {"kind": "demo", "value": DEMO_SOURCE, "title": DEMO_SOURCE}
        groups = [
            {"title": "In this notebook", "options": variables},
            {"title": "Files near here", "options": files},
            {"title": "Built in", "options": [{**demo, "about": "answers of a pirate, 386 rows"}]},
        ]
        self.show(sources=[group for group in groups if group["options"]])

    def do_drop_path(self, path: str, root: str | None = None) -> None:
        """A file was dragged out of JupyterLab's file browser."""
        found = dropped_path(path, root)
        if found is None:
            raise SourceMissing(
                f"The file {path} is not where the kernel looks.",
                f"it is in no folder above {Path.cwd()}, where this notebook's kernel works.",
                "type the file's whole path, or drop the file from your computer to upload it.",
            )
        self.take_source(_short(found))

    def do_upload_begin(self, id: str, name: str, size: Any) -> None:
        """A file of the page begins to come; one that was on its way is left."""
        self._leave_upload()
        self._upload = Upload(str(name), int(size), self.upload_folder)
        about = {"id": id, "name": self._upload.name, "size": self._upload.size}
        self.show(upload={**about, "received": 0, "state": "sending"})

    def do_upload_piece(self, id: str, offset: Any, piece: bytes = b"") -> None:
        """The next piece of it came; behind the last one the file is read."""
        if self._upload is None or self.upload.get("id") != id:
            return
        try:
            self._upload.add(int(offset), piece)
            if self._upload.complete:
                self._finish_upload(self._upload)
            else:
                self.show(upload={**self.upload, "received": self._upload.received})
        except Exception:
            self._leave_upload()
            raise

    def do_upload_cancel(self) -> None:
        """The file is not wanted, or cannot be sent: nothing of it stays."""
        self._leave_upload()

    def do_upload_folder(self, folder: str) -> None:
        """Files that are dropped go somewhere else from now on."""
        if folder.strip():
            self.show(upload_folder=folder.strip())

    def close(self) -> None:
        """Take the panel away; of a file on its way nothing stays."""
        if self._upload is not None:
            self._upload.cancel()
        super().close()

    def _finish_upload(self, upload: Upload) -> None:
        path = upload.finish()
        self._upload = None
        done = {"received": upload.size, "state": "done", "path": str(path)}
        self.show(upload={**self.upload, **done})
        self.take_source(_short(path))

    def _leave_upload(self) -> None:
        if self._upload is not None:
            self._upload.cancel()
        self._upload = None
        self.show(upload={})

    def _variables(self) -> dict[str, FoundVariable]:
        return {found.name: found for found in find_variables(user_namespace())}

    def _receive(self, widget: object, content: Any, buffers: Any) -> None:
        if isinstance(content, dict) and content.get("type") == "upload_piece":
            content = {**content, "piece": bytes(buffers[0]) if buffers else b""}
        super()._receive(widget, content, buffers)


def user_namespace() -> Mapping[str, Any]:
    """The variables of the notebook; empty where there is no notebook."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return {} if shell is None else shell.user_ns


def _variable_option(found: FoundVariable) -> dict[str, str]:
    rows = "" if found.rows is None else f", {found.rows:,} rows"
    names = ", ".join(found.columns[:_NAMED]) + (", …" if len(found.columns) > _NAMED else "")
    about = f"{found.kind}{rows}" + (f": {names}" if names else "")
    return {"kind": "variable", "value": found.name, "title": found.name, "about": about}


def _short(path: Path) -> str:
    """The path from here if it is below the working directory, else all of it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
