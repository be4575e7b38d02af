"""Makes kernels before they are needed: side by side, and while something else is being waited for.

Knows triton's functions and its cache; knows none of the operations.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from tunebook_kernels._launch import FUNCTIONS, INTERPRETED, triton

logger = logging.getLogger(__name__)

_ONE_AT_A_TIME = threading.Lock()
_STARTED: set[torch.device] = set()


@contextmanager
def compile_ahead(device: torch.device) -> Iterator[None]:
    """Inside, what this thread launches is compiled in other threads and not run.

    Outputs stay as they were allocated, so whoever calls must not look at them. Other threads launch
    as always. At the end all is compiled; what could not be is left to fail where it is needed.
    Nothing is different where there is nothing to compile: without triton, in its interpreter.
    """
    if triton is None or INTERPRETED or device.type != "cuda":
        yield
        return
    with _ONE_AT_A_TIME, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        work = _Work(pool, device)
        for function in FUNCTIONS:
            function.run = partial(work.take, function)  # which `function[grid](...)` calls
        try:
            yield
        finally:
            for function in FUNCTIONS:
                del function.run
        work.wait()


class _Work:
    """Compilations under way for one thread."""

    def __init__(self, pool: ThreadPoolExecutor, device: torch.device) -> None:
        self._thread = threading.get_ident()
        self._pool, self._device = pool, device
        # a second call of a function mostly finds what the first has compiled
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._tasks: list[Future[None]] = []

    def take(self, function: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        """In the place of `JITFunction.run`."""
        run = partial(type(function).run, function, *args, grid=grid, **options)
        if threading.get_ident() != self._thread:
            return run(warmup=warmup)
        self._tasks.append(self._pool.submit(self._compile, self._locks[id(function)], run))
        return None

    def wait(self) -> None:
        """Until all is compiled."""
        for task in self._tasks:
            if error := task.exception():
                logger.info("A kernel could not be compiled ahead: %s", error)

    def _compile(self, lock: threading.Lock, run: Any) -> None:
        with lock, torch.cuda.device(self._device):
            compiled = run(warmup=True)
            _ = compiled.run  # loads it, and builds the C function that launches it


def start_up(device: torch.device) -> threading.Thread | None:
    """Begin in the background what costs the first kernels seconds, such as to load libraries.

    Once a process and device. Best called before something that waits for the disk or the network.

    Returns:
        The thread that does it; None where there is nothing to do.
    """
    if device.type != "cuda" or device in _STARTED:
        return None
    _STARTED.add(device)
    thread = threading.Thread(target=_start_up, args=(device,), daemon=True)
    thread.start()
    return thread


def _start_up(device: torch.device) -> None:
    for part in (_start_triton, _load_attention):
        try:
            with torch.cuda.device(device):
                part()
        except Exception as error:  # whatever it is, it is met again where it is needed
            logger.info("%s: %s", part.__name__, error)


def _start_triton() -> None:
    if triton is None or INTERPRETED:
        return
    triton.runtime.driver.active.get_current_device()  # compiles its C part
    from triton.runtime.cache import triton_key

    triton_key()  # reads all of triton, once a process


def _load_attention() -> None:
    if torch.cuda.get_device_capability()[0] < 8:
        return
    x = torch.zeros((1, 1, 64, 64), dtype=torch.bfloat16, device="cuda", requires_grad=True)
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]):
        torch.autograd.grad(scaled_dot_product_attention(x, x, x, is_causal=True).sum(), x)
