"""The commands, as typed: what they print, write and return."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunebook.cli import main
from tunebook.fields import recipe_fields
from tunebook.training import list_runs

Printed = pytest.CaptureFixture[str]
QUICK = [
    "--max-seq-length", "64", "--max-rows", "16", "--max-steps", "3", "--batch-size", "2",
    "--gradient-accumulation-steps", "1", "--r", "4",
]  # fmt: skip


def test_training_chatting_and_exporting_from_a_shell(tmp_path: Path, capsys: Printed) -> None:
    assert main(["train", *QUICK, "--root", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    (run,) = list_runs(tmp_path)
    assert "step 3/3" in printed
    assert "completed" in printed
    assert run.recipe.lora.r == 4

    assert main(["chat", str(run.path), "--base", "--ask", "What is the capital of France?"]) == 0
    assert capsys.readouterr().out.strip() == "The capital of France is Paris."

    assert (
        main(["export", str(run.path), "--formats", "adapter", "--folder", str(tmp_path / "out")])
        == 0
    )
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    assert main(["export", str(run.path), "--formats", "gold"]) == 2
    assert "merged_16bit" in capsys.readouterr().err


def test_a_plan_as_text_and_as_json(capsys: Printed) -> None:
    assert main(["plan", "--model", "Llama-3.1-8B-Instruct", "--on", "T4"]) == 0
    assert "memory" in capsys.readouterr().out
    assert main(["plan", "--model", "Llama-3.1-8B-Instruct", "--on", "T4", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["forecast"]["total"] == sum(plan["forecast"]["parts"].values())


def test_options_change_the_recipe_file(tmp_path: Path, capsys: Printed) -> None:
    from tunebook.recipe import Recipe

    path = Recipe.of(r=8, max_steps=7).save(tmp_path / "recipe.yaml")
    assert main(["plan", str(path), "--alpha", "32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forecast"]["steps"] == 7


def test_every_field_is_an_option(capsys: Printed) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for field in recipe_fields():
        assert f"--{field.path}" in text
    assert "--optimizer NAME" in text
    assert all(name in text for name in ("{auto,on,off}", "paged_lion_8bit", "stable_adamw"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--r", "none"], "lora.r"),
        (["train", "--packing", "perhaps"], "true or false"),
        (["train", "nothing.yaml"], "nothing.yaml"),
        (["chat", "nothing"], "not a run"),
        (["plan", "--on", "Abacus 3000"], "Abacus"),
        (["check", "nothing.jsonl"], "nothing.jsonl"),
    ],
)
def test_mistakes_are_named_in_three_parts(
    arguments: list[str],
    named: str,
    capsys: Printed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert named in printed
    assert "Why:" in printed
    assert "Do:" in printed
    assert list(tmp_path.iterdir()) == []


def test_checking_returns_one_when_something_is_wrong(tmp_path: Path, capsys: Printed) -> None:
    good = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    silent = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(good) + "\n")
    assert main(["check", str(path), "--model", "tunebook-tiny"]) == 0
    path.write_text("\n".join([json.dumps(good), *[json.dumps(silent)] * 5]))
    code = main(["check", str(path), "--model", "tunebook-tiny", "--json"])
    printed = capsys.readouterr().out
    report = json.loads(printed[printed.index("{") :])
    assert code == (1 if any(f["severity"] == "error" for f in report["findings"]) else 0)
    assert report["findings"]


def test_the_doctor_says_what_will_be_used(capsys: Printed) -> None:
    assert main(["doctor", "--json"]) == 0
    diagnosis = json.loads(capsys.readouterr().out)
    assert diagnosis["versions"]["torch"] != "not installed"
    assert diagnosis["used"]["compute dtype"] in ("float32", "bfloat16", "float16")
    assert main(["doctor"]) == 0
    assert "This machine" in capsys.readouterr().out


def test_help_is_quick_to_import() -> None:
    code = (
        "import sys; from tunebook.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
