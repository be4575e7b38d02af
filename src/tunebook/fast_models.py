"""The model classes that fine-tuning tutorials use, as a thin face over loading and adapters.

Arguments are those that people know. Nothing here patches transformers or PEFT: methods are bound to
the one model that is returned.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tunebook import engine
from tunebook.errors import ModelInvalid
from tunebook.models.adapters import add_lora, load_adapter
from tunebook.models.loading import (
    adapter_base,
    default_device,
    load_model,
    load_tokenizer,
)
from tunebook.models.vision import has_towers, load_processor
from tunebook.recipe import ALL_LINEAR, ModelPart, Recipe
from tunebook.saving import with_saving

logger = logging.getLogger(__name__)

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


class _Face:
    """What the classes share: loading, and switching between training and answering."""

    @classmethod
    def from_pretrained(
        cls,
        model_name: str = "tunebook-tiny",
        max_seq_length: int = 2048,
        dtype: Any = None,
        load_in_4bit: bool = True,
        load_in_8bit: bool = False,
        load_in_16bit: bool = False,
        use_gradient_checkpointing: bool | str = "unsloth",
        token: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        **ignored: Any,
    ) -> tuple[Any, Any]:
        """A model and its processor or tokenizer, by catalogue name, hub id, model or adapter folder.

        Args:
            model_name: what to load. An adapter folder gets its base model under it.
            max_seq_length: longest row in training; the trainer takes it as its default.
            dtype: of the arithmetic, a torch dtype or its name; None chooses by the hardware.
            load_in_4bit: NF4 with double quantization.
            load_in_8bit: LLM.int8 instead.
            load_in_16bit: no quantization.
            use_gradient_checkpointing: what `get_peft_model` takes unless it is told.
            token: for private hub models; used here and kept nowhere.
            trust_remote_code: run Python code that comes with the model.
            revision: branch, tag or commit on the hub.
            ignored: arguments of other libraries that mean nothing here; logged.

        Raises:
            ModelMissing, ModelInvalid, TokenizerMissing: what is wrong with the name or folder.
        """
        _log_ignored("from_pretrained", ignored)
        base = adapter_base(model_name)
        asked = Recipe().with_values(
            {
                "model.name": base or model_name,
                "model.revision": None if base else revision,
                "model.max_seq_length": max_seq_length,
                "model.dtype": _dtype_name(dtype),
                "model.trust_remote_code": trust_remote_code,
                "quantization.bits": _bits(load_in_4bit, load_in_8bit, load_in_16bit),
            }
        )
        part = asked.model
        model: Any = load_model(part, asked.quantization, device=default_device(), token=token)
        own = part.model_copy(update={"name": model_name})
        companion = cls._companion(model, own, part, token)
        if base:
            model = load_adapter(model, model_name, trainable=True)
        model.max_seq_length = max_seq_length
        model.tunebook_checkpointing = use_gradient_checkpointing
        return with_saving(model), companion

    @staticmethod
    def for_inference(model: Any) -> Any:
        """Ready the model to answer; returns it."""
        engine.for_inference(model)
        return model

    @staticmethod
    def for_training(model: Any, use_gradient_checkpointing: bool | str = True) -> Any:
        """Ready the model to learn; returns it."""
        engine.for_training(model)
        model.tunebook_checkpointing = use_gradient_checkpointing
        return model

    @classmethod
    def _companion(cls, model: Any, own: ModelPart, base: ModelPart, token: str | None) -> Any:
        """The processor or tokenizer that goes with a model.

        Args:
            own: the folder of an adapter, or the model itself.
            base: the model itself.
        """
        raise NotImplementedError


class FastModel(_Face):
    """Load a model of any kind, put LoRA on it, switch it between training and answering.

    What comes with the model is a processor if it takes pictures, else a tokenizer.
    """

    @staticmethod
    def get_peft_model(
        model: Any,
        finetune_vision_layers: bool = True,
        finetune_language_layers: bool = True,
        finetune_attention_modules: bool = True,
        finetune_mlp_modules: bool = True,
        r: int = 16,
        lora_alpha: int = 16,
        lora_dropout: float = 0.0,
        bias: str = "none",
        random_state: int = 3407,
        use_rslora: bool = False,
        loftq_config: dict[str, Any] | None = None,
        target_modules: list[str] | str | None = None,
        **more: Any,
    ) -> Any:
        """The model with LoRA matrices on the linear layers of the towers and kinds asked for.

        Args:
            model: from `from_pretrained`.
            finetune_vision_layers, finetune_language_layers: the towers of a model that sees; the
                projector between them goes with the vision tower's MLPs.
            finetune_attention_modules, finetune_mlp_modules: the kinds of layers in them.
            r, lora_alpha, lora_dropout, bias, use_rslora: as in the recipe's `lora`.
            random_state: seed of the new matrices.
            loftq_config: as in `peft.LoraConfig`.
            target_modules: names among those; None means all of them.
            more: what `FastLanguageModel.get_peft_model` takes besides.

        Raises:
            TargetsMissing: no layer has such a name, or none of those is switched on.
        """
        every = "all-linear" if has_towers(model) else list(ALL_LINEAR)
        values = {
            "lora.r": r,
            "lora.alpha": lora_alpha,
            "lora.dropout": lora_dropout,
            "lora.target_modules": every if target_modules is None else target_modules,
            "lora.bias": bias,
            "lora.use_rslora": use_rslora,
            "lora.vision_layers": finetune_vision_layers,
            "lora.language_layers": finetune_language_layers,
            "lora.attention_modules": finetune_attention_modules,
            "lora.mlp_modules": finetune_mlp_modules,
        }
        return _adapted(model, values, seed=random_state, loftq_config=loftq_config, **more)

    @classmethod
    def _companion(cls, model: Any, own: ModelPart, base: ModelPart, token: str | None) -> Any:
        if not has_towers(model):
            return load_tokenizer(own, token=token)
        kept = any((Path(own.name) / name).is_file() for name in _PROCESSOR_FILES)
        return load_processor(own if kept else base, token=token)


class FastVisionModel(FastModel):
    """A model that sees: loaded with its processor; LoRA on the towers and kinds asked for."""

    @classmethod
    def _companion(cls, model: Any, own: ModelPart, base: ModelPart, token: str | None) -> Any:
        if not has_towers(model):
            raise ModelInvalid(
                f"The model {base.name} takes no pictures.",
                "its config.json has no vision_config.",
                "load it with `FastLanguageModel`, or take one that sees, such as "
                "Qwen2.5-VL-7B-Instruct or SmolVLM-256M-Instruct.",
            )
        return super()._companion(model, own, base, token)


class FastLanguageModel(_Face):
    """A model that reads and writes text: loaded with its tokenizer; LoRA on its language layers."""

    @staticmethod
    def get_peft_model(
        model: Any,
        r: int = 16,
        target_modules: list[str] | str = ALL_LINEAR,
        lora_alpha: int = 16,
        lora_dropout: float = 0.0,
        bias: str = "none",
        layers_to_transform: list[int] | int | None = None,
        layers_pattern: str | None = None,
        use_gradient_checkpointing: bool | str | None = None,
        random_state: int = 3407,
        max_seq_length: int | None = None,
        memory_budget: str = "auto",
        use_rslora: bool = False,
        modules_to_save: list[str] | None = None,
        init_lora_weights: bool | str = True,
        loftq_config: dict[str, Any] | None = None,
        **ignored: Any,
    ) -> Any:
        """The model with LoRA matrices on its linear layers.

        Args:
            model: from `from_pretrained`.
            r, lora_alpha, lora_dropout, bias, use_rslora, target_modules: as in the recipe's `lora`.
            layers_to_transform, layers_pattern, modules_to_save, init_lora_weights, loftq_config:
                as in `peft.LoraConfig`.
            use_gradient_checkpointing: "auto" or "unsloth" keeps as much of the activations as memory
                allows, True nothing that can be computed again, False everything. With all but False
                what layers keep is offloaded to the host's memory where it is short even so.
                None takes the one given at loading.
            memory_budget: as in the recipe, such as "6.5GiB"; "auto" is what is free.
            random_state: seed of the new matrices.
            max_seq_length: replaces the one given at loading.
            ignored: arguments of other libraries that mean nothing here; logged.

        Raises:
            TargetsMissing: no layer has such a name.
        """
        values = {
            "lora.r": r,
            "lora.alpha": lora_alpha,
            "lora.dropout": lora_dropout,
            "lora.target_modules": target_modules,
            "lora.bias": bias,
            "lora.use_rslora": use_rslora,
            "lora.vision_layers": False,
        }
        return _adapted(
            model,
            values,
            seed=random_state,
            layers_to_transform=layers_to_transform,
            layers_pattern=layers_pattern,
            use_gradient_checkpointing=use_gradient_checkpointing,
            max_seq_length=max_seq_length,
            memory_budget=memory_budget,
            modules_to_save=modules_to_save,
            init_lora_weights=init_lora_weights,
            loftq_config=loftq_config,
            **ignored,
        )

    @classmethod
    def _companion(cls, model: Any, own: ModelPart, base: ModelPart, token: str | None) -> Any:
        return load_tokenizer(own, token=token)


def _adapted(
    model: Any,
    values: dict[str, Any],
    *,
    seed: int,
    layers_to_transform: list[int] | int | None = None,
    layers_pattern: str | None = None,
    use_gradient_checkpointing: bool | str | None = None,
    max_seq_length: int | None = None,
    memory_budget: str = "auto",
    modules_to_save: list[str] | None = None,
    init_lora_weights: bool | str = True,
    loftq_config: dict[str, Any] | None = None,
    **ignored: Any,
) -> Any:
    """See `FastLanguageModel.get_peft_model`; `values` are fields of a recipe."""
    _log_ignored("get_peft_model", ignored)
    asked = Recipe().with_values(values)
    length = max_seq_length or getattr(model, "max_seq_length", None)
    checkpointing = use_gradient_checkpointing
    if checkpointing is None:
        checkpointing = getattr(model, "tunebook_checkpointing", "unsloth")
    adapted: Any = add_lora(
        model,
        asked.lora,
        seed=seed,
        layers_to_transform=layers_to_transform,
        layers_pattern=layers_pattern,
        modules_to_save=modules_to_save,
        init_lora_weights=init_lora_weights,
        loftq_config=loftq_config or {},
    )
    adapted.max_seq_length = length
    adapted.tunebook_checkpointing = checkpointing
    adapted.tunebook_budget = memory_budget
    return with_saving(adapted)


def _bits(load_in_4bit: bool, load_in_8bit: bool, load_in_16bit: bool) -> int:
    if load_in_16bit or not (load_in_8bit or load_in_4bit):
        return 16
    return 8 if load_in_8bit else 4


def _dtype_name(dtype: Any) -> str:
    return "auto" if dtype is None else str(dtype).removeprefix("torch.")


def _log_ignored(where: str, arguments: dict[str, Any]) -> None:
    if arguments:
        logger.warning("%s: ignored %s", where, ", ".join(sorted(arguments)))
