"""Runs as files, in any state, for what shows runs without training one; imports no tunebook."""

from __future__ import annotations

import json
import math
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

Event = dict[str, Any]


def write_run(
    folder: Path,
    *ending: Event,
    steps: int = 1,
    total: int = 9,
    sample: str = "",
    live: bool = False,
    ago: float = 0,
) -> None:
    """A run of some steps, with what came last.

    Args:
        sample: a prompt, and the answer to it.
        live: whether this process works on it; else the process is gone.
        ago: seconds since its last step.
    """
    begun = time.time() - ago - 0.5 * steps
    events: list[Event] = [_started(total, live)]
    for number in range(1, steps + 1):
        events += _step(number, steps)
    if sample:
        events.append({"kind": "sample", "step": steps, "prompt": sample, "answer": sample})
    folder.mkdir(parents=True)
    folder.joinpath("recipe.yaml").write_text(f"training: {{max_steps: {total}}}\n")
    lines = [
        json.dumps({"time": begun + 0.5 * event.get("step", 0), **event})
        for event in [*events, *ending]
    ]
    folder.joinpath("events.jsonl").write_text("\n".join(lines) + "\n")


def checkpoint(step: int) -> Event:
    """What is said when one was written."""
    return {"kind": "checkpoint", "step": step, "path": f"checkpoints/checkpoint-{step}"}


def finished(step: int, reason: str = "completed") -> Event:
    """The end in good order."""
    return {"kind": "finished", "step": step, "reason": reason}


def failed(step: int, **error: str) -> Event:
    """The end by an error, in three parts."""
    return {"kind": "failed", "step": step, "error": error}


def _step(number: int, steps: int) -> list[Event]:
    draw = random.Random(number)
    loss = 1.1 + 2.1 * math.exp(-4 * number / max(steps, 8)) + draw.gauss(0, 0.06)
    step = {
        "kind": "step", "step": number, "epoch": 0.1, "loss": loss, "tokens": 512 * number,
        "learning_rate": 2e-4 * (1 - number / (steps + 1)), "seconds": 0.5,
    }  # fmt: skip
    memory = {"kind": "memory", "step": number, "device": "cuda", "allocated": 6 * 2**30}
    return [step, {**memory, "peak": int(7.4 * 2**30)}] if number % 10 == 0 else [step]


def _started(total: int, live: bool) -> Event:
    process: Event = {"host": socket.gethostname()}
    if live:
        process |= {"pid": os.getpid(), "process_started": _process_started()}
    else:
        with subprocess.Popen([sys.executable, "-c", ""]) as gone:
            process |= {"pid": gone.pid, "process_started": 1.0}
    return {
        "kind": "started", **process, "device": "cuda", "total_steps": total,
        "trainable_parameters": 1, "total_parameters": 2,
    }  # fmt: skip


def _process_started() -> float:
    import psutil

    return psutil.Process().create_time()
