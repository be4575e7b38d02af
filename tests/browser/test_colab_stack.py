"""The panels on Colab's versions of the widget packages, in a page whose widgets are as old.

Colab's own page is not there: what only a person in Colab can see is listed in `docs/colab.md`.
The kernel believes that it is Colab's, so that panels answer inside the handler.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import TOKEN, Lab, Notebook, lab_environment, serving
from stacks import colab_environment
from test_panels_in_lab import SECONDS, guide_cell

pytestmark = pytest.mark.browser

AS_COLAB = """
import sys, types
from importlib.machinery import ModuleSpec
names = ("google", "google.colab", "google.colab.output")
for name in names:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__spec__ = ModuleSpec(name, None)  # accelerate looks for it
google, colab, output = (sys.modules[name] for name in names)
output.enable_custom_widget_manager = lambda **_: None
colab.output, google.colab = output, colab
import anywidget, ipywidgets, ipykernel, IPython
print([m.__version__ for m in (anywidget, ipywidgets, ipykernel, IPython)])
"""


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A classic Notebook server whose kernel and widgets are Colab's."""
    folder = tmp_path_factory.mktemp("colab")
    environment = {**lab_environment(folder, Path(sys.executable)), **colab_environment(folder)}
    with serving(folder, [sys.executable, "-m", "nbclassic"], environment) as server:
        yield server


class ClassicNotebook(Notebook):
    """The same in the classic Notebook's page."""

    def goto(self, path: str, *, reset: bool = True) -> ClassicNotebook:
        self.page.on("pageerror", lambda error: self.console.append(f"pageerror: {error}"))
        self.page.goto(
            f"{self.lab.url}/nbclassic/notebooks{path}?token={TOKEN}"
        )  # beside Notebook 7
        connected = "() => window.Jupyter?.notebook?.kernel?.is_connected()"
        self.page.wait_for_function(connected, timeout=SECONDS * 1000)
        return self

    def run(self, cell: int, *, wait: bool = True) -> None:
        self.page.evaluate("i => Jupyter.notebook.execute_cells([i])", cell)
        if wait:
            script = "i => Jupyter.notebook.get_cell(i).input_prompt_number > 0"
            self.page.wait_for_function(script, arg=cell, timeout=SECONDS * 1000)

    def output(self, cell: int) -> str:
        script = """i => Jupyter.notebook.get_cell(i).output_area.outputs
            .map(o => o.text ?? o.data?.['text/plain'] ?? o.evalue).join('')"""
        return str(self.page.evaluate(script, cell))


def test_the_guide_renders_answers_and_trains(classic: Lab, browser: Any) -> None:
    cells = [
        AS_COLAB,
        guide_cell("colab", 6),
        "run = tunebook.train(recipe); print(run.state)",
        "panel = tunebook.watch(run); panel",
    ]
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    name = classic.write("colab.ipynb", cells, kernel="colab")
    notebook = ClassicNotebook(page, classic).goto(f"/{name}")
    notebook.run(0)
    assert "['0.9.21', '7.7.1', '6.17.1', '7.34.0']" in notebook.output(0)
    notebook.run(1)
    total = page.locator("[data-total]").first
    total.wait_for(timeout=SECONDS * 1000)
    before = total.get_attribute("data-total")
    page.locator('[data-field="lora.r"] input').fill("128")
    notebook.until(lambda: total.get_attribute("data-total") != before, what="a new forecast")
    notebook.run(2)
    print(notebook.output(2))
    assert "completed" in notebook.output(2)
    notebook.run(3)
    page.locator('[data-state="completed"]').first.wait_for(timeout=30_000)
    assert page.locator('[data-plot="loss"]').last.get_attribute("data-points") == "6"
    assert notebook.errors() == []
    page.close()
