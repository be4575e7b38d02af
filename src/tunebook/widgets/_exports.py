"""What the take-away panel shows of types and of files, as plain data.

Knows the tables of `tunebook.export` and what lies on the disk; knows no widget.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.errors import FileInvalid
from tunebook.events import ExportEvent
from tunebook.export.commands import is_projector, usage
from tunebook.export.formats import FORMATS
from tunebook.export.gguf.mixes import DYNAMIC
from tunebook.export.gguf.quality import QUALITIES, choices
from tunebook.models.shape import ModelShape
from tunebook.words import bytes_text, duration_text

if TYPE_CHECKING:
    from tunebook.export.gguf.divergence import Divergence
    from tunebook.export.gguf.report import DynamicReport
    from tunebook.export.progress import Pass


def type_rows(shape: ModelShape | None) -> list[dict[str, Any]]:
    """The table of GGUF types, the largest first; without a shape nothing is known of sizes."""
    rows = {row.name: row for row in choices(shape)} if shape is not None else {}
    half = rows["bf16"].bytes if rows else 1
    shown = []
    for name in rows or [name.lower() for name in QUALITIES]:
        row, quality = rows.get(name), QUALITIES[name.upper()]
        shown.append(
            {
                "name": name,
                "title": name.upper(),
                "closeness": quality.closeness,
                "sentence": quality.sentence,
                "usual": quality.usual,
                "size": bytes_text(row.bytes) if row else "",
                "bits": f"{row.bits:.1f}" if row else "",
                "share": row.bytes / half if row else 0.0,
            }
        )
    return shown


def written_form(form: str, path: Path, run: Any, quantization: Sequence[str]) -> dict[str, Any]:
    """One form that was written just now, with its parts and how each is used.

    Args:
        quantization: of GGUF; the folder may hold older files of other types.
    """
    parts: list[tuple[Path, str, DynamicReport | None]] = [(path, "", None)]
    if form == "gguf":
        found = [part for name in quantization for part in _gguf_parts(path, name)]
        eyes = [file for file in sorted(path.glob("*.gguf")) if is_projector(file.name)]
        found += [(file, f"Vision tower, {file.stem.rpartition('-')[2]}", None) for file in eyes]
        parts = found or parts
    told = [report.summary for *_, report in parts if report is not None]
    events = [event for event in run.log.of(ExportEvent) if event.format == form]
    return {
        "path": str(path),
        "size": bytes_text(sum(size_of(part) for part, *_ in parts)),
        "form": form,
        "title": FORMATS[form].title,
        "notes": [note for note in events[-1].notes if note not in told] if events else [],
        "verified": {},
        "parts": [
            {
                "title": title,
                "size": bytes_text(size_of(part)),
                "usage": [list(pair) for pair in usage(form, str(part), run.recipe)],
                "mix": shown_mix(report) if report is not None else {},
            }
            for part, title, report in parts
        ],
    }


def _gguf_parts(folder: Path, name: str) -> list[tuple[Path, str, DynamicReport | None]]:
    """The files of one quantization, and of a dynamic one its report; llama.cpp's mix may be in it."""
    if name.lower() != DYNAMIC:
        found = sorted(folder.glob(f"*-{name.upper()}.gguf"))
        files = [file for file in found if "-dynamic-" not in file.name]
        return [(file, name.upper(), None) for file in files if not is_projector(file.name)]
    from tunebook.export.gguf.report import DynamicReport

    told = sorted(folder.glob("*-dynamic-*.json"), key=lambda file: file.stat().st_mtime)
    try:
        report = DynamicReport.load(told[-1]) if told else None
    except FileInvalid:  # of something else
        report = None
    written = "dynamic-*" if report is None else report.written
    return [(file, name.upper(), report) for file in sorted(folder.glob(f"*-{written}.gguf"))]


def shown_mix(report: DynamicReport) -> dict[str, Any]:
    """Which tensor got which type and why, and how good that is, beside llama.cpp's mix.

    Returns:
        `name`, `summary` (a sentence or two), `bits`, `used` (whether it was better and is what was
        written), `gain` (share of llama.cpp's mean divergence that it has less, or None), `measured`
        (a row for each mix: name, size, mean, percentile_99, percentile_99_9, same_top), `tensors`
        (name, layer or -1, role, type, bits, size, error, stock, why) and where it was measured in
        `about`.
    """
    rows = [_measured(report.name, report.bytes, report.dynamic)]
    if report.stock is not None and report.stock_name and report.stock_bytes is not None:
        rows.append(_measured(report.stock_name, report.stock_bytes, report.stock))
    return {
        "name": report.name,
        "summary": report.summary,
        "bits": round(report.bits, 2),
        "used": report.uses_dynamic,
        "gain": report.gain,
        "about": f"Measured on {report.dynamic.tokens:,} held-out tokens with importance from "
        f"{report.calibration_tokens:,} others.",
        "measured": rows,
        "tensors": [
            {
                "name": choice.name,
                "layer": choice.place[0],
                "role": choice.place[1],
                "type": choice.type,
                "bits": round(choice.bits, 2),
                "size": bytes_text(choice.bytes),
                "error": choice.error,
                "stock": choice.stock_type or "",
                "why": choice.why,
            }
            for choice in report.tensors
        ],
    }


def _measured(name: str, size: int, measured: Divergence) -> dict[str, Any]:
    return {
        "name": name,
        "size": bytes_text(size),
        "mean": measured.mean,
        "percentile_99": measured.percentile_99,
        "percentile_99_9": measured.percentile_99_9,
        "same_top": measured.same_top,
    }


def pass_words(told: Pass) -> str:
    """ "Trying every type on every tensor (2 of 4), about 40 s left in it"."""
    left = ""
    if told.seconds_left is not None and told.done < told.total:
        left = f", about {duration_text(told.seconds_left)} left in it"
    return f"{told.title} ({told.number} of {told.of}){left}"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    return path.stat().st_size if path.exists() else 0


def in_a_sentence(title: str) -> str:
    """A title in the middle of a sentence."""
    return title if title.isupper() else title.lower()
