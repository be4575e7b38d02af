"""The LaTeX-OCR script of the tutorials, run as a user would run it, on a tiny vision model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "latex_ocr.py"
HUB_ID = "unsloth/Qwen2.5-VL-7B-Instruct-bnb-4bit"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the script ran, and what it printed."""
    from tiny_vision import tiny_vision

    from tunebook.data.formulas import sample_formulas

    folder = tmp_path_factory.mktemp("vision_tutorial")
    root = folder / "hf" / "hub" / f"models--{HUB_ID.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    tiny_vision("qwen2_5_vl", root / "snapshots" / ("0" * 40))
    sample_formulas().select(range(24)).to_parquet(str(folder / "formulas.parquet"))
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd=folder,
        env={**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return folder, done.stdout


def test_the_loss_falls(finished: tuple[Path, str]) -> None:
    losses = json.loads(finished[1].split("LOSSES ")[1].splitlines()[0])
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 0.05


def test_the_reloaded_model_answers_as_it_did_after_training(finished: tuple[Path, str]) -> None:
    printed = finished[1]
    before = printed.split("BEFORE\n")[1].splitlines()[0]
    after, reloaded = printed.split("AFTER\n")[1].split("RELOADED PeftModelForCausalLM\n")
    assert after.strip()
    assert after == reloaded
    assert after.strip() != before.strip()


def test_both_towers_are_adapted(finished: tuple[Path, str]) -> None:
    from safetensors import safe_open

    with safe_open(finished[0] / "lora_model" / "adapter_model.safetensors", "pt") as file:
        learnt = {name for name in file.keys() if file.get_tensor(name).any()}  # noqa: SIM118
        names = set(file.keys())
    assert names == learnt
    for part in ("visual", "language_model"):
        for kind in ("attn", "mlp"):
            assert [name for name in names if part in name and kind in name], (part, kind)


def test_what_was_saved_loads_in_plain_transformers(finished: tuple[Path, str]) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    merged = finished[0] / "merged"
    assert AutoModelForImageTextToText.from_pretrained(merged).config.vision_config.depth == 2
    assert AutoTokenizer.from_pretrained(merged).chat_template
    assert AutoImageProcessor.from_pretrained(merged).patch_size
    assert (finished[0] / "lora_model" / "chat_template.jinja").is_file()


def test_nothing_else_is_left_behind(finished: tuple[Path, str]) -> None:
    names = {path.name for path in finished[0].iterdir()}
    assert names == {"hf", "formulas.parquet", "outputs", "lora_model", "merged"}
