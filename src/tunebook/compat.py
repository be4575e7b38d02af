"""The names that fine-tuning tutorials use, as a thin face over the same engine.

Arguments are those that people know, today's and the older spellings. Nothing here patches
transformers, TRL or PEFT: methods are bound to the one model that is returned.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import transformers
from trl.trainer.sft_config import SFTConfig as TrlSFTConfig

from tunebook.data.tokenizers import tokenize_texts
from tunebook.data.vision_collator import VisionDataCollator
from tunebook.errors import RecipeInvalid
from tunebook.fast_models import (
    FastLanguageModel as FastLanguageModel,
    FastModel as FastModel,
    FastVisionModel as FastVisionModel,
)
from tunebook.saving import remember
from tunebook.training import trainer
from tunebook.training.by_hand import plan_by_hand

logger = logging.getLogger(__name__)

# older spelling -> today's, for arguments of the trainer's configuration
_RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "max_seq_length": "max_length",
    "no_cuda": "use_cpu",
    "push_to_hub_token": "hub_token",
}
# arguments that tutorials give to the trainer and that belong to its configuration today
_MOVED = (
    "dataset_text_field",
    "max_seq_length",
    "max_length",
    "dataset_num_proc",
    "packing",
    "dataset_kwargs",
    "neftune_noise_alpha",
    "assistant_only_loss",
    "completion_only_loss",
)


def is_bfloat16_supported() -> bool:
    """Whether the GPU computes in bfloat16 (compute capability 8 or higher)."""
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8


is_bf16_supported = is_bfloat16_supported


class TrainingArguments(transformers.TrainingArguments):
    """`transformers.TrainingArguments`, with older spellings; precision flags yield to the device."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **_todays(kwargs))


class SFTConfig(TrlSFTConfig):
    """`trl.SFTConfig`, with older spellings; precision flags yield to the device."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **_todays(kwargs))


class SFTTrainer(trainer.SFTTrainer):
    """TRL's trainer, taking today's arguments and those of older tutorials.

    Differences that tutorials rely on: `tokenizer=` works; a text column that is named explicitly is
    what is trained on, with exactly one beginning-of-sequence and one end token; the maximum length is
    the one that the model was loaded with unless another is given.
    """

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        tokenizer: Any = None,
        **kwargs: Any,
    ) -> None:
        moved = {name: kwargs.pop(name) for name in _MOVED if name in kwargs}
        config = _config(args, moved, model)
        tokenizer = processing_class if processing_class is not None else tokenizer
        named = "dataset_text_field" in moved or _is_changed(args, "dataset_text_field")
        # As tutorials on pictures say it: the collator makes everything of the rows as they are.
        told: Any = config.dataset_kwargs or {}
        ready = told.get("skip_prepare_dataset")
        if tokenizer is not None and kwargs.get("formatting_func") is None and not ready:
            field = config.dataset_text_field
            train_dataset = _tokenized(train_dataset, tokenizer, field, config, named)
            eval_dataset = _tokenized(eval_dataset, tokenizer, field, config, named)
        plan = plan_by_hand(model, config, batch=_pictures(data_collator, train_dataset))
        super().__init__(
            model,
            args=config,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            **kwargs,
        )
        remember(model, self)
        if isinstance(data_collator, VisionDataCollator):
            data_collator.image_counts = (
                True  # by which this trainer cuts a batch that is too large
            )
        if plan is not None:
            self.loss_chunk = plan.strategy.loss_chunk
            self._parts = -(-config.per_device_train_batch_size // plan.strategy.micro_batch)
            self.use_graphs()


def _config(args: Any, moved: dict[str, Any], model: Any) -> TrlSFTConfig:
    moved = {_RENAMED.get(name, name): value for name, value in moved.items() if value is not None}
    if args is None:
        config: TrlSFTConfig = SFTConfig(output_dir="outputs", **moved)
    elif isinstance(args, TrlSFTConfig):
        config = args
        for name, value in moved.items():
            setattr(config, name, value)
    else:
        values = {k: v for k, v in vars(args).items() if k in _init_names(type(args))}
        config = SFTConfig(**{**values, **moved})
    length = getattr(model, "max_seq_length", None)
    if length and not _is_changed(config, "max_length") and "max_length" not in moved:
        config.max_length = length
    chosen = getattr(model, "tunebook_checkpointing", None)
    if chosen is not None:
        config.gradient_checkpointing = bool(chosen)
    if config.dataloader_pin_memory and not config.use_cpu:  # no batch waits for the step before it
        config.accelerator_config.non_blocking = True  # type: ignore[union-attr]
    return config


def _pictures(collator: Any, dataset: Any) -> Callable[[], dict[str, Any]] | None:
    """What makes a small batch of the first row, of rows with pictures that can be read twice."""
    if not isinstance(collator, VisionDataCollator) or not hasattr(dataset, "__getitem__"):
        return None
    return lambda: collator.small(dataset[0])


def _tokenized(dataset: Any, tokenizer: Any, field: str, config: TrlSFTConfig, named: bool) -> Any:
    from datasets import Dataset

    if isinstance(dataset, dict):
        return {k: _tokenized(v, tokenizer, field, config, named) for k, v in dataset.items()}
    if not isinstance(dataset, Dataset) or "input_ids" in dataset.column_names:
        return dataset
    if field not in dataset.column_names:
        if named:
            raise RecipeInvalid(
                f"The dataset has no column {field!r}.",
                f"its columns are {', '.join(dataset.column_names)}.",
                "set `dataset_text_field` to the column that holds the text.",
            )
        return dataset
    max_length = None if config.packing else config.max_length
    return tokenize_texts(dataset, tokenizer, field, max_length=max_length)


def _todays(kwargs: dict[str, Any]) -> dict[str, Any]:
    import torch

    kwargs = {_RENAMED.get(name, name): value for name, value in kwargs.items()}
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        if kwargs.get("fp16") or kwargs.get("bf16"):
            logger.info("There is no GPU: training in float32 instead of 16-bit mixed precision.")
        kwargs.update(fp16=False, bf16=False, use_cpu=True)
    return kwargs


def _is_changed(args: Any, name: str) -> bool:
    """Whether a configuration holds another value than its class's default."""
    default = getattr(TrlSFTConfig, "__dataclass_fields__", {}).get(name)
    return (
        default is not None
        and args is not None
        and getattr(args, name, default.default) != default.default
    )


def _init_names(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls) if field.init}
