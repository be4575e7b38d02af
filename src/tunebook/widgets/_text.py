"""Numbers and plans as a person reads them: bytes, durations, strategies. Knows nothing of panels."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunebook.plan import Strategy


def bytes_text(count: float) -> str:
    """`1536` bytes as "1.5 KiB"; binary units, three figures at most."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def duration_text(seconds: float) -> str:
    """Seconds as "45 s", "3 min 20 s" or "2 h 5 min"."""
    if seconds < 1:
        return "under a second"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def count_text(count: float) -> str:
    """A large number as "1.2 B", "494 M" or "15 k"."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            value = count / size
            return f"{value:.0f}{unit}" if value >= 100 else f"{value:.1f}{unit}"
    return f"{count:.0f}"


def visible(text: str) -> str:
    """The text with characters that would steer what shows it written out, such as `\\u202e`.

    Those are control characters but for new lines and tabs, marks of writing direction, and
    separators; joiners stay, since letters of some scripts need them.
    """
    return "".join(
        _escape(c) if unicodedata.category(c) in _STEERING and c not in _PLAIN else c for c in text
    )


_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
_PLAIN = "\n\t\u200c\u200d\u00ad"  # the joiners, the soft hyphen


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def strategy_words(strategy: Strategy) -> list[str]:
    """How a plan runs a recipe: "batch 2 × 4", what memory is spent on, dtype, optimizer."""
    batch = f"batch {strategy.micro_batch} × {strategy.gradient_accumulation_steps}"
    return [batch, *strategy.spending(), strategy.dtype, strategy.optimizer]
