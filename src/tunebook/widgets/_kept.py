"""The static view below a live one: what the notebook keeps of a run when its kernel is gone.

A widget's own output is drawn anew when it is changed, which would throw the focus and the page about.
So its text and picture are an output of their own, hidden while the widget lives, and that is what
is brought up to date. Knows how something is displayed, not what.
"""

from __future__ import annotations

from typing import Any

CLASS = "tunebook-kept"
"""Of the static view; the style of the panels hides it where the live one is seen."""


class KeptView:
    """A widget that is displayed with a static view of itself, as `as_html` and `as_text` say it.

    The page finds the static view by its display id, which it forgets when it is loaded anew: what it
    shows then is kept as it was, until the cell is run again.
    """

    _kept: tuple[Any, ...] = ()

    def keep(self) -> None:
        """Bring the static view up to date in each cell that displays this widget."""
        for handle in self._kept:
            handle.update(self._static_bundle(), raw=True)

    def _ipython_display_(self, **kwargs: Any) -> None:
        from IPython import display as ipython

        display: Any = ipython.display  # IPython has types, but not of this
        by_itself = getattr(super(), "_ipython_display_", None)
        if by_itself is not None:  # ipywidgets 7, as in Colab
            by_itself(**kwargs)
        else:
            live = super()._repr_mimebundle_()  # type: ignore[misc]
            data, metadata = live if isinstance(live, tuple) else (live, {})
            static = self._static_bundle()
            data = {key: value for key, value in data.items() if key not in static}
            data["text/plain"] = static["text/plain"].partition("\n")[0]
            display(data, metadata=metadata, raw=True)
        handle = display(self._static_bundle(), raw=True, display_id=True)
        if handle is not None:
            self._kept = (*self._kept, handle)

    def _static_bundle(self) -> dict[str, str]:
        view: Any = self
        html = f'<div class="{CLASS}">{view.as_html()}</div>'
        return {"text/html": html, "text/plain": view.as_text()}
