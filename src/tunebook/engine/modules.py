"""What a kind of swapped module is, how an instance is swapped and put back, and the report of it.

Knows nothing of any one kind: each has a file of its own (`norm.py`, `mlp.py`).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import nn

UNDONE = "undone: "
"""How the reason of a swap begins that did not pass its check."""

_MARK = "tunebook_kind"
_OF_NO_MATTER = ("layer_idx", "training")


@dataclass(frozen=True)
class Swap:
    """The module was proved to be of its kind; `forward(module, x)` computes the same, fused."""

    forward: Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Leave:
    """The module looks like its kind but is not touched; `reason` completes "left: ..."."""

    reason: str


@dataclass(frozen=True)
class ModuleKind:
    """One kind of module. `examine` returns None for a module that is something else."""

    name: str
    examine: Callable[[nn.Module], Swap | Leave | None]


@dataclass
class Report:
    """What `patch` did to a model; names are those of `model.named_modules()`.

    Attributes:
        swapped: (name, kind) of each module that now runs a fused forward.
        left: (name, kind, reason) of each module that was recognised and not swapped.
    """

    swapped: list[tuple[str, str]] = field(default_factory=list)
    left: list[tuple[str, str, str]] = field(default_factory=list)

    def undone(self) -> dict[str, str]:
        """Each kind that was swapped and did not pass the check, and why not."""
        return {
            kind: reason.removeprefix(UNDONE)
            for _, kind, reason in self.left
            if reason.startswith(UNDONE)
        }

    def __str__(self) -> str:
        lines = [f"Swapped {len(self.swapped)} modules, left {len(self.left)}."]
        for kind, count in Counter(kind for _, kind in self.swapped).items():
            example = next(name for name, of in self.swapped if of == kind)
            lines.append(f"  swapped {count} x {kind} (such as {example})")
        for (kind, reason), count in Counter((k, r) for _, k, r in self.left).items():
            example = next(name for name, k, r in self.left if (k, r) == (kind, reason))
            lines.append(f"  left {count} x {kind} (such as {example}): {reason}")
        return "\n".join(lines)


def swap_forward(module: nn.Module, kind: str, forward: Callable[..., torch.Tensor]) -> None:
    """Give this one instance another forward; hooks, parameters and the class stay as they are.

    A bound method is stored, so that a deep copy of the module calls it with the copy.
    """
    setattr(forward, _MARK, kind)
    module.__dict__["forward"] = MethodType(forward, module)


def swapped_kind(module: nn.Module) -> str | None:
    """The kind that `swap_forward` gave this instance, or None."""
    return getattr(module.__dict__.get("forward"), _MARK, None)


def restore_forward(module: nn.Module) -> None:
    """Undo `swap_forward`: the class's own forward serves again."""
    if swapped_kind(module) is not None:
        del module.__dict__["forward"]


def has_own_forward(module: nn.Module) -> bool:
    """Whether someone (accelerate, another library, or we) replaced this instance's forward."""
    return "forward" in module.__dict__


def stand_in(
    module: nn.Module,
    *,
    parameters: Mapping[str, torch.Tensor] | None = None,
    modules: Mapping[str, nn.Module] | None = None,
) -> Any:
    """A shallow copy that runs the same class's code with other parameters and submodules.

    Lets a forward be proved on small CPU tensors, whatever holds the real weights (4-bit, LoRA,
    another device). Call its `.forward`; the original is not touched.
    """
    clone = copy.copy(module)
    own = {name: nn.Parameter(value, False) for name, value in (parameters or {}).items()}
    clone.__dict__["_parameters"] = {**module._parameters, **own}
    clone.__dict__["_modules"] = {**module._modules, **(modules or {})}
    clone.__dict__.pop("forward", None)
    return clone


def facts_of(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    """What an instance says of itself in plain values: eps, windows, switches, but not its number.

    Two modules of a class with the same facts compute the same; nothing is known of others.
    """
    plain = (int, float, str, bool, type(None))
    items = vars(module).items()
    return tuple((k, v) for k, v in items if isinstance(v, plain) and k not in _OF_NO_MATTER)


def device_of(module: nn.Module) -> torch.device:
    """Where the module's first parameter lies; the CPU if it has none."""
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device
