"""Lets something run on a model and leaves the model, and torch's random state, as they were.

Knows nothing of what runs inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def same_modes(model: nn.Module) -> Iterator[None]:
    """Restores every module's train/eval mode and every parameter's `requires_grad`."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)


def without_dropout(model: nn.Module) -> None:
    """Switch dropout off in a model that trains; within `same_modes`, which switches it on again."""
    for module in model.modules():
        if isinstance(module, nn.Dropout) or hasattr(module, "lora_dropout"):
            module.training = False


@contextmanager
def same_gradients(model: nn.Module) -> Iterator[None]:
    """Inside, no parameter has a gradient; afterwards each has the one it had."""
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def own_randomness(model: nn.Module, seed: int) -> Iterator[None]:
    """Inside, torch's generators start from `seed`; afterwards they continue where they were."""
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)):
        torch.manual_seed(seed)
        yield
