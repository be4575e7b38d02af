"""Write a tuned model with its adapter folded into the weights, in 16 bit.

Each merged weight is dequantized, gets scale * B @ A added in float32 and is rounded once. Works on
a copy of one tensor at a time, so the live model is not changed and can train on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tunebook.errors import ModelInvalid
from tunebook.export.adapter import new_folder, save_adapter
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SaveMethod = Literal["merged_16bit", "lora"]
_SHARD = 5 * 10**9  # bytes, as transformers' default of 5 GB


def save_merged(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path | str,
    *,
    method: SaveMethod = "merged_16bit",
    recipe: Recipe | None = None,
    replace: bool = False,
) -> Path:
    """Write a whole model (`merged_16bit`) or the adapter alone (`lora`).

    Args:
        model: a PEFT model, or a plain one (then its weights are written in 16 bit as they are).
        tokenizer: saved beside it, chat template included.
        folder: must not exist, or be empty, unless `replace`.
        method: "merged_16bit" or "lora".
        recipe: saved as `recipe.yaml` if given.
        replace: whether model files in a folder that exists are replaced; other files there stay.

    Raises:
        FolderExists, DiskFull: see `save_adapter`.
        ModelInvalid: unknown method, or `lora` on a model without an adapter.
    """
    folder = Path(folder)
    adapted = hasattr(model, "peft_config")
    if method == "lora":
        if not adapted:
            raise ModelInvalid(
                "There is no adapter to save.",
                "the model carries no LoRA.",
                "add one with `get_peft_model`, or save with save_method='merged_16bit'.",
            )
        return save_adapter(model, tokenizer, folder, recipe=recipe, replace=replace)
    if method != "merged_16bit":
        raise ModelInvalid(
            f"There is no save method {method!r}.",
            "known are 'merged_16bit' and 'lora'.",
            "choose one of them.",
        )
    base = model.get_base_model() if adapted else model
    dtype = _storage_dtype(base)
    size = sum(_elements(module) for module in _leaves(base)) * dtype.itemsize + 16 * 2**20
    with new_folder(folder, size, purpose="the merged model", replace=replace) as temporary:
        _write_shards(base, temporary, dtype)
        _write_config(base, temporary, dtype)
        tokenizer.save_pretrained(str(temporary))
        if recipe is not None:
            recipe.save(temporary / "recipe.yaml")
    return folder


def merged_tensors(base: PreTrainedModel, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the merged model under its plain name, on the CPU, one at a time.

    Args:
        base: the model inside the PEFT wrapper, whose linear layers may be LoRA layers.
        dtype: of the tensors given back.

    Yields:
        (name, tensor); tensors that share storage (tied embeddings) only once.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    tied = set(getattr(base, "_tied_weights_keys", None) or ()) if _is_tied(base) else set()
    adapted = {
        name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)
    }
    done = set()
    for name, layer in adapted.items():
        weight = _dequantized(layer.get_base_layer()).to(torch.float32)
        for adapter in layer.active_adapters:
            if adapter in layer.lora_A:
                weight = weight + layer.get_delta_weight(adapter).to(weight)
        done.add(name)
        yield f"{name}.weight", weight.to(dtype).cpu()
        bias = layer.get_base_layer().bias
        if bias is not None:
            yield f"{name}.bias", bias.detach().to(dtype).cpu()
    for name, module in base.named_modules():
        if any(name == layer or name.startswith(f"{layer}.") for layer in done):
            continue
        for key, parameter in module.named_parameters(recurse=False):
            full = f"{name}.{key}" if name else key
            if full in tied:
                continue
            value = _dequantized(module) if key == "weight" else parameter
            yield full, value.detach().to(dtype).cpu()


def _dequantized(module: nn.Module) -> torch.Tensor:
    from peft.utils.integrations import dequantize_module_weight

    weight: torch.Tensor = module.weight
    if type(weight).__name__ in ("Params4bit", "Int8Params"):
        weight = dequantize_module_weight(module)
    return weight.detach()


def _is_tied(base: PreTrainedModel) -> bool:
    return bool(getattr(base.config, "tie_word_embeddings", False))


def _leaves(base: nn.Module) -> Iterator[nn.Module]:
    from peft.tuners.lora import LoraLayer

    inside: tuple[str, ...] = ()
    for name, module in base.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(module, LoraLayer):
            inside += (f"{name}.",)
            yield module.get_base_layer()
        else:
            yield module


def _elements(module: nn.Module) -> int:
    in_features = getattr(module, "in_features", None)
    if in_features is not None:  # a 4-bit weight holds two elements a byte
        bias = getattr(module, "bias", None)
        return int(in_features * module.out_features + (0 if bias is None else bias.numel()))
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


def _storage_dtype(base: PreTrainedModel) -> torch.dtype:
    import torch

    saved = getattr(base.config, "dtype", None)
    return torch.float16 if saved == torch.float16 else torch.bfloat16


def _write_shards(base: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file

    shard: dict[str, torch.Tensor] = {}
    where: dict[str, int] = {}
    size = total = 0
    paths: list[Path] = []

    def flush() -> None:
        path = folder / f"shard-{len(paths)}.safetensors"
        save_file(shard, str(path), metadata={"format": "pt"})
        paths.append(path)
        shard.clear()

    for name, tensor in merged_tensors(base, dtype):
        bytes_ = tensor.numel() * tensor.element_size()
        if shard and size + bytes_ > _SHARD:
            flush()
            size = 0
        shard[name] = tensor.contiguous()
        where[name] = len(paths)
        size += bytes_
        total += bytes_
    flush()
    if len(paths) == 1:
        paths[0].rename(folder / "model.safetensors")
        return
    names = [f"model-{i + 1:05d}-of-{len(paths):05d}.safetensors" for i in range(len(paths))]
    for path, new in zip(paths, names, strict=True):
        path.rename(folder / new)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: names[shard] for name, shard in where.items()},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _write_config(base: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
    import copy

    config = copy.deepcopy(base.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = dtype
    config.save_pretrained(str(folder))
    if base.generation_config is not None:
        base.generation_config.save_pretrained(str(folder))
