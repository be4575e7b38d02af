"""The JupyterLab extension: launcher card, palette, menus, and the notebook that they open."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.browser


def test_the_launcher_card_opens_the_guided_notebook(open_lab: Any) -> None:
    notebook = open_lab()
    card = notebook.page.locator('.jp-LauncherCard:has-text("Fine-tune a model")')
    card.wait_for(timeout=60_000)
    assert card.locator("svg").is_visible()
    card.click()
    notebook.wait_kernel()
    notebook.page.wait_for_selector('.jp-MarkdownOutput h1:has-text("Fine-tune")', timeout=30_000)
    assert (notebook.lab.root / "Fine-tune a model.ipynb").is_file()
    cells = (
        "() => jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map(c => c.source)"
    )
    sources = notebook.page.evaluate(cells)
    assert any("tunebook.Guide()" in source for source in sources)
    notebook.page.wait_for_selector(".tb-overview", timeout=90_000)  # its cell was run at once
    assert notebook.errors() == []


def test_the_toolbar_inserts_a_guide_with_the_users_defaults(open_notebook: Any, lab: Any) -> None:
    settings = lab.root.parent / "lab_settings/tunebook/plugin.jupyterlab-settings"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(json.dumps({"defaultModel": 'my "model"', "runsFolder": "my runs"}))
    notebook = open_notebook("1 + 1")
    notebook.page.click('[data-jp-item-name="tunebook-guide"] .jp-ToolbarButtonComponent')
    cells = (
        "() => jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map(c => c.source)"
    )
    notebook.until(lambda: len(notebook.page.evaluate(cells)) == 2, seconds=10, what="a new cell")
    settings.unlink()
    inserted = notebook.page.evaluate(cells)[1]
    assert 'tunebook.Guide(tunebook.Recipe.of("my \\"model\\""), root="my runs")' in inserted


def test_the_commands_are_in_palette_and_menu(open_lab: Any) -> None:
    page = open_lab().page
    page.wait_for_selector(".jp-LauncherCard", timeout=60_000)
    page.keyboard.press("Control+Shift+C")
    page.fill(".lm-CommandPalette-input", "fine-tuning")
    page.wait_for_selector('.lm-CommandPalette-item:has-text("guided fine-tuning")')
    page.keyboard.press("Escape")
    for menu, command in (("Fine-tune", "preview-data"), ("Fine-tune", "open-guide")):
        page.click(f'.lm-MenuBar-item:has-text("{menu}")')
        page.wait_for_selector(f'.lm-Menu-item[data-command="tunebook:{command}"]')
        page.keyboard.press("Escape")
    page.click('.lm-MenuBar-item:has-text("File")')
    page.hover('.lm-Menu-item[data-type="submenu"]:has-text("New")')
    page.wait_for_selector('.lm-Menu-item[data-command="tunebook:open-guide"]')
