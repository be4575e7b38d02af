"""Memory and use of this machine's GPUs, asked of the driver without torch.

Only NVIDIA's tool is asked, at most every other second; a machine without it costs nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from typing import Any

FRESH = 2.0  # seconds for which an answer is good
_MIB = 2**20
_QUERY = ("index", "name", "memory.used", "memory.total", "utilization.gpu")


class GpuMonitor:
    """The GPUs as plain data, or None where there are none to be seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = -FRESH
        self._seen: list[dict[str, Any]] | None = None

    def read(self) -> list[dict[str, Any]] | None:
        """Index, name, bytes used and in all, and the share of time busy, of each GPU."""
        with self._lock:
            if time.monotonic() - self._read_at >= FRESH:
                self._seen = _ask()
                self._read_at = time.monotonic()
            return self._seen


def parse(text: str) -> list[dict[str, Any]]:
    """The lines of `nvidia-smi --format=csv,noheader,nounits`; what is not told is None."""
    gpus = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(_QUERY):
            continue
        index, name, used, total, busy = cells
        gpus.append(
            {
                "index": _number(index),
                "name": name,
                "used": _number(used, _MIB),
                "total": _number(total, _MIB),
                "busy": _number(busy),
            }
        )
    return gpus


def _ask() -> list[dict[str, Any]] | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse(done.stdout) or None


def _number(text: str, unit: int = 1) -> int | None:
    return int(text) * unit if text.isdigit() else None
