"""What commands print: progress of a run on a terminal or in a log, tables, errors.

Knows rich and events; decides nothing.
"""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tunebook.errors import TunebookError
from tunebook.events import BusyEvent, EventBase, MemoryEvent, StartedEvent, StepEvent, WarningEvent

if TYPE_CHECKING:
    from tunebook.export.progress import Pass
    from tunebook.training import Run

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)
_PLAIN_EVERY = 10.0  # seconds between two lines of progress in a log


def print_json(value: Any) -> None:
    """One JSON document on standard output, for programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_error(error: TunebookError) -> None:
    """The three parts of an error on standard error."""
    errors.print(f"[bold red]{escape(error.what)}[/]")
    errors.print(f"  [bold]Why:[/] {escape(error.why)}")
    errors.print(f"  [bold]Do: [/] {escape(error.do)}")


def plain(text: str) -> str:
    """Text of a file without the control characters that would steer the terminal."""
    steers = (c for c in set(text) if unicodedata.category(c) == "Cc" and c not in "\n\t")
    return text.translate(
        {ord(c): " " if c == "\r" else "\N{REPLACEMENT CHARACTER}" for c in steers}
    )


def code(title: str, lines: str) -> None:
    """Lines to copy, under what they are for."""
    console.print(f"[bold]{escape(title)}[/]")
    for line in lines.splitlines():
        console.print(f"  {line}".rstrip(), markup=False)


def mib(count: float) -> str:
    """Bytes as MiB or GiB."""
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def pairs(rows: list[tuple[str, str]], title: str | None = None) -> None:
    """Names and values in two columns; long values are not broken, so that paths can be copied."""
    if title:
        console.print(f"[bold]{escape(title)}[/]")
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"[dim]{escape(name):<{width}}[/]  {escape(value)}")


def told_passes() -> Callable[[Pass], None]:
    """For `Run.export`: a line as each pass of measuring begins."""

    def told(one: Pass) -> None:
        if not one.done:
            console.print(f"[dim]{one.number} of {one.of}[/]  {escape(one.title)} ...")

    return told


def follow(run: Run) -> Run:
    """Show a run's progress until it ends; Ctrl-C stops it after its step. Raises its error."""
    return _follow_bar(run) if console.is_terminal else _follow_plain(run)


def _follow_bar(run: Run) -> Run:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("Preparing", total=1, loss="")

        def tell(event: EventBase) -> None:
            if isinstance(event, StartedEvent):
                progress.update(
                    task, description="Training", total=event.total_steps, completed=event.step
                )
            elif isinstance(event, StepEvent):
                progress.update(task, completed=event.step, loss=f"loss {event.loss:.4f}")
            elif isinstance(event, WarningEvent):
                progress.console.print(f"[yellow]{escape(event.message)}[/] {escape(event.do)}")

        def idle() -> None:
            if run.phase and run.phase != "Training":
                progress.update(task, description=run.phase)

        return _watch(run, tell, idle)


def _follow_plain(run: Run) -> Run:
    printed = 0.0
    phase = ""
    total = 0

    def tell(event: EventBase) -> None:
        nonlocal printed, total
        if isinstance(event, StartedEvent):
            total = event.total_steps
        elif isinstance(event, StepEvent):
            due = time.monotonic() - printed >= _PLAIN_EVERY
            if due or event.step in (1, total):
                printed = time.monotonic()
                console.print(f"step {event.step}/{total}  loss {event.loss:.4f}")
        elif isinstance(event, WarningEvent):
            console.print(f"warning: {escape(event.message)} {escape(event.do)}")

    def idle() -> None:
        nonlocal phase
        if run.phase and run.phase != phase:
            phase = run.phase
            console.print(f"{phase} ...")

    return _watch(run, tell, idle)


def _watch(run: Run, tell: Any, idle: Any) -> Run:
    seen = len(run.log.read()) if not run.alive else 0
    while True:
        try:
            alive = run.alive
            events = run.log.read()
            idle()
            for event in events[seen:]:
                tell(event)
            seen = len(events)
            if not alive:
                return run.wait()
            time.sleep(0.1)
        except KeyboardInterrupt:
            if run.state == "stopping":
                raise
            console.print("Stopping after this step; press Ctrl-C again to leave at once.")
            run.stop()


def peak_of(run: Run) -> MemoryEvent | None:
    """The last memory event of a run."""
    memory = run.log.of(MemoryEvent)
    return memory[-1] if memory else None


def busy_rows(run: Run) -> list[tuple[str, str]]:
    """How busy the GPU was and what to do about it, for `pairs`; nothing if it was not measured."""
    measured = run.log.of(BusyEvent)
    return [("GPU busy", "; ".join(filter(None, (e.words(), e.advice())))) for e in measured[-1:]]
