"""What this machine has, what Tunebook will use of it, and what is missing.

Looks only; nothing is loaded onto a device, written, or asked of the network.
"""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from tunebook.cli import show

_NEEDED = (
    "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "gguf",
    "ipywidgets", "anywidget", "plotly",
)  # fmt: skip
_OPTIONAL = ("triton", "jupyterlab", "ipykernel", "xllamacpp")


class Finding(BaseModel):
    """One thing that is wrong or missing, and what to do about it."""

    severity: Literal["error", "warning"]
    what: str
    do: str


class Diagnosis(BaseModel):
    """The doctor's report."""

    system: dict[str, str]
    versions: dict[str, str]
    used: dict[str, str]
    findings: list[Finding]

    @property
    def ready(self) -> bool:
        """Whether nothing stands in the way of a run."""
        return not any(finding.severity == "error" for finding in self.findings)


def diagnose() -> Diagnosis:
    """Look at this machine."""
    from tunebook.plan import Hardware

    hardware = Hardware.detect()
    found = {name: _version(name) for name in ("tunebook", *_NEEDED, *_OPTIONAL)}
    findings = [
        Finding(severity="error", what=f"{name} is not installed.", do=f"pip install {name}")
        for name in _NEEDED
        if found[name] is None
    ]
    findings += _device_findings(hardware.device)
    extension = _lab_extension()
    if found["jupyterlab"] and extension is None:
        findings.append(
            Finding(
                severity="warning",
                what="JupyterLab is here, but Tunebook's extension is not installed in it.",
                do="install tunebook into the environment that JupyterLab runs from.",
            )
        )
    free = shutil.disk_usage(Path.cwd()).free
    if free < 2 * 2**30:
        findings.append(
            Finding(
                severity="warning",
                what=f"Only {show.mib(free)} are free on this disk.",
                do="free some space: checkpoints and exports need room.",
            )
        )
    return Diagnosis(
        system={
            "python": f"{platform.python_version()} ({sys.executable})",
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "device": f"{hardware.device}: {hardware.name}",
            "memory": f"{show.mib(hardware.free_memory)} free of {show.mib(hardware.total_memory)}",
            "cores": str(hardware.cores),
            "disk": f"{show.mib(free)} free here",
        },
        versions={name: text or "not installed" for name, text in found.items()},
        used={
            "compute dtype": _dtype(hardware.device, hardware.supports_bf16),
            "4-bit weights": "bitsandbytes NF4",
            "kernels": "Triton" if hardware.device == "cuda" and found["triton"] else "plain torch",
            "Lab extension": extension or "not installed",
        },
        findings=findings,
    )


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """The report as tables."""
    show.pairs(list(diagnosis.system.items()), title="This machine")
    show.pairs(list(diagnosis.used.items()), title="\nWhat will be used")
    show.pairs(list(diagnosis.versions.items()), title="\nVersions")
    show.console.print()
    if not diagnosis.findings:
        show.console.print("[green]Nothing is missing.[/] Try: tunebook demo")
    for finding in diagnosis.findings:
        colour = "red" if finding.severity == "error" else "yellow"
        show.console.print(f"[{colour}]{finding.severity}:[/] {finding.what}\n  Do: {finding.do}")


def _device_findings(device: str) -> list[Finding]:
    if device == "cuda" or not Path("/dev/nvidiactl").exists():
        return []
    return [
        Finding(
            severity="warning",
            what="There is an NVIDIA GPU, but this torch cannot use it.",
            do="install a CUDA build of torch; see pytorch.org.",
        )
    ]


def _dtype(device: str, bf16: bool) -> str:
    if device != "cuda":
        return "float32"
    return "bfloat16" if bf16 else "float16"


def _lab_extension() -> str | None:
    for prefix in (sys.prefix, sys.base_prefix):
        folder = Path(prefix) / "share" / "jupyter" / "labextensions" / "tunebook"
        if (folder / "package.json").is_file():
            return str(folder)
    return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
