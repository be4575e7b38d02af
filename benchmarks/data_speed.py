"""Rows to labels: short conversations standardised, rendered, tokenised and masked, beside TRL.

The rival is TRL's own preparation for `assistant_only_loss`, as it comes and with a process for each
core (`dataset_num_proc`). Each side works on the same table in a process of its own, in turn; the ids
and labels of the first rows are compared (TRL's labels also hold the line breaks before and behind an
answer, so with some templates they differ). Prints rows a second, processor time, the ratios and how
much memory each needed beyond the loaded libraries (the largest of its processes).

    python benchmarks/data_speed.py [--rows N] [--turns N] [--processes N] [--tokenizer DIR] [--json FILE]
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


def ours(table: Any, tokenizer: Any, processes: int) -> Any:
    """Tunebook's path, as `train` takes it: one process, and the tokenizer's threads."""
    from tunebook.data import prepare_data
    from tunebook.recipe import Recipe

    return prepare_data(Recipe(), tokenizer, rows=table).train


def rival(table: Any, tokenizer: Any, processes: int) -> Any:
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
        dataset_num_proc=processes if processes > 1 else None,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    return trainer._prepare_dataset(table, tokenizer, arguments, False, None, "train")


def measure(side: str, processes: int, folder: Path, tokenizer_dir: str, pipe: Any) -> None:
    """Time one side in this process; sends seconds, CPU seconds, MiB, the first rows."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    table = datasets.load_from_disk(str(folder / "table"))
    work = ours if side == "tunebook" else rival
    few = table.select(range(min(50, len(table))))
    work(few, tokenizer, 1)  # imports and compiled templates
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, busy = time.perf_counter(), _busy()
    done = work(table, tokenizer, processes)
    seconds, cpu = time.perf_counter() - start, _busy() - busy
    largest = max(resource.getrusage(who).ru_maxrss for who in _OURS)
    grown = max(0, largest - before) / 1024
    first = done.select(range(min(COMPARED, len(done))))
    pipe.send((seconds, cpu, grown, len(done), first["input_ids"][:], first["labels"][:]))


_OURS = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _busy() -> float:
    """Processor seconds of this process and of those that it has started and ended."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, _OURS))


def run(side: str, processes: int, folder: Path, tokenizer_dir: str) -> tuple[Any, ...]:
    """`measure` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=measure, args=(side, processes, folder, tokenizer_dir, there))
    process.start()
    there.close()
    try:
        result: tuple[Any, ...] = here.recv()
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
    parser.add_argument("--processes", type=int, default=2, help="of TRL [default: 2]")
    arguments = parser.parse_args()
    many = f"trl x {arguments.processes}"
    sides = {"trl": 1, many: arguments.processes, "tunebook": 1}
    results: dict[str, list[Any]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder, arguments.rows, arguments.turns)
        for _ in range(arguments.repeats):
            for side, processes in sides.items():
                work = side.split()[0], processes, folder, arguments.tokenizer or _embedded()
                results[side].append(run(*work))
    best = {side: min(found, key=lambda r: r[0]) for side, found in results.items()}
    same = [best["trl"][column] == best["tunebook"][column] for column in (4, 5)]
    for side, (seconds, cpu, grown, rows, _, _) in best.items():
        speed = f"{rows / seconds:10,.0f} rows/s"
        print(f"{side:10} {seconds:8.1f} s {cpu:8.1f} CPU s {speed} {grown:8.0f} MiB")
    ratios = {side: _ratio(results, side, 0) for side in sides if side != "tunebook"}
    busy = _ratio(results, "trl", 1)
    print(", ".join(f"{ratio:.2f} times as fast as {side}" for side, ratio in ratios.items()))
    print(f"{busy:.2f} times less CPU; the same ids: {same[0]}, the same labels: {same[1]}")
    if arguments.json:
        figures = {
            "rows": arguments.rows,
            "turns": arguments.turns,
            "ratio": ratios,
            "cpu_ratio": busy,
            "seconds": {side: r[0] for side, r in best.items()},
            "cpu_seconds": {side: r[1] for side, r in best.items()},
            "mib": {side: r[2] for side, r in best.items()},
            "same": same,
            "versions": {p: version(p) for p in ("trl", "transformers", "tokenizers", "datasets")},
            "machine": f"{platform.machine()}, {multiprocessing.cpu_count()} cores",
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _ratio(results: dict[str, list[Any]], side: str, column: int) -> float:
    """How many times as much one side took as Tunebook beside it."""
    pairs = zip(results[side], results["tunebook"], strict=True)
    return statistics.median(theirs[column] / mine[column] for theirs, mine in pairs)


def _embedded() -> str:
    from tunebook.models.catalog import EMBEDDED_FOLDER

    return str(EMBEDDED_FOLDER)


if __name__ == "__main__":
    main()
