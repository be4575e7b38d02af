"""Replays a step as one CUDA graph where the host would be later than the device.

Knows a function of tensors and the shapes that it was called with; knows no model and no trainer.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

logger = logging.getLogger(__name__)

Inputs = Mapping[str, Any]
Outputs = tuple[torch.Tensor, ...]

_CALLS_BEFORE = (
    3  # of a shape, one by one, before it is captured: libraries choose and compile then
)
_MOST_GRAPHS = 8  # each holds on to its own memory


@dataclass
class _Captured:
    graph: Any
    inputs: dict[str, torch.Tensor]
    outputs: Outputs


class StepGraphs:
    """Calls `step(inputs)`, and from the fourth call of a shape on replays its kernels.

    All captured steps share one pool of memory, so they must not run at the same time; what a step
    returns is overwritten by the next call. A step must not wait for the device, draw random numbers
    on the host, or allocate what must outlive it, and whatever it reads beside its inputs
    (weights, gradients) must stay where it is.

    Args:
        step: forward and backward; from inputs to a few small tensors.
        guard: made at each call; graphs are given up as soon as it is another one.
    """

    def __init__(
        self, step: Callable[[Inputs], Outputs], guard: Callable[[], Any] = lambda: None
    ) -> None:
        self._step = step
        self._guard = guard
        self._seen: Counter[Any] = Counter()
        self._graphs: dict[Any, _Captured] = {}
        self._pool: Any = None
        self._guarded: Any = None
        self.failure: str | None = None
        self.captures = 0  # tried so far

    def __call__(self, inputs: Inputs) -> Outputs:
        """The step's outputs. `inputs`: tensors on the device, and anything hashable beside them."""
        guard = self._guard()
        if guard != self._guarded:
            self.clear()
            self._guarded = guard
        key = tuple(_shape_of(name, value) for name, value in inputs.items())
        captured = self._graphs.get(key)
        if captured is None:
            self._seen[key] += 1
            if not self._ready(key):
                return self._step(inputs)
            self.captures += 1
            captured = self._capture(key, inputs)
            if captured is None:
                return self._step(inputs)
        for name, target in captured.inputs.items():
            target.copy_(inputs[name], non_blocking=True)
        captured.graph.replay()
        return captured.outputs

    def clear(self) -> None:
        """Give all graphs and their memory back."""
        self._graphs.clear()
        self._seen.clear()
        self._pool = None

    def _ready(self, key: Any) -> bool:
        return (
            self.failure is None
            and self._seen[key] > _CALLS_BEFORE
            and len(self._graphs) < _MOST_GRAPHS
        )

    def _capture(self, key: Any, inputs: Inputs) -> _Captured | None:
        """A graph of the step, or None if this step cannot be captured; it is then not tried again."""
        static = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize()
        _forget_workspaces()
        torch.cuda.empty_cache()  # what steps used so far, the pool asks for again
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads (a chat, a meter) may use the device meanwhile
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = self._step(static)
        except torch.OutOfMemoryError:
            self.failure = "no memory for a graph beside the steps before it"
        except RuntimeError as error:
            self.failure = str(error).splitlines()[0]
            logger.info("A step could not be captured: %s", error, exc_info=True)
        else:
            tensors = {k: v for k, v in static.items() if isinstance(v, torch.Tensor)}
            captured = _Captured(graph, tensors, outputs)
            if self._guard() == self._guarded:  # else something moved while it was captured
                self._graphs[key] = captured
            return captured
        torch.cuda.synchronize()
        _end_capture_of_random_numbers()
        return None


def _forget_workspaces() -> None:
    """cuBLAS has a workspace for each stream; that of the steps so far is not needed any more."""
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()


def _end_capture_of_random_numbers() -> None:
    """A capture that failed leaves the generator waiting for its end, and unusable until then."""
    generator: Any = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(generator.clone_state())


def _shape_of(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, torch.Tensor):
        return name, tuple(value.shape), value.dtype
    return name, value
