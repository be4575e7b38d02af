"""The kernels inside whole models on a CPU: parity again, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


@pytest.mark.slow
def test_kernels_keep_a_model_the_same_function_in_the_interpreter(project_root: Path):
    folders = [str(project_root / name) for name in ("src", "kernels")]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]),
    }
    tests = str(Path(__file__).with_name("test_parity.py"))
    chosen = "same_function and (llama or gemma2) and float32 or checkpointed or four_bit"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", tests, "-k", chosen],
        cwd=project_root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "4 passed" in done.stdout
