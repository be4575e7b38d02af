"""The runs in JupyterLab, below a base URL: sidebar, document, status bar, and the news of an end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

MARKUP = "<img src=x onerror=window.hacked=1>"
SECONDS = 120  # to load torch and the model on a busy machine
TRAIN = (
    "import tunebook\n"
    "recipe = tunebook.Recipe.of(max_steps=120, bits=16, save_steps=20, name='live')\n"
    "run = tunebook.train(recipe, wait=False)"
)


def item(path: str, **data: str) -> str:
    """The selector of a run in the sidebar, with what its data must say."""
    wanted = {"path": path, **data}
    return ".tb-run-item" + "".join(f"[data-{key}={json.dumps(wanted[key])}]" for key in wanted)


def write_run(folder: Path, *ending: dict[str, Any], sample: str = "") -> None:
    """A run whose process is gone, as files."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    started = {
        "kind": "started", "pid": gone.pid, "process_started": 1.0, "host": _host(),
        "device": "cpu", "total_steps": 9, "trainable_parameters": 1, "total_parameters": 2,
    }  # fmt: skip
    step = {
        "kind": "step", "step": 4, "epoch": 0.1, "loss": 2.5, "learning_rate": 1e-3, "tokens": 64,
        "seconds": 0.5,
    }  # fmt: skip
    said = {"kind": "sample", "step": 4, "prompt": sample, "answer": sample}
    events = [started, step, *([said] if sample else []), *ending]
    folder.mkdir(parents=True)
    folder.joinpath("recipe.yaml").write_text("training: {max_steps: 9}\n")
    lines = [json.dumps({"time": time.time(), **event}) for event in events]
    folder.joinpath("events.jsonl").write_text("\n".join(lines) + "\n")


def _host() -> str:
    import socket

    return socket.gethostname()


def test_a_run_is_live_in_the_sidebar_is_paused_from_its_document_and_its_end_is_told(
    open_notebook: Any,
) -> None:
    notebook = open_notebook(TRAIN)
    page = notebook.page
    write_run(notebook.lab.root / "elsewhere/cut-off")
    notebook.command("tunebook:show-runs")
    page.wait_for_selector(item("elsewhere/cut-off", state="interrupted"), timeout=30_000)
    notebook.run(0, wait=False)
    live = page.locator(item("runs/live", state="running"))
    live.wait_for(timeout=SECONDS * 1000)

    def step() -> int:
        return int(page.locator(item("runs/live")).get_attribute("data-step"))

    before = step()
    notebook.until(lambda: step() > before, what="the next step")
    assert "step" in page.locator(".tunebook-status button").inner_text()
    live.locator("button").click()
    document = page.locator(".tb-run-document")
    notebook.until(lambda: notebook.points() >= 2, what="the curve of the document")
    document.locator('[data-do="pause"]').click()
    page.wait_for_selector(item("runs/live", state="paused"), timeout=30_000)
    document.locator('[data-state="paused"]').wait_for()
    document.locator('[data-do="save"]').click()
    document.get_by_text("Checkpoint").first.wait_for()
    page.locator(item("runs/live")).click(button="right")
    page.locator('.lm-Menu [data-command="tunebook:ask-run"]:has-text("Continue")').click()
    page.wait_for_selector(item("runs/live", state="running"), timeout=30_000)
    assert page.locator(item("runs/live")).locator("path").get_attribute("d")
    page.get_by_text("The run live is complete.").first.wait_for(timeout=SECONDS * 1000)
    document.locator('[data-state="completed"]').wait_for()
    notebook.until(lambda: notebook.points() == 120, what="all points of the document")
    document.locator('[data-tab="recipe"]').click()
    changed = document.locator('[data-changed]:has(th:text-is("Steps")) td')
    assert changed.inner_text().startswith("120")
    assert page.locator(".tunebook-status").is_hidden()
    page.wait_for_timeout(1500)  # the workspace is saved a little later
    page.goto(page.url.split("?")[0])
    page.wait_for_selector(
        '.tb-run-document .tb-run-head[data-state="completed"]', timeout=60_000, state="attached"
    )
    page.wait_for_selector(item("runs/live", state="completed"), timeout=30_000, state="attached")
    page.wait_for_timeout(1000)
    assert page.get_by_text("live is complete").count() == 0
    assert notebook.errors() == []


def test_names_and_answers_are_text_and_a_failure_says_what_to_do(open_lab: Any, lab: Any) -> None:
    error = {"name": "DoesNotFit", "what": MARKUP, "why": "w", "do": "Lower it."}
    path = f"runs/{MARKUP}\u202e"
    write_run(lab.root / path, {"kind": "failed", "step": 4, "error": error}, sample=MARKUP)
    notebook = open_lab()
    page = notebook.page
    page.wait_for_selector(".jp-LauncherCard", timeout=60_000)
    notebook.command("tunebook:show-runs")
    row = page.locator('.tb-run-item[data-state="failed"]')
    row.locator("button").focus()
    page.keyboard.press("Enter")
    document = page.locator(".tb-run-document")
    document.locator(".tb-error").wait_for()
    assert MARKUP in document.locator("h2").inner_text()
    assert "Lower it." in document.locator(".tb-error").inner_text()
    document.locator('[data-tab="samples"]').click()
    assert MARKUP in document.locator(".tb-run-sample").inner_text()
    document.locator('[data-tab="files"]').click()
    document.locator('.tb-link:has-text("recipe.yaml")').click()
    page.wait_for_selector(".jp-FileEditor")
    assert page.locator(".tb-sidebar img, .tb-run-document img").count() == 0
    assert page.evaluate("() => window.hacked") is None
    assert notebook.errors() == []


def test_without_the_server_extension_the_sidebar_says_what_to_do(open_lab: Any) -> None:
    notebook = open_lab()
    page = notebook.page
    page.route("**/user/x/tunebook/**", lambda route: route.fulfill(status=404, body="no"))
    page.wait_for_selector(".jp-LauncherCard", timeout=60_000)
    notebook.command("tunebook:show-runs")
    page.click('.tb-sidebar [aria-label="Look again"]')
    told = page.locator(".tb-sidebar .tb-error")
    told.wait_for()
    assert "jupyter server extension enable tunebook.server" in told.inner_text()
    page.unroute("**/user/x/tunebook/**")
    page.click('.tb-sidebar [aria-label="Look again"]')
    told.wait_for(state="detached")
    assert not [line for line in notebook.console if line.startswith("pageerror")]
