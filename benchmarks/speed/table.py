"""Results as Markdown: what each peer did, and Tunebook against the best rival of the same kind.

Knows records; knows no torch and measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from speed.peers import PEERS

Record = dict[str, Any]
GIB = 2**30
_COLUMNS = (
    "peer",
    "ms, synchronised (quartiles)",
    "ms, run ahead",
    "tokens/s, synchronised",
    "tokens/s, run ahead",
    "GPU busy ms",
    "kernels",
    "peak allocated GiB",
    "reserved GiB",
    "import s",
    "load s",
    "adapter and trainer s",
    "first step s",
    "losses of steps 1, 2, 5, 10",
)
KINDS = {"synchronised": "synchronised_s", "run ahead": "ahead_s"}


def best_rival(records: Iterable[Record], kind: str = "run ahead") -> Record | None:
    """The fastest rival by one kind of timing, or None if no rival has a result."""
    rivals = [r for r in records if "error" not in r and PEERS[r["peer"]].rival]
    return min(rivals, key=lambda record: record[KINDS[kind]], default=None)


def markdown(records: list[Record]) -> str:
    """The tables of all cases, with ratios under each, and the machine that they were measured on."""
    cases: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        cases.setdefault((record["size"], record["shape"]), []).append(record)
    parts = [_case(size, shape, found) for (size, shape), found in cases.items()]
    machines = {_machine(record) for record in records if "versions" in record}
    return "\n\n".join([*parts, *sorted(machines)])


def _case(size: str, shape: str, records: list[Record]) -> str:
    lines = [
        f"### {size} {shape}\n",
        "| " + " | ".join(_COLUMNS) + " |",
        "| " + " | ".join(["---"] + ["---:"] * (len(_COLUMNS) - 2) + ["---"]) + " |",
    ]
    lines += ["| " + " | ".join(_row(record)) + " |" for record in records]
    notes = [note for record in records for note in _ratios(record, records)]
    return "\n".join([*lines, "", *notes]).rstrip()


def _row(record: Record) -> list[str]:
    if "error" in record:
        words = record["error"].replace("|", "/").replace("\n", " ")
        return [record["peer"], f"none: {words[:160]}", *[""] * (len(_COLUMNS) - 2)]
    low, high = (1e3 * value for value in record["quartiles_s"])
    synchronised, ahead = record["synchronised_s"], record["ahead_s"]
    profile = record["profile"]
    losses = record["losses"]
    return [
        record["peer"],
        f"{1e3 * synchronised:.1f} ({low:.1f} to {high:.1f})",
        f"{1e3 * ahead:.1f}",
        f"{record['tokens'] / synchronised:,.0f}",
        f"{record['tokens'] / ahead:,.0f}",
        f"{profile['busy_ms']:.1f}" if profile else "",
        f"{profile['kernels']:,}" if profile else "",
        _gib(record["allocated"]),
        _gib(record["reserved"]),
        *_opened(record["opened_s"]),
        f"{record['first_step_s']:.1f}",
        " ".join(f"{losses[step - 1]:.4f}" for step in (1, 2, 5, 10) if step <= len(losses)),
    ]


def _opened(seconds: dict[str, float]) -> list[str]:
    """Seconds of a process's first shape before its first step; a later shape needs a trainer only."""
    made = f"{seconds.get('adapt', 0) + seconds['trainer']:.1f}"
    return [
        *(f"{seconds[name]:.1f}" if name in seconds else "" for name in ("import", "load")),
        made,
    ]


def _ratios(record: Record, records: list[Record]) -> list[str]:
    """Speed by each kind of timing against the best rival by that kind, and memory."""
    if "error" in record or PEERS[record["peer"]].rival:
        return []
    notes = []
    for kind, key in KINDS.items():
        rival = best_rival(records, kind)
        if rival is not None:
            ratio = rival[key] / record[key]
            notes.append(f"{ratio:.2f}x {rival['peer']} ({kind})")
    rival, peak = best_rival(records), record["allocated"]
    if rival is not None and peak and rival["allocated"]:
        notes.append(f"peak {peak / rival['allocated']:.2f}x that of {rival['peer']}")
    if record.get("cap"):
        kept = "not known" if peak is None else "kept" if peak <= record["cap"] else "exceeded"
        notes.append(f"cap {_gib(record['cap'])} GiB: {kept}")
    if peak:
        error = record["forecast"] / peak - 1
        notes.append(f"forecast {_gib(record['forecast'])} GiB, {error:+.1%} of the peak")
    return [f"- {record['peer']}: {'; '.join(notes)}"] if notes else []


def _machine(record: Record) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return f"Measured on {record['card']}; {versions}."


def _gib(count: int | None) -> str:
    return "" if count is None else f"{count / GIB:.2f}"
