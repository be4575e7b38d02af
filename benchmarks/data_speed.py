"""Rows to labels: short conversations standardised, rendered, tokenised and masked, beside TRL.

The rival is TRL's own preparation for `assistant_only_loss`. Each side works on the same table in
a process of its own, in turn; the ids and labels of the first rows are compared (TRL's labels also
hold the line breaks before and behind an answer, so with some templates they differ). Prints rows a
second, the ratio and how much memory each needed beyond the loaded libraries.

    python benchmarks/data_speed.py [--rows N] [--turns N] [--tokenizer DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import random
import resource
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

COMPARED = 200
WORDS = [
    *("the", "a", "model", "learns", "from", "rows", "and", "tokens,", "then", "answers;"),
    *("日本", "été", "🦜", "not", "all", "of", "12", "or", "3.5"),
]


def write_table(folder: Path, rows: int, turns: int) -> None:
    """ShareGPT conversations of `turns` questions and answers, saved where both sides find them.

    The roles are today's: TRL renames the keys, not "human" and "gpt".
    """
    from datasets import Dataset, Features, List, Value, disable_progress_bars

    disable_progress_bars()

    def made() -> Any:
        rng = random.Random(0)
        for _ in range(rows):
            talk = []
            for _ in range(turns):
                question = " ".join(rng.choices(WORDS, k=rng.randrange(5, 25)))
                answer = " ".join(rng.choices(WORDS, k=rng.randrange(10, 60)))
                talk += [
                    {"from": "user", "value": question},
                    {"from": "assistant", "value": answer},
                ]
            yield {"conversations": talk}

    kind = Features({"conversations": List({"from": Value("string"), "value": Value("string")})})
    Dataset.from_generator(made, features=kind, cache_dir=str(folder / "cache")).save_to_disk(
        str(folder / "table")
    )


def ours(table: Any, tokenizer: Any) -> Any:
    """Tunebook's path, as `train` takes it."""
    from tunebook.data import prepare_data
    from tunebook.recipe import Recipe

    return prepare_data(Recipe(), tokenizer, rows=table).train


def rival(table: Any, tokenizer: Any) -> Any:
    """TRL's path, without the model that its trainer would be given."""
    from trl import SFTConfig, SFTTrainer
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    trainer: Any = object.__new__(SFTTrainer)
    marked = has_generation_markers(tokenizer.chat_template)
    trainer.chat_template = None if marked else get_training_chat_template(tokenizer)
    trainer._tokenizer = tokenizer
    trainer.completion_only_loss = False
    arguments = SFTConfig(
        output_dir=tempfile.gettempdir(),
        assistant_only_loss=True,
        max_length=2048,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    return trainer._prepare_dataset(table, tokenizer, arguments, False, None, "train")


def measure(side: str, folder: Path, tokenizer_dir: str, pipe: Any) -> None:
    """Time one side in this process; sends seconds, CPU seconds, MiB, the first rows."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    table = datasets.load_from_disk(str(folder / "table"))
    work = ours if side == "tunebook" else rival
    work(table.select(range(min(50, len(table)))), tokenizer)  # imports and compiled templates
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, busy = time.perf_counter(), time.process_time()
    done = work(table, tokenizer)
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    first = done.select(range(min(COMPARED, len(done))))
    pipe.send((seconds, cpu, grown, len(done), first["input_ids"][:], first["labels"][:]))


def run(side: str, folder: Path, tokenizer_dir: str) -> tuple[float, float, float, int, Any, Any]:
    """`measure` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=measure, args=(side, folder, tokenizer_dir, there))
    process.start()
    there.close()
    try:
        result: tuple[float, float, float, int, Any, Any] = here.recv()
    finally:
        process.join()
    return result


def main() -> None:
    """Measure both sides and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--tokenizer", help="folder [default: the model inside the package]")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    chosen = arguments.tokenizer or _embedded()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder, arguments.rows, arguments.turns)
        sides: dict[str, list[Any]] = {"trl": [], "tunebook": []}
        for _ in range(arguments.repeats):
            for side, results in sides.items():
                results.append(run(side, folder, chosen))
    best = {side: min(results, key=lambda r: r[0]) for side, results in sides.items()}
    same = best["trl"][4] == best["tunebook"][4], best["trl"][5] == best["tunebook"][5]
    for side, (seconds, cpu, grown, rows, _, _) in best.items():
        speed = f"{rows / seconds:10,.0f} rows/s"
        print(f"{side:10} {seconds:8.1f} s {cpu:8.1f} CPU s {speed} {grown:8.0f} MiB")
    ratio = statistics.median(
        t[0] / o[0] for t, o in zip(sides["trl"], sides["tunebook"], strict=True)
    )
    print(f"ratio {ratio:.2f}; the same ids: {same[0]}, the same labels: {same[1]}")
    if arguments.json:
        figures = {
            "rows": arguments.rows,
            "turns": arguments.turns,
            "ratio": ratio,
            "seconds": {side: r[0] for side, r in best.items()},
            "cpu_seconds": {side: r[1] for side, r in best.items()},
            "mib": {side: r[2] for side, r in best.items()},
            "same": same,
            "versions": {p: version(p) for p in ("trl", "transformers", "tokenizers", "datasets")},
            "machine": f"{platform.machine()}, {multiprocessing.cpu_count()} cores",
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _embedded() -> str:
    from tunebook.models.catalog import EMBEDDED_FOLDER

    return str(EMBEDDED_FOLDER)


if __name__ == "__main__":
    main()
