"""The data panel in a real JupyterLab: a million rows, one row in all stages, fixes with undo."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SECONDS = 120  # to load the tokenizer on a busy machine
MILLION = """import datasets, pyarrow as pa, tunebook
from tunebook.widgets._rows import RowReader
RowReader.check = lambda self: ({}, [])  # counting a million rows takes minutes
text = pa.array([f"Row number {i}" for i in range(1_000_000)])
panel = tunebook.preview(datasets.Dataset(pa.table({"text": text})))
panel"""
CHATS = """import tunebook
def row(*said):
    roles = ["user", "assistant"] * len(said)
    return {"messages": [{"role": r, "content": c} for r, c in zip(roles, said)]}
rows = [row(f"Question {i}?", "Answer. " * (1 + i % 3), f"And {i}?", "So.") for i in range(40)]
rows[1] = row("ما هي عاصمة فرنسا؟", "عاصمة <i>فرنسا</i> هي باريس.")
rows[5] = rows[4]
rows[6] = {"messages": []}
rows[8]["tools"] = [{"name": "look", "description": "<b>Looks</b> up.", "parameters": {"<i>": 1}}]
panel = tunebook.preview(rows)
panel.use_values(lambda number: [0.1 * at for at in range(12)])
panel"""
LINES = ".tb-line:not([aria-busy])"


def lines(page: Any) -> list[str]:
    """The numbers of the rows that are drawn in the list."""
    return list(page.locator(f"{LINES} .tb-line-number").all_inner_texts())


def chosen(page: Any) -> str:
    return str(page.locator('.tb-line[aria-selected="true"] .tb-line-number').inner_text())


def test_a_million_rows_are_scrolled_searched_and_worked_by_keyboard(open_notebook: Any) -> None:
    notebook = open_notebook(MILLION)
    notebook.run(0)
    page = notebook.page
    page.wait_for_selector(LINES, timeout=SECONDS * 1000)
    listed = page.locator(".tb-list")
    assert lines(page)[0] == "1"
    listed.evaluate("list => { list.scrollTop = list.scrollHeight / 2 }")
    notebook.until(lambda: "500,0" in " ".join(lines(page)), what="the middle of the list")
    assert page.locator(".tb-line").count() < 40
    listed.focus()
    page.keyboard.press("End")
    notebook.until(lambda: "1,000,000" in lines(page), what="the end of the list")
    number = page.locator(".tb-row-number")
    notebook.until(lambda: number.input_value() == "1000000", what="the last row")
    page.keyboard.press("ArrowUp")
    notebook.until(lambda: number.input_value() == "999999", what="the row before")
    active = listed.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-posinset") == "999999"
    page.fill('[data-do="search"]', "NUMBER 77777")
    status = page.locator(".tb-search-state [role=status]")
    notebook.until(lambda: status.inner_text() == "11 of 1,000,000 rows", what="the hits")
    notebook.until(lambda: lines(page)[:2] == ["77,778", "777,771"], what="the hits in the list")
    page.locator(".tb-line").nth(1).click()
    notebook.until(lambda: number.input_value() == "777771", what="the second hit")
    page.get_by_role("button", name="Next row").click()
    notebook.until(lambda: number.input_value() == "777772", what="the third hit")
    page.fill('[data-do="search"]', "number 1234")
    notebook.until(lambda: status.inner_text() == "111 of 1,000,000 rows", what="other hits")
    listed.focus()
    page.keyboard.press("End")
    notebook.until(lambda: number.input_value() == "123500", what="the last of them")
    notebook.save()
    page.reload()
    page.wait_for_selector(LINES, timeout=60_000)
    notebook.until(lambda: "123,500" in lines(page), what="the last hits, reloaded")
    assert page.locator('[data-do="search"]').input_value() == "number 1234"
    assert number.input_value() == "123500"
    assert chosen(page) == "123,500"
    assert notebook.errors() == []


def test_one_row_goes_through_its_stages_and_under_two_templates(open_notebook: Any) -> None:
    notebook = open_notebook(CHATS)
    notebook.run(0)
    page = notebook.page
    page.wait_for_selector(".tb-stats dd", timeout=SECONDS * 1000)
    turns = page.locator(".tb-token-turn")
    assert [turns.nth(at).get_attribute("data-role") for at in range(4)] == [
        "user",
        "assistant",
    ] * 2
    assert page.locator(".tb-tokens .tb-heat").count() == 12
    page.locator(".tb-tokens:visible").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    said = page.locator(".tb-token-said").first.inner_text()
    assert "token " in said
    assert "loss 0.1" in said
    active = page.locator(".tb-tokens").first.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-label") == said
    page.get_by_label("Show ids").check()
    first = page.locator(".tb-tokens .tb-token").first
    shown = first.evaluate("token => getComputedStyle(token, '::after').content")
    assert shown == f'"{first.get_attribute("data-id")}"'

    page.select_option('[data-do="compare"]', "chatml")
    other = page.locator('[data-side="other"]')
    other.locator(".tb-token.only").first.wait_for()
    assert "ChatML" in other.locator("h4").inner_text()
    page.select_option('[data-do="compare"]', "-")
    other.wait_for(state="hidden")

    page.locator('[data-tab="tokens"]').focus()
    page.keyboard.press("ArrowRight")
    panel = page.locator(".tb-tabpanel")
    page.wait_for_selector('[data-tab="packed"][aria-selected="true"]')
    assert "rows of a batch" in panel.inner_text()
    page.keyboard.press("Home")
    page.wait_for_selector('[data-tab="raw"][aria-selected="true"]')
    assert "messages" in panel.inner_text()
    page.keyboard.press("ArrowRight")
    page.locator(".tb-line").nth(1).click()
    message = page.locator(".tb-message-row p", has_text="<i>")
    message.wait_for()
    assert message.evaluate("element => getComputedStyle(element).direction") == "rtl"
    page.locator(".tb-line").nth(8).click()
    offered = page.locator('[data-tool="look"]')
    offered.wait_for()
    assert offered.locator("p").inner_text() == "<b>Looks</b> up."
    assert not offered.locator("pre").is_visible()
    offered.locator("summary").click()
    assert json.loads(offered.locator("pre").inner_text()) == {"<i>": 1}
    assert "does not write them" in page.locator(".tb-offered").inner_text()
    assert page.locator('[data-code="tools_unused"]').count() == 1
    page.locator(".tb-line").nth(6).click()
    page.wait_for_selector(".tb-tabpanel .tb-error")
    assert page.locator('[data-tab="tokens"]').get_attribute("class") == "tb-tab tb-wrong"
    notebook.save()
    page.reload()
    page.wait_for_selector('[data-tab="messages"][aria-selected="true"]', timeout=60_000)
    assert page.get_by_label("Show ids").is_checked()
    page.locator(".tb-line").nth(1).click()
    page.locator('[data-tab="tokens"]').click()
    page.select_option('[data-do="compare"]', "chatml")
    other.locator(".tb-token.only").first.wait_for()
    page.add_style_tag(content=".tunebook-panel { width: 320px !important }")
    wide = """panel => [...panel.querySelectorAll('*')].filter(element =>
        element.getBoundingClientRect().right > panel.getBoundingClientRect().right + 1)
        .map(element => element.className)"""
    for tab in ("raw", "messages", "text", "tokens", "packed"):
        page.locator(f'[data-tab="{tab}"]').click()
        page.wait_for_timeout(100)
        assert notebook.panel("data").evaluate(wide) == [], tab
    assert notebook.errors() == []


def test_a_fix_is_previewed_applied_undone_and_saved(open_notebook: Any) -> None:
    notebook = open_notebook(CHATS, "panel.recipe.data.source, len(panel.studio.rows or [])")
    notebook.run(0)
    page = notebook.page
    page.wait_for_selector(".tb-stats dd", timeout=SECONDS * 1000)
    duplicate = page.locator('[data-code="duplicate"]')
    duplicate.get_by_role("button", name="row 6").click()
    notebook.until(
        lambda: page.locator(".tb-row-number").input_value() == "6", what="the row of a finding"
    )
    fix = page.locator('[data-fix="drop_duplicates"]')
    fix.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".tb-preview")
    assert "Leaves out 1 of 40 rows" in page.locator(".tb-preview").inner_text()
    assert page.locator('[data-do="apply-fix"]').evaluate("b => b === document.activeElement")
    page.keyboard.press("Enter")
    page.wait_for_selector('.tb-search-state:has-text("39 rows")')
    page.wait_for_selector('[data-code="duplicate"]', state="detached")
    undo = page.locator('[data-do="undo-fix"]')
    undo.click()
    page.wait_for_selector('.tb-search-state:has-text("40 rows")')
    fix.click()
    page.click('[data-do="apply-fix"]')
    page.wait_for_selector('.tb-search-state:has-text("39 rows")')
    page.get_by_label("To a new file").fill("mended.jsonl")
    page.click('[data-do="save-fixed"]')
    page.wait_for_selector('.tb-applied:has-text("mended.jsonl")')
    written = (notebook.lab.root / "mended.jsonl").read_text().splitlines()
    assert len(written) == 39
    assert json.loads(written[0])["messages"][0]["content"] == "Question 0?"
    notebook.run(1)
    assert notebook.output(1) == "('mended.jsonl', 0)"
    assert notebook.errors() == []
