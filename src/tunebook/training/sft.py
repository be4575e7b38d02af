"""Supervised fine-tuning: a trainer set up from a recipe and a plan.

Knows nothing of threads, run folders or events.
"""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl.trainer.sft_config import SFTConfig

from tunebook.data.packing import flatten_batch, pack_rows
from tunebook.data.vision_collator import VisionDataCollator, VisionRows
from tunebook.plan import Strategy
from tunebook.recipe import Recipe
from tunebook.training.optimizers import target_modules
from tunebook.training.trainer import SFTTrainer

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, ProcessorMixin


_FEW_LENGTHS = 64
_WORKERS = 4


def make_trainer(
    recipe: Recipe,
    strategy: Strategy,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin,
    train_dataset: Dataset | VisionRows,
    eval_dataset: Dataset | VisionRows | None,
    *,
    output_dir: Path,
    callbacks: list[TrainerCallback],
) -> SFTTrainer:
    """A trainer over tokenised rows, silent, logging every step to its callbacks.

    Args:
        recipe: what the user wants.
        strategy: how the plan runs it (micro-batch, accumulation, checkpointing, optimizer).
        model: a PEFT model.
        tokenizer: for padding, and saved with the checkpoints; the processor of a model that sees.
        train_dataset: columns `input_ids` and `labels` (-100 where masked), or rows with pictures.
        eval_dataset: the same, or None.
        output_dir: folder of the checkpoints.
        callbacks: are told of every step.
    """
    config = sft_config(recipe, strategy, model, output_dir, evaluate=eval_dataset is not None)
    collate: Any = None
    if isinstance(train_dataset, VisionRows):
        collate = _vision_collator(recipe, tokenizer, config)
    elif recipe.training.packing:
        train_dataset = pack_rows(train_dataset, recipe.model.max_seq_length)
        collate = flatten_batch
    trainer = SFTTrainer(
        model,
        args=config,
        data_collator=collate,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.loss_chunk = strategy.loss_chunk
    trainer.use_graphs()
    for silent in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(silent)
    return trainer


def _vision_collator(recipe: Recipe, processor: Any, config: SFTConfig) -> VisionDataCollator:
    """The collator of a recipe; on a GPU workers open and encode pictures while it computes."""
    if not config.use_cpu and "fork" in multiprocessing.get_all_start_methods():
        config.dataloader_num_workers = min(_WORKERS, (os.cpu_count() or 1) - 1)
    data = recipe.data
    return VisionDataCollator(
        processor=processor,
        max_seq_length=recipe.model.max_seq_length,
        pad_to_multiple_of=int(config.pad_to_multiple_of or 0) or None,
        min_pixels=data.min_pixels,
        max_pixels=data.max_pixels,
        train_on=data.train_on,
        on_bad_rows=data.on_bad_rows,
        image_counts=True,
    )


def sft_config(
    recipe: Recipe, strategy: Strategy, model: PeftModel, output_dir: Path, *, evaluate: bool
) -> SFTConfig:
    """TRL's configuration for a recipe; every choice of the recipe or the plan, nothing by chance."""
    import torch

    lengths: dict[str, Any] = {}
    if (
        strategy.engine == "fused"
    ):  # cuDNN plans anew for each length, which takes longer than a step
        lengths["pad_to_multiple_of"] = _FEW_LENGTHS
    training = recipe.training
    device = model.device.type
    dtype = strategy.dtype
    return SFTConfig(
        output_dir=str(output_dir),
        max_steps=training.max_steps or -1,
        num_train_epochs=training.epochs,
        per_device_train_batch_size=strategy.micro_batch,
        per_device_eval_batch_size=strategy.micro_batch,
        gradient_accumulation_steps=strategy.gradient_accumulation_steps,
        gradient_checkpointing=strategy.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False}
        if strategy.gradient_checkpointing
        else None,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler_type,
        warmup_steps=training.warmup_steps,
        optim=strategy.optimizer,
        optim_target_modules=target_modules(strategy.optimizer),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        bf16=device == "cuda" and dtype == "bfloat16",
        fp16=device == "cuda" and dtype == "float16",
        use_cpu=device == "cpu",
        max_length=None,  # the rows are cut already
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy=("steps" if training.eval_steps else "epoch") if evaluate else "no",
        eval_steps=training.eval_steps,
        save_strategy="steps",
        save_steps=training.save_steps,
        save_total_limit=training.keep_checkpoints,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        # else each batch waits for the step before it
        accelerator_config={"non_blocking": torch.cuda.is_available()},
        **lengths,
    )
