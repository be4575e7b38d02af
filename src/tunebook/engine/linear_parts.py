"""Reads what one linear layer holds (weight, bias, LoRA), whoever wrapped it: torch, bitsandbytes or PEFT.

Knows those wrappers' attributes; computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from tunebook_kernels import Packed4bit, Packed8bit

_Lora = tuple[nn.Parameter | None, nn.Parameter | None, float, float]
_NO_LORA: _Lora = (None, None, 1.0, 0.0)


class Unsupported(Exception):
    """A linear layer does what no group can; the message completes "left: ..."."""


@dataclass(frozen=True)
class LinearParts:
    """What one linear layer holds, whoever wrapped it.

    Attributes:
        weight: frozen as a rule, (out, in) or packed. bias: (out,) or None.
        lora_A, lora_B: of the one active adapter, or None.
        scaling: that the adapter's output is multiplied by.
        dropout: share of the adapter's inputs that is zeroed in training.
        mark: changes whenever any of this may have changed.
    """

    in_features: int
    out_features: int
    weight: nn.Parameter
    bias: nn.Parameter | None
    packed: Packed4bit | Packed8bit | None
    lora_A: nn.Parameter | None
    lora_B: nn.Parameter | None
    scaling: float
    dropout: float
    mark: tuple[Any, ...]

    @property
    def rank(self) -> int:
        """Of the adapter; 0 without one."""
        return 0 if self.lora_A is None else self.lora_A.shape[0]


def _read_eight_bits(layer: Any) -> Packed8bit:
    if layer.state.has_fp16_weights:
        raise Unsupported("its layers round weights to 8 bit anew at each use")
    return Packed8bit.of(layer)


_READERS: dict[str, Callable[[Any], Packed4bit | Packed8bit | None]] = {
    "Linear": lambda layer: None,
    "Linear4bit": lambda layer: Packed4bit.of(layer.weight),
    "Linear8bitLt": _read_eight_bits,
}


def read_linear(module: nn.Module) -> LinearParts:
    """The parts of a plain, 4-bit, 8-bit or PEFT linear layer.

    Raises:
        Unsupported: it is none of these, or its adapter is not plain LoRA (DoRA, several at once,
            merged, with a bias of its own, in a mixed batch).
    """
    base: Any = getattr(module, "base_layer", module)
    kind = type(base).__name__
    if not isinstance(base, nn.Linear) or kind not in _READERS:
        raise Unsupported(f"its layers are {kind}")
    packed = _READERS[kind](base)
    lora_A, lora_B, scaling, dropout = _NO_LORA if base is module else _read_lora(module)
    weight: Any = base.weight
    return LinearParts(
        in_features=int(base.in_features),
        out_features=int(base.out_features),
        weight=weight,
        bias=base.bias,
        packed=packed,
        lora_A=lora_A,
        lora_B=lora_B,
        scaling=scaling,
        dropout=dropout,
        mark=mark_of(module),
    )


def _read_lora(wrapped: Any) -> _Lora:
    """A, B, scaling and dropout of the active adapter of one of PEFT's layers."""
    if not hasattr(wrapped, "lora_A"):
        raise Unsupported(f"its adapters are {type(wrapped).__name__}, not LoRA")
    active = [name for name in wrapped.active_adapters if name in wrapped.lora_A]
    if wrapped.disable_adapters or not active:
        return _NO_LORA
    if wrapped.merged or len(active) > 1:
        raise Unsupported("its adapters are merged or several are active")
    name = active[0]
    lora_A, lora_B = wrapped.lora_A[name], wrapped.lora_B[name]
    if wrapped.lora_variant.get(name) is not None or type(lora_A) is not nn.Linear:
        raise Unsupported("its adapter is a variant of LoRA")
    if lora_A.bias is not None or lora_B.bias is not None:
        raise Unsupported("its adapter has a bias")
    dropout = wrapped.lora_dropout[name]
    share = float(dropout.p) if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
    return lora_A.weight, lora_B.weight, float(wrapped.scaling[name]), share


def mark_of(module: nn.Module) -> tuple[Any, ...]:
    """Cheap to make and compare: identities, and the switches of PEFT's layers."""
    state = module.__dict__
    base = state["_modules"].get("base_layer")
    if base is None:
        return (id(state["_parameters"].get("weight")),)
    active = state.get("_active_adapter")
    return (
        id(base.__dict__["_parameters"].get("weight")),
        active if isinstance(active, str) else str(active),
        state.get("_disable_adapters"),
        len(state.get("merged_adapters", ())),
        _weights_of(state["_modules"].get("lora_A")),
        tuple(state.get("scaling", {}).values()),
        state["training"] and _has_dropout(state["_modules"].get("lora_dropout")),
    )


def _has_dropout(adapters: nn.Module | None) -> bool:
    """PEFT puts an identity where nothing is dropped; then it does not matter who is training."""
    layers = () if adapters is None else adapters.__dict__["_modules"].values()
    return any(type(layer) is nn.Dropout for layer in layers)


def _weights_of(adapters: nn.Module | None) -> tuple[int, ...]:
    """Identities: an adapter that replaced one of the same name has other matrices."""
    layers = () if adapters is None else adapters.__dict__["_modules"].values()
    return tuple([id(layer.__dict__["_parameters"].get("weight")) for layer in layers])
