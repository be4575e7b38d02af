"""What a train panel costs the run that it watches, and how long a run of 100,000 steps takes to open.

    python benchmarks/panel_cost.py [--seconds 15] [--json FILE]

In a real kernel a thread stands for the trainer: it works for most of 50 ms and then writes the events
of a step, 20 times a second. The cost is the processor time that all other threads of the kernel
take (watching, folding, thinning, sending), less what they take without a panel, as a share of the
wall time: more than that the trainer cannot lose to them. Opening is timed from the call to a panel
that has all its curves, the log read from the disk.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path

SETUP = """
import random, socket, sys, threading, time
from pathlib import Path
import psutil, tunebook
from tunebook.events import MemoryEvent, StartedEvent, StepEvent
from tunebook.training.folder import RunFolder

draw, mother = random.Random(0), psutil.Process(1)
about = dict(pid=1, process_started=mother.create_time(), device="cpu", host=socket.gethostname())

def step(n):
    return StepEvent(step=n, epoch=0, loss=1 + 1000 / (n + 500) + draw.gauss(0, 0.1), learning_rate=1e-4,
                     grad_norm=1 + draw.random(), tokens=100 * n, seconds=0.05)

def make(name, steps):
    folder = RunFolder(Path(ROOT) / name)
    folder.path.mkdir()
    tunebook.Recipe.of(max_steps=200_000).save(folder.recipe_file)
    lines = [StartedEvent(total_steps=200_000, trainable_parameters=1, total_parameters=2, **about)]
    for n in range(1, steps + 1):
        lines.append(step(n))
        if n % 10 == 0:
            lines.append(MemoryEvent(step=n, device="cpu", allocated=10**9, peak=2 * 10**9))
    folder.log.path.write_text("".join(line.model_dump_json() + "\\n" for line in lines))
    return folder

def train(folder, first, seconds):
    used, due = time.thread_time(), time.perf_counter()
    for n in range(first + 1, first + 1 + int(20 * seconds)):
        due += 0.05
        while time.perf_counter() < due - 0.005:
            sum(range(500))
        folder.log.append(step(n))
        if n % 10 == 0:
            folder.log.append(MemoryEvent(step=n, device="cpu", allocated=10**9, peak=2 * 10**9))
        time.sleep(max(0, due - time.perf_counter()))
    spent.append(time.thread_time() - used)

def others(folder, first, seconds):
    spent.clear()
    thread = threading.Thread(target=train, args=(folder, first, seconds))
    wall, process = time.perf_counter(), time.process_time()
    thread.start(); thread.join()
    return (time.process_time() - process - spent[0]) / (time.perf_counter() - wall)

spent = []
"""
MEASURE = """
folder = make("run-STEPS", STEPS)
bare = others(folder, STEPS, SECONDS)
folder = make("watched-STEPS", STEPS)
panel = tunebook.watch(folder.path)
time.sleep(2)
watched = others(folder, STEPS, SECONDS)
panel.close()
print(bare, watched)
"""
OPEN = """
folder = make("open", 100_000)
times = []
for _ in range(5):
    began = time.perf_counter()
    panel = tunebook.watch(folder.path)
    times.append(time.perf_counter() - began)
    panel.close()
print(*sorted(times))
"""


def run_in_kernel(client: object, code: str) -> list[float]:
    """The numbers that a cell prints.

    Raises:
        RuntimeError: the cell raised.
    """
    said: list[str] = []

    def heard(message: dict) -> None:
        if message["msg_type"] == "stream":
            said.append(message["content"]["text"])

    reply = client.execute_interactive(code, output_hook=heard, timeout=600)  # type: ignore[attr-defined]
    if reply["content"]["status"] != "ok":
        raise RuntimeError("\n".join(reply["content"]["traceback"]))
    return [float(word) for word in "".join(said).split()]


def main() -> None:
    """Print the table; write it as JSON if asked."""
    from jupyter_client.manager import start_new_kernel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as root:
        manager, client = start_new_kernel()
        try:
            run_in_kernel(client, f"ROOT = {root!r}\n{SETUP}")
            for steps in (200, 100_000):
                code = MEASURE.replace("STEPS", str(steps)).replace(
                    "SECONDS", str(arguments.seconds)
                )
                bare, watched = run_in_kernel(client, code)
                results[f"share of step time, {steps} steps before"] = watched - bare
            results["open 100,000 steps, seconds"] = run_in_kernel(client, OPEN)[2]
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    machine = f"{platform.processor() or platform.machine()}, Python {platform.python_version()}"
    sys.stdout.write(f"{machine}\n")
    for name, value in results.items():
        sys.stdout.write(f"{name:40} {value:10.4f}\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2))


if __name__ == "__main__":
    main()
