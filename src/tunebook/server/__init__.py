"""The Jupyter server extension: every run under the server's root, whoever started it.

It reads run folders and asks for stops; it knows no torch, kernel or panel. What it answers is
described in `docs/server.md`.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "tunebook.server"}]


def _load_jupyter_server_extension(server_app: Any) -> None:
    from tunebook.server.handlers import add_handlers

    add_handlers(server_app)
