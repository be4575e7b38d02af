"""Small pieces of HTML for places without a front end: nbconvert, GitHub, a notebook reopened later.

Every text is escaped and every style is inline; knows no panel and no kernel.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

# No colour is set but lines and muted text, so that light and dark pages both stay readable.
_BOX = "border:1px solid rgba(128,128,128,.35);border-radius:8px;padding:8px 14px;margin:8px 0"
_MUTED = "opacity:.75"
_CELL = "text-align:left;vertical-align:top;padding:2px 14px 2px 0"


def text(value: object) -> str:
    """Any value as escaped text."""
    return html.escape(str(value))


def paragraph(value: object, *, muted: bool = False) -> str:
    """One paragraph, line breaks kept."""
    style = f"margin:4px 0;white-space:pre-wrap{';' + _MUTED if muted else ''}"
    return f'<p style="{style}" dir="auto">{text(value)}</p>' if str(value) else ""


def subheading(value: object) -> str:
    """A heading inside a panel."""
    return f'<h4 style="margin:10px 0 2px">{text(value)}</h4>'


def items(values: Iterable[object]) -> str:
    """A list; empty values are left out."""
    lines = "".join(f'<li dir="auto">{text(value)}</li>' for value in values if str(value))
    return f'<ul style="margin:4px 0;padding-left:20px">{lines}</ul>' if lines else ""


def facts(values: Mapping[str, object]) -> str:
    """Names and values in two columns; empty values are left out."""
    return table([(name, value) for name, value in values.items() if str(value)], headed=True)


def table(
    rows: Iterable[Sequence[object]], columns: Sequence[str] = (), *, headed: bool = False
) -> str:
    """A table.

    Args:
        columns: the head; none by default.
        headed: whether the first cell of each row names it.
    """
    head = "".join(f'<th style="{_CELL}">{text(name)}</th>' for name in columns)
    body = []
    for row in rows:
        cells = [f'<td style="{_CELL}" dir="auto">{text(cell)}</td>' for cell in row]
        if headed:
            cells[0] = f'<th scope="row" style="{_CELL}">{text(row[0])}</th>'
        body.append(f"<tr>{''.join(cells)}</tr>")
    if not body:
        return ""
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<table style="border-collapse:collapse;margin:4px 0">{top}<tbody>{"".join(body)}</tbody></table>'


def code(value: object) -> str:
    """Lines of code as they are."""
    style = "margin:4px 0;font-family:monospace;white-space:pre-wrap"
    return f'<pre style="{style}">{text(value)}</pre>'


def error(parts: Mapping[str, str]) -> str:
    """An error in its three parts."""
    if not parts.get("what"):
        return ""
    lines = [f"<strong>{text(parts['what'])}</strong>"]
    lines += [
        f"{label}: {text(parts.get(key, ''))}" for label, key in (("Why", "why"), ("Do", "do"))
    ]
    style = "margin:6px 0;padding-left:10px;border-left:3px solid #b3261e"
    return f'<p style="{style}">{"<br>".join(lines)}</p>'


def section(heading: str, *parts: str) -> str:
    """One panel: its heading and what is said below it."""
    inner = "".join(part for part in parts if part)
    return f'<section style="{_BOX}"><h3 style="margin:2px 0 4px">{text(heading)}</h3>{inner}</section>'
