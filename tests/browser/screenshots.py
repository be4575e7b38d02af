"""Pictures of every panel, in light, dark and narrow: `python tests/browser/screenshots.py OUT`.

For the eyes of whoever changes the panels; compares nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

PANELS = ("guide", "model", "data", "method", "train", "chat", "takeaway")
LOOKS = {
    "light": ("JupyterLab Light", 1180),
    "dark": ("JupyterLab Dark", 1180),
    "narrow": ("JupyterLab Light", 360),
}
CELL = """import tunebook
recipe = tunebook.Recipe.of(max_steps=40, save_steps=20, bits=16, name="demo")
guide = tunebook.Guide(recipe)
guide"""


def harness() -> ModuleType:
    """The browser tests' own helpers."""
    path = Path(__file__).with_name("conftest.py")
    spec = importlib.util.spec_from_file_location("browser_harness", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def work_through(notebook: Any) -> None:
    """Train, ask and save, so that every panel has something to show."""
    page = notebook.page
    notebook.run(0)
    page.wait_for_selector(".tb-token", timeout=90_000)
    page.wait_for_selector(".tb-stats dd", timeout=90_000)
    page.click('[data-do="start"]')
    notebook.until(lambda: notebook.state() == "completed", seconds=180, what="training")
    page.fill(".tb-composer textarea", "What is the capital of Turkey?")
    page.click('.tunebook-panel[data-panel="chat"] [data-do="send"]')
    page.wait_for_selector('.tb-answer-base[data-state="done"]', timeout=90_000)
    page.click('[data-do="save"]')
    page.wait_for_selector(".tb-file", timeout=90_000)


def look(notebook: Any, out: Path, name: str, theme: str, width: int) -> None:
    """Pictures of the panels in one theme and width."""
    page = notebook.page
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.add_style_tag(
        content=f".tunebook-guide {{ width: {width}px !important; max-width: none; }}"
    )
    page.wait_for_timeout(800)
    for panel in PANELS:
        place = notebook.panel(panel)
        place.scroll_into_view_if_needed()
        page.wait_for_timeout(150)
        place.screenshot(path=out / f"{panel}-{name}.png")


def main() -> None:
    """Write the pictures into the folder given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    tools = harness()
    folder = Path(tempfile.mkdtemp(prefix="tunebook-pictures-"))
    with tools.running_lab(folder) as lab, tools.running_browser() as browser:
        context = browser.new_context(viewport={"width": 1700, "height": 2200})
        name = lab.write("pictures.ipynb", [CELL])
        notebook = tools.Notebook(context.new_page(), lab).goto(f"/tree/{name}")
        notebook.wait_kernel()
        try:
            work_through(notebook)
            for look_name, (theme, width) in LOOKS.items():
                look(notebook, out, look_name, theme, width)
        finally:
            notebook.page.screenshot(path=out / "page.png")
            (out / "console.txt").write_text("\n".join(notebook.console))


if __name__ == "__main__":
    main()
