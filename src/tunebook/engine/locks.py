"""One lock for each model, so that a training step and an answer never run at the same moment.

Knows nothing of what is done while it is held.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn


class ModelLock:
    """A re-entrant lock that can say whether the calling thread holds it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._depth = 0

    def acquire(self, timeout: float = -1) -> bool:
        """Take the lock, waiting at most `timeout` seconds (-1: for ever); False if in vain."""
        if not self._lock.acquire(timeout=timeout):
            return False
        self._owner = threading.get_ident()
        self._depth += 1
        return True

    def release(self) -> None:
        """Give it back; only the thread that took it may."""
        if not self.held:
            raise RuntimeError("a model's lock is released by the thread that took it")
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
        self._lock.release()

    @property
    def held(self) -> bool:
        """Whether the calling thread holds it."""
        return self._owner == threading.get_ident()

    def __enter__(self) -> ModelLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


_LOCKS: WeakKeyDictionary[nn.Module, ModelLock] = WeakKeyDictionary()
_GUARD = threading.Lock()


def model_lock(model: nn.Module) -> ModelLock:
    """The lock of this model; a model and its PEFT or parallel wrappers share one."""
    with _GUARD:
        return _LOCKS.setdefault(unwrapped(model), ModelLock())


def unwrapped(model: Any) -> Any:
    """The model inside PEFT's and torch's wrappers."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif hasattr(model, "get_base_model"):
            model = model.get_base_model()
        else:
            return model
