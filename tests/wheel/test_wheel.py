"""`pip install tunebook`, as somebody without Node and without this checkout would do it."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from harness import Notebook, running_browser, running_lab

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run(build, cwd=project_root, env={**os.environ, "PATH": path}, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """The Python of an empty environment into which only the wheel and JupyterLab were installed."""
    folder = tmp_path_factory.mktemp("second")
    venv.create(folder, with_pip=True)
    executable = folder / "bin" / "python"
    install = [str(executable), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    install.append("--no-compile")  # most of it is not imported here
    torch = [os.environ.get("TORCH") or "torch"]
    if index := os.environ.get("TORCH_INDEX"):
        torch += ["--index-url", index]
    constraints = str(project_root / "constraints.txt")
    subprocess.run([*install, *torch], check=True)
    subprocess.run([*install, "-c", constraints, f"{wheel}[lab]"], check=True)
    return executable


def without_node() -> dict[str, str]:
    """The environment with no folder on the path that holds Node, and no checkout."""
    folders = os.environ["PATH"].split(os.pathsep)
    kept = [folder for folder in folders if not (Path(folder) / "node").exists()]
    environment = {**os.environ, "PATH": os.pathsep.join(kept)}
    environment.pop("PYTHONPATH", None)
    return environment


def test_the_wheel_holds_what_ships_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "tunebook/models/embedded/model.safetensors" in names
    assert (
        len([name for name in names if name.startswith("tunebook/data/formulas/samples/")]) == 101
    )
    assert "tunebook/widgets/static/train.js" in names
    assert any(name.endswith("labextensions/tunebook/package.json") for name in names)
    assert any(name.startswith("tunebook_kernels/") for name in names)
    assert any(name.endswith("jupyter_server_config.d/tunebook.json") for name in names)
    assert not [name for name in names if "node_modules" in name or "/tests/" in name]
    assert wheel.stat().st_size < 16 * 2**20


def test_the_extension_is_listed(python: Path) -> None:
    command = [str(python), "-m", "jupyter", "labextension", "list"]
    done = subprocess.run(command, env=without_node(), capture_output=True, text=True)
    printed = done.stdout + done.stderr
    line = next(line for line in printed.splitlines() if "tunebook" in line)
    assert "enabled" in line
    assert "OK" in line


def test_the_server_extension_is_enabled(python: Path) -> None:
    command = [str(python), "-m", "jupyter", "server", "extension", "list"]
    done = subprocess.run(command, env=without_node(), capture_output=True, text=True)
    printed = done.stdout + done.stderr
    assert "tunebook.server" in printed
    assert "enabled" in next(line for line in printed.splitlines() if "tunebook.server" in line)


def test_the_command_line_works_without_node(python: Path, tmp_path: Path) -> None:
    command = [str(python.with_name("tunebook")), "plan"]
    done = subprocess.run(
        command, cwd=tmp_path, env=without_node(), capture_output=True, text=True, check=True
    )
    assert "memory" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_guide_renders(python: Path, tmp_path: Path) -> None:
    with running_lab(tmp_path, python=python) as lab, running_browser() as browser:
        name = lab.write("guide.ipynb", ["import tunebook; tunebook.Guide()"])
        notebook = Notebook(browser.new_page(), lab).goto(f"/tree/{name}")
        notebook.wait_kernel()
        notebook.run(0)
        notebook.panel("train").wait_for(timeout=60_000)
        assert notebook.page.locator(".tunebook-panel").count() >= 6
        assert notebook.errors() == []
