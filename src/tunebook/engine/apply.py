"""Swaps the modules of one loaded model for fused ones, undoes it, and says what was done.

Knows the list of kinds; whether the result is still the same function is `parity.py`'s business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import nn

from tunebook.engine import attention
from tunebook.engine.decoder import DECODER, forget
from tunebook.engine.head import HEAD
from tunebook.engine.locks import model_lock
from tunebook.engine.mlp import MLP
from tunebook.engine.modules import (
    Leave,
    ModuleKind,
    Report,
    Swap,
    device_of,
    has_own_forward,
    restore_forward,
    swap_forward,
    swapped_kind,
)
from tunebook.engine.norm import NORM
from tunebook.engine.vision_block import VISION
from tunebook_kernels import triton_runs_on

KINDS: tuple[ModuleKind, ...] = (HEAD, DECODER, VISION, NORM, MLP)

_ATTENTION = "tunebook_attention_before"
_REPORTS: WeakKeyDictionary[nn.Module, Report] = WeakKeyDictionary()


def patch(
    model: nn.Module,
    *,
    kinds: Collection[str] | None = None,
    device: Literal["auto", "any"] = "auto",
) -> Report:
    """Give every module that is recognised and proved a fused forward; nothing else changes.

    Works before or after PEFT wraps the model, on 4-bit and LoRA layers. Calling it again is safe.

    Args:
        model: any torch model.
        kinds: names of the kinds to swap; None for all of `KINDS`.
        device: "auto" swaps only where Triton runs; "any" also where the plain-torch reference
            would serve, which is no faster (for tests).
    """
    done = Report()
    with model_lock(model):
        for name, module in model.named_modules():
            for kind in KINDS:
                if kinds is None or kind.name in kinds:
                    _patch_one(done, name, module, kind, device)
        _replace_attention(model)
        _REPORTS[model] = done
    return done


def unpatch(model: nn.Module) -> None:
    """Give every module that `patch` swapped its own forward back."""
    with model_lock(model):
        for module in model.modules():
            restore_forward(module)
            forget(module)
            _REPORTS.pop(module, None)
        for config, before in replaced_attention(model):
            config._attn_implementation = before
        for module in model.modules():
            module.__dict__.pop(_ATTENTION, None)


@contextmanager
def plain_forwards(model: nn.Module) -> Iterator[None]:
    """While it lasts, the modules that `patch` swapped run their own forwards, hooks of parts too."""
    swapped = [
        (module, module.__dict__["forward"])
        for module in model.modules()
        if swapped_kind(module) is not None
    ]
    configs = replaced_attention(model)
    for module, _ in swapped:
        restore_forward(module)
    for config, before in configs:
        config._attn_implementation = before
    try:
        yield
    finally:
        for module, forward in swapped:
            module.__dict__["forward"] = forward
        for config, _ in configs:
            config._attn_implementation = attention.NAME


def report(model: nn.Module) -> Report | None:
    """The report of the last `patch` of this model, or of the one it wraps; None if unpatched."""
    return next((_REPORTS[module] for module in model.modules() if module in _REPORTS), None)


def remember(model: nn.Module, done: Report) -> None:
    """Make `done` what `report(model)` returns."""
    _REPORTS[model] = done


def replaced_attention(model: nn.Module) -> list[tuple[Any, str]]:
    """Each config whose attention `patch` replaced, and the name of what it was."""
    parts: list[Any] = list(model.modules())
    return [
        (part.self_attn.config, part.__dict__[_ATTENTION])
        for part in parts
        if _ATTENTION in part.__dict__
    ]


def _replace_attention(model: nn.Module) -> None:
    """Fused layers make no mask; what runs beside them must understand that (see `attention`).

    What it was is noted in a layer, so that copies of the model know it too.
    """
    attention.register()
    for module in model.modules():
        if swapped_kind(module) == DECODER.name:
            config: Any = module.self_attn.config  # type: ignore[union-attr]
            if config._attn_implementation != attention.NAME:
                module.__dict__[_ATTENTION] = config._attn_implementation
                config._attn_implementation = attention.NAME


def _patch_one(
    done: Report, name: str, module: nn.Module, kind: ModuleKind, device: Literal["auto", "any"]
) -> None:
    before = swapped_kind(module)
    if before not in (None, kind.name):
        return
    verdict = kind.examine(module)
    if before is not None and not isinstance(verdict, Swap):
        restore_forward(module)  # it is no longer what it was: PEFT wrapped a part of it
    if verdict is None:
        return
    if isinstance(verdict, Leave):
        done.left.append((name, kind.name, verdict.reason))
    elif before is not None:
        done.swapped.append((name, kind.name))
    elif has_own_forward(module):
        done.left.append((name, kind.name, "its forward was replaced by something else"))
    elif device == "auto" and not triton_runs_on(device_of(module)):
        where = device_of(module).type
        done.left.append((name, kind.name, f"no Triton on this device ({where})"))
    else:
        swap_forward(module, kind.name, verdict.forward)
        done.swapped.append((name, kind.name))
