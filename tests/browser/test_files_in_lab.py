"""Files in JupyterLab: a dataset previewed, a model inspected, a run opened, code inserted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Lab, Notebook
from model_files import write_adapter, write_gguf, write_rows

pytestmark = pytest.mark.browser

SOURCES = "() => jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map(c => c.source)"
DONE = "([name, path]) => jupyterapp.commands.execute(name, {path}).then(() => null)"
ODD = 'it\'s "odd" é 数据.jsonl'


@pytest.fixture(scope="module")
def files(lab: Lab) -> Iterator[Path]:
    """A folder below the server's root with rows, a model, half a model and an adapter."""
    folder = lab.root / "some files"
    write_rows(folder / ODD)
    whole = write_gguf(folder / "whole.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    write_adapter(folder / "my adapter")
    (folder / "plain").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def there(lab: Lab, browser: Any, files: Path) -> Iterator[Notebook]:
    """JupyterLab with that folder in the file browser; one page for the tests that look at files."""
    lab.end_sessions()
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    notebook = Notebook(context.new_page(), lab).goto("")
    notebook.page.wait_for_selector(".jp-DirListing-item", timeout=60_000)
    notebook.page.evaluate(DONE, ["filebrowser:go-to-path", files.name])
    notebook.page.wait_for_selector('.jp-DirListing-item:has-text("whole.gguf")')
    yield notebook
    context.close()


def menu(page: Any, item: str) -> Any:
    """The context menu of an item, and in it the entry of a command."""
    page.keyboard.press("Escape")
    page.locator(".jp-DirListing-item", has_text=item).click(button="right")
    page.wait_for_selector('.lm-Menu-item[data-command="filebrowser:open"]')
    return lambda command: page.locator(f'.lm-Menu-item[data-command="{command}"]:visible')


def test_rows_are_previewed_from_the_file_browser(there: Notebook, files: Path) -> None:
    page = there.page
    assert menu(page, "whole.gguf")("tunebook:preview-data").count() == 0
    menu(page, ODD)("tunebook:preview-data").click()
    page.wait_for_selector(".tb-token", timeout=90_000)
    assert "a pirate." in page.locator(".tb-tokens").first.inner_text().replace("\n", "")
    assert (files / f"{ODD} preview.ipynb").is_file()
    (source,) = page.evaluate(SOURCES)
    assert "tunebook.DataPanel" in source
    page.evaluate(DONE, ["tunebook:preview-data", f"some files/{ODD}"])
    assert len(list(files.glob("*.ipynb"))) == 1  # the same notebook again, not another one
    assert there.errors() == []


def test_code_of_a_panel_becomes_the_next_cell(there: Notebook) -> None:
    page = there.page
    dispatch = """([type, selector, detail]) => !document.querySelector(selector).dispatchEvent(
        new CustomEvent(type, {bubbles: true, composed: true, cancelable: true, detail}))"""
    panel = '.jp-Notebook .tunebook-panel[data-panel="data"] summary'
    assert page.evaluate(dispatch, ["tunebook:can-insert", panel, None])
    assert not page.evaluate(dispatch, ["tunebook:can-insert", "body", None])
    there.command("notebook:insert-cell-below")
    code = 'print("é <b>")\n1 + 1'
    assert page.evaluate(dispatch, ["tunebook:insert-code", panel, {"code": code}])
    assert not page.evaluate(dispatch, ["tunebook:insert-code", panel, {"code": 1}])
    assert page.evaluate(SOURCES)[1:] == [code, ""]
    assert page.evaluate("() => jupyterapp.shell.currentWidget.content.activeCellIndex") == 1


def test_a_model_is_inspected_and_never_transferred(there: Notebook, files: Path) -> None:
    page = there.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator(".jp-DirListing-item", has_text="whole.gguf").dblclick()
    view = page.locator(".tb-inspection")
    view.wait_for(timeout=30_000)
    assert "<img src=x onerror=alert(1)>" in view.locator("h2").inner_text()
    assert "\u202e" not in view.inner_text()
    assert view.locator("img").count() == 0
    kinds = view.locator(".tb-figures-table tbody th").all_inner_texts()
    assert kinds == ["Q4_K", "F32"]
    assert "<b>{{ m }}</b>" in view.locator(".tb-template pre").inner_text()
    view.locator('summary:has-text("All tensors")').press("Enter")
    field = view.get_by_role("searchbox", name="Filter: All tensors")
    field.fill("ATTN_Q blk.1")
    rows = view.get_by_role("table", name="All tensors").locator("tbody tr")
    assert rows.count() == 11  # 1, and 10 to 19
    contents = [url for url in asked if "/api/contents/" in url and "whole.gguf" in url]
    assert contents
    assert all("content=0" in url or "checkpoints" in url for url in contents)
    assert there.errors() == []


def test_folders_with_an_adapter_are_inspected_and_restored(there: Notebook, files: Path) -> None:
    page = there.page
    assert menu(page, "plain")("tunebook:inspect").count() == 0
    menu(page, "my adapter")("tunebook:inspect").click()
    view = page.locator('.tb-inspection[data-kind="adapter"]')
    view.wait_for(timeout=30_000)
    assert (files / "my adapter/adapter_config.json").is_file()
    assert "LoRA" in view.locator(".tb-facts").inner_text()
    page.evaluate(DONE, ["docmanager:open", "some files/cut.gguf"])
    error = page.locator('.tb-error[data-error="FileInvalid"]')
    error.wait_for(timeout=30_000)
    assert "cut off" in error.inner_text()
    shutil.copy(files / "whole.gguf", files / "cut.gguf")
    page.click('[data-do="again"]')
    page.locator('.tb-inspection[data-kind="gguf"]:visible').wait_for(timeout=30_000)
    page.wait_for_timeout(1500)  # the layout is saved a moment later
    there.goto("", reset=False)
    page.wait_for_selector('.lm-TabBar-tab:has-text("adapter_config.json")', timeout=60_000)
    page.locator(".lm-TabBar-tab", has_text="adapter_config.json").click()
    view.wait_for(timeout=30_000)
