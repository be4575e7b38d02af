"""What NVIDIA's tool says, as plain data; on this machine it may not be there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tunebook.server import gpu

TOLD = """0, NVIDIA H100 80GB HBM3, 1024, 81559, 37
1, Tesla T4, [N/A], 15360, [Not Supported]
a driver's warning
"""


def test_the_lines_become_bytes_and_what_is_not_told_is_none() -> None:
    assert gpu.parse(TOLD) == [
        {
            "index": 0, "name": "NVIDIA H100 80GB HBM3", "used": 2**30, "total": 81559 * 2**20,
            "busy": 37,
        },
        {"index": 1, "name": "Tesla T4", "used": None, "total": 15360 * 2**20, "busy": None},
    ]  # fmt: skip


def test_no_tool_is_no_gpu(monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu.shutil, "which", lambda _: None)
    assert gpu.GpuMonitor().read() is None


def test_a_tool_that_fails_or_hangs_is_no_gpu(monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu.shutil, "which", lambda name: name)
    for error in (
        subprocess.TimeoutExpired("x", 5),
        OSError(),
        subprocess.CalledProcessError(9, "x"),
    ):
        monkeypatch.setattr(gpu.subprocess, "run", _raises(error))
        assert gpu.GpuMonitor().read() is None


def test_the_tool_is_asked_once_for_many_questions(monkeypatch: Any, tmp_path: Path) -> None:
    tool, asked = tmp_path / "nvidia-smi", tmp_path / "asked"
    tool.write_text(f"#!/bin/sh\necho asked >> {asked}\necho '0, Card, 1, 2, 3'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monitor = gpu.GpuMonitor()
    assert [monitor.read() for _ in range(3)][2][0]["name"] == "Card"
    assert asked.read_text().count("asked") == 1


def _raises(error: BaseException) -> Any:
    def run(*_: Any, **__: Any) -> None:
        raise error

    return run
