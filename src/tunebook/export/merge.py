"""Write a tuned model with its adapter folded into the weights, in 16 bit.

Each merged weight is dequantized, gets scale * B @ A added in float32 and is rounded once. Works on
a copy of one tensor at a time, so the live model is not changed and can train on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from tunebook.errors import ModelInvalid
from tunebook.export.adapter import new_folder, save_adapter
from tunebook.export.progress import Progress
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SaveMethod = Literal["merged_16bit", "lora"]
_SHARD = 5 * 10**9  # bytes, as transformers' default of 5 GB


def save_merged(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path | str,
    *,
    method: SaveMethod = "merged_16bit",
    recipe: Recipe | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a whole model (`merged_16bit`) or the adapter alone (`lora`).

    Args:
        model: a PEFT model, or a plain one (then its weights are written in 16 bit as they are).
        tokenizer: saved beside it, chat template included.
        folder: must not exist, or be empty, unless `replace`.
        method: "merged_16bit" or "lora".
        recipe: saved as `recipe.yaml` if given.
        replace: whether model files in a folder that exists are replaced; other files there stay.
        progress: told of the bytes of the tensors.

    Raises:
        FolderExists, DiskFull, Cancelled: see `save_adapter`.
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
        return save_adapter(
            cast("PeftModel", model),
            tokenizer,
            folder,
            recipe=recipe,
            replace=replace,
            progress=progress,
        )
    if method != "merged_16bit":
        raise ModelInvalid(
            f"There is no save method {method!r}.",
            "known are 'merged_16bit' and 'lora'.",
            "choose one of them.",
        )
    base: Any = model.get_base_model() if adapted else model  # type: ignore[operator]
    dtype = _storage_dtype(base)
    elements = sum(_elements(_source(module)) for _, module in _plain_modules(base))
    size = elements * dtype.itemsize
    progress = progress or Progress()
    progress.begin(size)
    spared = size + 16 * 2**20
    with new_folder(folder, spared, purpose="the merged model", replace=replace) as temporary:
        _write_shards(base, temporary, dtype, progress)
        _write_config(base, temporary, dtype)
        progress.finish()
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
    tied = set(getattr(base, "_tied_weights_keys", None) or ()) if _is_tied(base) else set()
    for name, module in _plain_modules(base):
        for key, parameter in _source(module).named_parameters(recurse=False):
            full = f"{name}.{key}" if name else key
            if full not in tied:
                value = _merged_weight(module) if key == "weight" else parameter
                yield full, value.detach().to(dtype).cpu()


def _plain_modules(base: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules under the names that they have without PEFT; what is inside its layers is left out."""
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    inside: tuple[str, ...] = ()
    for name, module in base.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(module, LoraLayer | ModulesToSaveWrapper):
            inside += (f"{name}.",)
        yield name, module


def _source(module: nn.Module) -> nn.Module:
    """The module that holds the parameters: the base layer under LoRA, the trained copy, or itself."""
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    if isinstance(module, LoraLayer):
        layer: nn.Module = module.get_base_layer()
        return layer
    if isinstance(module, ModulesToSaveWrapper):
        return module.modules_to_save[module.active_adapters[0]]
    return module


def _merged_weight(module: nn.Module) -> torch.Tensor:
    """The weight with every active adapter added in float32."""
    import torch
    from peft.tuners.lora import LoraLayer

    weight = _dequantized(_source(module))
    if isinstance(module, LoraLayer):
        for adapter in module.active_adapters:
            if adapter in module.scaling:
                weight = weight.to(torch.float32) + module.get_delta_weight(adapter)  # type: ignore[operator]
    return weight


def _dequantized(module: nn.Module) -> torch.Tensor:
    from peft.utils.integrations import dequantize_module_weight

    weight: Any = module.weight
    if type(weight).__name__ in ("Params4bit", "Int8Params"):
        weight = dequantize_module_weight(module)
    found: torch.Tensor = weight.detach()
    return found


def _is_tied(base: PreTrainedModel) -> bool:
    return bool(getattr(base.config, "tie_word_embeddings", False))


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


def _write_shards(
    base: PreTrainedModel, folder: Path, dtype: torch.dtype, progress: Progress
) -> None:
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
        progress.add(bytes_)
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
