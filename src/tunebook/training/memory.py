"""Measure memory: what tensors of a model hold, and the highest that one step adds to them.

Knows torch's allocators and nothing of trainers, plans or events.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._C._profiler import _ExperimentalConfig


def measure_step_memory(step: Callable[[], None], *, device: torch.device | str = "cpu") -> int:
    """Run `step` once and return the peak of live tensor bytes above what was live when it began.

    On the CPU the allocator's events of the calling thread are added up (backward runs in
    that thread); on CUDA the caching allocator's own peak is read, and its statistics are reset.
    Works from any thread. The step runs slower than usual on the CPU, once.

    Args:
        step: what to measure, such as forward, backward and update of one batch.
        device: where the tensors of the step live.
    """
    device = torch.device(device)
    gc.collect()  # what an earlier recording saw come would be taken off when collected in this one
    if device.type == "cuda":
        return _cuda_peak(step, device)
    with _recording() as changes:
        step()
    return _peak(changes)


def resident_bytes(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Bytes of all parameters, buffers, gradients and optimizer state, each storage counted once.

    The scales and code books of bitsandbytes' quantized weights count too.
    """
    sizes: dict[tuple[str, int], int] = {}
    for tensor in _resident(model, optimizer):
        storage = tensor.untyped_storage()
        sizes[str(storage.device), storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _resident(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Iterator[torch.Tensor]:
    for parameter in model.parameters():
        yield parameter.data
        if parameter.grad is not None:
            yield parameter.grad
        # 4-bit weights keep their scales in `quant_state`, 8-bit weights in `SCB`
        for holder in (getattr(parameter, "quant_state", None), getattr(parameter, "SCB", None)):
            yield from _tensors_in(holder)
    yield from model.buffers()
    for module in model.modules():
        yield from _tensors_in(getattr(module, "state", None))
    if optimizer is not None:
        for state in optimizer.state.values():
            yield from _tensors_in(state)


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a tensor, a dict, or an object's attributes (quantization states nest)."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors_in(item)
    elif type(value).__module__.startswith("bitsandbytes"):
        yield from _tensors_in(vars(value))


@contextmanager
def _recording() -> Iterator[list[int]]:
    """Collect the bytes of each allocation (positive) and release (negative), in order.

    The recorder under `torch.autograd.profiler_legacy` is used: bound to the calling thread and
    silent, while the Kineto one writes to the process's error stream from a worker thread.
    """
    recorder: Any = torch.autograd
    config = recorder.ProfilerConfig(
        recorder.ProfilerState.CPU, False, True, False, False, False, _ExperimentalConfig()
    )
    changes: list[int] = []
    recorder._enable_profiler_legacy(config)
    try:
        yield changes
    finally:
        for thread in recorder._disable_profiler_legacy():
            for event in thread:
                if event.kind() == "memory_alloc":
                    changes.append(int(event.cpu_memory_usage()))


def _peak(changes: Iterable[int]) -> int:
    live = highest = 0
    for change in changes:
        live += change
        highest = max(highest, live)
    return highest


def _cuda_peak(step: Callable[[], None], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before
