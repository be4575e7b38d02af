"""Numbers of a step on their way from the device to the host.

Knows tensors of one element; knows no trainer and no step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class Numbers:
    """Copies of numbers, begun where this is made in the order of the device's work.

    Reading them later waits for that place alone. `float(tensor)` would wait for all that was given
    to the device since, after which it has nothing to do until the host has prepared more.

    Args:
        numbers: names to numbers, or tensors of one element; those may be overwritten afterwards.
    """

    def __init__(self, numbers: Mapping[str, torch.Tensor | float]) -> None:
        tensors = [value for value in numbers.values() if isinstance(value, torch.Tensor)]
        self._numbers = dict(numbers)
        self._host: torch.Tensor | None = None
        self._arrived: Any = None
        if tensors:
            together = torch.stack([tensor.detach().double().reshape(()) for tensor in tensors])
            self._host = together.to("cpu", non_blocking=True)
            if together.is_cuda:
                self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._arrived.record()

    def read(self) -> dict[str, float]:
        """All of them, by name and in their order."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values = iter([] if self._host is None else self._host.tolist())
        return {
            name: next(values) if isinstance(value, torch.Tensor) else float(value)
            for name, value in self._numbers.items()
        }
