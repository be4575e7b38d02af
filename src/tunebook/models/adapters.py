"""Put LoRA adapters on a model through PEFT, and load saved ones.

This module knows nothing of how the model was loaded or of what it will learn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import ModelInvalid
from tunebook.models.targets import lora_targets
from tunebook.models.vision import has_towers
from tunebook.recipe import LoraPart

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel


def add_lora(model: PreTrainedModel, part: LoraPart, *, seed: int, **more: Any) -> PeftModel:
    """Wrap a model with fresh LoRA matrices: A random, B zero, so that nothing changes at first.

    Args:
        model: a loaded language or vision-language model, quantized or not.
        part: rank, strength, targets, kinds and towers, and dtype.
        seed: of A's random values.
        more: further arguments of `peft.LoraConfig`.

    Raises:
        TargetsMissing: no layer is named so, or none of those is switched on; see `lora_targets`.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    layers = None
    if has_towers(model):  # PEFT would take the choice of layers with plain names only
        layers, _ = more.pop("layers_to_transform", None), more.pop("layers_pattern", None)
    targets = lora_targets(model, part, layers=layers)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=part.r,
        lora_alpha=part.alpha,
        lora_dropout=part.dropout,
        target_modules=targets,
        bias=part.bias,
        use_rslora=part.use_rslora,
        **more,
    )
    set_seed(seed)
    wrapped: PeftModel = get_peft_model(model, config)  # in float32, whatever the base is
    if part.adapter_dtype == "bfloat16":
        cast_adapter(wrapped, torch.bfloat16)
    return wrapped


def cast_adapter(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the LoRA matrices of a model to a dtype, in the parameters that they are."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.to(dtype)


def load_adapter(
    model: PreTrainedModel, folder: Path | str, *, trainable: bool = False
) -> PeftModel:
    """Wrap a base model with an adapter from a folder; safetensors only.

    A vocabulary that grew before training grows here too.

    Raises:
        ModelInvalid: the folder is not an adapter.
    """
    from peft import PeftModel

    folder = Path(folder)
    for needed in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / needed).is_file():
            raise ModelInvalid(
                f"The folder {folder} is not an adapter.",
                f"it holds no {needed}.",
                "give the folder of a finished run's `adapter`, or of `save_pretrained`.",
            )
    _fit_vocabulary(model, folder / "adapter_model.safetensors")
    wrapped: PeftModel = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    for config in wrapped.peft_config.values():  # saving looks there for the base's own config
        config.base_model_name_or_path = model.name_or_path
    return wrapped


def _fit_vocabulary(model: PreTrainedModel, weights: Path) -> None:
    """Give the model as many tokens as the adapter's embeddings have, if it brings its own."""
    from safetensors import safe_open

    embeddings: Any = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embeddings)
    with safe_open(str(weights), "pt") as file:
        names = [key for key in file.keys() if key.endswith(f".{name}.weight")]  # noqa: SIM118
        rows = {file.get_slice(key).get_shape()[0] for key in names}
    if rows and rows != {embeddings.weight.shape[0]}:
        model.resize_token_embeddings(rows.pop(), mean_resizing=False)
