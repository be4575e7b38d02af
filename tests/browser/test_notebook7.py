"""Notebook 7 runs the same extension: its menus, its toolbar button, panels, views of files."""

from __future__ import annotations

from typing import Any

import pytest
from harness import TOKEN, running_lab
from model_files import write_adapter, write_rows

pytestmark = pytest.mark.browser


def test_files_and_runs_open_in_pages_of_their_own(browser: Any, tmp_path: Any) -> None:
    pytest.importorskip("notebook", reason="Notebook 7 is not installed")
    with running_lab(tmp_path, app="notebook") as server:
        write_rows(server.root / "my rows.jsonl")
        write_adapter(server.root / "my adapter")
        (server.root / "runs/one").mkdir(parents=True)
        context = browser.new_context(viewport={"width": 1300, "height": 1000})
        tree = context.new_page()
        tree.goto(f"{server.url}/tree?token={TOKEN}")
        tree.wait_for_selector('.lm-MenuBar-item:has-text("Fine-tune")', timeout=60_000)

        def opened(item: str, command: str) -> Any:
            tree.bring_to_front()
            tree.locator(".jp-DirListing-item", has_text=item).click(button="right")
            with context.expect_page() as tab:
                tree.click(f'.lm-Menu-item[data-command="tunebook:{command}"]')
            return tab.value

        book = opened("my rows", "preview-data")
        book.wait_for_selector(".tb-token", timeout=90_000)
        book.click('[data-jp-item-name="tunebook-guide"] .jp-ToolbarButtonComponent')
        book.wait_for_selector('.jp-Cell:has-text("tunebook.Guide()")')
        view = opened("my adapter", "inspect")
        view.wait_for_selector('.tb-inspection[data-kind="adapter"]', timeout=30_000)
        tree.bring_to_front()
        tree.click('.lm-MenuBar-item:has-text("Fine-tune")')
        tree.click('.lm-Menu-item[data-command="tunebook:choose-run"]')
        assert "runs/one" in tree.inner_text(".jp-Dialog select")
        with context.expect_page() as tab:
            tree.click(".jp-Dialog .jp-mod-accept")
        tab.value.wait_for_selector('.jp-Cell:has-text("tunebook.open_run")', timeout=30_000)
        context.close()
