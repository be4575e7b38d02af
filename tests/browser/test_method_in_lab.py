"""The method and model panels in a real JupyterLab: what only a browser shows."""

from __future__ import annotations

from typing import Any

import pytest
from harness import PAINTED

pytestmark = pytest.mark.browser

SECONDS = 120  # on a busy machine


def total(page: Any) -> int:
    return int(page.locator("[data-total]").get_attribute("data-total"))


def test_the_method_panel_answers_at_once_to_keys_slider_and_presets(open_notebook: Any) -> None:
    notebook = open_notebook(
        "import tunebook\npanel = tunebook.MethodPanel(); panel",
        "r = panel.recipe; r.lora.r, r.lora.target_modules, r.training.memory_budget",
    )
    notebook.run(0)
    page, panel = notebook.page, notebook.panel("method")
    page.locator("[data-total]").wait_for(timeout=SECONDS * 1000)

    # a key in a field moves the bar: 50 ms where nothing else runs, and CI is not such a place
    times = [
        page.evaluate(PAINTED, ['[data-field="lora.r"] input', str(rank)])
        for rank in (20, 24, 28, 32, 36)
    ]
    assert sorted(times)[2] < 500

    # a module of the picture by keyboard, the focus stays on it
    module = panel.locator('[data-module="gate_proj"]')
    module.focus()
    page.keyboard.press("Space")
    panel.locator('[data-module="gate_proj"][aria-pressed="false"]').wait_for()
    assert page.evaluate("() => document.activeElement.dataset.module") == "gate_proj"
    page.keyboard.press("Enter")
    panel.locator('[data-module="gate_proj"][aria-pressed="true"]').wait_for()
    panel.locator('[data-targets="attention"]').click()
    panel.locator('[data-module="up_proj"][aria-pressed="false"]').wait_for()

    # the slider by keyboard: least memory, then automatic again
    before = total(page)
    slider = panel.locator(".tb-budget-slider")
    slider.focus()
    page.keyboard.press("Home")
    notebook.until(lambda: total(page) < before, seconds=10, what="a smaller plan")
    assert panel.locator('.tb-rung[data-taken="all"]').count() > 1
    notebook.run(1)
    assert notebook.output(1).startswith("(36, ['q_proj', 'k_proj', 'v_proj', 'o_proj'], '")
    assert "auto" not in notebook.output(1)
    panel.locator(".tb-budget .tb-button").click()
    notebook.until(lambda: total(page) == before, seconds=10, what="the automatic plan")

    # a preset: looked at, taken, taken back
    panel.locator('[data-preset="smallest"]').click()
    panel.locator('.tb-changes [data-path="lora.r"]').wait_for()
    assert total(page) == before
    panel.locator('[data-do="apply"]').click()
    notebook.until(lambda: total(page) < before, seconds=10, what="the preset")
    panel.locator('[data-do="undo"]').click()
    notebook.until(lambda: total(page) == before, seconds=10, what="the preset taken back")
    assert notebook.errors() == []


def test_the_bar_stays_in_sight_and_code_goes_into_a_cell_where_it_can(open_notebook: Any) -> None:
    notebook = open_notebook("import tunebook\ntunebook.MethodPanel()")
    notebook.run(0)
    page, panel = notebook.page, notebook.panel("method")
    page.locator("[data-total]").wait_for(timeout=SECONDS * 1000)
    page.set_viewport_size({"width": 1100, "height": 600})
    seen = """() => { const head = document.querySelector('.tb-stays').getBoundingClientRect();
        const outer = document.querySelector('.jp-WindowedPanel-outer').getBoundingClientRect();
        return Math.abs(head.top - outer.top) < 3; }"""
    panel.locator(".tb-schedule").scroll_into_view_if_needed()
    page.wait_for_function(seen)
    field = panel.locator('[data-field="lora.r"] input')
    field.scroll_into_view_if_needed()

    # nobody in this page takes code: no button; then somebody does
    page.evaluate(
        """() => { window.inserted = [];
        for (const name of ['tunebook:can-insert', 'tunebook:insert-code'])
            document.addEventListener(name, event => {
                event.stopImmediatePropagation();  // a plugin of the page does not hear it
                if (window.takes) { event.preventDefault(); inserted.push(event.detail.code); }
            }, { capture: true }); }"""
    )
    summary = panel.locator(".tb-code > summary")
    summary.click()
    panel.locator(".tb-code pre").first.wait_for()
    assert panel.locator('[data-do="insert"]').count() == 0
    notebook.run(0)  # a new panel asks anew
    page.locator("[data-total]").wait_for(timeout=SECONDS * 1000)
    page.evaluate("() => { window.takes = true; }")
    summary.click()
    panel.locator('[data-do="insert"]').click()
    panel.locator('[data-do="insert"]:has-text("Inserted")').wait_for()
    assert "tunebook." in page.evaluate("() => window.inserted.at(-1)")
    assert notebook.errors() == []


def test_models_are_searched_filtered_and_compared(open_notebook: Any) -> None:
    notebook = open_notebook(
        "import tunebook\npanel = tunebook.ModelPanel(); panel", "panel.view, panel.compared"
    )
    notebook.run(0)
    panel = notebook.panel("model")
    panel.locator(".tb-model .tb-fits").first.wait_for(timeout=SECONDS * 1000)
    every = panel.locator(".tb-model").count()
    panel.locator('[data-filter="modality"]').select_option("image")
    notebook.until(lambda: panel.locator(".tb-model").count() < every, what="fewer models")
    assert "Gemma 3" in panel.locator(".tb-model-title").first.inner_text()
    panel.locator('[data-filter="modality"]').select_option("")
    panel.locator('input[type="search"]').fill("qwen3 apache")
    panel.locator('[data-filter="sort"]').select_option("smallest")
    titles = panel.locator(".tb-model-title")
    notebook.until(lambda: titles.first.inner_text() == "Qwen3 0.6B", what="the smallest Qwen3")
    for name in ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B"):
        box = panel.locator(f'[data-model="{name}"] .tb-model-compare input')
        box.click()  # not `check`: the answer to the last click may come between, and be drawn
        notebook.until(box.is_checked, what=f"{name} among the compared")
    panel.locator(".tb-comparison thead th").nth(2).wait_for()
    assert panel.locator('[data-model="Qwen3-8B"] .tb-model-compare input').is_disabled()
    assert "apache-2.0" in panel.locator(".tb-comparison").inner_text()
    notebook.run(1)
    assert "'query': 'qwen3 apache'" in notebook.output(1)
    assert "'Qwen3-0.6B', 'Qwen3-1.7B', 'Qwen3-4B'" in notebook.output(1)
    assert notebook.errors() == []
