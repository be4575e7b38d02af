"""The take-away panel: write the adapter, a whole model or GGUF, prove it, serve it, put it on the hub.

Knows a run's `export`, `verify` and `upload`, and nothing of file formats. A token typed here is kept
in this process's memory, never in a trait.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import traitlets as t

from tunebook.errors import (
    Cancelled,
    HubTokenRefused,
    RecipeInvalid,
    RunBusy,
    RunMissing,
    TunebookError,
)
from tunebook.export.formats import FORMATS, predicted_sizes
from tunebook.export.hub import saved_token
from tunebook.export.progress import Pass
from tunebook.recipe import ModelPart, Recipe
from tunebook.widgets import _static
from tunebook.widgets._code import takeaway_lines
from tunebook.widgets._exports import in_a_sentence, pass_words, type_rows, written_form
from tunebook.widgets._panel import Panel
from tunebook.widgets._state import Studio
from tunebook.widgets._text import bytes_text

SHORTEST = 0.2  # seconds between two updates of the progress


class TakeAwayPanel(Panel):
    """Save what was learned.

    Args:
        run: the run to save; None takes the studio's, once there is one.
    """

    module = "takeaway"
    purpose = "takeaway"
    reads = ("export",)

    formats: t.List[Any] = t.List(help="name, title, description, predicted size.").tag(sync=True)
    quantizations: t.List[Any] = t.List(
        help="Of GGUF: name, title, closeness, sentence, usual, size, bits, and share of 16 bit."
    ).tag(sync=True)
    folder = t.Unicode(help="Where to; empty: inside the run's folder.").tag(sync=True)
    check = t.Bool(True, help="Load what was written again and compare.").tag(sync=True)
    ready = t.Bool(False, help="Whether there is something to save.").tag(sync=True)
    working = t.Unicode(help="`save`, `check` or `upload` while it goes on.").tag(sync=True)
    progress = t.Dict(help="text, done and total of what goes on; or empty.").tag(sync=True)
    files: t.List[Any] = t.List(
        help="What was written: path, size, form, title, notes, verified, and its parts, "
        "each with title, size, usage, and of a dynamic GGUF the mix (see `shown_mix`)."
    ).tag(sync=True)
    repo = t.Unicode(help="owner/name on the hub.").tag(sync=True)
    private = t.Bool(True, help="Whether only its owner sees the repository.").tag(sync=True)
    replace = t.Bool(False, help="Whether another model that is there gives way.").tag(sync=True)
    token_from = t.Unicode(help="`login`, `memory` or nothing: where a token is known from.").tag(
        sync=True
    )
    page = t.Unicode(help="Address of what was uploaded last.").tag(sync=True)

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        run: Any = None,
        studio: Studio | None = None,
        **traits: Any,
    ):
        traits.setdefault("heading", "Take away")
        traits.setdefault("lead", "Save what was learned, to use it anywhere.")
        self._stop = threading.Event()
        self._token = ""
        self._told = 0.0
        super().__init__(recipe, studio=studio, **traits)
        self.studio.observe(self._run_changed, "run")
        self.studio.observe(self._say_sizes, "plan")
        self.studio.observe(self._not_planned, "plan_error")
        if run is not None:
            self.studio.run = run
        self._run_changed()

    def save(
        self,
        formats: list[str] | None = None,
        *,
        folder: str | Path | None = None,
        check: bool | None = None,
    ) -> list[Path]:
        """Write the chosen formats, prove them, and show what was written.

        GGUF is written in each quantization of `recipe.export.gguf_quantization`.

        Args:
            formats: names of `tunebook.export.FORMATS`; None takes the recipe's.
            folder: where; None takes the panel's, or else the run's own.
            check: whether to load them again and compare; None does as the panel says.

        Raises:
            RunMissing: nothing has been trained yet.
            RunBusy: training goes on.
            RecipeInvalid: nothing is chosen.
            Cancelled: Stop was pressed.
        """
        run = self._finished_run()
        chosen = list(self.recipe.export.formats) if formats is None else formats
        if not chosen:
            raise RecipeInvalid(
                "There is nothing to save.", "no format is ticked.", "tick Adapter or GGUF first."
            )
        quantization = list(self.recipe.export.gguf_quantization)
        if "gguf" in chosen and not quantization:
            raise RecipeInvalid(
                "There is nothing to save as GGUF.",
                "none of its types is ticked.",
                "tick one, such as Q4_K_M.",
            )
        target = None if folder is None and not self.folder else Path(folder or self.folder)
        self._stop.clear()
        self.show(working="save", files=[], page="")
        try:
            paths = run.export(
                chosen,
                folder=target,
                quantization=quantization,
                progress=self._tell_saving,
                measuring=self._tell_measuring,
                stop=self._stop,
            )
            written = [Path(path) for path in paths]
            pairs = zip(chosen, written, strict=True)
            self.show(files=[written_form(form, path, run, quantization) for form, path in pairs])
            if self.check if check is None else check:
                self._verify(run)
        finally:
            self.show(working="", progress={})
        self.show(summary=self._saved_line())
        return written

    def upload(
        self,
        repo: str,
        *,
        form: str = "",
        token: str | None = None,
        private: bool = True,
        replace: bool = False,
    ) -> str:
        """Put one of the saved folders on the hub, or else the adapter, which is then saved first.

        Args:
            form: name of the format to upload; empty takes the first that was saved.
            replace: whether another model that is in the repository gives way.
            token: kept in memory for the next time; None takes that one, or the machine's login.

        Raises:
            RunMissing, RunBusy: see `save`. HubRefused, HubUnreachable: see `Run.upload`.
        """
        run = self._finished_run()
        self._remember(token)
        saved = [item["path"] for item in self.files if form in ("", item["form"])]
        folder = saved[0] if saved else None
        self._stop.clear()
        self.show(working="upload", repo=repo, private=private, replace=replace, page="")
        try:
            page: str = run.upload(
                repo,
                folder=folder,
                token=self._token or None,
                private=private,
                replace=replace,
                progress=lambda done, total: self._tell("Uploading", done, total),
                stop=self._stop,
            )
        except HubTokenRefused:
            self.do_forget()
            raise
        finally:
            self.show(working="", progress={})
        self.show(page=page, summary=f"Uploaded to {page}")
        return page

    def do_save(self, folder: str = "") -> None:
        """The Save button."""
        self.show(folder=folder.strip())
        self._start(self.save, "save the model")

    def do_upload(self, repo: str, token: str = "", form: str = "") -> None:
        """The Upload button; the token came with this one message."""
        self._remember(token)
        self.show(repo=repo.strip())
        self._start(
            lambda: self.upload(self.repo, form=form, private=self.private, replace=self.replace),
            "upload the model",
        )

    def do_forget(self) -> None:
        """Forget the token that was typed."""
        self._token = ""
        self._say_token()

    def do_stop(self) -> None:
        """The Stop button: end at the next tensor or file; nothing half-written stays."""
        self._stop.set()

    def code_now(self) -> dict[str, str]:
        """The same in Python and in a shell; a token is never among the lines."""
        hub = (self.repo, self.private, self.replace)
        return takeaway_lines(self.recipe, self.studio.run, check=self.check, hub=hub)

    def text_lines(self) -> list[str]:
        """What was written and where."""
        lines = [self.summary]
        for item in self.files:
            lines.append(f"  {item['path']} ({item['size']})")
            lines.append(f"    {item['verified'].get('summary', '')}".rstrip())
            lines += [f"    {text}" for text in _mixes(item)]
        return [*lines, self.page]

    def html_body(self) -> str:
        """What was written, how it was proved, and how it is loaded."""
        rows = [
            (item["title"], item["size"], item["path"], item["verified"].get("summary", ""))
            for item in self.files
        ]
        code = "".join(
            _static.subheading(title) + _static.code(lines)
            for item in self.files
            for title, lines in item["parts"][0]["usage"]
        )
        columns = ["Format", "Size", "Folder", "Checked"]
        table = _static.table(rows, columns, headed=True)
        mixes = _static.items(text for item in self.files for text in _mixes(item))
        return _static.paragraph(self.summary, muted=True) + table + mixes + code

    def _start(self, task: Any, during: str) -> None:
        self._finished_run()
        if self.working:
            return
        self.show(working=during.split()[0])

        def kindly() -> None:
            try:
                task()
            except Cancelled as stopped:
                self.show(summary=f"{stopped.what} {stopped.why.capitalize()}")
            finally:
                self.show(working="", progress={})

        self.work(kindly, during=during)

    def _verify(self, run: Any) -> None:
        for at, item in enumerate(self.files):
            if self._stop.is_set():
                return
            self.show(
                working="check",
                progress={"text": f"Comparing the {in_a_sentence(item['title'])} with the model …"},
            )
            outcome = run.verify(item["path"])
            verified = {
                "ok": outcome.ok,
                "summary": outcome.summary,
                "compared": ", ".join(outcome.compared),
                "rounded": outcome.quantized,
            }
            self.show(
                files=[*self.files[:at], {**item, "verified": verified}, *self.files[at + 1 :]]
            )

    def _tell_saving(self, form: str, done: int, total: int) -> None:
        self._tell(f"Saving the {in_a_sentence(FORMATS[form].title)}", done, total)

    def _tell_measuring(self, told: Pass) -> None:
        self._tell_now(pass_words(told), told.done, told.total)

    def _tell(self, text: str, done: int, total: int) -> None:
        self._tell_now(f"{text}: {bytes_text(done)} of {bytes_text(total)}", done, total)

    def _tell_now(self, said: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told > SHORTEST or done in (0, total):
            self._told = now
            self.show(progress={"text": said, "done": done, "total": total})

    def _remember(self, token: str | None) -> None:
        if token and token.strip():
            self._token = token.strip()
        self._say_token()

    def _say_token(self) -> None:
        known = "memory" if self._token else "login" if saved_token() else ""
        self.show(token_from=known)

    def _saved_line(self) -> str:
        names = " and ".join(Path(item["path"]).name for item in self.files)
        verified = [item["verified"] for item in self.files if item["verified"]]
        if not verified:
            return f"Saved {names}"
        outcome = "checked, the same"
        if any(item["rounded"] for item in verified):
            outcome = "checked, as close as their types round"
        if not all(item["ok"] for item in verified):
            outcome = "not the same as the model"
        return f"Saved {names} · {outcome}"

    def _finished_run(self) -> Any:
        run = self.studio.run
        if run is None:
            raise RunMissing(
                "There is nothing to save yet.",
                "no model has been trained in this notebook.",
                "train one in the Train step first, or pass `run=tunebook.open_run(folder)`.",
            )
        if run.alive:
            raise RunBusy(
                "The model cannot be saved now.",
                "training still goes on and changes the weights.",
                "wait for the end, or stop the run: what it learned until then is kept.",
            )
        return run

    @t.observe("repo", "private", "replace", "check")
    def _code_changed(self, _change: object) -> None:
        self.refresh_code()

    def _recipe_changed(self, change: object = None) -> None:
        super()._recipe_changed(change)
        self._say_sizes()

    def _say_sizes(self, _change: object = None) -> None:
        run = self.studio.run
        recipe = self.recipe
        if run is not None:  # its adapter, and what is chosen now
            chosen = recipe.export.gguf_quantization
            recipe = run.recipe.with_values({"export.gguf_quantization": chosen})
        shape = self.studio.known_file_shape()
        sizes = {} if shape is None else predicted_sizes(recipe, shape)
        shown = [
            {
                "name": form.name,
                "title": form.title,
                "description": form.description,
                "size": f"about {bytes_text(sizes[form.name])}" if form.name in sizes else "",
            }
            for form in FORMATS.values()
        ]
        self.show(formats=shown, quantizations=type_rows(shape))

    def _run_changed(self, _change: object = None) -> None:
        run = self.studio.run
        summary = "Nothing trained yet" if run is None else f"Ready to save {run.name}"
        self.show(ready=run is not None, files=[], page="", summary=summary)
        self.refresh_code()
        if run is not None:
            self._say_token()
            self.studio.thread(lambda: self._read_shape(run.recipe.model))

    def _not_planned(self, _change: object) -> None:
        """A model that cannot be planned, such as one with experts, has files of a size all the same."""
        if self.studio.plan_error and self.studio.known_file_shape() is None:
            self.studio.thread(lambda: self._read_shape(self.recipe.model))

    def _read_shape(self, part: ModelPart) -> None:
        with suppress(TunebookError):  # a size that cannot be known is not shown
            self.studio.file_shape(part)
        self._say_sizes()


def _mixes(item: dict[str, Any]) -> list[str]:
    """What was measured of the mixes that were made for the model."""
    return [part["mix"]["summary"] for part in item["parts"] if part["mix"]]
