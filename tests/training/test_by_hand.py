"""A trainer that a script sets up by itself gets a plan from what the script says anyway."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from datasets import Dataset

import tunebook.compat as compat
from tunebook.compat import FastLanguageModel, SFTConfig, SFTTrainer
from tunebook.engine import fused_layers, has_fused_head
from tunebook.models.shape import ModelShape
from tunebook.plan import Hardware, make_plan
from tunebook.plan.nouns import Level
from tunebook.training.by_hand import plan_by_hand, recipe_by_hand


@pytest.fixture
def adapted():
    """`adapted(use_gradient_checkpointing=...)`: the embedded model in 4 bit, with LoRA."""

    def make(**values: Any) -> tuple[Any, Any]:
        model, tokenizer = FastLanguageModel.from_pretrained("tunebook-tiny", max_seq_length=64)
        return FastLanguageModel.get_peft_model(model, r=8, **values), tokenizer

    return make


def config(tmp_path: Any, **values: Any) -> SFTConfig:
    values = {"per_device_train_batch_size": 4, "max_length": 64, "report_to": "none", **values}
    return SFTConfig(output_dir=str(tmp_path), **values)


@pytest.mark.parametrize(
    ("chosen", "level"), [("unsloth", Level.ALL), (False, Level.ALL), (True, Level.NOTHING)]
)
def test_what_is_said_of_checkpointing_decides_what_is_kept(adapted, tmp_path, chosen, level):
    model, _ = adapted(use_gradient_checkpointing=chosen)
    settings = config(tmp_path, gradient_checkpointing=bool(chosen))
    plan = plan_by_hand(model, settings, device="any")
    assert set(plan.strategy.levels) == {level}
    assert not settings.gradient_checkpointing
    assert len(fused_layers(model)) == len(plan.strategy.levels)
    assert has_fused_head(model)


@pytest.mark.parametrize(("chosen", "offloads"), [("unsloth", True), (True, True), (False, False)])
def test_inputs_are_offloaded_on_a_small_card_unless_all_is_to_be_kept(
    adapted, tmp_path, chosen, offloads
):
    model, _ = adapted(use_gradient_checkpointing=chosen, memory_budget="1MiB")
    shape = ModelShape.from_config(model.get_base_model().config.to_dict())
    recipe = recipe_by_hand(model, config(tmp_path))
    plan = make_plan(recipe, shape=shape, hardware=Hardware.of("T4"))
    assert plan.strategy.offloaded_layers == (shape.num_hidden_layers - 2 if offloads else 0)


def test_a_budget_is_kept_by_working_on_fewer_rows(adapted, tmp_path):
    model, _ = adapted(memory_budget="15MiB")
    plan = plan_by_hand(model, config(tmp_path), device="any")
    assert plan.recipe["memory_budget"] == "15MiB"
    assert plan.strategy.micro_batch < 4
    assert plan.strategy.effective_batch == 4


def test_the_plan_knows_model_adapter_and_trainer(adapted, tmp_path):
    model, _ = adapted(target_modules=["q_proj", "v_proj"])
    settings = config(tmp_path, optim="sgd", gradient_accumulation_steps=3, packing=True)
    recipe = recipe_by_hand(model, settings)
    assert recipe.quantization.bits == 4
    assert (recipe.lora.r, recipe.lora.target_modules) == (8, ["q_proj", "v_proj"])
    assert (recipe.training.batch_size, recipe.training.gradient_accumulation_steps) == (4, 3)
    assert recipe.training.optimizer == "sgd"
    assert recipe.training.packing
    assert recipe.model.max_seq_length == 64


def test_without_a_gpu_or_lora_the_model_is_left_alone(adapted, tmp_path):
    model, _ = adapted()
    base = model.get_base_model()
    assert plan_by_hand(base, config(tmp_path), device="any") is None
    if model.device.type == "cpu":
        assert plan_by_hand(model, config(tmp_path)) is None
        assert not fused_layers(model)


def test_a_tutorial_trainer_runs_by_the_plan(adapted, tmp_path, monkeypatch):
    monkeypatch.setattr(compat, "plan_by_hand", partial(plan_by_hand, device="any"))
    model, tokenizer = adapted(memory_budget="15MiB")
    rows = Dataset.from_dict({"text": ["Arr! The capital be Paris. " * n for n in range(1, 9)]})
    trainer = SFTTrainer(
        model=model,
        tokenizer=tokenizer,
        train_dataset=rows,
        dataset_text_field="text",
        args=config(tmp_path, max_steps=3, learning_rate=1e-2, logging_steps=1),
    )
    assert trainer._fused
    assert trainer._parts > 1
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[2] < losses[0]
