"""A log that others append to, read from a byte offset on, in bounded pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PIECE = 4 * 2**20


def whole_lines(path: Path, offset: int, most: int = PIECE) -> tuple[list[bytes], int]:
    """The whole lines after `offset`, from at most `most` bytes, and the offset after them.

    A line longer than that is passed over piece by piece: its pieces are lines that do not parse.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(most)
    end = data.rfind(b"\n") + 1
    if not end and len(data) == most:
        end = most
    return data[:end].splitlines(), offset + end


def parsed(line: bytes) -> dict[str, Any] | None:
    """One line as an object, or None where it is none (cut off by a crash, or not ours)."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("kind"), str) else None
