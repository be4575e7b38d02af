"""What importing the package costs and touches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tunebook


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_importing_loads_no_torch_and_writes_nothing(tmp_path: Path) -> None:
    heavy = "('torch', 'transformers', 'trl', 'peft', 'datasets', 'ipywidgets', 'plotly')"
    code = f"import sys, tunebook; print([m for m in {heavy} if m in sys.modules])"
    assert run_python(code, tmp_path) == "[]"
    assert list(tmp_path.iterdir()) == []


def test_planning_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, tunebook; tunebook.make_plan(tunebook.Recipe());"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    assert run_python(code, tmp_path) == "[]"


def test_every_public_name_is_there() -> None:
    for name in tunebook.__all__:
        assert getattr(tunebook, name) is not None
    assert set(tunebook.__all__) <= set(dir(tunebook))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(tunebook, "FastTelepathy")
