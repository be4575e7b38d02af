"""The JupyterLab extension: launcher card, palette, menus, and the notebook that they open."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.browser


def test_the_launcher_card_opens_the_guided_notebook(open_lab: Any) -> None:
    notebook = open_lab()
    card = notebook.page.locator('.jp-LauncherCard:has-text("Fine-tune a model")')
    card.wait_for(timeout=60_000)
    drawn = "image => image.complete && image.naturalWidth > 0"
    assert card.locator("img").evaluate(drawn)
    card.click()
    notebook.wait_kernel()
    notebook.page.wait_for_selector('.jp-MarkdownOutput h1:has-text("Fine-tune")', timeout=30_000)
    assert (notebook.lab.root / "Fine-tune a model.ipynb").is_file()
    cells = (
        "() => jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map(c => c.source)"
    )
    sources = notebook.page.evaluate(cells)
    guide = next(at for at, source in enumerate(sources) if "tunebook.Guide" in source)
    notebook.run(guide)
    notebook.page.wait_for_selector(".tb-overview", timeout=60_000)
    assert notebook.errors() == []


def test_the_command_inserts_a_guide_below_the_active_cell(open_notebook: Any) -> None:
    notebook = open_notebook("1 + 1")
    notebook.command("tunebook:insert-guide")
    cells = (
        "() => jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map(c => c.source)"
    )
    notebook.until(lambda: len(notebook.page.evaluate(cells)) == 2, seconds=10, what="a new cell")
    assert "tunebook.Guide()" in notebook.page.evaluate(cells)[1]


def test_the_commands_are_in_palette_and_menu(open_lab: Any) -> None:
    page = open_lab().page
    page.wait_for_selector(".jp-LauncherCard", timeout=60_000)
    page.keyboard.press("Control+Shift+C")
    page.fill(".lm-CommandPalette-input", "fine-tuning")
    page.wait_for_selector('.lm-CommandPalette-item:has-text("guided fine-tuning")')
    page.keyboard.press("Escape")
    page.click('.lm-MenuBar-item:has-text("File")')
    page.hover('.lm-Menu-item[data-type="submenu"]:has-text("New")')
    page.wait_for_selector('.lm-Menu-item[data-command="tunebook:open-guide"]')
