"""The kernels themselves on a CPU: the operations' tests again, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

OF_KERNELS = ["test_operations.py", "test_linear_cross_entropy.py"]


def test_kernels_pass_the_operation_tests_in_the_interpreter(project_root: Path):
    # A process of its own: triton reads the variable once, and it may be imported already.
    folders = [str(project_root / name) for name in ("src", "kernels")]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]),
    }
    tests = [str(Path(__file__).with_name(name)) for name in OF_KERNELS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *tests],
        cwd=project_root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout
