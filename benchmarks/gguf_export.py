"""From a tuned model to a GGUF file: seconds, memory and disk, beside llama.cpp's own quantiser.

A random Llama of a published shape in NF4 with an adapter is loaded, merged, quantised, written and
read again as `save_gguf` does it for a user. Where `llama_cpp` is installed its `llama_model_quantize`
turns the same model, written in 16 bit first, into the same mix in the same run; the seconds of writing
that file count too, since a user of it needs them.

    python benchmarks/gguf_export.py [--size 1b] [--mix q4_k_m] [--device cpu] [--json FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shutil
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from speed.models import RANK, SIZES, TARGETS, checkpoint_folder, write_checkpoint


def main() -> None:
    """Measure one size and print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="1b")
    parser.add_argument("--mix", default="q4_k_m")
    parser.add_argument("--device", default=None, help="None: the first GPU, else the CPU")
    parser.add_argument("--threads", type=int, help="of torch and of llama.cpp")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="gguf-export-") as place:
        report = measure(Path(place), options.size, options.mix, options.device)
    print(f"{'way':>28} {'seconds':>8} {'of them 16 bit':>15} {'file GB':>8} {'memory GB':>10}")
    for row in report["rows"]:
        print(
            f"{row['way']:>28} {row['seconds']:>8.1f} {row['first']:>15.1f} "
            f"{row['bytes'] / 1e9:>8.2f} {row['memory'] / 1e9:>10.2f}"
        )
    print(json.dumps({key: value for key, value in report.items() if key != "rows"}))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))


def measure(place: Path, size: str, mix: str, device: str | None) -> dict[str, Any]:
    """Rows of the table, and what they were measured with."""
    import torch

    write_checkpoint(place, size)
    model, tokenizer, recipe = opened(checkpoint_folder(place, size), device)
    rows = [
        written("save_gguf", model, tokenizer, recipe, place / "ours", mix, verify=True),
        written("save_gguf, not read again", model, tokenizer, recipe, place / "fast", mix),
    ]
    if find_spec("llama_cpp") is not None:
        first = written("16 bit", model, tokenizer, recipe, place / "wide", "f16")
        rows.append(by_llama_cpp(place, mix, first))
    card = torch.cuda.get_device_name() if model.device.type == "cuda" else "CPU"
    versions = {name: version(name) for name in ("torch", "gguf")}
    return {"rows": rows, "size": size, "mix": mix, "device": card, **versions}


def opened(folder: Path, device: str | None) -> tuple[Any, Any, Any]:
    """The model with an adapter whose product is not zero, its tokenizer, and the recipe."""
    import torch

    from tunebook.models.adapters import add_lora
    from tunebook.models.loading import load_model, load_tokenizer
    from tunebook.recipe import Recipe

    targets = {"lora.r": RANK, "lora.target_modules": TARGETS}
    recipe = Recipe.of(model=str(folder), **targets)
    model = load_model(recipe.model, recipe.quantization, device=device)
    adapted = add_lora(model, recipe.lora, seed=0)
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.01)
    return adapted.eval(), load_tokenizer(recipe.model), recipe


def written(
    way: str,
    model: Any,
    tokenizer: Any,
    recipe: Any,
    folder: Path,
    mix: str,
    *,
    verify: bool = False,
) -> dict[str, Any]:
    """One export by `save_gguf`: memory is what the process held at most beyond what it began with."""
    from tunebook.export import save_gguf

    before = reset_peak()
    began = time.perf_counter()
    save_gguf(model, tokenizer, folder, quantization=mix, recipe=recipe, verify=verify)
    seconds = time.perf_counter() - began
    memory = peak() - before
    (file,) = folder.glob("*.gguf")
    row = {"way": way, "seconds": seconds, "first": 0.0, "bytes": file.stat().st_size}
    if mix != "f16":
        shutil.rmtree(folder)
    return row | {"memory": memory}


def by_llama_cpp(place: Path, mix: str, first: dict[str, Any]) -> dict[str, Any]:
    """The same mix made by llama.cpp from the file in 16 bit."""
    import llama_cpp
    import torch

    from tunebook.export.gguf.mixes import mix_named

    (source,) = (place / "wide").glob("*.gguf")
    target = place / "theirs.gguf"
    wanted = llama_cpp.llama_model_quantize_default_params()
    wanted.ftype = int(mix_named(mix).file_type)
    wanted.nthread = torch.get_num_threads()
    before = reset_peak()
    began = time.perf_counter()
    paths = str(source).encode(), str(target).encode()
    if status := llama_cpp.llama_model_quantize(*paths, ctypes.byref(wanted)):
        raise SystemExit(f"llama_model_quantize returned {status}")
    seconds = first["seconds"] + time.perf_counter() - began
    return {
        "way": "llama.cpp from 16 bit",
        "seconds": seconds,
        "first": first["seconds"],
        "bytes": target.stat().st_size,
        "memory": max(first["memory"], peak() - before),
    }


def reset_peak() -> int:
    """Begin to look for a new peak (Linux); bytes that the process holds now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """The most bytes that the process held since."""
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    main()
