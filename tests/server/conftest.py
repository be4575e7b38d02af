"""A real Jupyter server over a folder of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOKEN = "server-test"


@dataclass
class Server:
    """A Jupyter server, asked as a client would."""

    url: str
    root: Path

    def ask(
        self, route: str, *, method: str = "GET", token: str = TOKEN, etag: str = "", **query: Any
    ) -> tuple[int, Any, Any]:
        """Status, body and headers of an answer."""
        from urllib.parse import urlencode

        url = f"{self.url}tunebook/{route}?{urlencode(query)}"
        headers = {"If-None-Match": etag} if etag else {}
        if token:
            headers["Authorization"] = f"token {token}"
        request = urllib.request.Request(url, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read()), answer.headers
        except urllib.error.HTTPError as error:
            body = error.read()
            return error.code, json.loads(body) if body else None, error.headers


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server below a base URL, as a hub runs it; tests make their own folders below its root."""
    pytest.importorskip("jupyter_server")
    root = tmp_path_factory.mktemp("root")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"),
        *("--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={root}"),
        *("--ServerApp.base_url=/user/x/", f"--IdentityProvider.token={TOKEN}"),
        "--ServerApp.jpserver_extensions={'tunebook.server': True}",
    ]
    log = root.parent / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=root)
    up = Server(f"http://127.0.0.1:{port}/user/x/", root)
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                up.ask("inspect")
                break
            time.sleep(0.25)
        yield up
    finally:
        process.terminate()
        process.wait(30)
