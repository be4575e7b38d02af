"""Rows token by token as HTML that needs no script and no style sheet, for nbconvert and GitHub.

Every text is escaped; what is learnt is a `<mark>`, so that it shows where styles are taken out.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from tunebook.widgets._text import visible

MOST = 400  # tokens of a row
_LEARNED = "background:#c4e8d4;color:#0b3d2a"
_READ = "background:rgba(127,127,127,.14)"
_SPECIAL = "outline:1px dashed rgba(127,127,127,.8);outline-offset:-1px;font-size:90%"
_TEXT = (
    "margin:2px 0 10px;padding:6px 10px;border:1px solid rgba(127,127,127,.35);border-radius:6px;"
    "font-family:monospace;font-size:12px;line-height:1.75;white-space:pre-wrap;"
    "overflow-wrap:anywhere;unicode-bidi:plaintext"
)


def rows_html(rows: Iterable[tuple[int, dict[str, Any]]]) -> str:
    """Some rows, and what the colours mean.

    Args:
        rows: numbers from 0, each with the traits that a data panel has of that row.
    """
    key = (
        f'<div style="margin:8px 0"><mark style="{_LEARNED}">learned</mark> '
        f'<span style="{_READ}">only read</span> '
        f'<span style="{_READ};{_SPECIAL}">special</span></div>'
    )
    return key + "".join(_row(number, row) for number, row in rows)


def _row(number: int, row: dict[str, Any]) -> str:
    counts = row["counts"]
    if not counts:
        wrong = row["row_error"].get("what", "It has no tokens.")
        return f"<div>Row {number + 1}</div><div>{_plain(wrong)}</div>"
    said = f"Row {number + 1}: {counts['tokens']:,} tokens, {counts['trained']:,} learned"
    tokens = "".join(_token(text, kinds) for text, _, kinds, *_ in row["tokens"][:MOST])
    rest = " …" if counts["tokens"] > MOST else ""
    return f'<div>{said}</div><div style="{_TEXT}" dir="auto">{tokens}{rest}</div>'


def _token(text: str, kinds: str) -> str:
    words = kinds.split()
    special = f";{_SPECIAL}" if "special" in words else ""
    if "trained" in words:
        return f'<mark style="{_LEARNED}{special}">{_plain(text)}</mark>'
    return f'<span style="{_READ}{special}">{_plain(text)}</span>'


def _plain(text: str) -> str:
    return html.escape(visible(text))
