"""The Jupyter server extension: what JupyterLab's views ask without a kernel."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "tunebook.server"}]


def _load_jupyter_server_extension(server_app: Any) -> None:
    from tunebook.server.inspection import handlers

    server_app.web_app.add_handlers(".*$", handlers(server_app.web_app.settings["base_url"]))
