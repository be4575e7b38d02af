"""Training on pictures as scripts do it: lists, streams, and answers of uneven lengths."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vision import tiny_vision

from tunebook import FastVisionModel
from tunebook.trainer import SFTConfig, SFTTrainer, UnslothVisionDataCollator
from tunebook.training import trainer as trainer_module


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """The folder of a tiny model of a family, made once."""
    made = {}

    def get(family):
        if family not in made:
            made[family] = tiny_vision(family, tmp_path_factory.mktemp("models") / family)
        return made[family]

    return get


def rows(count=4):
    """Pictures of several sizes, with answers of 1, 8, 15, ... characters."""
    noise = np.random.default_rng(0)
    made = []
    for number in range(count):
        size = (40 + 9 * (number % 5), 60 + 5 * number, 3)
        image = Image.fromarray(noise.integers(0, 255, size, np.uint8))
        asked = [{"type": "text", "text": "What?"}, {"type": "image", "image": image}]
        told = [{"type": "text", "text": "x" * (1 + 7 * (number % 5))}]
        made.append(
            {
                "messages": [
                    {"role": "user", "content": asked},
                    {"role": "assistant", "content": told},
                ]
            }
        )
    return made


def trained(folder, dataset, tmp_path, *, evaluation=None, **values):
    """A trainer after one step, set up as tutorials do."""
    model, processor = FastVisionModel.from_pretrained(str(folder), load_in_4bit=False)
    model = FastVisionModel.get_peft_model(model, r=2, lora_alpha=2, random_state=0)
    FastVisionModel.for_training(model, use_gradient_checkpointing=False)
    settings = {
        "max_steps": 1,
        "learning_rate": 1e-3,
        "optim": "sgd",
        "max_grad_norm": 0,
        "logging_steps": 1,
        "seed": 0,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataset_text_field": "",
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": 2048,
    }
    trainer = SFTTrainer(
        model=model,
        tokenizer=processor,
        data_collator=UnslothVisionDataCollator(model, processor),
        train_dataset=dataset,
        eval_dataset=evaluation,
        args=SFTConfig(output_dir=str(tmp_path / "out"), **{**settings, **values}),
    )
    trainer.train()
    return trainer


def learnt(trainer):
    return {n: p.detach() for n, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("by_all_logits", [False, True])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])  # both say they take no token count
def test_batches_added_up_learn_what_one_batch_learns(
    folder_of, tmp_path, monkeypatch, family, by_all_logits
):
    if by_all_logits:  # as with TRL before 1.16 on a CPU
        monkeypatch.setattr(trainer_module, "_HEAD_NEEDS_A_GPU", True)
    folder = folder_of(family)
    whole = trained(folder, rows(), tmp_path, per_device_train_batch_size=4)
    parts = trained(
        folder,
        rows(),
        tmp_path,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
    )
    assert whole.state.log_history[0]["loss"] == pytest.approx(
        parts.state.log_history[0]["loss"], rel=1e-5
    )
    ones, others = learnt(whole), learnt(parts)
    assert max(float(value.abs().max()) for name, value in ones.items() if "lora_B" in name) > 1e-5
    for name, value in ones.items():
        assert torch.allclose(value, others[name], atol=1e-8), name


def test_a_stream_trains_and_rows_are_taken_as_they_come(folder_of, tmp_path):
    taken = []

    def stream():
        for number, row in enumerate(rows(40)):
            taken.append(number)
            yield row

    source = datasets.IterableDataset.from_generator(stream)
    trainer = trained(
        folder_of("qwen2_5_vl"), source, tmp_path, per_device_train_batch_size=2, max_steps=2
    )
    assert trainer.state.global_step == 2
    assert max(taken) < 20


def test_rows_of_a_list_are_measured_too(folder_of, tmp_path):
    trainer = trained(
        folder_of("qwen2_5_vl"),
        rows(),
        tmp_path,
        evaluation=rows(3),
        eval_strategy="steps",
        eval_steps=1,
    )
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 1
    assert 0 < losses[0] < 20
