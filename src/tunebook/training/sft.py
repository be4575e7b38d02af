"""Supervised fine-tuning: TRL's SFTTrainer, set up from a recipe and a plan.

TRL is subclassed where its numbers would differ from the recipe's, never rewritten. This module
knows nothing of threads, run folders or events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer as TrlSFTTrainer

from tunebook.data.packing import flatten_batch, pack_rows
from tunebook.plan import Strategy
from tunebook.recipe import Recipe
from tunebook.training.flat import FlatOptimizer, flat_optimizer
from tunebook.training.meter import MemoryMeter

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_HEAD_NEEDS_A_GPU = Version(version("trl")) < Version("1.16")


class SFTTrainer(TrlSFTTrainer):
    """TRL's trainer with the adapter kept in the dtype that it came in, and updated as one buffer.

    TRL casts LoRA weights to bfloat16 whenever the base is quantized; at LoRA's learning rates most
    of an update is then smaller than a bfloat16 step. Here they stay as PEFT made them (float32).
    AdamW runs over flat buffers, with the same numbers (see `tunebook.training.flat`).
    """

    meter: MemoryMeter | None = None

    def __init__(self, model: PreTrainedModel | PeftModel | str, *args: Any, **kwargs: Any) -> None:
        self._flat: FlatOptimizer | None = None
        with _adapter_dtype_kept(model):
            super().__init__(model, *args, **kwargs)
        self._seen: list[torch.Tensor | int] = [0, 0]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Transformers' optimizer, over flat buffers where that gives the same numbers."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if self.optimizer is None and self.optimizer_cls_and_kwargs is None and not sharded:
            model: Any = self.model
            decayed = self.get_decay_parameter_names(model)
            self.optimizer = self._flat = flat_optimizer(model, self.args, decayed)
        return super().create_optimizer(*args, **kwargs)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One forward and backward pass; counts its tokens without waiting for the device."""
        if self._flat is not None:
            self._flat.attach()  # the trainer sets gradients to None after each update
        mask = inputs.get("attention_mask")
        self._seen[0] += inputs["input_ids"].numel() if mask is None else mask.sum()
        if "labels" in inputs:
            self._seen[1] += (inputs["labels"] != -100).sum()
        step: Callable[[], torch.Tensor] = partial(
            super().training_step, model, inputs, num_items_in_batch
        )
        if self.meter is None:
            return step()
        return self.meter.around(step, inputs["input_ids"].numel())

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's loss; on a CPU with a TRL whose output head is a Triton kernel alone, the model's own."""
        head: Any = super().compute_loss
        if self.args.device.type == "cpu" and _HEAD_NEEDS_A_GPU:
            inputs = {**inputs, "use_cache": False}
            head = partial(Trainer.compute_loss, self)
        return head(model, inputs, return_outputs, num_items_in_batch)

    def token_counts(self) -> tuple[int, int]:
        """Tokens without padding, and tokens with a label, since this trainer began."""
        return int(self._seen[0]), int(self._seen[1])


def make_trainer(
    recipe: Recipe,
    strategy: Strategy,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    train_dataset: Dataset,
    eval_dataset: Dataset | None,
    *,
    output_dir: Path,
    callbacks: list[TrainerCallback],
) -> SFTTrainer:
    """A trainer over tokenised rows, silent, logging every step to its callbacks.

    Args:
        recipe: what the user wants.
        strategy: how the plan runs it (micro-batch, accumulation, checkpointing, optimizer).
        model: a PEFT model.
        tokenizer: for padding, and saved with the checkpoints.
        train_dataset: columns `input_ids` and `labels` (-100 where masked).
        eval_dataset: the same, or None.
        output_dir: folder of the checkpoints.
        callbacks: are told of every step.
    """
    packing = recipe.training.packing
    if packing:
        train_dataset = pack_rows(train_dataset, recipe.model.max_seq_length)
    trainer = SFTTrainer(
        model,
        args=sft_config(recipe, strategy, model, output_dir, evaluate=eval_dataset is not None),
        data_collator=flatten_batch if packing else None,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    for silent in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(silent)
    return trainer


def sft_config(
    recipe: Recipe, strategy: Strategy, model: PeftModel, output_dir: Path, *, evaluate: bool
) -> SFTConfig:
    """TRL's configuration for a recipe; every choice of the recipe or the plan, nothing by chance."""
    import torch

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
    )


@contextmanager
def _adapter_dtype_kept(model: nn.Module | str) -> Iterator[None]:
    before: dict[str, torch.Tensor] = {}
    if not isinstance(model, str):
        before = {
            name: parameter.data
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
    yield
    if isinstance(model, str):
        return
    for name, parameter in model.named_parameters():
        if name in before and parameter.dtype != before[name].dtype:
            parameter.data = before[name].to(parameter.device)
