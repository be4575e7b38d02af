"""Quantising to GGUF's block types: ours beside ggml's, on the same weights with as many threads.

ggml is the one inside xllamacpp (`ggml_quantize_chunk`, the function that llama.cpp's own quantise
calls), each of its threads on a share of the rows. Both take turns; the best of the repeats counts.
Prints millions of weights a second and, since other work on the machine slows whoever runs beside
it, a processor second; ours over ggml's in both; the share of blocks whose bytes are the same; and
the weighted squared error of ours over ggml's.

    python benchmarks/gguf_blocks.py [--types Q4_K ...] [--rows N] [--threads N] [--device cuda] [--json FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from tunebook.export.gguf.blocks import BLOCK_TYPES, dequantize, quantize, row_bytes

PLAIN = ("F32", "F16", "BF16", "Q8_0")  # know no importance


@cache
def ggml() -> ctypes.CDLL:
    """The shared library of xllamacpp, which exports ggml's functions."""
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'xllamacpp'", name="xllamacpp")
    library = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("xllamacpp*.so"))))
    number, place = ctypes.c_int64, ctypes.c_void_p
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        *(ctypes.c_int, place, place, number, number, number, place),
    ]
    return library


def ggml_quantize(
    weight: Tensor, type: str, importance: Tensor | None = None, threads: int = 1
) -> Tensor:
    """What ggml makes of (rows, k) float32: (rows, bytes) uint8."""
    rows, k = weight.shape
    packed = torch.empty(rows, row_bytes(type, k), dtype=torch.uint8)
    column = None if importance is None else importance.data_ptr()
    share = -(-rows // threads)

    def work(start: int) -> None:
        count = min(share, rows - start)
        part, out = weight[start : start + count], packed[start : start + count]
        code = int(BLOCK_TYPES[type].ggml)
        made = ggml().ggml_quantize_chunk(
            code, part.data_ptr(), out.data_ptr(), 0, count, k, column
        )
        assert made == out.numel()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(0, rows, share)))
    return packed


def compared(
    weight: Tensor, type: str, ours: Tensor, theirs: Tensor, importance: Tensor | None
) -> tuple[float, float]:
    """Share of blocks with the same bytes; weighted squared error of ours over theirs.

    The error of a block is taken relative to the block, so that large ones do not hide the others.
    """
    block = BLOCK_TYPES[type]
    same = (ours.view(-1, block.bytes) == theirs.view(-1, block.bytes)).all(1).double().mean()
    size, error, least = (
        ((written - weight).double() ** 2 * (1 if importance is None else importance))
        .view(-1, block.weights)
        .sum(1)
        for written in (torch.zeros(1), dequantize(ours, type), dequantize(theirs, type))
    )
    return float(same), float((error / size).sum() / (least / size).sum())


def measured(
    type: str, weight: Tensor, importance: Tensor | None, threads: int, repeats: int, device: str
) -> dict[str, object]:
    """One row of the table."""
    there = weight.to(device)
    column = None if importance is None else importance.to(device)

    def ours() -> Tensor:
        packed = quantize(there, type, column)
        if packed.is_cuda:
            torch.cuda.synchronize()
        return packed

    def judge() -> Tensor:
        return ggml_quantize(weight, type, importance, threads)

    packed, theirs = ours(), judge()
    taken: dict[str, list[tuple[float, float]]] = {"ours": [], "ggml": []}
    for _ in range(repeats):
        for side, work in (("ours", ours), ("ggml", judge)):
            start, busy = time.perf_counter(), time.process_time()
            work()
            taken[side].append((time.perf_counter() - start, time.process_time() - busy))
    size = weight.numel() / 1e6
    speed = {side: size / min(wall for wall, _ in times) for side, times in taken.items()}
    busy_speed = {side: size / min(cpu for _, cpu in times) for side, times in taken.items()}
    same, error = compared(weight, type, packed.cpu(), theirs, importance)
    return {
        "type": type,
        "importance": importance is not None,
        **speed,
        "ratio": speed["ours"] / speed["ggml"],
        **{f"{side}_cpu": value for side, value in busy_speed.items()},
        "ratio_cpu": busy_speed["ours"] / busy_speed["ggml"],
        "same": same,
        "error": error,
    }


def main() -> None:
    """Measure every type without and with importance and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--types", nargs="+", default=[t for t in BLOCK_TYPES if t[0] in "QI"])
    parser.add_argument("--rows", type=int, default=2048, help="of 2048 weights [default: 2048]")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="for ours [default: cpu]")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    weight = 0.02 * torch.randn(arguments.rows, 2048)
    importance = torch.rand(2048).square() + 0.01
    wide = ("ours M/s", "ggml M/s", "ratio", "ours M/CPU s", "ggml M/CPU s", "ratio")
    print(f"{'type':8}{'importance':12}" + "".join(f"{h:>14}" for h in wide) + "   same     error")
    table = []
    for type in arguments.types:
        for column in (None,) if type in PLAIN else (None, importance):
            row = measured(
                *(type, weight, column, arguments.threads, arguments.repeats, arguments.device)
            )
            table.append(row)
            known = "yes" if row["importance"] else "no"
            kinds = ("ours", "ggml", "ratio", "ours_cpu", "ggml_cpu", "ratio_cpu")
            figures = "".join(f"{row[kind]:14.2f}" for kind in kinds)
            print(f"{type:8}{known:12}{figures}{row['same']:9.2%}{row['error']:10.6f}", flush=True)
    if arguments.json:
        found = {
            "threads": arguments.threads,
            "device": arguments.device,
            "table": table,
            "versions": {p: version(p) for p in ("torch", "xllamacpp")},
            "machine": platform.machine(),
        }
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
