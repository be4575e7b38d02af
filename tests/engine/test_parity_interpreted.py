"""The kernels inside whole models on a CPU: parity again, in Triton's interpreter."""

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

CHOSEN = [
    "test_parity.py::test_patched_four_bit_layers_are_the_same_function",
    *[
        f"test_families.py::test_a_patched_model_takes_the_same_step[{which}]"
        for which in (
            "llama-padded left-nothing kept-four bits",
            "gemma2-packed by lengths-half kept-float32",
            "qwen3-packed by positions-nothing kept-float32",
        )
    ],
    "test_vision.py::test_a_patched_model_takes_the_same_step_with_images"
    "[qwen2_vl-1-False-all kept-float32]",
    *[
        f"test_softcap.py::test_a_step_of_gemma_2_makes_no_scores_where_the_kernel_runs[{which}]"
        for which in ("padded right-all kept", "packed-nothing kept")
    ],
]


@pytest.mark.slow
def test_kernels_keep_a_model_the_same_function_in_the_interpreter(project_root: Path):
    folders = [str(project_root / name) for name in ("src", "kernels")]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]),
    }
    tests = [str(Path(__file__).with_name(name)) for name in CHOSEN]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *tests],
        cwd=project_root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{len(CHOSEN)} passed" in done.stdout
