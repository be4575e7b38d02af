"""The methods that tutorials call: saved in each way and loaded again, and pushed with a card."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_stand_in import GOOD_TOKEN, Hub

from tunebook.compat import FastLanguageModel, SFTConfig, SFTTrainer
from tunebook.errors import FolderExists, HubRefused, ModelInvalid
from tunebook.models.loading import EMBEDDED

TEXTS = [
    "What is the capital of France? The capital of France is Paris.",
    "The sea is wide and blue, and ships sail on it from land to land.",
]


@pytest.fixture(scope="module")
def tuned() -> tuple[Any, Any]:
    """The embedded model in 4 bit with an adapter whose weights are random, and its tokenizer."""
    model, tokenizer = FastLanguageModel.from_pretrained("tunebook-tiny", load_in_4bit=True)
    model = FastLanguageModel.get_peft_model(model, r=4)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.02 * torch.randn_like(parameter)
    return model.eval(), tokenizer


def perplexity(model: Any, tokenizer: Any) -> float:
    losses, tokens = 0.0, 0
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            loss = model(input_ids=ids, labels=ids).loss
        losses += float(loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return math.exp(losses / tokens)


def test_the_merged_model_has_the_adapters_perplexity(
    tuned: tuple[Any, Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = tuned
    exact = perplexity(model, tokenizer)
    with model.disable_adapter():
        assert abs(perplexity(model, tokenizer) / exact - 1) > 0.01  # the adapter does something
    folder = model.save_pretrained_merged(tmp_path / "merged", tokenizer)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    again = AutoTokenizer.from_pretrained(folder)
    assert again.chat_template == tokenizer.chat_template
    assert perplexity(plain, again) == pytest.approx(exact, rel=1e-3)
    ours, _ = FastLanguageModel.from_pretrained(
        str(folder), load_in_4bit=False, dtype=torch.float32
    )
    assert perplexity(ours, again) == pytest.approx(exact, rel=1e-3)


def test_four_bits_are_loaded_by_transformers_and_by_us(
    tuned: tuple[Any, Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model, tokenizer = tuned
    exact = perplexity(model, tokenizer)
    folder = model.save_pretrained_merged(tmp_path / "m", tokenizer, "merged_4bit")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours, _ = FastLanguageModel.from_pretrained(str(folder), load_in_4bit=True)
    for loaded in (plain, ours):
        layer = loaded.model.layers[0].mlp.up_proj
        assert type(layer).__name__ == "Linear4bit"
        assert layer.weight.quant_state.nested
        assert perplexity(loaded, tokenizer) == pytest.approx(exact, rel=0.25)


def test_an_adapter_is_loaded_by_peft_and_by_us(tuned: tuple[Any, Any], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model, tokenizer = tuned
    exact = perplexity(model, tokenizer)
    folder = model.save_pretrained_merged(tmp_path / "lora", tokenizer, save_method="lora")
    ours, _ = FastLanguageModel.from_pretrained(str(folder))
    assert perplexity(ours.eval(), tokenizer) == pytest.approx(exact, rel=1e-5)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    base = AutoModelForCausalLM.from_pretrained(
        EMBEDDED, quantization_config=config, dtype=torch.float32
    )
    plain = PeftModel.from_pretrained(base, folder)
    # where the CPU can, bitsandbytes multiplies in bfloat16 here
    assert perplexity(plain.eval(), tokenizer) == pytest.approx(exact, rel=5e-3)


def test_a_folder_is_replaced_only_when_asked_and_wholly(
    tuned: tuple[Any, Any], tmp_path: Path
) -> None:
    model, tokenizer = tuned
    model.save_pretrained_merged(tmp_path / "x", tokenizer, save_method="lora")
    with pytest.raises(FolderExists) as caught:
        model.save_pretrained_merged(tmp_path / "x", tokenizer)
    assert "replace=True" in caught.value.do
    model.save_pretrained_merged(tmp_path / "x", tokenizer, max_shard_size="4MB", replace=True)
    assert not list((tmp_path / "x").glob("adapter*"))
    assert len(list((tmp_path / "x").glob("model-*-of-*.safetensors"))) >= 3


def test_an_unknown_method_lists_those_there_are(tuned: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="'merged_4bit'") as caught:
        tuned[0].save_pretrained_merged(tmp_path / "x", save_method="w4a16")
    assert "save_pretrained_gguf" in caught.value.do


def test_a_push_tells_what_the_trainer_did(
    tuned: tuple[Any, Any], hub: Hub, tmp_path: Path
) -> None:
    from datasets import Dataset

    model, tokenizer = FastLanguageModel.from_pretrained("tunebook-tiny", load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(model, r=2, lora_alpha=6)
    trainer = SFTTrainer(
        model=model,
        tokenizer=tokenizer,
        train_dataset=Dataset.from_dict({"text": TEXTS * 4}),
        args=SFTConfig(
            output_dir=str(tmp_path),
            max_steps=3,
            logging_steps=1,
            learning_rate=3e-4,
            per_device_train_batch_size=2,
            report_to="none",
        ),
    )
    trainer.train()
    page = model.push_to_hub("maria/pirate", tokenizer, token=GOOD_TOKEN, endpoint=hub.url)
    assert page == f"{hub.url}/maria/pirate"
    assert hub.repos == {"maria/pirate": True}
    assert "adapter_model.safetensors" in hub.files
    assert "recipe.yaml" not in hub.files
    card = hub.files["README.md"].decode()
    assert "| lora.r | 2 |" in card
    assert "| training.learning_rate | 0.0003 |" in card
    assert "| steps | 3 |" in card
    assert "| rows of data | 8 |" in card
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert f"| 1 | {losses[0]:.4f} |" in card.split("## Loss")[1]


def test_merged_models_are_pushed_and_nothing_is_kept_here(
    tuned: tuple[Any, Any], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model, tokenizer = tuned
    model.push_to_hub_merged(
        "maria/small", tokenizer, "merged_4bit", token=GOOD_TOKEN, private=False, endpoint=hub.url
    )
    assert hub.repos == {"maria/small": False}
    assert "quantization_config" in json.loads(hub.files["config.json"])
    head = yaml.safe_load(hub.files["README.md"].decode().split("---")[1])
    assert head["library_name"] == "transformers"
    with pytest.raises(HubRefused):
        model.push_to_hub_merged("maria/small", tokenizer, token="hf_" + "x" * 20, endpoint=hub.url)
    assert list(tmp_path.iterdir()) == []


def test_gguf_files_are_pushed_as_they_are_written(tuned: tuple[Any, Any], hub: Hub) -> None:
    model, tokenizer = tuned
    model.push_to_hub_gguf("maria/t-GGUF", tokenizer, "q8_0", token=GOOD_TOKEN, endpoint=hub.url)
    (name,) = [name for name in hub.files if name.endswith("-Q8_0.gguf")]
    assert hub.files[name].startswith(b"GGUF")
    assert "llama-server -hf maria/t-GGUF:Q8_0" in hub.files["README.md"].decode()
