"""The tensors of a tuned model as it will be without PEFT: names, sizes, and values one at a time.

Each merged weight is dequantized and gets scale * B @ A added in float32; whoever writes it rounds it
once. Works on a copy of one tensor, so the live model is not changed. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunebook.errors import ModelInvalid

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Weight:
    """One tensor of the merged model.

    Attributes:
        name: without PEFT.
        module: that has it there: a plain module, or one of PEFT's around it.
        key: its name in the module that holds the parameter.
        holder: that module.
        elements: how many numbers it will hold, not packed.
        buffer: it is kept in its own dtype.
    """

    name: str
    module: nn.Module
    key: str
    holder: nn.Module
    elements: int
    buffer: bool = False

    @property
    def is_linear(self) -> bool:
        """Whether it is the matrix of a linear layer."""
        from torch import nn

        return self.key == "weight" and isinstance(self.holder, nn.Linear)

    def value(self) -> torch.Tensor:
        """The merged tensor on its own device: float32 if something was added, else as it is.

        Raises:
            ModelInvalid: it holds NaN or infinity, or is not in memory.
        """
        import torch

        found = _merged(self.module, self.holder, self.key)
        if found.device.type == "meta":
            raise ModelInvalid(
                "A weight is not in memory.",
                f"{self.name} was moved out by `device_map`, to the disk for example.",
                "load the model with all of it on one device, or on the CPU, then save again.",
            )
        if found.is_floating_point() and not torch.isfinite(found).all():
            wrong = int((~torch.isfinite(found)).sum())
            raise ModelInvalid(
                "The model is damaged: a weight is not a number.",
                f"{self.name} holds {wrong:,} values of {found.numel():,} that are NaN or infinite.",
                "go back to an earlier checkpoint, and train with a lower learning rate.",
            )
        return found


def merged_weights(base: PreTrainedModel) -> list[Weight]:
    """What the merged model consists of, in the model's order.

    Tensors that share storage (tied embeddings) come once; embeddings that training made differ from
    the head come both.

    Args:
        base: the model inside the PEFT wrapper, whose layers may be LoRA layers.
    """
    found = list(_all_weights(base))
    tied = _still_tied(base, {weight.name: weight for weight in found})
    return [weight for weight in found if weight.name not in tied]


def is_tied(base: PreTrainedModel) -> bool:
    """Whether the merged model's output head is its embedding."""
    named = {weight.name: weight for weight in _all_weights(base)}
    return bool(_still_tied(base, named))


def merged_tensors(base: PreTrainedModel, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the merged model under its plain name, on the CPU, one at a time.

    Args:
        base: the model inside the PEFT wrapper, whose layers may be LoRA layers.
        dtype: of the parameters given back; buffers keep theirs.

    Yields:
        (name, tensor); tensors that share storage (tied embeddings) only once.

    Raises:
        ModelInvalid: a tensor holds NaN or infinity; the message names it.
    """
    for weight in merged_weights(base):
        yield weight.name, as_stored(weight, dtype)


def as_stored(weight: Weight, dtype: torch.dtype) -> torch.Tensor:
    """A weight rounded to `dtype`, on the CPU; a buffer as it is."""
    value = weight.value()
    kept = weight.buffer or not value.is_floating_point()
    return (value if kept else value.to(dtype)).cpu()


def _all_weights(base: nn.Module) -> Iterator[Weight]:
    from peft.utils import ModulesToSaveWrapper

    for name, module in _plain_modules(base):
        holder = _source(module)
        # a module trained whole may have parts; other modules' parts come by themselves
        deep = isinstance(module, ModulesToSaveWrapper)
        parts = holder.named_modules() if deep else [("", holder)]
        for part_name, part in parts:
            prefix = ".".join(item for item in (name, part_name) if item)
            owner = part if deep else module
            for key, parameter in part.named_parameters(recurse=False):
                elements = _elements(part, key, parameter)
                yield Weight(f"{prefix}.{key}".lstrip("."), owner, key, part, elements)
            for key, buffer in part.named_buffers(recurse=False):
                if key not in part._non_persistent_buffers_set:
                    full = f"{prefix}.{key}".lstrip(".")
                    yield Weight(full, part, key, part, buffer.numel(), buffer=True)


def _plain_modules(base: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules under the names that they have without PEFT; what is inside its layers is left out."""
    inside: tuple[str, ...] = ()
    for name, module in base.named_modules():
        if inside and name.startswith(inside):
            continue
        if _is_of_peft(module):
            inside += (f"{name}.",)
        yield name, module


def _is_of_peft(module: nn.Module) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    return isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)


