"""Pictures of JupyterLab's own views: launcher, runs, a run, a model file, a file of rows.

For `screenshots.py`, which shows the panels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import Lab, Notebook
from model_files import write_gguf, write_rows
from run_files import checkpoint, failed, finished, write_run

SIZE = {"width": 1280, "height": 860}
DONE = "([name, args]) => jupyterapp.commands.execute(name, args).then(() => null)"


def write_files(root: Path) -> None:
    """Runs in every state, a model and rows."""
    runs = root / "runs"
    write_run(
        runs / "pirate-llama-1b", checkpoint(240), steps=260, total=400, live=True,
        sample="Who are you?",
    )  # fmt: skip
    hour, end = 3600, finished(400)
    write_run(runs / "pirate-r64", checkpoint(400), end, steps=400, total=400, ago=3 * hour)
    end = finished(120, "stopped")
    write_run(runs / "half-way", checkpoint(120), end, steps=120, total=400, ago=26 * hour)
    error = {
        "name": "DoesNotFit",
        "what": "The model does not fit into the memory of this GPU.",
        "why": "it needs 18.2 GiB where 15.6 GiB are free.",
        "do": "set `bits=4`, or choose a smaller model.",
    }
    write_run(runs / "qwen3-8b-full", failed(3, **error), steps=3, total=400, ago=2 * hour)
    write_run(runs / "cut-off", checkpoint(50), steps=90, total=400, ago=72 * hour)
    write_gguf(root / "pirate.Q4_K_M.gguf", "Pirate Llama 1B")
    write_rows(root / "pirate.jsonl")


def opener(notebook: Notebook, name: str, **args: str) -> Callable[[], None]:
    """Something that executes a command of JupyterLab."""
    return lambda: notebook.page.evaluate(DONE, [name, args])


def views(notebook: Notebook) -> Iterator[tuple[str, Callable[[], None], str]]:
    """Name, how it is opened, and what is there then."""
    run = '.tb-run-document [data-plot="loss"]'
    yield "launcher", opener(notebook, "launcher:create"), ".jp-LauncherCard"
    yield "sidebar", opener(notebook, "tunebook:show-runs"), ".tb-run-item"
    for name, folder in (("run", "pirate-llama-1b"), ("failed", "qwen3-8b-full")):
        yield name, opener(notebook, "tunebook:open-run", path=f"runs/{folder}"), run
    file = opener(notebook, "docmanager:open", path="pirate.Q4_K_M.gguf")
    yield "inspection", file, ".tb-inspection h2"
    rows = opener(notebook, "tunebook:preview-data", path="pirate.jsonl")
    yield "preview", rows, ".tb-stats dd"


@contextmanager
def opened(lab: Lab, browser: Any) -> Iterator[Notebook]:
    """JupyterLab with those files."""
    write_files(lab.root)
    context = browser.new_context(viewport=SIZE)
    notebook = Notebook(context.new_page(), lab).goto("")
    notebook.page.wait_for_selector(".jp-LauncherCard", timeout=60_000)
    yield notebook
    context.close()


def picture(lab: Lab, browser: Any, out: Path, themes: dict[str, str]) -> None:
    """One picture of each view in each theme: `lab-<view>-<theme>.png`."""
    with opened(lab, browser) as notebook:
        page = notebook.page
        page.add_style_tag(content=".Toastify { display: none }")
        for look, theme in themes.items():
            page.evaluate(DONE, ["apputils:change-theme", {"theme": theme}])
            for name, show, there in views(notebook):
                show()
                page.locator(f"{there}:visible").first.wait_for(timeout=90_000)
                page.wait_for_timeout(1200)
                page.screenshot(path=out / f"lab-{name}-{look}.png")
