"""The Jupyter server extension: every run under the server's root, whoever started it.

It reads run folders and model files and asks for stops; it knows no torch, kernel or panel. What it
answers is described in `docs/server.md`.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "tunebook.server"}]


def _load_jupyter_server_extension(server_app: Any) -> None:
    from tunebook.server.handlers import add_handlers
    from tunebook.server.inspection import handlers

    add_handlers(server_app)
    server_app.web_app.add_handlers(".*$", handlers(server_app.web_app.settings["base_url"]))
