"""Choosing data in a real JupyterLab: variables, uploads, drops, columns, the length line, bad text."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SECONDS = 120  # to load the tokenizer on a busy machine
BAD = "<script>window.bad = 1</script><img src=x onerror='window.bad = 1'>\x1b[31m\u202eevil\x00"
CELL = f"""import json, tunebook
bad = json.loads({json.dumps(json.dumps(BAD))})
odd = [{{"q_en": bad + str(i), "zz": "Answer. " * (1 + i)}} for i in range(30)]
odd[1]["zz"] = bad * 20_000
panel = tunebook.DataPanel()
panel"""
DROP = """([target, name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name));
  for (const type of ['dragover', 'drop'])
    document.querySelector(target).dispatchEvent(
      new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""
LAB_DROP = """([target, path]) => {
  const type = 'application/x-jupyter-icontents';
  for (const name of ['lm-dragenter', 'lm-dragover', 'lm-drop']) {
    const event = new CustomEvent(name, {bubbles: true, cancelable: true});
    event.mimeData = {hasData: is => is === type, getData: () => [path]};
    event.proposedAction = 'copy';
    document.querySelector(target).dispatchEvent(event);
  }
}"""
STEERING = r"""() => document.querySelector('.tunebook-panel').innerText
    .match(/.{0,60}[\u0000\u001b\u202e].{0,20}/g) ?? []"""


def test_data_is_chosen_mapped_dropped_and_cut_and_bad_text_stays_text(open_notebook: Any) -> None:
    notebook = open_notebook(CELL, "panel.recipe.model.max_seq_length")
    page = notebook.page
    notebook.run(0)
    rows = page.locator(".tb-stats dd").first
    notebook.until(lambda: rows.is_visible(), seconds=SECONDS, what="the demo")

    page.get_by_role("combobox", name="A file, a variable").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_role("option", name="odd").wait_for()
    active = page.locator('.tb-option[aria-selected="true"]')
    while "odd" not in (active.inner_text() if active.count() else ""):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")

    unsure = page.locator(".tb-mapping.tb-unsure")
    unsure.wait_for()
    assert "Answer." in unsure.locator(".tb-role-assistant").inner_text()
    assert not page.evaluate(STEERING)
    page.locator('[data-do="use-columns"]').click()
    notebook.until(lambda: rows.inner_text() == "30", what="the rows of the variable")
    for tab in ("raw", "messages", "text", "tokens"):
        page.locator(f'[data-tab="{tab}"]').click()
        page.locator(".tb-tabpanel .tb-escape:visible").first.wait_for()
        assert not page.evaluate(STEERING), tab
    page.locator(".tb-line").nth(1).click()
    notebook.until(
        lambda: page.locator(".tb-row-number").input_value() == "2", what="the row of a megabyte"
    )
    assert not page.evaluate(STEERING)
    assert not page.evaluate("() => 'bad' in window")

    line = page.get_by_role("slider", name="Maximum length")
    line.scroll_into_view_if_needed()
    box = page.locator(".tb-length-plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"], box["y"] + 40, steps=4)
    page.locator('.tb-length-cost:has-text("nothing to learn")').wait_for()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40, steps=4)
    page.locator('.tb-length-cost:has-text("instead of")').wait_for()
    assert "are cut" in str(line.get_attribute("aria-valuetext"))
    page.mouse.up()
    limit = int(str(line.get_attribute("aria-valuenow")))
    notebook.run(1)
    assert notebook.output(1) == str(limit)
    line.focus()
    page.keyboard.press("ArrowLeft")
    shorter = int(str(line.get_attribute("aria-valuenow")))
    assert shorter < limit
    longest = page.locator(".tb-stats dd").nth(4)
    notebook.until(lambda: longest.inner_text() == f"{shorter:,}", what="the rows cut by the key")

    (notebook.lab.root / "own.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 7)
    text = '{"prompt": "a", "completion": "b"}\n' * 60_000
    page.evaluate(DROP, [".tb-drop", "many.jsonl", text])
    page.locator('.tb-upload:has-text("Uploaded")').wait_for(timeout=30_000)
    uploaded = notebook.lab.root / "runs" / "uploads" / "many.jsonl"
    assert uploaded.read_text() == text
    page.evaluate(LAB_DROP, [".tb-drop", "own.jsonl"])
    notebook.until(lambda: rows.inner_text() == "7", what="the rows of the dragged file")
    assert notebook.errors() == []