def _source(module: nn.Module) -> nn.Module:
    """The module that holds the parameters: the base layer under LoRA, the trained copy, or itself."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper, TrainableTokensWrapper

    if isinstance(module, BaseTunerLayer):
        layer: nn.Module = module.get_base_layer()
        return layer
    if isinstance(module, TrainableTokensWrapper):
        tokens: nn.Module = module.token_adapter.get_base_layer()
        return tokens
    if isinstance(module, ModulesToSaveWrapper):
        if not module.active_adapters:
            original: nn.Module = module.original_module
            return original
        trained: nn.Module = module.modules_to_save[module.active_adapters[0]]
        return trained
    if isinstance(module, AuxiliaryTrainingWrapper):
        raise _unknown(module)
    return module


def _merged(module: nn.Module, holder: nn.Module, key: str) -> torch.Tensor:
    """A parameter with every active adapter added in float32; a buffer, or one untouched, as it is."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import TrainableTokensWrapper

    value = _dequantized(holder, key)
    if isinstance(module, TrainableTokensWrapper):
        adapter = module.token_adapter
        whole: torch.Tensor = adapter.get_merged_weights(adapter.active_adapters)
        return whole.detach()
    if not isinstance(module, BaseTunerLayer):
        return value
    if not isinstance(module, LoraLayer):
        raise _unknown(module)
    layer: Any = module
    while isinstance(layer, LoraLayer):  # layers of several adapted parameters lie in one another
        for adapter in layer.active_adapters:
            value = _with_adapter(layer, adapter, key, value)
        layer = layer.base_layer
    return value.detach()


def _with_adapter(layer: Any, adapter: str, key: str, value: torch.Tensor) -> torch.Tensor:
    import torch

    if adapter not in layer.scaling or layer.merged:
        return value
    if key == "bias" and getattr(layer, "lora_bias", {}).get(adapter):
        bias: torch.Tensor = layer.lora_B[adapter].bias.detach().to(value.device, torch.float32)
        return value.to(torch.float32).add(bias, alpha=layer.scaling[adapter])
    if key != getattr(layer, "parameter_name", "weight"):
        return value
    if adapter in getattr(layer, "lora_variant", {}):  # DoRA
        changed: torch.Tensor = layer.lora_variant[adapter].merge_safe(
            layer, adapter, value.to(torch.float32)
        )
        return changed
    return value.to(torch.float32, copy=True).add_(_delta(layer, adapter, value.device))


def _delta(layer: Any, adapter: str, device: torch.device) -> torch.Tensor:
    """scale * B @ A in float32 where the base weight is, wherever the adapter is."""
    import torch
    from torch import nn

    if isinstance(layer.get_base_layer(), nn.Linear) and not hasattr(layer, "parameter_name"):
        a = layer.lora_A[adapter].weight.detach().to(device, torch.float32)
        b = layer.lora_B[adapter].weight.detach().to(device, torch.float32)
        product: torch.Tensor = (b @ a).mul_(layer.scaling[adapter])
        return product.T if getattr(layer, "fan_in_fan_out", False) else product
    found: torch.Tensor = layer.get_delta_weight(adapter)
    return found.detach().to(device, torch.float32)


def _dequantized(module: nn.Module, key: str) -> torch.Tensor:
    from peft.utils.integrations import dequantize_module_weight

    value: Any = getattr(module, key)
    if type(value).__name__ in ("Params4bit", "Int8Params"):
        value = dequantize_module_weight(module)
    found: torch.Tensor = value.detach()
    return found


def _still_tied(base: PreTrainedModel, named: dict[str, Weight]) -> set[str]:
    """Names of tensors that are written under another name: tied ones, unless training untied them."""
    if not getattr(base.config, "tie_word_embeddings", False):
        return set()
    pairs: dict[str, str] = getattr(base, "all_tied_weights_keys", None) or {}
    tied = set()
    for target, source in pairs.items():
        one, other = named.get(target), named.get(source)
        if one is None or other is None or _same(one, other):
            tied.add(target)
    return tied


def _same(one: Weight, other: Weight) -> bool:
    from peft.tuners.lora import LoraLayer

    if any(isinstance(item.module, LoraLayer) for item in (one, other)):
        return one.module is other.module
    first, second = getattr(one.holder, one.key), getattr(other.holder, other.key)
    return bool(first is second or first.data_ptr() == second.data_ptr())


def _elements(module: Any, key: str, parameter: nn.Parameter) -> int:
    in_features = getattr(module, "in_features", None)
    if key == "weight" and in_features is not None:  # a 4-bit weight holds two elements a byte
        return int(in_features * module.out_features)
    return parameter.numel()


def _unknown(module: nn.Module) -> ModelInvalid:
    return ModelInvalid(
        f"A layer of the kind {type(module).__name__} cannot be merged.",
        "Tunebook merges LoRA, DoRA, trained tokens and modules that were trained whole.",
        "save the adapter instead (`save_method='lora'`), and merge with PEFT.",
    )
