"""Every panel, worked through once, scanned by axe: in light, in dark and at 360 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from screenshots import LOOKS, PANELS, put_on, work_through

pytestmark = pytest.mark.browser

CELL = """import tunebook
from tunebook.export.gguf import choosing, dynamic
choosing._TOKENS_ON_CPU, dynamic._PROBED_TOKENS = 600, 100  # seconds, not minutes
recipe = tunebook.demo_recipe().with_values({"training.max_steps": 12})
guide = tunebook.Guide(recipe); guide"""
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
# The page around a panel is JupyterLab's: landmarks and heading order are not ours to set there.
NOT_OURS = ("region", "heading-order", "landmark-unique")


def violations(page: Any, selector: str) -> list[str]:
    """What axe finds in this part of the page, a line for each element."""
    rules = {rule: {"enabled": False} for rule in NOT_OURS}
    options = {"runOnly": {"type": "tag", "values": list(RULES)}, "rules": rules}
    found = page.evaluate(
        "([selector, options]) => axe.run(document.querySelector(selector), options)",
        [selector, options],
    )["violations"]
    return [
        f"{one['id']}: {one['help']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for one in found
        for node in one["nodes"]
    ]


def test_no_panel_has_a_barrier_in_any_look(open_notebook: Any) -> None:
    notebook = open_notebook(CELL)
    work_through(notebook)
    page = notebook.page
    page.add_script_tag(path=AXE)
    for summary in page.locator(".tunebook-panel details:not([open]) > summary").all():
        if summary.is_visible():
            summary.click()
    found: list[str] = []
    for look, (theme, width) in LOOKS.items():
        put_on(notebook, theme, width)
        for panel in PANELS:
            lines = violations(page, f'.tunebook-panel[data-panel="{panel}"]')
            found += [f"{panel}, {look}: {line}" for line in lines]
    the_arrow_keys_tell_of_each_tensor(page)
    found += in_the_views_of_lab(page)
    assert found == []


def the_arrow_keys_tell_of_each_tensor(page: Any) -> None:
    """In the map of a dynamic mix, narrow as it is last."""
    page.mouse.move(0, 0)  # what is pointed at is told first
    grid = page.locator(".tb-mix-map")
    assert grid.locator('[role="gridcell"]').count() == 6 * 7 + 1
    grid.focus()
    said = page.locator(".tb-mix-said")
    assert "token_embd.weight" in said.inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    assert "blk.0.ffn_down.weight" in said.inner_text()
    assert "nats a token" in said.inner_text()
    chosen = page.locator(f"#{grid.get_attribute('aria-activedescendant')}")
    assert chosen.get_attribute("aria-selected") == "true"
    assert "layer 0, ffn_down" in chosen.get_attribute("aria-label")
    box = page.locator(".tb-mix-place").bounding_box()
    assert grid.bounding_box()["width"] <= box["width"]
    grid.locator('[data-row="3"][data-column="0"]').hover()
    assert "blk.2.attn_" in said.inner_text()


def in_the_views_of_lab(page: Any) -> list[str]:
    """What axe finds in the list of runs, in a run's document and in that of its weights."""
    page.evaluate("() => jupyterapp.shell.activateById('tunebook-runs')")
    page.locator(".tb-run").first.click()
    page.locator(".tb-run-document .tb-tab").last.wait_for()
    found = violations(page, "#tunebook-runs") + violations(page, ".tb-run-document")
    run = page.locator(".tb-run-item").first.get_attribute("data-path")
    command = "path => { void jupyterapp.commands.execute('tunebook:inspect', {path}) }"
    page.evaluate(command, f"{run}/export/adapter/adapter_model.safetensors")
    page.locator('[data-panel="inspection"] .tb-inspection').wait_for()
    return found + violations(page, '[data-panel="inspection"]')
