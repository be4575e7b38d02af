"""How long a user waits: for `import tunebook`, `Guide()`, a plan, a change in a form, and the demo.

    python benchmarks/startup.py [--json FILE] [--demo]

`import tunebook` is a fresh interpreter less an empty one; `Guide()` is made in an interpreter that has
imported it once already, as a warm kernel has. Medians of several runs; the demo runs once.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 7
GUIDE = """
import time, tunebook
tunebook.Guide()
times = []
for _ in range(7):
    began = time.perf_counter()
    tunebook.Guide()
    times.append(time.perf_counter() - began)
print(sorted(times)[3])
"""


def seconds(code: str) -> float:
    """Median wall time of a fresh interpreter that runs this code."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def guide_seconds() -> float:
    """Median time of `Guide()` in a warm process, in Python alone (no page)."""
    done = subprocess.run([sys.executable, "-c", GUIDE], check=True, capture_output=True, text=True)
    return float(done.stdout)


def plan_seconds() -> tuple[float, float]:
    """Median times of `make_plan`, and of a changed field in the method panel with its new plan."""
    import tunebook

    hardware = tunebook.Hardware.detect()
    plans, changes = [], []
    panel = tunebook.MethodPanel()
    panel.studio.wait_for_plan()
    for rank in range(8, 28):
        recipe = tunebook.demo_recipe().with_values({"lora.r": rank})
        began = time.perf_counter()
        tunebook.make_plan(recipe, hardware=hardware)
        plans.append(time.perf_counter() - began)
        began = time.perf_counter()
        panel.handle({"type": "set", "path": "lora.r", "value": str(rank)})
        changes.append(time.perf_counter() - began)
    return statistics.median(plans), statistics.median(changes)


def demo_seconds() -> float:
    """Wall time of `tunebook demo`."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-c", "from tunebook.cli import main; main(['demo'])"]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


def main() -> None:
    """Print the table; write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--demo", action="store_true", help="time the demo too (a minute)")
    arguments = parser.parse_args()
    results = {
        "import tunebook": seconds("import tunebook") - seconds("pass"),
        "Guide() in a warm process": guide_seconds(),
    }
    results["make_plan"], results["a change in the form"] = plan_seconds()
    if arguments.demo:
        results["tunebook demo"] = demo_seconds()
    machine = f"{platform.processor() or platform.machine()}, Python {platform.python_version()}"
    sys.stdout.write(f"{machine}\n")
    for name, value in results.items():
        sys.stdout.write(f"{name:28} {value:8.3f} s\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "seconds": results}, indent=2))


if __name__ == "__main__":
    main()
