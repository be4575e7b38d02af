"""The commands and their arguments; each does its work in a function named after it.

Exit codes: 0 done, 1 findings of `check` that are errors, test cases that fail or files that differ,
2 a named error, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tunebook import __version__
from tunebook.cli import show
from tunebook.cli.options import (
    add_recipe_options,
    add_sampling_options,
    recipe_from,
    sampling_from,
)
from tunebook.errors import RecipeInvalid, TunebookError
from tunebook.export.commands import form_of, usage
from tunebook.export.formats import FORMATS
from tunebook.recipe import Recipe

if TYPE_CHECKING:
    from tunebook.training import Run


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        return code
    except TunebookError as error:
        show.print_error(error)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0


def demo(arguments: argparse.Namespace) -> int:
    """The guided fine-tune, end to end, on what ships inside the package."""
    from tunebook.cli.demo import run_demo

    return run_demo(Path(arguments.root), steps=arguments.steps)


def doctor(arguments: argparse.Namespace) -> int:
    """What this machine has, what will be used and what is missing."""
    from tunebook.cli.doctor import diagnose, print_diagnosis

    diagnosis = diagnose()
    if arguments.json:
        show.print_json(diagnosis.model_dump(mode="json"))
    else:
        print_diagnosis(diagnosis)
    return 0 if diagnosis.ready else 2


def check(arguments: argparse.Namespace) -> int:
    """Look for what is wrong with a dataset."""
    from tunebook.data import check as check_data

    if arguments.fix:
        return _fix(arguments)
    report = check_data(_checked(arguments), model=arguments.model)
    if arguments.json:
        show.print_json(report.to_dict())
    else:
        show.console.print(str(report), markup=False)
    return 0 if report.ok else 1


def _checked(arguments: argparse.Namespace) -> str | Recipe:
    """What is to be checked: a recipe file means its data, as it would train on them."""
    if Path(arguments.source).suffix.lower() not in (".yaml", ".yml"):
        source: str = arguments.source
        return source
    recipe = Recipe.load(Path(arguments.source))
    return recipe.with_values({"model.name": arguments.model}) if arguments.model else recipe


def _fix(arguments: argparse.Namespace) -> int:
    """Write the rows with fixes applied to a new file, and say what was changed."""
    from tunebook.data import apply_fixes, write_rows

    if not arguments.out:
        raise RecipeInvalid(
            "A fix writes a new file.",
            "no `--out` was given.",
            "name it, such as `--out new.jsonl`.",
        )
    source = _checked(arguments)
    special = None
    if "strip_special_tokens" in arguments.fix and (arguments.model or isinstance(source, Recipe)):
        from tunebook.data.tokenizers import tokenizer_for

        known = source if isinstance(source, Recipe) else Recipe.of(arguments.model, source)
        special = list(tokenizer_for(known).all_special_tokens)
    fixed = apply_fixes(source, arguments.fix, special_tokens=special)
    path = write_rows(fixed.table, arguments.out)
    if arguments.json:
        show.print_json({"out": str(path), "rows": len(fixed.table), "changed": fixed.changed})
    else:
        changed = [(name, f"{count} rows") for name, count in fixed.changed.items()]
        show.pairs([*changed, ("written", f"{len(fixed.table)} rows to {path}")])
    return 0


def plan(arguments: argparse.Namespace) -> int:
    """What a recipe will cost in memory and time, before anything is loaded."""
    from tunebook.plan import Hardware, make_plan

    recipe = recipe_from(arguments)
    hardware = Hardware.of(arguments.on) if arguments.on else Hardware.detect()
    made = make_plan(recipe, hardware=hardware)
    if arguments.json:
        show.print_json(made.model_dump(mode="json"))
    else:
        show.console.print(made.summary(), markup=False)
    return 0


def train(arguments: argparse.Namespace) -> int:
    """Train a recipe, or resume a run."""
    from tunebook.training import Run, open_run

    if arguments.resume:
        run = open_run(arguments.resume).resume()
    else:
        run = Run.create(recipe_from(arguments), root=arguments.root).start()
    show.follow(run)
    rows = [("run", str(run.path)), ("state", run.state)]
    steps = run.history()
    if steps:
        rows.append(
            ("loss", f"{steps[0].loss:.4f} → {steps[-1].loss:.4f} in {steps[-1].step} steps")
        )
    memory = show.peak_of(run)
    if memory is not None and run.plan is not None:
        forecast = show.mib(run.plan.forecast.total)
        rows.append(("memory", f"{show.mib(memory.peak)} (forecast {forecast})"))
    rows += show.busy_rows(run)
    if run.folder.adapter.is_dir():
        rows.append(("adapter", str(run.folder.adapter)))
    show.pairs(rows)
    return 0


def chat(arguments: argparse.Namespace) -> int:
    """Talk to a run's model, or ask it the saved test cases."""
    from tunebook.training import open_run

    run = open_run(arguments.path)
    if arguments.cases:
        return _cases(run, as_json=arguments.json)
    sampling = sampling_from(arguments).arguments()
    messages: list[dict[str, str]] = []
    if arguments.system:
        messages.append({"role": "system", "content": arguments.system})
    questions = iter([arguments.ask]) if arguments.ask else _typed()
    for question in questions:
        messages.append({"role": "user", "content": question})
        answer = ""
        for piece in run.stream(messages, adapter=not arguments.base, **sampling):
            answer += piece
            show.console.out(piece, end="", highlight=False)
            sys.stdout.flush()
        show.console.out("")
        messages.append({"role": "assistant", "content": answer})
    return 0


