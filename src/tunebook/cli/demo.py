"""`tunebook demo`: the guided fine-tune from end to end on what ships inside the package.

Needs no network and no GPU. It is a short program over the public names, as a user would write it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

from tunebook.cli import show
from tunebook.data.demo import demo_path, demo_recipe
from tunebook.training import Run

_SHOWN = 4
_MEASURED = 24


def exact_matches(run: Run, rows: list[dict[str, str]], *, adapter: bool) -> list[tuple[str, bool]]:
    """The model's answer to each held-out question, and whether it is exactly the expected one.

    Args:
        run: a finished run.
        rows: each with `question` and `expected`.
        adapter: False asks the base model.
    """
    answers = []
    for row in rows:
        answer = run.answer(row["question"], adapter=adapter, max_new_tokens=48).strip()
        answers.append((answer, answer == row["expected"]))
    return answers


def heldout_rows(count: int | None = None) -> list[dict[str, str]]:
    """Questions of the demo that are never trained on, with the one right answer of each."""
    lines = demo_path("heldout").read_text(encoding="utf-8").splitlines()
    step = max(1, len(lines) // count) if count else 1  # spread over the topics
    rows = []
    for line in lines[::step][:count]:
        messages = json.loads(line)["messages"]
        rows.append({"question": messages[-2]["content"], "expected": messages[-1]["content"]})
    return rows


def run_demo(root: Path, *, steps: int | None = None) -> int:
    """Train, compare, export and say where everything is; returns the exit code."""
    began = time.monotonic()
    recipe = demo_recipe(steps)
    recipe = recipe.with_values({"export.formats": ["adapter", "merged_16bit"]})
    show.console.rule("[bold]Tunebook demo[/]", align="left")
    show.console.print(
        f"{recipe.model.name} (ships in the package) learns a new way of answering from "
        f"{recipe.data.source}.\nSteps: {recipe.training.max_steps}, LoRA rank {recipe.lora.r}, "
        f"{recipe.quantization.bits}-bit weights."
    )
    run = show.follow(Run.create(recipe, root=root).start())
    rows = heldout_rows(_MEASURED)
    show.console.print("\nAsking held-out questions, before and after ...")
    before = exact_matches(run, rows, adapter=False)
    after = exact_matches(run, rows, adapter=True)
    for row, (old, _), (new, _) in list(zip(rows, before, after, strict=True))[:_SHOWN]:
        show.console.print()
        show.pairs([("question", row["question"]), ("before", old), ("after", new)])
    _report(run, sum(ok for _, ok in before), sum(ok for _, ok in after), len(rows), began)
    return 0


def _report(run: Run, before: int, after: int, count: int, began: float) -> None:
    history = run.history()
    memory = show.peak_of(run)
    plan = run.plan
    assert memory is not None
    assert plan is not None
    error = memory.peak / plan.forecast.total - 1
    show.console.print()
    show.pairs(
        [
            ("exactly right", f"{before} of {count} before, {after} of {count} after"),
            ("loss", f"{history[0].loss:.3f} at the start, {history[-1].loss:.3f} at the end"),
            (
                "memory",
                f"forecast {show.mib(plan.forecast.total)}, measured {show.mib(memory.peak)} "
                f"({error:+.1%})",
            ),
            *show.busy_rows(run),
            ("run folder", str(run.path)),
            ("adapter", str(run.folder.adapter)),
            ("merged model", str(run.folder.exports / "merged_16bit")),
            ("time", f"{time.monotonic() - began:.0f} s"),
        ],
        title="What happened",
    )
    command = "tunebook" if shutil.which("tunebook") else os.path.relpath(sys.argv[0])
    show.console.print(
        f"\nTalk to it:            {command} chat {run.path}\n"
        "The same in JupyterLab: make lab  (or `import tunebook; tunebook.Guide()` in a notebook)"
    )
