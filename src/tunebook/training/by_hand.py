"""Plans and patches for a trainer that a script sets up by itself, from the arguments it has anyway.

Knows a model with LoRA and TRL's configuration; knows no run folder and no recipe of the user.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from peft import PeftModel

from tunebook.errors import ModelInvalid
from tunebook.models.shape import ModelShape
from tunebook.models.targets import recipe_values
from tunebook.plan import Plan, make_plan
from tunebook.recipe import Recipe, TrainingPart
from tunebook.training.optimizers import name_of
from tunebook.training.setup import set_up

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig

logger = logging.getLogger(__name__)

_PROBE = 64  # tokens that the patched model is checked on
_CHECKPOINTING = {True: "on", False: "off"}
"""Anything else, such as "unsloth" (recompute and offload), is "auto": both as far as memory is short."""
_OPTIMIZERS = get_args(TrainingPart.model_fields["optimizer"].annotation)


def plan_by_hand(
    model: Any,
    config: SFTConfig,
    *,
    batch: Callable[[], Mapping[str, torch.Tensor]] | None = None,
    device: Literal["auto", "any"] = "auto",
) -> Plan | None:
    """Patch the model and run it by a plan, where there is a GPU; None where it trains as it is.

    What the script says of checkpointing decides what the plan may spend memory on; transformers'
    own checkpointing is switched off in `config`, since each layer keeps what the plan says.

    Args:
        model: with LoRA, else it is left alone.
        batch: makes a small one with `labels` to check the patched model on; None takes some tokens.
        device: as of `engine.patch`.
    """
    if not isinstance(model, PeftModel) or (device == "auto" and model.device.type != "cuda"):
        return None
    recipe = recipe_by_hand(model, config)
    try:
        inner: Any = model.get_base_model()
        shape = ModelShape.from_config(inner.config.to_dict())
    except ModelInvalid as error:
        logger.info("The model is not patched, since it cannot be planned: %s", error)
        return None
    engine: Any = "fused" if device == "any" else None
    plan = make_plan(recipe, shape=shape, engine=engine)
    tokens = torch.arange(min(_PROBE, shape.vocab_size))[None]
    probe: Mapping[str, torch.Tensor] = batch() if batch is not None else {"input_ids": tokens}
    given = {name: value.to(model.device) for name, value in probe.items()}
    ids, labels = given.pop("input_ids"), given.pop("labels", None)
    plan, swaps = set_up(model, plan, recipe, shape, None, ids, labels, given, device=device)
    logger.info("%s\n%s", plan.summary(), swaps)
    if plan.strategy.engine == "stock":
        return None
    config.gradient_checkpointing = False
    return plan


def recipe_by_hand(model: Any, config: SFTConfig) -> Recipe:
    """What a plan has to know of model and trainer."""
    lora = model.peft_config[model.active_adapter]
    chosen = getattr(model, "tunebook_checkpointing", config.gradient_checkpointing)
    optimizer = name_of(config)
    return Recipe().with_values(
        {
            "model.max_seq_length": config.max_length or getattr(model, "max_seq_length", 2048),
            "quantization.bits": _bits(model),
            "lora.r": lora.r,
            "lora.dropout": lora.lora_dropout,
            "lora.adapter_dtype": _adapter_dtype(model),
            **{f"lora.{name}": value for name, value in recipe_values(model).items()},
            "training.batch_size": config.per_device_train_batch_size,
            "training.gradient_accumulation_steps": config.gradient_accumulation_steps,
            "training.packing": config.packing,
            "training.optimizer": optimizer if optimizer in _OPTIMIZERS else "adamw_torch",
            "training.gradient_checkpointing": _CHECKPOINTING.get(chosen, "auto"),
            "training.memory_budget": getattr(model, "tunebook_budget", "auto"),
        }
    )


def _adapter_dtype(model: Any) -> str:
    dtypes = {p.dtype for name, p in model.named_parameters() if ".lora_" in name}
    return "bfloat16" if dtypes == {torch.bfloat16} else "auto"


def _bits(model: Any) -> int:
    if getattr(model, "is_loaded_in_4bit", False):
        return 4
    return 8 if getattr(model, "is_loaded_in_8bit", False) else 16