def _cases(run: Run, *, as_json: bool) -> int:
    """Ask every test case; 1 if an answer is not as expected."""
    report = run.check_cases()
    if as_json:
        show.print_json(report.model_dump(mode="json"))
    elif not report.results:
        show.console.print(f"There are no test cases in {run.cases.path}.", markup=False)
    else:
        show.console.print(str(report), markup=False, highlight=False)
    return 1 if report.failed else 0


def export(arguments: argparse.Namespace) -> int:
    """Write a run's model for use elsewhere, check it, or put it on the hub."""
    from tunebook.training import open_run

    run = open_run(arguments.path)
    formats = [name for name in (arguments.formats or "").split(",") if name] or None
    quantization = [name for name in (arguments.gguf_quantization or "").split(",") if name] or None
    good = True
    written = run.export(
        formats,
        folder=arguments.folder,
        quantization=quantization,
        bits=arguments.gguf_bits,
        size=arguments.gguf_size,
        importance=arguments.importance,
        replace=arguments.replace,
        measuring=show.told_passes(),
    )
    for path in written:
        show.console.print(str(path), markup=False)
        if arguments.verify:
            checked = run.verify(path)
            good = good and checked.ok
            show.console.print(f"  {checked.summary}", markup=False)
        for title, lines in usage(form_of(path), str(path), run.recipe):
            show.code(title, lines)
        if arguments.hub and good:
            page = run.upload(
                arguments.hub,
                folder=path,
                private=not arguments.public,
                replace=arguments.replace,
            )
            show.console.print(page, markup=False)
    return 0 if good else 1


def inspect(arguments: argparse.Namespace) -> int:
    """Look into a .gguf or .safetensors file or an adapter folder, without loading it."""
    from tunebook.export import inspect_file

    seen = inspect_file(arguments.path)
    if arguments.json:
        show.print_json(seen.to_dict())
        return 0
    show.console.print(show.plain(str(seen)), markup=False)
    if arguments.all:
        metadata = [(entry.key, entry.text) for entry in seen.metadata]
        tensors = [(tensor.name, f"{tensor.type} {list(tensor.shape)}") for tensor in seen.tensors]
        for title, rows in (("Metadata", metadata), ("Tensors", tensors)):
            if rows:
                show.pairs([(show.plain(n), show.plain(v)) for n, v in rows], title=title)
        if seen.chat_template:
            show.console.print("[bold]Chat template[/]")
            show.console.print(show.plain(seen.chat_template), markup=False)
    return 0


