"""How long it takes to look into a GGUF file with a large vocabulary, and how much memory.

    python benchmarks/gguf_header.py [--tokens 150000] [--json FILE]

Tunebook's header reader beside the `gguf` package's `GGUFReader`, each in a fresh process that has
imported what it needs; the file holds tokens, merges and token types, and one small tensor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

MEASURE = """
import resource, sys, time
{imports}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
{call}
seconds = time.perf_counter() - began
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
READERS = {
    "tunebook": ("from tunebook.export import inspect_file", "inspect_file(sys.argv[1])"),
    "gguf": ("from gguf import GGUFReader", "GGUFReader(sys.argv[1])"),
}


def write_model(path: Path, tokens: int) -> None:
    """A GGUF file whose header is that of a model with a large vocabulary."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list([f"token {i}" for i in range(tokens)])
    writer.add_token_merges([f"a{i} b{i}" for i in range(tokens)])
    writer.add_token_types([1] * tokens)
    writer.add_tensor("output.weight", np.zeros((64, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(reader: str, path: Path) -> dict[str, float]:
    """Seconds, and MiB that the process grew by."""
    imports, call = READERS[reader]
    code = MEASURE.format(imports=imports, call=call)
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, grown = map(float, done.stdout.split())
    return {"seconds": seconds, "mebibytes": grown}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=150_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_model(path, arguments.tokens)
        results = {reader: measure(reader, path) for reader in READERS}
    print(f"{arguments.tokens:,} tokens, gguf {version('gguf')}")
    for reader, result in results.items():
        print(f"{reader:10} {result['seconds']:8.3f} s {result['mebibytes']:8.1f} MiB")
    ratio = results["gguf"]["seconds"] / results["tunebook"]["seconds"]
    print(f"ratio      {ratio:8.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"tokens": arguments.tokens, **results}, indent=2))


if __name__ == "__main__":
    main()
