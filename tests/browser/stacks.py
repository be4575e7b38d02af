"""Stacks that differ from the installed one in what the panels depend on; a script that gets them.

ipykernel's releases differ in whether a click reaches Python while a cell runs and in what a
reload brings back; Colab's stack is the oldest that is supported. Each is a folder of packages
that a kernel puts before those of this environment, so that torch is not installed again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# What lies beside ipykernel 6 in an environment of its time.
_OLD = ("nest-asyncio",)
STACKS = {
    "ipykernel-7.3": ("ipykernel==7.3.0",),
    "ipykernel-6.31": ("ipykernel==6.31.0", *_OLD),
    "ipykernel-6.17": ("ipykernel==6.17.1", *_OLD),
    # Colab's image of 2026-08, but for Python itself
    "colab": (
        *("ipykernel==6.17.1", "ipython==7.34.0", "traitlets==5.7.1", *_OLD),
        *("backcall", "decorator", "pickleshare", "ipython-genutils"),
        *("ipywidgets==7.7.1", "widgetsnbextension<4", "anywidget==0.9.21"),
        *("plotly==5.24.1", "tenacity"),
    ),
    "classic": ("nbclassic==1.3.3", "ipython-genutils", *_OLD),
}
FOLDER = Path(__file__).resolve().parents[2] / ".make" / "stacks"


def ensure(name: str) -> Path:
    """The folder of a stack's packages, installed if need be."""
    folder = FOLDER / name
    done = folder / "installed.json"
    wanted = json.dumps(STACKS[name])
    if not done.is_file() or done.read_text() != wanted:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        command += ["--no-deps", "--upgrade", "--target", str(folder), *STACKS[name]]
        subprocess.run(command, check=True)
        done.write_text(wanted)
    return folder


def write_kernels(data: Path, names: Iterable[str]) -> None:
    """Write the kernel specifications of these stacks into a Jupyter data folder."""
    for name in names:
        folder = data / "kernels" / name
        folder.mkdir(parents=True)
        spec = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": name,
            "language": "python",
            "env": {"PYTHONPATH": str(ensure(name))},
        }
        (folder / "kernel.json").write_text(json.dumps(spec))


def colab_environment(folder: Path) -> dict[str, str]:
    """For a server of the classic Notebook, whose page has the widget manager of ipywidgets 7.

    JupyterLab 4's manager knows only ipywidgets 8; Colab's is of the same age as this one.
    """
    write_kernels(folder / "data", ["colab"])
    parts = [ensure("colab"), ensure("classic")]
    return {
        "PYTHONPATH": str(parts[1]),
        "JUPYTER_PATH": os.pathsep.join(str(part / "share/jupyter") for part in parts),
        "JUPYTER_CONFIG_PATH": os.pathsep.join(str(part / "etc/jupyter") for part in parts),
    }


if __name__ == "__main__":
    for stack in STACKS:
        sys.stdout.write(f"{stack}: {ensure(stack)}\n")
