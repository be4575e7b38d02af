"""What every panel shares: values, refusals, errors, code, the text for places without widgets."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tunebook.errors import FrontEndMissing, RecipeInvalid
from tunebook.recipe import Recipe
from tunebook.widgets import (
    DataPanel,
    Guide,
    MethodPanel,
    ModelPanel,
    TakeAwayPanel,
    TryPanel,
    _assets,
)


def test_importing_the_panels_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, tunebook.widgets; "
        "print([m for m in ('torch', 'transformers', 'datasets', 'trl') if m in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    assert said.stdout.strip() == "[]"


def test_a_typed_value_makes_a_new_recipe_and_tells_observers() -> None:
    panel = MethodPanel()
    before, seen = panel.recipe, []
    panel.observe(lambda change: seen.append(change["new"]["lora.r"]), "values")
    panel.handle({"type": "set", "path": "lora.r", "value": "32"})
    assert panel.recipe.lora.r == 32
    assert before.lora.r == 16
    assert seen == [32]


@pytest.mark.parametrize(
    ("path", "typed", "said"),
    [
        ("lora.r", "0", "at least 1"),
        ("lora.r", "many", "whole number"),
        ("lora.r", "1.5", "whole number"),
        ("training.learning_rate", "2", "at most 1"),
        ("training.learning_rate", "nan", "Must be"),
        ("training.memory_budget", "a lot", "pattern"),
        ("lora.target_modules", [], "at least one"),
    ],
)
def test_a_refused_value_stays_as_typed_beside_its_field(path: str, typed: Any, said: str) -> None:
    panel = MethodPanel()
    before = panel.recipe
    panel.handle({"type": "set", "path": path, "value": typed})
    assert panel.recipe == before
    assert panel.invalid[path]["typed"] == typed
    assert said in panel.invalid[path]["message"]
    assert panel.error == {}


def test_a_good_value_takes_the_refusal_away() -> None:
    panel = MethodPanel()
    panel.handle({"type": "set", "path": "lora.r", "value": "0"})
    panel.handle({"type": "set", "path": "lora.r", "value": "8"})
    assert panel.invalid == {}


def test_an_empty_optional_field_is_none() -> None:
    panel = MethodPanel(Recipe.of(max_steps=5))
    panel.handle({"type": "set", "path": "training.max_steps", "value": " "})
    assert panel.recipe.training.max_steps is None


def test_a_handler_that_fails_shows_three_parts_and_never_raises(monkeypatch: Any) -> None:
    panel = MethodPanel()

    def broken(_panel: Any, **_: Any) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(MethodPanel, "do_dismiss", broken)
    panel.handle({"type": "dismiss"})
    assert "by accident" in panel.error["why"]
    assert {"name", "what", "why", "do", "traceback"} <= set(panel.error)


@pytest.mark.parametrize("message", [{"type": "nothing"}, {}, {"type": None}, {"type": "set"}])
def test_a_message_that_makes_no_sense_raises_nothing(message: dict[str, Any]) -> None:
    MethodPanel().handle(message)


def test_an_unbuilt_front_end_is_named_with_what_to_do(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(_assets, "STATIC", tmp_path)
    with pytest.raises(FrontEndMissing, match="npm run build:widgets"):
        _assets.asset("never-built.js")


def test_the_code_makes_the_same_recipe_again() -> None:
    changed = Recipe.of(
        model="folder with 'quotes'",
        r=8,
        target_modules=["q_proj"],
        eval_fraction=0.1,
        packing=True,
        max_steps=7,
        name="mine",
    )
    panel = MethodPanel(changed)
    scope: dict[str, Any] = {}
    lines = panel.code_now()["python"].split("print(")[0]
    exec(lines, scope)
    assert scope["recipe"] == changed


def test_the_shell_line_makes_the_same_recipe_again() -> None:
    import argparse
    import shlex

    from tunebook.cli.options import add_recipe_options, recipe_from

    changed = Recipe.of(model="a b", r=8, target_modules=["q_proj", "v_proj"], packing=True)
    words = shlex.split(MethodPanel(changed).code_now()["shell"].replace("\\\n", " "))
    parser = argparse.ArgumentParser()
    add_recipe_options(parser)
    assert words[:2] == ["tunebook", "plan"]
    assert recipe_from(parser.parse_args(words[2:])) == changed


@pytest.mark.parametrize("kind", [ModelPanel, DataPanel, MethodPanel, TryPanel, TakeAwayPanel])
def test_the_fallback_is_plain_text_and_escaped(kind: Any) -> None:
    panel = kind(Recipe.of(model="<b>bold</b>"))
    panel.show_error(RecipeInvalid("<i>what</i>", "why", "do"), during="test")
    data, _ = panel._repr_mimebundle_()
    assert panel.heading in data["text/plain"]
    assert "<i>what</i>" in data["text/plain"]
    assert "<i>" not in data["text/html"]
    assert "<b>" not in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_in_colab_work_is_done_before_the_handler_returns(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    panel = MethodPanel()
    assert panel.forecast["total"] > 0
    panel.work(lambda: panel.show(summary="done"), during="test", busy="working")
    assert (panel.summary, panel.busy) == ("done", "")


def test_an_older_task_says_nothing_over_a_newer_one(eventually: Any) -> None:
    import threading

    panel, old, new = MethodPanel(), threading.Event(), threading.Event()

    def fail() -> None:
        old.wait(5)
        raise ValueError("too late")

    panel.work(fail, during="read", busy="old")
    panel.work(lambda: new.wait(5), during="read", busy="new")
    old.set()
    eventually(lambda: sum(t.name == "tunebook-method" for t in threading.enumerate()) == 1)
    assert (panel.busy, panel.error) == ("new", {})
    new.set()
    eventually(lambda: panel.busy == "")


def test_the_guide_shares_one_recipe_between_its_panels() -> None:
    guide = Guide()
    guide.panels["model"].handle({"type": "choose", "name": "Llama-3.2-1B-Instruct"})
    assert guide.recipe.model.name == "Llama-3.2-1B-Instruct"
    assert guide.panels["method"].recipe.model.name == "Llama-3.2-1B-Instruct"
    assert guide.panels["model"].values["model.name"] == "Llama-3.2-1B-Instruct"
    guide.recipe = Recipe.of(r=4)
    assert guide.panels["takeaway"].recipe.lora.r == 4
    assert "1. Model" in guide.as_text()


def test_the_guide_overview_repeats_the_panels_own_lines() -> None:
    guide = Guide()
    guide.panels["train"].summary = "Half way"
    overview = guide.children[0]
    assert [step["heading"] for step in overview.steps][:2] == ["Model", "Data"]
    assert overview.steps[3]["summary"] == "Half way"
