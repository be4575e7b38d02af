"""LoRA training beside its rivals, in the same run on the same machine: time, memory, losses.

Every peer trains the same random 4-bit Llama with the same adapter on the same rows, in a process of
its own with empty kernel caches. A step is timed twice: each step waited for, and the mean of steps
between two waits; ratios compare figures of the same kind.

    python benchmarks/training_speed.py all --sizes 1b,8b --json FILE [--peers LIST] [--shapes LIST]
    python benchmarks/training_speed.py run --peer tunebook --size 8b --shapes 2x2048,1x8192 --out FILE
    python benchmarks/training_speed.py table FILE

`all` leaves out peers that are not installed. `--size tiny` rehearses on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from speed.models import SIZES, checkpoint_folder, same_adapter, token_rows, write_checkpoint
from speed.peers import PEERS, prepare_environment
from speed.table import Record, best_rival, markdown

SHAPES = {"tiny": "2x64", "1b": "2x2048", "3b": "2x2048", "8b": "2x2048,1x8192"}
ORDER = "unsloth-padded,unsloth,tunebook,tunebook-capped,liger,trl"
_LEAST = 20  # seconds: nothing is begun with less left
_PACKAGES = (
    *("torch", "triton", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets"),
    *("liger-kernel", "unsloth", "unsloth-zoo", "torchao", "xformers", "flash-attn"),
)


# ------------------------------------------------------------------ one peer, in this process


def run(options: argparse.Namespace) -> None:
    """Measure one peer at one size; a line of JSON for each shape is added to the file."""
    # in another process: a peer wants to be the first to import torch's friends
    make = ["make", "--size", options.size, "--root", str(options.root)]
    subprocess.run([sys.executable, "-W", "ignore", str(Path(__file__)), *make], check=True)
    shapes = [(text, *_shape(text)) for text in options.shapes.split(",")]
    caps = [int(cap) for cap in options.caps.split(",")] if options.caps else []
    with tempfile.TemporaryDirectory(dir=options.root) as scratch:
        prepare_environment(options.peer, Path(scratch))
        longest = max(length for _, _, length in shapes)
        peer = PEERS[options.peer].open(checkpoint_folder(options.root, options.size), longest)
        for number, (text, batch, length) in enumerate(shapes):
            if caps:
                peer.cap = caps[number]
            record = {"peer": options.peer, "size": options.size, "shape": text}
            record |= measure(peer, options.size, batch, length, Path(scratch) / "out")
            record |= {"card": _card(), "versions": _versions()}
            _append(options.out, record)


def measure(peer: Any, size: str, batch: int, length: int, folder: Path) -> Record:
    """Train the peer for `clock.STEPS` steps of one shape."""
    import torch
    from speed.clock import STEPS, Clock
    from torch.utils.data import SequentialSampler

    clock = Clock()
    began = time.perf_counter()
    trainer = peer.trainer(batch, token_rows(size, STEPS * batch, length), STEPS, folder, clock)
    dataset = trainer.train_dataset
    trainer._get_train_sampler = lambda *_, **__: SequentialSampler(dataset)
    peer.seconds["trainer"] = time.perf_counter() - began
    adapter_dtype = same_adapter(trainer.model)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else None
    trainer.train()
    record = {
        "tokens": batch * length,
        "opened_s": dict(peer.seconds),
        "adapter_dtype": adapter_dtype,
        "allocated_before": before,
        "allocated": torch.cuda.max_memory_allocated() if on_gpu else None,
        "reserved": torch.cuda.max_memory_reserved() if on_gpu else None,
        **clock.summary(),
        **peer.facts(trainer),
    }
    # the optimizer's state and the gradients must not count in the next shape's peak
    trainer.accelerator.free_memory()
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.model.zero_grad(set_to_none=True)
    peer.seconds.clear()
    return record


def _shape(text: str) -> tuple[int, int]:
    """Rows of a batch and tokens of a row."""
    batch, length = text.split("x")
    return int(batch), int(length)


def _card() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _append(path: Path, record: Record) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def _records(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# ------------------------------------------------------------------ all peers, a process each


def run_all(options: argparse.Namespace) -> None:
    """Measure every peer that is installed at every size, as far as the time allows; print tables."""
    options.root.mkdir(parents=True, exist_ok=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for file in (options.json, options.json.with_suffix(".log")):
        file.write_text("")
    end = time.monotonic() + options.budget
    for size in options.sizes.split(","):
        shapes = options.shapes or SHAPES[size]
        error = _child(options, end, ["make", "--size", size])
        if error is not None:
            print(f"{size}: no weights were written: {error}", flush=True)
            continue
        for peer in options.peers.split(","):
            case = {"peer": peer, "size": size, "shapes": shapes}
            error = _run_peer(options, end, case)
            print(f"{size} {peer}: {error or 'done'}", flush=True)
            done = [r["shape"] for r in _records(options.json) if _is_of(r, size, peer)]
            for shape in shapes.split(",") if error else ():
                if shape not in done:
                    failed = {"peer": peer, "size": size, "shape": shape, "error": error}
                    _append(options.json, failed)
    print("\n" + markdown(_records(options.json)))


def _run_peer(options: argparse.Namespace, end: float, case: dict[str, str]) -> str | None:
    """Run one peer at one size; what was wrong, if anything."""
    missing = PEERS[case["peer"]].missing()
    if missing:
        return f"not installed: {', '.join(missing)}"
    arguments = ["run", "--out", str(options.json)]
    for name, value in case.items():
        arguments += [f"--{name}", value]
    if case["peer"] == "tunebook-capped":
        caps = _caps(_records(options.json), case["size"], case["shapes"])
        if caps is None:
            return "no rival's peak to stay under"
        arguments += ["--caps", ",".join(str(cap) for cap in caps)]
    return _child(options, end, arguments)


def _caps(records: list[Record], size: str, shapes: str) -> list[int] | None:
    """For each shape the peak of the rival that was fastest; None if one is not known."""
    caps = []
    for shape in shapes.split(","):
        rival = best_rival(r for r in records if r["size"] == size and r["shape"] == shape)
        if rival is None or rival["allocated"] is None:
            return None
        caps.append(rival["allocated"])
    return caps


def _child(options: argparse.Namespace, end: float, arguments: list[str]) -> str | None:
    """Run this script in a process of its own, within the time that is left; what was wrong."""
    left = min(options.limit, end - time.monotonic())
    if left < _LEAST:
        return "no time was left"
    script = str(Path(__file__).resolve())
    log = options.json.with_suffix(".log")
    with log.open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", script, *arguments, "--root", str(options.root)],
            cwd=options.root,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=left)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # compilers that it has started, too
            process.wait()
            return f"stopped after {left:.0f} s"
    if status == 0:
        return None
    said = log.read_bytes()[begin:].decode(errors="replace")
    tail = said.strip().splitlines()[-15:]
    print("\n".join(f"  | {line[:300]}" for line in tail), flush=True)
    return tail[-1][:300] if tail else f"exit status {status}"


def _is_of(record: Record, size: str, peer: str) -> bool:
    return record["size"] == size and record["peer"] == peer


# ------------------------------------------------------------------ command line


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    make = verbs.add_parser("make", help="write a size's weights")
    one = verbs.add_parser("run", help="measure one peer in this process")
    every = verbs.add_parser("all", help="measure every peer, each in a process of its own")
    show = verbs.add_parser("table", help="print the tables of a file of results")
    make.set_defaults(do=lambda options: write_checkpoint(options.root, options.size))
    one.set_defaults(do=run)
    every.set_defaults(do=run_all)
    show.set_defaults(do=lambda options: print(markdown(_records(options.file))))
    for verb in (make, one, every):
        default = Path(tempfile.gettempdir()) / "training_speed"
        verb.add_argument("--root", type=_path, default=default, help="of weights; best in memory")
    for verb in (make, one):
        verb.add_argument("--size", choices=SIZES, required=True)
    one.add_argument("--peer", choices=PEERS, required=True)
    one.add_argument("--shapes", required=True, help="rows x tokens, by commas")
    one.add_argument("--caps", help="bytes for each shape (tunebook-capped)")
    one.add_argument("--out", type=_path, required=True)
    every.add_argument("--sizes", default="1b")
    every.add_argument("--peers", default=ORDER)
    every.add_argument("--shapes", help="instead of those that belong to each size")
    every.add_argument("--budget", type=float, default=3600, help="seconds in all")
    every.add_argument("--limit", type=float, default=300, help="seconds for one peer at one size")
    every.add_argument("--json", type=_path, required=True, help="a line a result; beside it a log")
    show.add_argument("file", type=_path)
    options = parser.parse_args()
    options.do(options)


def _path(text: str) -> Path:
    return Path(text).expanduser().resolve()


if __name__ == "__main__":
    main()
