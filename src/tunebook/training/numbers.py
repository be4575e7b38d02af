"""Numbers of a step on their way from the device to the host.

Knows tensors of one element; knows no trainer and no step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import torch


class Numbers:
    """Copies of numbers, begun where this is made in the order of the device's work.

    Reading them later waits for that place alone. `float(tensor)` would wait for all that was given
    to the device since, after which it has nothing to do until the host has prepared more.

    Args:
        numbers: names to numbers, or tensors of one element; those may be overwritten afterwards.
    """

    def __init__(self, numbers: Mapping[str, torch.Tensor | float]) -> None:
        self._numbers = {
            name: value if _is_away(value) else float(value) for name, value in numbers.items()
        }
        away = [
            value.detach().double().reshape(()) for value in numbers.values() if _is_away(value)
        ]
        self._host: torch.Tensor | None = None
        self._arrived: Any = None
        if away:
            self._host = torch.stack(away).to("cpu", non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> dict[str, float]:
        """All of them, by name and in their order."""
        if self._host is None:
            return {name: float(value) for name, value in self._numbers.items()}
        self._arrived.synchronize()
        arrived = iter(self._host.tolist())
        return {
            name: next(arrived) if _is_away(value) else float(value)
            for name, value in self._numbers.items()
        }


def _is_away(value: torch.Tensor | float) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor) and value.is_cuda
