"""The whole guided path with the keyboard alone: nothing but Tab, arrows, letters, Space and Enter."""

from __future__ import annotations

from typing import Any

import pytest
from test_panels_in_lab import SECONDS, guide_cell

pytestmark = pytest.mark.browser

MOST_TABS = 150  # between two stops of the path


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until the focus is on an element that matches."""
    for _ in range(MOST_TABS):
        if page.evaluate("s => !!document.activeElement?.matches(s)", selector):
            ring = "() => getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(ring) != "none", f"no focus to be seen on {selector}"
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} is not reached by {MOST_TABS} presses of Tab")


def test_from_the_first_panel_to_saved_files_by_keyboard(open_notebook: Any) -> None:
    notebook = open_notebook(guide_cell("keys", 8), "guide.recipe.lora.r")
    notebook.run(0)
    page = notebook.page
    page.wait_for_selector(".tb-token", timeout=SECONDS * 1000)
    page.wait_for_selector(".tb-fits", timeout=SECONDS * 1000)
    page.locator('.tunebook-panel[data-panel="guide"] button').first.focus()

    tab_to(page, '[data-panel="model"] input[type="radio"]:checked')
    tab_to(page, '[data-panel="data"] .tb-list')
    page.keyboard.press("ArrowDown")
    number = page.locator(".tb-row-number")
    notebook.until(lambda: number.input_value() == "2", what="the second row")

    tab_to(page, '[data-field="lora.r"] input')
    page.keyboard.press("Control+A")
    page.keyboard.type("8")
    tab_to(page, '[data-panel="train"] [data-do="start"]')
    page.keyboard.press("Enter")
    notebook.until(lambda: notebook.state() == "completed", seconds=SECONDS, what="the run")

    tab_to(page, ".tb-composer textarea")
    page.keyboard.type("What is the capital of France?")
    page.keyboard.press("Enter")
    page.wait_for_selector('.tb-answer-tuned[data-state="done"]', timeout=SECONDS * 1000)
    page.wait_for_selector('.tb-answer-base[data-state="done"]', timeout=SECONDS * 1000)
    tab_to(page, '[data-panel="takeaway"] [data-do="save"]')
    page.keyboard.press("Space")
    page.wait_for_selector(".tb-file", timeout=SECONDS * 1000)
    assert (notebook.lab.root / "runs/keys/export/adapter/adapter_config.json").is_file()
    notebook.run(1)
    assert notebook.output(1) == "8"
    assert notebook.errors() == []
