"""The kernels themselves on a CPU: the operations' tests again, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from packaging.version import Version

triton = pytest.importorskip("triton")
if Version(triton.__version__) < Version("3.7") and Version(numpy.__version__) >= Version("2.4"):
    pytest.skip("this triton's interpreter reads no scalars of this numpy", allow_module_level=True)

# This one; kernels that must be compiled, and their compilation.
NOT_HERE = ("test_interpreter.py", "test_compile.py", "test_ahead.py")


def test_kernels_pass_the_operation_tests_in_the_interpreter(project_root: Path):
    # A process of its own: triton reads the variable once, and it may be imported already.
    folders = [str(project_root / name) for name in ("src", "kernels")]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]),
    }
    here = Path(__file__).parent
    tests = [str(path) for path in sorted(here.glob("test_*.py")) if path.name not in NOT_HERE]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *tests],
        cwd=project_root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout
