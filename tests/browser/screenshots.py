"""Pictures of every panel and of JupyterLab's own views: `python tests/browser/screenshots.py OUT`.

For the eyes of whoever changes the panels; compares nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import lab_views
from harness import Notebook, running_browser, running_lab

PANELS = ("guide", "model", "data", "method", "train", "chat", "takeaway")
LOOKS = {
    "light": ("JupyterLab Light", 1180),
    "dark": ("JupyterLab Dark", 1180),
    "narrow": ("JupyterLab Light", 360),
}
CELL = """import tunebook
guide = tunebook.Guide()
guide"""


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
    page.check('[data-format="gguf"]')
    page.check('[data-type="q8_0"]')
    page.check('[data-type="dynamic"]')
    page.click('[data-do="save"]')
    page.wait_for_selector('.tb-file[data-form="gguf"] .tb-verified', timeout=400_000)


def put_on(notebook: Any, theme: str, width: int) -> None:
    """Show the guide in one theme and width."""
    page = notebook.page
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.add_style_tag(
        content=f".tunebook-guide {{ width: {width}px !important; max-width: none; }}"
        ".Toastify { display: none }"  # the news of a run's end lies over the panels
    )
    page.wait_for_timeout(800)


def look(notebook: Any, out: Path, name: str, theme: str, width: int) -> None:
    """Pictures of the panels in one theme and width."""
    put_on(notebook, theme, width)
    page = notebook.page
    for panel in PANELS:
        place = notebook.panel(panel)
        place.scroll_into_view_if_needed()
        page.wait_for_timeout(150)
        place.screenshot(path=out / f"{panel}-{name}.png")


def picture_panels(lab: Any, browser: Any, out: Path) -> None:
    """A guide worked through, its panels in every look."""
    context = browser.new_context(viewport={"width": 1700, "height": 4600})
    name = lab.write("pictures.ipynb", [CELL])
    notebook = Notebook(context.new_page(), lab).goto(f"/tree/{name}")
    notebook.wait_kernel()
    try:
        work_through(notebook)
        for look_name, (theme, width) in LOOKS.items():
            look(notebook, out, look_name, theme, width)
    finally:
        sys.stderr.write("\n".join(notebook.errors()))


def main() -> None:
    """Write the pictures into the folder given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=("panels", "lab"), help="leave the others out")
    options = parser.parse_args()
    out, only = options.out, options.only
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="tunebook-pictures-"))
    with running_lab(folder) as lab, running_browser() as browser:
        if only != "panels":
            themes = {name: LOOKS[name][0] for name in ("light", "dark")}
            lab_views.picture(lab, browser, out, themes)
        if only != "lab":
            picture_panels(lab, browser, out)


if __name__ == "__main__":
    main()
