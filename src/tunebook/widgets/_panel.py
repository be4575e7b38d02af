"""What every panel shares: the synced state, the dispatcher of messages, errors and worker threads.

A panel holds no logic of its own: it shows a Studio's recipe, plan and run, and asks the layers
below to change them. This module knows no single panel and no tensor.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import anywidget
import traitlets as t

from tunebook.errors import RecipeInvalid, as_tunebook_error
from tunebook.recipe import Recipe
from tunebook.widgets import _static
from tunebook.widgets._assets import asset
from tunebook.widgets._code import code_lines
from tunebook.widgets._fields import field_dicts, flat_values, parse_typed
from tunebook.widgets._state import Studio, in_colab


class Panel(anywidget.AnyWidget):
    """A view with all of its display state in synced traits, so that any page shows the same.

    Args:
        recipe: the recipe to begin with; None takes the defaults.
        studio: the state shared with other panels; None makes one of its own.
    """

    module: ClassVar[str] = ""
    purpose: ClassVar[str] = ""
    parts: ClassVar[tuple[str, ...]] = ()
    without: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()

    heading = t.Unicode().tag(sync=True)
    lead = t.Unicode(help="One sentence: what this step is for.").tag(sync=True)
    number = t.Int(0, help="Place in the guide, 0 for a panel that stands alone.").tag(sync=True)
    unfolded = t.Bool(True).tag(sync=True)
    summary = t.Unicode(help="The step in one line, shown while folded.").tag(sync=True)
    busy = t.Unicode(help="What is being done, or nothing.").tag(sync=True)
    error = t.Dict(help="name, what, why, do and perhaps traceback; or empty.").tag(sync=True)
    code_open = t.Bool(False, help="Whether the code is looked at.").tag(sync=True)
    code = t.Dict(help="The same in Python and in a shell, while it is looked at.").tag(sync=True)
    fields: t.List[Any] = t.List(help="The knobs of this panel, from the recipe's own fields.").tag(
        sync=True
    )
    values = t.Dict(help="The panel's recipe fields by their dotted names.").tag(sync=True)
    invalid = t.Dict(help="What was typed and refused: path to {typed, message}.").tag(sync=True)

    def __init__(
        self, recipe: Recipe | None = None, *, studio: Studio | None = None, **traits: Any
    ) -> None:
        self._esm = asset(f"{self.module}.js")
        self._css = asset("panels.css")
        self._home = contextvars.copy_context()
        self._guard = threading.RLock()
        self._newest_work: dict[str, object] = {}
        self._studio = studio if studio is not None else Studio()
        if recipe is not None:
            self._studio.recipe = recipe
        traits.setdefault("fields", field_dicts(self.parts, self.without))
        super().__init__(**traits)
        self._studio.observe(self._recipe_changed, "recipe")
        self._recipe_changed()
        self.on_msg(self._receive)

    @property
    def recipe(self) -> Recipe:
        """The recipe as it stands; assign a new one to change every panel of the studio."""
        return self._studio.recipe

    @recipe.setter
    def recipe(self, recipe: Recipe) -> None:
        self._studio.recipe = recipe

    @property
    def studio(self) -> Studio:
        """The state that this panel shares with others."""
        return self._studio

    def show(self, **traits: Any) -> None:
        """Set several traits in one message to the page, from any thread."""
        with self._guard, self.hold_sync():
            for name, value in traits.items():
                setattr(self, name, value)

    def show_error(self, error: BaseException, *, during: str) -> None:
        """Show an error in its three parts; the traceback only if nobody foresaw it."""
        named = as_tunebook_error(error, during=during)
        parts = named.to_dict(traceback=named is not error)
        self.show(error=parts, busy="")

    def work(
        self, task: Callable[[], Any], *, during: str, busy: str = "", lane: str = "main"
    ) -> None:
        """Run `task` in a thread, in the context where the panel was made; in Colab, at once.

        The context keeps what the thread publishes tied to that cell: without it ipykernel 7 may
        send later clicks to a shell that is gone.

        Args:
            busy: what the panel says meanwhile; nothing for work that shows its own progress.
            lane: only the newest task of a lane may say that it failed or that it is done.
        """
        self._newest_work[lane] = token = object()

        def guarded_task() -> None:
            try:
                task()
            except Exception as error:
                if self._newest_work[lane] is token:
                    self.show_error(error, during=during)
            finally:
                if busy and self._newest_work[lane] is token:
                    self.show(busy="")

        if busy:
            self.show(busy=busy)
        if in_colab():
            guarded_task()
            return
        context, name = self._home.copy(), f"tunebook-{self.module}"
        threading.Thread(target=context.run, args=(guarded_task,), name=name, daemon=True).start()

    def handle(self, message: dict[str, Any]) -> None:
        """Answer one message of the page: `{"type": "stop"}` calls `do_stop()`; never raises."""
        handler = getattr(self, f"do_{message.get('type')}", None)
        if handler is None:
            return
        with self._caught(str(message.get("type"))):
            if self.error:
                self.show(error={})
            handler(**{key: value for key, value in message.items() if key != "type"})

    def do_set(self, path: str, value: Any) -> None:
        """A field was edited: a new recipe if it is valid, else a message beside the field."""
        try:
            parsed = parse_typed(path, value)
            recipe = self.recipe.with_values({path: parsed})
        except RecipeInvalid as error:
            self.show(invalid={**self.invalid, path: {"typed": value, "message": error.why}})
            return
        self.show(invalid={key: item for key, item in self.invalid.items() if key != path})
        self._studio.recipe = recipe

    def do_dismiss(self) -> None:
        """The error was read."""

    def as_text(self) -> str:
        """The panel's state in plain text, for places where no widget can be shown."""
        lines = [self.heading, *self.text_lines()]
        if self.error:
            about = self.error
            lines += [about["what"], f"  Why: {about['why']}", f"  Do:  {about['do']}"]
        return "\n".join(line for line in lines if line)

    def text_lines(self) -> list[str]:
        """What `as_text` says below the heading; a panel says more by overriding it."""
        return [self.summary]

    def as_html(self) -> str:
        """The panel's state as small static HTML, every text escaped; see `html_body`."""
        heading = f"{self.number}. {self.heading}" if self.number else self.heading
        return _static.section(heading, self.html_body(), _static.error(self.error))

    def html_body(self) -> str:
        """What `as_html` says below the heading; a panel overrides it with pieces of `_static`."""
        summary, *more = self.text_lines() or [""]
        return _static.paragraph(summary) + _static.items(line.strip() for line in more)

    def refresh_code(self) -> None:
        """Write the Python and shell lines anew, if somebody looks at them."""
        self.show(code=self.code_now() if self.code_open else {})

    def code_now(self) -> dict[str, str]:
        """The lines that do what the panel shows; a panel says its own by overriding it."""
        studio = self._studio
        return code_lines(self.recipe, self.purpose, studio.run, rows=studio.rows_name)

    def values_now(self) -> dict[str, Any]:
        """The values that the page needs; a panel with fields outside of the recipe adds them.

        Those of other panels are left out: what they change would be sent to all.
        """
        shown = (*self.parts, *self.reads)
        return {
            path: value
            for path, value in flat_values(self.recipe).items()
            if path in shown or path.split(".")[0] in shown
        }

    def _recipe_changed(self, _change: object = None) -> None:
        with self._guard, self.hold_sync():
            self.show(values=self.values_now())
            self.refresh_code()

    @t.observe("code_open")
    def _code_looked_at(self, _change: object) -> None:
        self.refresh_code()

    def _receive(self, _widget: object, content: Any, _buffers: object) -> None:
        if not isinstance(content, dict):
            return
        if in_colab():
            self.handle(content)
        else:
            self._home.copy().run(self.handle, content)

    @contextmanager
    def _caught(self, action: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.show_error(error, during=f"answer the button ({action})")

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return {**data, "text/plain": self.as_text(), "text/html": self.as_html()}, metadata
