"""The static views: what a notebook shows where no front end runs."""

from __future__ import annotations

import html.parser
import math
from typing import Any
from xml.etree import ElementTree

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
from tunebook.widgets._curve import loss_svg

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


def test_a_runs_static_view_has_its_loss_curve(fake_run: Any) -> None:
    fake_run.begin(total=3)
    for step, loss in enumerate([2.0, 1.0, 0.5], 1):
        fake_run.step(step, loss)
    fake_run.finish(3)
    page = TrainPanel(run=fake_run).as_html()
    assert Outline(page).open == []
    assert page.count("<polyline") == 2
    assert "from 2 to 0.5" in page
    assert "2.0000 → 0.5000" in page


def test_a_curve_is_bounded_and_leaves_out_what_is_no_number() -> None:
    svg = loss_svg([(step, 1 / step, 1 / step) for step in range(1, 100_001)])
    assert len(svg) < 30_000
    assert loss_svg([(1, math.nan, math.nan)]) == loss_svg([]) == ""
    assert "nan" not in loss_svg([(1, 2.0, 2.0), (2, math.inf, 2.0)], [(2, 1.5)])
    assert ElementTree.fromstring(loss_svg([(1, 0.0, 0.0)])).tag.endswith("svg")


def test_pieces_escape_and_leave_out_what_is_empty() -> None:
    assert _static.items(["", "<b>"]).count("<li") == 1
    assert "&lt;b&gt;" in _static.items(["<b>"])
    assert _static.facts({"loss": "", "steps": 3}).count("<tr>") == 1
    assert _static.table([]) == _static.items([]) == _static.paragraph("") == ""
