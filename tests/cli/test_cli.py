"""The commands, as typed: what they print, write and return."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tunebook.cli import main
from tunebook.data.tokenizers import tokenizer_for
from tunebook.fields import recipe_fields
from tunebook.recipe import Recipe
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

    run.cases.add("What is the capital of France?", expected="Paris")
    run.cases.add("What is the capital of France?", expected="Atlantis")
    assert main(["chat", str(run.path), "--cases"]) == 1
    printed = capsys.readouterr().out
    assert "1 of 2 passed" in printed
    assert "FAILED" in printed
    assert main(["chat", str(run.path), "--ask", "Hi", "--temperature", "9"]) == 2
    assert "temperature" in capsys.readouterr().err

    to_folder = ["export", str(run.path), "--formats", "adapter", "--folder", str(tmp_path / "out")]
    assert main(to_folder) == 0
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    assert "FastLanguageModel.from_pretrained(" in capsys.readouterr().out
    assert main(to_folder) == 2
    assert "replace" in capsys.readouterr().err
    assert main([*to_folder, "--replace"]) == 0
    asked = ["--formats", "gguf", "--gguf-quantization", "q8_0", "--verify"]
    assert main(["export", str(run.path), *asked]) == 0
    assert "every weight" in (said := capsys.readouterr().out) or "llama.cpp: the same" in said
    assert (run.folder.exports / "gguf" / "tunebook-tiny-tuned-Q8_0.gguf").is_file()
    assert main(["export", str(run.path), *asked[:3], "iq2_xs"]) == 2
    assert "q2_k" in capsys.readouterr().err
    assert main(["export", str(run.path), "--formats", "gold"]) == 2
    assert "merged_16bit" in capsys.readouterr().err


def test_the_size_of_a_dynamic_file_reaches_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    class Told:
        def export(self, formats: list[str], **more: object) -> list[Path]:
            asked.update(more)
            return []

    monkeypatch.setattr("tunebook.training.open_run", lambda _: Told())
    options = ["--gguf-quantization", "dynamic", "--gguf-size", "4GB", "--importance", "im.gguf"]
    assert main(["export", str(tmp_path), *options]) == 0
    assert asked["quantization"] == ["dynamic"]
    assert (asked["bits"], asked["size"], asked["importance"]) == (None, "4GB", "im.gguf")
    assert main(["export", str(tmp_path), "--gguf-bits", "4.5"]) == 0
    assert asked["bits"] == 4.5


def test_a_plan_as_text_and_as_json(capsys: Printed) -> None:
    assert main(["plan", "--model", "Llama-3.1-8B-Instruct", "--on", "T4"]) == 0
    text = capsys.readouterr().out
    assert "memory" in text
    assert re.search(r"keeps [\w ]+ of \d+ layers", text)
    assert main(["plan", "--model", "Llama-3.1-8B-Instruct", "--on", "T4", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["forecast"]["total"] == sum(plan["forecast"]["parts"].values())


def test_options_change_the_recipe_file(tmp_path: Path, capsys: Printed) -> None:
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


def test_a_recipe_file_is_checked_and_mended_with_its_own_tokenizer(
    tmp_path: Path, capsys: Printed
) -> None:
    path, new = tmp_path / "rows.jsonl", tmp_path / "new.jsonl"
    end = tokenizer_for(Recipe()).eos_token
    path.write_text(json.dumps({"prompt": f"Hi{end} there", "completion": "Ho"}) + "\n")
    recipe = str(Recipe.of("tunebook-tiny", str(path)).save(tmp_path / "recipe.yaml"))
    main(["check", recipe, "--json"])
    printed = capsys.readouterr().out
    codes = [f["code"] for f in json.loads(printed[printed.index("{") :])["findings"]]
    assert "special_token_text" in codes
    assert main(["check", recipe, "--fix", "strip_special_tokens", "--out", str(new)]) == 0
    assert json.loads(new.read_text()) == {"prompt": "Hi there", "completion": "Ho"}


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


def test_how_busy_the_gpu_was_is_said_once_with_what_to_do(tmp_path: Path) -> None:
    from tunebook.cli.show import busy_rows
    from tunebook.events import BusyEvent
    from tunebook.recipe import Recipe
    from tunebook.training import Run
    from tunebook.training.folder import RunFolder

    run = Run(RunFolder(tmp_path), Recipe())
    assert busy_rows(run) == []
    run.log.append(BusyEvent(step=10, busy=0.3, kernels=2000, seconds=0.2))
    ((name, value),) = busy_rows(run)
    assert name == "GPU busy"
    assert value.startswith("30 %, 2,000 kernels a step; give")
    run.log.append(BusyEvent(step=60, busy=0.95, kernels=1999, seconds=0.2))
    assert busy_rows(run) == [("GPU busy", "95 %, 1,999 kernels a step")]
