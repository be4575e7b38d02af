"""How much memory a run takes: the allocator's own peak on a GPU, profiled steps on the CPU.

Knows a model, its optimizer and steps to measure; knows nothing of trainers or events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from tunebook.training.memory import measure_step_memory, resident_bytes

T = TypeVar("T")
_NOTICEABLY = 1.05  # a batch is measured again when it is this much larger than any before


class MemoryMeter:
    """Keeps the highest number of bytes in tensors that a run has reached.

    On CUDA the allocator counts. On the CPU nothing does, so the forward and backward pass of each
    batch that is larger than all before it runs under the profiler: a handful of steps in a run.
    """

    def __init__(self, model: nn.Module) -> None:
        self.peak = 0
        self._model = model
        self._device = next(model.parameters()).device
        self._largest = 0
        self._without_optimizer = 0
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def around(self, step: Callable[[], T], tokens: int) -> T:
        """Run the forward and backward pass `step` on a batch of `tokens` tokens, measured if due."""
        if self._device.type == "cuda" or tokens <= self._largest * _NOTICEABLY:
            return step()
        self._largest = tokens
        result: list[T] = []
        before = resident_bytes(self._model)
        added = measure_step_memory(lambda: result.append(step()), device=self._device)
        self._without_optimizer = max(self._without_optimizer, before + added)
        return result[0]

    def read(self, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
        """The fields of a `MemoryEvent`: what is allocated now, and the peak so far, in bytes."""
        import psutil

        process = psutil.Process().memory_info().rss
        if self._device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self._device)
            return {
                "device": str(self._device),
                "allocated": torch.cuda.memory_allocated(self._device),
                "reserved": torch.cuda.memory_reserved(self._device),
                "peak": self.peak,
                "process": process,
                "method": "allocator",
            }
        allocated = resident_bytes(self._model, optimizer)
        states = allocated - resident_bytes(self._model)
        self.peak = max(self.peak, allocated, self._without_optimizer + states)
        return {
            "device": str(self._device),
            "allocated": allocated,
            "peak": self.peak,
            "process": process,
            "method": "profiled steps",
        }
