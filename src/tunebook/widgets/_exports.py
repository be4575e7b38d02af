"""What the take-away panel shows of types and of files, as plain data.

Knows the tables of `tunebook.export` and what lies on the disk; knows no widget.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunebook.events import ExportEvent
from tunebook.export.commands import is_projector, usage
from tunebook.export.formats import FORMATS
from tunebook.export.gguf.quality import QUALITIES, choices
from tunebook.models.shape import ModelShape
from tunebook.words import bytes_text

_ENDINGS = {"dynamic": "*-dynamic-*"}
"""Of files that are not called after their type alone."""


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
    parts = [(path, "")]
    if form == "gguf":
        found = [
            (file, name.upper())
            for name in quantization
            for file in sorted(path.glob(f"{_ENDINGS.get(name, f'*-{name.upper()}')}.gguf"))
            if not is_projector(file.name)
        ]
        eyes = [file for file in sorted(path.glob("*.gguf")) if is_projector(file.name)]
        found += [(file, f"Vision tower, {file.stem.rpartition('-')[2]}") for file in eyes]
        parts = found or parts
    events = [event for event in run.log.of(ExportEvent) if event.format == form]
    return {
        "path": str(path),
        "size": bytes_text(sum(size_of(part) for part, _ in parts)),
        "form": form,
        "title": FORMATS[form].title,
        "notes": list(events[-1].notes) if events else [],
        "verified": {},
        "parts": [
            {
                "title": title,
                "size": bytes_text(size_of(part)),
                "usage": [list(pair) for pair in usage(form, str(part), run.recipe)],
            }
            for part, title in parts
        ],
    }


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    return path.stat().st_size if path.exists() else 0


def in_a_sentence(title: str) -> str:
    """A title in the middle of a sentence."""
    return title if title.isupper() else title.lower()
