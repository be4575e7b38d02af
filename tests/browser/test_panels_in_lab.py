"""The panels in a real JupyterLab: they render, they train, they survive a reload and a restart."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Notebook

pytestmark = pytest.mark.browser

RECIPE = "recipe = tunebook.Recipe.of(max_steps={steps}, bits=16, save_steps=1000, name='{name}')"
GUIDE = "import tunebook\n{recipe}\nguide = tunebook.Guide(recipe); guide"
SECONDS = 120  # to load torch and the model on a busy machine


def guide_cell(name: str, steps: int) -> str:
    return GUIDE.format(recipe=RECIPE.format(steps=steps, name=name))


def too_wide(page: Any, width: int) -> list[str]:
    """The panels whose content does not fit into a guide of this width, in pixels."""
    page.add_style_tag(content=f".tunebook-guide {{ width: {width}px !important }}")
    page.wait_for_timeout(300)
    script = """panels => panels.filter(p => p.scrollWidth > p.clientWidth + 1)
        .map(p => p.dataset.panel)"""
    return list(page.locator(".tunebook-panel").evaluate_all(script))


def begin_training(notebook: Any, points: int = 3) -> None:
    notebook.page.wait_for_selector('[data-do="start"]')
    notebook.page.click('[data-do="start"]')
    notebook.until(lambda: notebook.points() >= points, seconds=SECONDS, what="live points")


@pytest.mark.parametrize(
    ("call", "panel", "shows"),
    [
        ("tunebook.ModelPanel()", "model", ".tb-model .tb-fits"),
        ("tunebook.DataPanel()", "data", ".tb-token.trained"),
        ("tunebook.MethodPanel()", "method", '[data-field="lora.r"] input'),
        ("tunebook.TrainPanel()", "train", '[data-do="start"]'),
        ("tunebook.TryPanel()", "chat", '[data-do="send"]'),
        ("tunebook.TakeAwayPanel()", "takeaway", '[data-do="save"]'),
        ("tunebook.forecast()", "forecast", ".tb-legend li"),
        ("tunebook.preview('tunebook-demo')", "data", ".tb-token.trained"),
    ],
)
def test_each_panel_renders_alone(open_notebook: Any, call: str, panel: str, shows: str) -> None:
    notebook = open_notebook(f"import tunebook\n{call}")
    notebook.run(0)
    notebook.panel(panel).locator(shows).first.wait_for(timeout=SECONDS * 1000)
    assert notebook.page.locator(".tb-error").count() == 0
    assert notebook.errors() == []


def test_a_changed_field_moves_the_forecast_and_a_bad_one_is_refused(open_notebook: Any) -> None:
    notebook = open_notebook(
        "import tunebook\npanel = tunebook.MethodPanel(); panel", "panel.recipe.lora.r"
    )
    notebook.run(0)
    page = notebook.page
    field = page.locator('[data-field="lora.r"] input')
    total = page.locator("[data-total]")
    total.wait_for(timeout=SECONDS * 1000)
    before = int(total.get_attribute("data-total"))
    field.fill("128")
    notebook.until(lambda: int(total.get_attribute("data-total")) > before, what="a new forecast")
    field.fill("none at all")
    page.wait_for_selector('[data-field="lora.r"].tb-refused .tb-message:has-text("whole number")')
    assert field.input_value() == "none at all"
    notebook.run(1)
    assert notebook.output(1) == "128"
    assert notebook.errors() == []


def test_train_watch_stop_try_and_take_away(open_notebook: Any) -> None:
    notebook = open_notebook(guide_cell("full", 400), "import time\ntime.sleep(6)")
    notebook.run(0)
    page = notebook.page
    begin_training(notebook)
    notebook.run(1, wait=False)
    page.wait_for_timeout(500)
    before = notebook.points()
    notebook.until(lambda: notebook.points() > before, seconds=5, what="points in a blocked cell")
    page.click('.tunebook-panel[data-panel="train"] [data-do="stop"]')
    took = notebook.until(lambda: notebook.state() == "stopped", seconds=30, what="the stop")
    assert took < 15
    assert notebook.points("memory") > 0
    page.fill(".tb-composer textarea", "What is the capital of France?")
    page.click('.tunebook-panel[data-panel="chat"] [data-do="send"]')
    for side in ("tuned", "base"):
        answer = page.locator(f'.tb-answer-{side}[data-state="done"]')
        answer.wait_for(timeout=SECONDS * 1000)
        assert answer.locator("p").inner_text().strip()
    page.check('[data-format="gguf"]')
    page.check('[data-type="q8_0"]')
    page.click('[data-do="save"]')
    saved = page.locator('.tb-file[data-form="gguf"]')
    saved.locator(".tb-verified.tb-is-good").wait_for(timeout=SECONDS * 1000)
    exported = notebook.lab.root / "runs/full/export"
    assert (exported / "adapter/adapter_config.json").is_file()
    assert len(list((exported / "gguf").glob("*-Q4_K_M.gguf"))) == 1
    saved.get_by_role("radio", name="Q8_0").check()
    saved.get_by_role("radio", name="in the terminal").check()
    lines = saved.locator("pre").inner_text()
    assert lines.startswith("llama-cli -m")
    assert "-Q8_0.gguf" in lines
    assert too_wide(page, 320) == []
    assert notebook.errors() == []


def test_a_reload_in_mid_run_brings_the_plot_back_and_stop_works(open_notebook: Any) -> None:
    notebook = open_notebook(guide_cell("reloaded", 2000))
    notebook.run(0)
    begin_training(notebook, points=5)
    notebook.save()
    before = notebook.points()
    notebook.page.reload()
    notebook.page.wait_for_selector('[data-plot="loss"]', timeout=60_000)
    notebook.until(lambda: notebook.points() >= before, seconds=10, what="the plot after a reload")
    here = notebook.points()
    notebook.until(lambda: notebook.points() > here, seconds=20, what="new points after a reload")
    notebook.page.click('.tunebook-panel[data-panel="train"] [data-do="stop"]')
    notebook.until(lambda: notebook.state() == "stopped", seconds=30, what="the stop")


def test_a_stopped_run_is_resumed_to_its_end_and_seen_without_its_kernel(
    open_notebook: Any,
) -> None:
    notebook = open_notebook(guide_cell("resumed", 30))
    notebook.run(0)
    begin_training(notebook)
    notebook.page.click('.tunebook-panel[data-panel="train"] [data-do="stop"]')
    notebook.until(lambda: notebook.state() == "stopped", seconds=30, what="the stop")
    assert notebook.points() < 30
    notebook.page.click('[data-do="resume"]')
    notebook.until(lambda: notebook.state() == "completed", seconds=SECONDS, what="the rest")
    notebook.until(lambda: notebook.points() == 30, seconds=5, what="all points")
    kept = notebook.page.locator(".tunebook-kept")
    kept.locator("polyline").first.wait_for(state="attached")
    assert kept.is_hidden()  # as long as the live view is there
    assert notebook.errors() == []
    notebook.save()
    notebook.lab.end_sessions()
    notebook.page.reload()
    kept.locator("polyline").first.wait_for(timeout=60_000)
    assert "Completed · step 30 of 30" in kept.inner_text()
    assert notebook.page.locator(".jp-Notebook .tunebook-panel").count() == 0


def test_panels_are_worked_by_keyboard(open_notebook: Any) -> None:
    notebook = open_notebook("import tunebook\nguide = tunebook.Guide(); guide")
    notebook.run(0)
    page = notebook.page
    fold = page.locator('.tunebook-panel[data-panel="model"] .tb-fold')
    fold.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector('.tunebook-panel[data-panel="model"] .tb-fold[aria-expanded="false"]')
    page.keyboard.press("Space")
    page.wait_for_selector('.tunebook-panel[data-panel="model"] .tb-fold[aria-expanded="true"]')
    page.locator('.tunebook-panel[data-panel="model"] summary').last.focus()
    page.keyboard.press("Enter")
    code = notebook.panel("model").locator(".tb-code pre").first
    code.filter(has_text="tunebook.demo_recipe()").wait_for()
    assert page.evaluate("() => jupyterapp.shell.currentWidget.content.mode") == "command"


def test_a_second_tab_shows_the_run_and_a_lost_connection_comes_back(open_notebook: Any) -> None:
    notebook = open_notebook(guide_cell("tabs", 2000))
    notebook.run(0)
    begin_training(notebook)
    notebook.save()
    path = notebook.page.evaluate("() => jupyterapp.shell.currentWidget.context.path")
    second = Notebook(notebook.page.context.new_page(), notebook.lab).goto(f"/tree/{path}")
    second.page.wait_for_selector('[data-plot="loss"]', timeout=60_000)
    here = second.points()
    second.until(lambda: second.points() > here, seconds=20, what="new points in the second tab")
    # as after a laptop slept: the socket is gone and comes back
    kernel = "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
    notebook.page.evaluate(f"() => {kernel}.reconnect()")
    notebook.wait_kernel()
    there = notebook.points()
    notebook.until(lambda: notebook.points() > there, seconds=20, what="points after a reconnect")
    second.page.click('.tunebook-panel[data-panel="train"] [data-do="stop"]')
    for tab in (notebook, second):
        tab.until(lambda tab=tab: tab.state() == "stopped", seconds=30, what="the stop")
    assert notebook.errors() == second.errors() == []


def test_stop_after_start_from_the_panel_following_a_reload(open_notebook: Any) -> None:
    """A run begun by a button, after the shell of the first page is gone, still hears Stop."""
    notebook = open_notebook(guide_cell("again", 2000))
    notebook.run(0)
    notebook.page.wait_for_selector('[data-do="start"]')
    notebook.save()
    notebook.page.reload()
    notebook.page.wait_for_selector('[data-do="start"]', timeout=60_000)
    begin_training(notebook)
    notebook.save()
    notebook.page.reload()
    notebook.page.wait_for_selector('[data-plot="loss"]', timeout=60_000)
    notebook.page.click('.tunebook-panel[data-panel="train"] [data-do="stop"]')
    notebook.until(lambda: notebook.state() == "stopped", seconds=30, what="the stop")


def test_after_a_kernel_restart_watch_shows_the_finished_run(open_notebook: Any) -> None:
    recipe = RECIPE.format(steps=4, name="finished")
    notebook = open_notebook(
        f"import tunebook\n{recipe}\ntunebook.train(recipe, wait=True).state",
        "import tunebook\ntunebook.watch('runs/finished')",
    )
    notebook.run(0, wait=False)
    notebook.until(lambda: "completed" in notebook.output(0), seconds=SECONDS, what="training")
    notebook.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    notebook.wait_kernel()
    notebook.run(1)
    notebook.page.wait_for_selector('.tb-progress-place[data-state="completed"]', timeout=30_000)
    notebook.until(lambda: notebook.points() == 4, seconds=10, what="the points")
    assert notebook.errors() == []


def test_markup_in_a_dataset_is_shown_as_text(open_notebook: Any) -> None:
    markup = '<img src=x onerror=\\"window.hacked=1\\"><script>window.hacked=1</script>'
    rows = f"[{{'prompt': '<b>bold</b>', 'completion': '{markup}'}}] * 3"
    notebook = open_notebook(f"import tunebook\ntunebook.preview({rows})")
    notebook.run(0)
    notebook.page.wait_for_selector(".tb-token.trained", timeout=SECONDS * 1000)
    panel = notebook.panel("data")
    assert "<b>bold</b>" in panel.locator(".tb-list").inner_text()
    assert "onerror" in panel.locator(".tb-tokens").first.inner_text()
    for tab, place in {
        "messages": ".tb-conversation",
        "raw": ".tb-raw",
        "text": ".tb-text",
    }.items():
        panel.locator(f'[data-tab="{tab}"]').click()
        assert "<b>bold</b>" in panel.locator(place).inner_text()
        assert "onerror" in panel.locator(place).inner_text()
    assert panel.locator("img, script, b").count() == 0
    assert notebook.page.evaluate("() => window.hacked") is None
