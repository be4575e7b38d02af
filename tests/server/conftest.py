"""Runs as files, without training, and a real Jupyter server over a folder of them."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tunebook.events import EventBase, FinishedEvent, MemoryEvent, StartedEvent, StepEvent
from tunebook.recipe import Recipe
from tunebook.training.folder import RunFolder, this_process

MakeRun = Callable[..., RunFolder]
TOKEN = "server-test"


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """Writes a run folder: `make_run(path, steps=3, total=10, ended="completed", dead=True)`."""

    def make(
        path: Path, *, steps: int = 3, total: int = 10, ended: str = "", dead: bool = False,
        began: float | None = None, more: list[EventBase] | None = None,
    ) -> RunFolder:  # fmt: skip
        path.mkdir(parents=True)
        folder = RunFolder(path)
        Recipe.of(max_steps=total).save(folder.recipe_file)
        process = this_process() | ({"pid": gone_pid()} if dead else {})
        start = time.time() if began is None else began
        folder.log.append(
            StartedEvent(
                time=start,
                device="cpu",
                total_steps=total,
                trainable_parameters=1,
                total_parameters=2,
                **process,
            )
        )
        for step in range(1, steps + 1):
            folder.log.append(a_step(step, time=start + step))
        folder.log.append(MemoryEvent(step=steps, device="cpu", allocated=5, peak=1000))
        for event in more or []:
            folder.log.append(event)
        if ended:
            folder.log.append(FinishedEvent(step=steps, reason=ended))
        return folder

    return make


def a_step(step: int, *, loss: float | None = None, **values: Any) -> StepEvent:
    """One step of a loss that falls as 10 / step."""
    return StepEvent(
        step=step, epoch=0.1, loss=10 / step if loss is None else loss, learning_rate=1e-3,
        tokens=64 * step, seconds=0.5, **values,
    )  # fmt: skip


def gone_pid() -> int:
    """The id of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert not psutil.pid_exists(done.pid)
    return done.pid


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
                up.ask("gpu")
                break
            time.sleep(0.25)
        yield up
    finally:
        process.terminate()
        process.wait(30)
