"""The static views: what a notebook shows where no front end runs."""

from __future__ import annotations

import html.parser
from typing import Any

import pytest

from tunebook.errors import RecipeInvalid
from tunebook.recipe import Recipe
from tunebook.widgets import (
    DataPanel,
    Guide,
    MethodPanel,
    ModelPanel,
    TakeAwayPanel,
    TrainPanel,
    TryPanel,
    _static,
)

PANELS = [ModelPanel, DataPanel, MethodPanel, TrainPanel, TryPanel, TakeAwayPanel]


class Outline(html.parser.HTMLParser):
    """The tags of a page, and whether each that was opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", PANELS)
def test_every_panel_has_a_readable_static_view(kind: Any) -> None:
    panel = kind(Recipe.of(model="<script>x</script>"))
    panel.show_error(RecipeInvalid("<img src=x>", "why", "do"), during="test")
    data, _ = panel._repr_mimebundle_()
    outline = Outline(data["text/html"])
    assert outline.open == []
    assert "h3" in outline.tags
    assert not {"script", "img", "iframe", "link"} & set(outline.tags)
    assert panel.heading in data["text/html"]
    assert panel.heading in data["text/plain"]


def test_the_guides_static_view_names_every_step() -> None:
    page = Guide()._repr_mimebundle_()["text/html"]
    assert Outline(page).open == []
    for at, panel in enumerate(PANELS, 1):
        assert f"{at}. {panel().heading}" in page


def test_pieces_escape_and_leave_out_what_is_empty() -> None:
    assert _static.items(["", "<b>"]).count("<li") == 1
    assert "&lt;b&gt;" in _static.items(["<b>"])
    assert _static.facts({"loss": "", "steps": 3}).count("<tr>") == 1
    assert _static.table([]) == _static.items([]) == _static.paragraph("") == ""
