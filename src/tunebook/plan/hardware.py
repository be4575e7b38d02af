"""What this machine, or a card named by the user, can hold and compute.

Torch is imported only where an NVIDIA driver is present; nothing here knows models or recipes.
"""

from __future__ import annotations

import ctypes.util
import difflib
import functools
import importlib.util
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunebook.errors import RecipeInvalid

GIB = 2**30
_OUTSIDE_ALLOCATOR = GIB // 2
"""CUDA context and libraries, which take room on a card before the first tensor."""


_SLOWEST_LINK = 11e9
"""Of cards that are not in the table: PCIe 3.0 by 16 lanes."""
_PINNED_SHARE = 0.5


class Hardware(BaseModel):
    """One device that a plan is made for."""

    model_config = ConfigDict(frozen=True)

    device: Literal["cpu", "cuda"]
    name: str
    total_memory: int = Field(description="Bytes.")
    free_memory: int = Field(description="Bytes that are free now.")
    compute_capability: str | None = Field(
        default=None, description='Such as "8.9"; None on a CPU.'
    )
    supports_bf16: bool = Field(default=False, description="bfloat16 arithmetic at full speed.")
    cores: int = Field(default=1, description="Logical processors of the host.")
    flops: float = Field(description="Sustained FLOP/s of a large product in the compute dtype.")
    bandwidth: float = Field(description="Sustained bytes/s of a large copy, read plus write.")
    link: float = Field(
        default=_SLOWEST_LINK,
        description="Bytes/s between pinned host memory and the device, in one direction.",
    )
    host_memory: int | None = Field(
        default=None, description="Bytes of the host's memory that are free; None: not known."
    )

    @property
    def pinnable(self) -> int:
        """Bytes of host memory that a run may pin: half of what is free; none where that is the device.

        Where it is not known, a host is taken to have as much as its card.
        """
        if self.device == "cpu":
            return 0
        free = self.total_memory if self.host_memory is None else self.host_memory
        return int(free * _PINNED_SHARE)

    @classmethod
    def detect(cls) -> Hardware:
        """The first GPU if there is one, else the CPU; memory is read anew at every call."""
        return _gpu() or _cpu()

    @classmethod
    def of(cls, name: str) -> Hardware:
        """A card by name ("T4", "RTX 4090"), all of its memory free; "cpu" is this machine's.

        Raises:
            RecipeInvalid: no such card is in the table; the message names close ones.
        """
        if name.strip().lower() == "cpu":
            return _cpu()
        card = match_card(name)
        if card is None:
            close = difflib.get_close_matches(name, cards(), n=3, cutoff=0.3) or list(cards())
            raise RecipeInvalid(
                f"The card {name!r} is not known.",
                "it is not in the table of cards.",
                f"name one of {', '.join(close)}, or use Hardware.detect() where the card is.",
            )
        facts = cards()[card]
        total = int(facts["memory_gib"] * GIB)
        capability = str(facts["capability"])
        return cls(
            device="cuda",
            name=card,
            total_memory=total,
            free_memory=total - _OUTSIDE_ALLOCATOR,
            compute_capability=capability,
            supports_bf16=_has_bf16(capability),
            cores=os.cpu_count() or 1,
            flops=facts["tflops"] * 1e12,
            bandwidth=facts["gbps"] * 1e9,
            link=facts["link_gbps"] * 1e9,
        )


@functools.cache
def cards() -> dict[str, dict[str, Any]]:
    """Known cards: usable memory, capability, sustained dense 16-bit TFLOP/s and GB/s, and their link.

    H200 was measured; the others are about three quarters of the published dense peak (half where
    a card throttles early, as T4 and L4 do) and 80 % of the published bandwidth. `link_gbps` is 70 %
    of PCIe's published rate for the card's generation and lanes, but for H100 (measured) and H200
    (taken to be alike).
    """
    table: dict[str, dict[str, Any]] = json.loads(
        Path(__file__).with_name("cards.json").read_text(encoding="utf-8")
    )
    return table


def match_card(name: str) -> str | None:
    """The card of the table that a driver's or a user's name means; the most specific one.

    "NVIDIA A100-SXM4-40GB" is "A100-40GB": all words of the card stand in the name.
    """
    words = set(_words(name))
    fitting = [card for card in cards() if set(_words(card)) <= words]
    return max(fitting, key=lambda card: len(_words(card)), default=None)


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def _has_bf16(capability: str) -> bool:
    return int(capability.split(".")[0]) >= 8


def _driver_present() -> bool:
    """Whether an NVIDIA driver is loaded; costs microseconds, so that a CPU machine never pays."""
    paths = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")
    if os.name == "nt":
        return ctypes.util.find_library("nvcuda") is not None
    return any(os.path.exists(path) for path in paths)


def _gpu() -> Hardware | None:
    if not _driver_present() or importlib.util.find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    facts = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    # what this process's allocator holds but does not use can be used again
    free += torch.cuda.memory_reserved(0) - torch.cuda.memory_allocated(0)
    capability = f"{facts.major}.{facts.minor}"
    card = cards().get(match_card(facts.name) or "")
    # an unknown card: tensor cores of one multiprocessor at 1.5 GHz, by generation
    per_unit = {7: 0.5e12, 8: 1.0e12, 9: 4.5e12}.get(
        facts.major, 4.5e12 if facts.major > 9 else 0.1e12
    )
    return Hardware(
        device="cuda",
        name=facts.name,
        total_memory=total,
        free_memory=free,
        compute_capability=capability,
        supports_bf16=_has_bf16(capability),
        cores=os.cpu_count() or 1,
        flops=card["tflops"] * 1e12 if card else facts.multi_processor_count * per_unit,
        bandwidth=card["gbps"] * 1e9 if card else 4e9 * facts.multi_processor_count,
        link=card["link_gbps"] * 1e9 if card else _SLOWEST_LINK,
        host_memory=_host_memory()[1],
    )


def _cpu() -> Hardware:
    total, free = _host_memory()
    flops, bandwidth = _measure_cpu()
    return Hardware(
        device="cpu",
        name=_cpu_name(),
        total_memory=total,
        free_memory=free,
        supports_bf16=False,
        cores=os.cpu_count() or 1,
        flops=flops,
        bandwidth=bandwidth,
    )


def _host_memory() -> tuple[int, int]:
    """Bytes of memory that this process may use, all and free."""
    import psutil

    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    limit = _container_limit()
    if limit is not None:
        total, free = min(total, limit[0]), min(free, limit[0] - limit[1])
    return total, max(0, free)


def _container_limit() -> tuple[int, int] | None:
    """Memory limit of the control group and what is used of it, in bytes; None if there is none."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = (folder / "memory.current").read_text().strip()
    except OSError:
        return None
    return (int(limit), int(used)) if limit.isdigit() and used.isdigit() else None


@functools.cache
def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine() or "CPU"
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine() or "CPU"


@functools.cache
def _measure_cpu() -> tuple[float, float]:
    """FLOP/s of a float32 product and bytes/s of a copy, the best of some tries; about 40 ms."""
    import numpy as np

    size = 256  # small enough for many tries, of which one is undisturbed
    left = np.ones((size, size), dtype=np.float32)
    out = np.empty_like(left)
    source = np.ones(2**21, dtype=np.float32)
    target = np.ones_like(source)
    product = _best(lambda: np.matmul(left, left, out=out), seconds=0.02)
    copy = _best(lambda: np.copyto(target, source), seconds=0.015)
    return 2 * size**3 / product, 2 * source.nbytes / copy


def _best(work: Any, *, seconds: float) -> float:
    best = float("inf")
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        work()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return max(best, 1e-9)