def _typed() -> Iterator[str]:
    while True:
        try:
            text = show.console.input("[bold]> [/]").strip()
        except EOFError:
            return
        if text:
            yield text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tunebook", description="Guided, fast, small-memory fine-tuning."
    )
    parser.add_argument("--version", action="version", version=f"tunebook {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    sub = _command(commands, "demo", demo)
    sub.add_argument("--root", default="runs", help="folder for the run [default: runs]")
    sub.add_argument("--steps", type=int, default=None, help="train fewer steps, for a quick look")

    sub = _command(commands, "check", check)
    sub.add_argument("source", help="dataset file, hub id, or recipe file (.yaml)")
    sub.add_argument("--model", help="whose tokenizer and template to check with")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.add_argument(
        "--fix", action="append", metavar="ID", help="apply this fix (again for more); needs --out"
    )
    sub.add_argument("--out", metavar="FILE", help="new file for the rows after the fixes")

    sub = _command(commands, "plan", plan)
    add_recipe_options(sub)
    sub.add_argument("--on", metavar="GPU", help='plan for another card, such as "T4" or "L4"')
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = _command(commands, "train", train)
    add_recipe_options(sub)
    sub.add_argument("--root", default="runs", help="folder of runs [default: runs]")
    sub.add_argument("--resume", metavar="RUN", help="continue this run from its last checkpoint")

    sub = _command(commands, "chat", chat)
    sub.add_argument("path", metavar="RUN", help="run folder")
    sub.add_argument("--base", action="store_true", help="talk to the model without its adapter")
    sub.add_argument("--ask", metavar="TEXT", help="ask one question and leave")
    sub.add_argument("--system", metavar="TEXT", help="system message")
    sub.add_argument(
        "--cases", action="store_true", help="ask the saved test cases, and compare with before"
    )
    sub.add_argument("--json", action="store_true", help="print the outcome of --cases as JSON")
    add_sampling_options(sub)

    sub = _command(commands, "export", export)
    sub.add_argument("path", metavar="RUN", help="run folder")
    sub.add_argument(
        "--formats", metavar="A,B", help=f"{', '.join(FORMATS)} [default: the recipe's]"
    )
    sub.add_argument(
        "--gguf-quantization",
        metavar="A,B",
        help="of GGUF files, such as q4_k_m,q8_0 or dynamic [default: the recipe's]",
    )
    sub.add_argument(
        "--gguf-bits", type=float, metavar="X", help="bits a weight of a dynamic GGUF file"
    )
    sub.add_argument(
        "--gguf-size",
        metavar="SIZE",
        help="size of a dynamic GGUF file, such as 4GB, or q4_k_m for its size [default: q4_k_m]",
    )
    sub.add_argument(
        "--importance",
        metavar="auto|FILE",
        help="quantize by what matters: auto measures on the run's data, or an imatrix file",
    )
    sub.add_argument("--folder", help="where to write [default: the run's own export folder]")
    sub.add_argument(
        "--verify", action="store_true", help="load it again and compare; 1 if it differs"
    )
    sub.add_argument(
        "--hub",
        metavar="OWNER/NAME",
        help="upload it, with the token of `hf auth login` or HF_TOKEN; private unless --public",
    )
    sub.add_argument("--public", action="store_true", help="let everybody see the uploaded model")
    sub.add_argument(
        "--replace",
        action="store_true",
        help="let another model that is in the folder, or in the repository, give way",
    )

    sub = _command(commands, "inspect", inspect)
    sub.add_argument("path", help=".gguf or .safetensors file, or adapter folder")
    sub.add_argument("--all", action="store_true", help="print metadata, tensors and template too")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = _command(commands, "doctor", doctor)
    sub.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _command(commands: object, name: str, run: object) -> argparse.ArgumentParser:
    text = (run.__doc__ or "").strip()
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)  # type: ignore[attr-defined]
    parser.set_defaults(run=run)
    return parser
