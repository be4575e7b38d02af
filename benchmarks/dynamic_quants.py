"""Dynamic mixes beside llama.cpp's of the same size: divergence from the model, on held-out text.

Both are quantized with the same importance data; half of the text is the demo data that a user would
tune on, half general. The weights are rounded in memory, as the file would have them. Prints, for
each size, mean, 99 % and 99.9 % Kullback-Leibler divergence in nats and how often the likeliest next
token stays; stock mixes without importance are there too.

    python benchmarks/dynamic_quants.py [--model NAME] [--sizes q4_k_m ...] [--tokens N] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunebook.export.gguf.architectures import network_of
from tunebook.export.gguf.calibration import calibration, rows_of
from tunebook.export.gguf.divergence import Divergence, Reference, Rounded
from tunebook.export.gguf.dynamic import make_dynamic
from tunebook.export.gguf.importance import measure_importance
from tunebook.export.gguf.mixes import is_quantized, mix_named, tensor_bytes, tensor_type
from tunebook.export.gguf.writer import content_of
from tunebook.models.loading import load_model, load_tokenizer
from tunebook.recipe import ModelPart, QuantizationPart, Recipe

SIZES = ("q2_k", "q3_k_m", "iq4_xs", "q4_k_m", "q5_k_m", "q6_k")


def row(kind: str, size: int, seconds: float | None, found: Divergence) -> str:
    took = f"{seconds:6.0f}" if seconds is not None else "     -"
    return (
        f"{kind:<24}{size:>12,}{took}  {found.mean:9.2e}{found.percentile_99:9.2e}"
        f"{found.percentile_99_9:9.2e}{found.same_top:9.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tunebook-tiny")
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--tokens", type=int, default=1 << 15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    part = ModelPart(name=arguments.model)
    model = load_model(part, QuantizationPart(bits=16), device=arguments.device)
    tokenizer = load_tokenizer(part)
    content = content_of(model, tokenizer)
    tensors = content.tensors
    own = rows_of(Recipe.of(arguments.model, "tunebook-demo"), tokenizer)
    text = calibration(tokenizer, own, tokens=arguments.tokens)
    started = time.perf_counter()
    importance = measure_importance(model, tensors, text.rows)
    took = time.perf_counter() - started
    tied = all(tensor.name != "output.weight" for tensor in tensors)
    network = network_of(content.text, tied=tied, importance=True)
    print(
        f"{arguments.model} on {arguments.device}, torch {version('torch')}, {platform.machine()}; "
        f"importance of {importance.tokens:,} tokens in {took:.0f} s, "
        f"{sum(map(len, text.held_out)):,} held out"
    )
    print(f"{'mix':<24}{'bytes':>12}{'s':>6}  {'mean':>9}{'99 %':>9}{'99.9 %':>9}{'same top':>9}")
    reference = Reference(model, text.held_out)
    results: list[dict[str, Any]] = []
    for name in arguments.sizes:
        mix = mix_named(name)
        kinds = {t.name: tensor_type(t.name, t.shape, mix, network) for t in tensors}
        size = sum(tensor_bytes(t.shape, kinds[t.name]) for t in tensors)
        matrices = {t.name: kinds[t.name] for t in tensors if is_quantized(t.name, t.shape)}
        plain = reference.divergence(Rounded(model, tensors, matrices, {}))
        started = time.perf_counter()
        _, report = make_dynamic(model, tensors, network, importance, text, size)
        seconds = time.perf_counter() - started
        assert report.stock is not None
        assert report.stock_name is not None
        assert report.stock_bytes is not None
        print(row(f"{mix.name}, no importance", size, None, plain))
        print(row(report.stock_name, report.stock_bytes, None, report.stock))
        print(
            row(report.name, report.bytes, seconds, report.dynamic), f"  {-(report.gain or 0):+.0%}"
        )
        results.append({"plain": asdict(plain), "seconds": seconds, **report.to_dict()})
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
