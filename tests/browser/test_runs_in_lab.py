"""The runs in JupyterLab, below a base URL: sidebar, document, status bar, and the news of an end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from run_files import failed, write_run

pytestmark = pytest.mark.browser

MARKUP = "<img src=x onerror=window.hacked=1>"
SECONDS = 120  # to load torch and the model on a busy machine
TRAIN = (
    "import tunebook\n"
    "recipe = tunebook.Recipe.of(max_steps=80, bits=16, save_steps=20, name='live')\n"
    "run = tunebook.train(recipe, wait=False)"
)


def item(path: str, **data: str) -> str:
    """The selector of a run in the sidebar, with what its data must say."""
    wanted = {"path": path, **data}
    return ".tb-run-item" + "".join(f"[data-{key}={json.dumps(wanted[key])}]" for key in wanted)


def test_a_live_run_is_paused_from_the_sidebar_goes_on_from_its_document_and_its_end_is_told(
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

    live.click(button="right")
    page.locator('.lm-Menu [data-command="tunebook:ask-run"]:has-text("Pause")').click()
    paused = page.locator(item("runs/live", state="paused"))
    paused.wait_for(timeout=SECONDS * 1000)
    before = step()
    assert "step" in page.locator(".tunebook-status button").inner_text()
    paused.locator("button").click()
    document = page.locator(".tb-run-document")
    notebook.until(lambda: notebook.points() >= 1, what="the curve of the document")
    document.locator('[data-do="save"]').click()
    document.get_by_text("Checkpoint written").first.wait_for()
    document.locator('[data-do="continue"]').click()
    notebook.until(lambda: step() > before, what="the next step")
    assert page.locator(item("runs/live")).locator("path").get_attribute("d")
    page.get_by_text("The run live is complete.").first.wait_for(timeout=SECONDS * 1000)
    document.locator('[data-state="completed"]').wait_for()
    notebook.until(lambda: notebook.points() == 80, what="all points of the document")
    document.locator('[data-tab="recipe"]').click()
    changed = document.locator('[data-changed]:has(th:text-is("Steps")) td')
    assert changed.inner_text().startswith("80")
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
    error = failed(4, name="DoesNotFit", what=MARKUP, why="w", do="Lower it.")
    path = f"runs/{MARKUP}\u202e"
    write_run(lab.root / path, error, steps=4, sample=MARKUP)
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
