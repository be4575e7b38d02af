"""The script of the tutorials, run as a user would run it, on a tiny model with the real tokenizer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "llama_conversational.py"
HUB_ID = "unsloth/Llama-3.2-1B-Instruct"


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    unpacked_tokenizers: dict[str, Path],
    shared_data: Path,
) -> tuple[Path, str]:
    """The folder in which the script ran, and what it printed."""
    folder = tmp_path_factory.mktemp("tutorial")
    snapshot = _cached_model(folder / "hf", unpacked_tokenizers["llama-3.1"])
    assert (snapshot / "model.safetensors").is_file()
    rows = (shared_data / "datasets" / "sharegpt.jsonl").read_text().splitlines()
    short = [row for row in rows if len(row) < 500][:64]
    (folder / "conversations.jsonl").write_text("\n".join(short) + "\n")
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd=folder,
        env={**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return folder, done.stdout


def _cached_model(home: Path, tokenizer: Path) -> Path:
    """A tiny random Llama in the form in which the hub's client keeps a downloaded model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    root = home / "hub" / f"models--{HUB_ID.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        bos_token_id=128000, eos_token_id=[128001, 128008, 128009],
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(snapshot)
    for file in tokenizer.iterdir():
        shutil.copy(file, snapshot)
    return snapshot


def _line(printed: str, name: str) -> str:
    start = printed.index(f"{name} ") + len(name) + 1
    return printed[start:]


@pytest.mark.slow
def test_the_loss_falls(finished: tuple[Path, str]) -> None:
    losses = json.loads(_line(finished[1], "LOSSES").splitlines()[0])
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.slow
def test_one_beginning_of_sequence_and_only_answers_are_learnt(finished: tuple[Path, str]) -> None:
    row = finished[1][finished[1].index("ROW ") + 4 : finished[1].index("LABELS ")]
    labels = finished[1][finished[1].index("LABELS ") + 7 : finished[1].index("LOSSES ")]
    assert row.count("<|begin_of_text|>") == 1
    assert "<|start_header_id|>" not in labels
    first_answer = row.split("assistant<|end_header_id|>\n\n")[1].split("<|eot_id|>")[0]
    assert first_answer + "<|eot_id|>" in labels


@pytest.mark.slow
def test_what_was_saved_loads_in_plain_transformers_and_peft(finished: tuple[Path, str]) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished[0]
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged")
    base = folder / "hf" / "hub" / f"models--{HUB_ID.replace('/', '--')}" / "snapshots" / ("0" * 40)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(model, folder / "lora")
    ids = torch.tensor([[128000, 9906, 11, 1917]])
    with torch.no_grad():
        apart = merged.float()(ids).logits
        together = tuned(ids).logits
    # the merged model holds the base as it was in 4 bit, the plain one as it was before
    agreement = torch.nn.functional.cosine_similarity(apart[0, -1], together[0, -1], dim=0)
    assert agreement > 0.9
    assert AutoTokenizer.from_pretrained(folder / "merged").chat_template
    assert "RELOADED PeftModel" in finished[1]


@pytest.mark.slow
def test_nothing_else_is_left_behind(finished: tuple[Path, str]) -> None:
    names = {path.name for path in finished[0].iterdir()}
    assert names == {"hf", "conversations.jsonl", "outputs", "lora_model", "merged", "lora", "gguf"}
    assert len(list((finished[0] / "gguf").glob("*-Q*.gguf"))) == 2
