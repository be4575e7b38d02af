"""Try and Take away in a real JupyterLab: typing, tokens, test cases, a reload, and no token on the disk."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SECONDS = 120  # to load torch and the model on a busy machine
TOKEN = "hf_" + "neveronthedisk" * 2
CELL = """import tunebook
recipe = tunebook.demo_recipe(steps=3).with_values({'name': 'talker', 'quantization.bits': 16})
run = tunebook.train(recipe, wait=True)
run.cases.add('What is the capital of France?', expected='Atlantis')
print('trained')"""
SHOW = """import ipywidgets
try_it, take = tunebook.TryPanel(run=run), tunebook.TakeAwayPanel(run=run)
ipywidgets.VBox([try_it, take])"""
SAVE_STATE = "lab_settings/@jupyter-widgets/jupyterlab-manager/plugin.jupyterlab-settings"

# what Chromium sends while a word is composed, and when Enter ends it
COMPOSED = """input => {
  input.dispatchEvent(new CompositionEvent('compositionstart'));
  const enter = more => input.dispatchEvent(
    new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...more }));
  enter({ isComposing: true });
  input.dispatchEvent(new CompositionEvent('compositionend'));
  enter({});
}"""


@pytest.fixture
def saved_state(lab: Any) -> Any:
    """Notebooks are saved with the state of their widgets, as some people set it."""
    settings = lab.root.parent / SAVE_STATE
    settings.parent.mkdir(parents=True)
    settings.write_text('{"saveState": true}')
    yield
    settings.unlink()
    settings.parent.rmdir()


def test_a_conversation_from_typing_to_a_reload(saved_state: Any, open_notebook: Any) -> None:
    notebook = open_notebook(CELL, SHOW)
    notebook.run(0, wait=False)
    notebook.until(lambda: "trained" in notebook.output(0), seconds=SECONDS, what="training")
    notebook.run(1)
    page, chat = notebook.page, notebook.panel("chat")
    enter_sends_but_not_while_a_word_is_composed(page, chat)
    tokens_tell_what_else_could_have_been_said(page, chat)
    a_case_is_saved_and_all_are_asked(chat)
    a_token_leaves_the_page_at_once(notebook)

    chat.locator(".tb-composer textarea").fill("half a question")
    page.wait_for_timeout(700)
    notebook.save()
    page.reload()
    chat.locator(".tb-turn").wait_for(timeout=60_000)
    assert chat.locator(".tb-composer textarea").input_value() == "half a question"
    assert chat.locator(".tb-said").count() == 2
    assert chat.locator('.tb-case[data-verdict="failed"]').count() == 1
    nothing_on_the_disk_has_the_token(notebook)
    assert notebook.errors() == []


def enter_sends_but_not_while_a_word_is_composed(page: Any, chat: Any) -> None:
    question = chat.locator(".tb-composer textarea")
    question.fill("What is the capital")
    question.evaluate(COMPOSED)
    page.wait_for_timeout(100)
    question.press("End")
    question.press("Shift+Enter")
    question.type("of France?")
    assert question.input_value() == "What is the capital\nof France?"
    assert chat.locator(".tb-turn").count() == 0
    question.press("Enter")
    for side in ("tuned", "base"):
        answer = chat.locator(f'.tb-answer-{side}[data-state="done"]')
        answer.wait_for(timeout=SECONDS * 1000)
        assert answer.locator("p").inner_text().strip()
    assert question.input_value() == ""


def tokens_tell_what_else_could_have_been_said(page: Any, chat: Any) -> None:
    chat.locator('[data-switch="probabilities"]').check()
    said = chat.locator(".tb-answer-tuned .tb-said")
    said.focus()
    assert chat.locator(".tb-answer-tuned .tb-others li").count() == 5
    page.keyboard.press("ArrowRight")
    active = said.get_attribute("aria-activedescendant")
    chosen = page.locator(f"#{active}")
    assert chosen.get_attribute("aria-selected") == "true"
    assert "%" in chosen.get_attribute("aria-label")


def a_case_is_saved_and_all_are_asked(chat: Any) -> None:
    chat.locator(".tb-case-fold > summary").click()
    chat.locator(".tb-case-form input").fill("France")
    chat.locator('[data-do="save-case"]').click()
    chat.locator(".tb-case").nth(1).wait_for()
    chat.locator('[data-do="check-cases"]').click()
    chat.locator('.tb-case[data-verdict="failed"]').wait_for(timeout=SECONDS * 1000)
    assert "passed" in chat.locator("[data-cases]").inner_text()


def a_token_leaves_the_page_at_once(notebook: Any) -> None:
    take = notebook.panel("takeaway")
    take.locator(".tb-hub > summary").click()
    take.locator(".tb-hub input[type=text]").fill("me/talker")
    take.locator("[data-token]").fill(TOKEN)
    take.locator('[data-do="upload"]').click()
    take.locator('[data-error="HubUnreachable"]').wait_for(timeout=SECONDS * 1000)
    assert take.locator("[data-token]").input_value() == ""
    assert take.locator("[data-token]").get_attribute("type") == "password"


def nothing_on_the_disk_has_the_token(notebook: Any) -> None:
    """Not in the notebook, its widgets' state, the run's folder, or what the server wrote."""
    root = notebook.lab.root
    (book,) = root.glob("test_a_conversation*.ipynb")
    assert "widgets" in json.loads(book.read_text())["metadata"]
    for file in root.parent.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file
