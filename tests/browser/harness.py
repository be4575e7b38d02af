"""Drive a real JupyterLab in a real Chromium, as a user would; imports no tunebook."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chromium
from stacks import write_kernels

TOKEN = "browser-test"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

PAINTED = """async ([selector, value]) => {
    const input = document.querySelector(selector);
    const total = document.querySelector('[data-total]');
    return await new Promise(done => {
        const begun = performance.now();
        new MutationObserver((_, watcher) => {
            watcher.disconnect();
            requestAnimationFrame(() => {
                const after = new MessageChannel();  // a task after the frame is painted
                after.port1.onmessage = () => done(performance.now() - begun);
                after.port2.postMessage(0);
            });
        }).observe(total, { attributes: true, attributeFilter: ['data-total'] });
        input.value = value;
        input.dispatchEvent(new Event('input', { bubbles: true }));
        setTimeout(() => done(Infinity), 10000);
    });
}"""
"""Milliseconds from a value put into a field to the painted forecast that it leads to."""


@dataclass
class Lab:
    """A running JupyterLab with its own folders."""

    url: str
    root: Path
    log: Path

    def api(self, path: str, method: str = "GET") -> Any:
        """Ask the server's REST interface."""
        headers = {"Authorization": f"token {TOKEN}"}
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def end_sessions(self) -> None:
        """End every kernel, so that no test meets the state of another."""
        for session in self.api("sessions"):
            with contextlib.suppress(OSError):
                self.api(f"sessions/{session['id']}", "DELETE")

    def write(self, name: str, cells: list[str], *, kernel: str = "python3") -> str:
        """Write a notebook of code cells for this kernel into the server's root."""
        code = [
            {
                "cell_type": "code",
                "id": uuid.uuid4().hex[:8],
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": source,
            }
            for source in cells
        ]
        spec = {"name": kernel, "display_name": kernel, "language": "python"}
        book = {
            "cells": code,
            "metadata": {"kernelspec": spec},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.root / name).write_text(json.dumps(book))
        return name


@dataclass
class Notebook:
    """A notebook open in a page, driven as a user would, with what the console said."""

    page: Any
    lab: Lab
    console: list[str] = field(default_factory=list)

    def goto(self, path: str, *, reset: bool = True) -> Notebook:
        """Open JupyterLab at a path below `/lab`."""
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.console.append(f"pageerror: {error}"))
        ending = "&reset" if reset else ""
        self.page.goto(f"{self.lab.url}/lab{path}?token={TOKEN}{ending}")
        return self

    def wait_kernel(self) -> None:
        """Wait until the notebook is there and its kernel is connected."""
        self.page.wait_for_selector(".jp-Notebook", timeout=60_000)
        self.page.wait_for_function(
            """() => { const w = window.jupyterapp?.shell.currentWidget;
            const k = w?.sessionContext?.session?.kernel;
            return k && k.connectionStatus === 'connected' && k.status === 'idle'; }""",
            timeout=60_000,
        )

    def run(self, cell: int, *, wait: bool = True) -> None:
        """Run a cell; with `wait`, until it has ended."""
        script = """i => { const n = jupyterapp.shell.currentWidget.content;
            n.activeCellIndex = i; jupyterapp.commands.execute('notebook:run-cell'); }"""
        self.page.evaluate(script, cell)
        if wait:
            self.page.wait_for_function(
                """i => jupyterapp.shell.currentWidget.content.model.cells.get(i).executionCount""",
                arg=cell,
                timeout=60_000,
            )

    def output(self, cell: int) -> str:
        """The text outputs of a cell."""
        script = """i => jupyterapp.shell.currentWidget.content.model.cells.get(i).outputs.toJSON()
            .map(o => [].concat(o.text ?? o.data?.['text/plain'] ?? o.evalue).join('')).join('')"""
        return str(self.page.evaluate(script, cell))

    def save(self) -> None:
        """Save the notebook, so that a reload finds its outputs."""
        self.page.evaluate("() => jupyterapp.shell.currentWidget.context.save()")

    def command(self, name: str) -> None:
        """Start a JupyterLab command and do not wait for it."""
        self.page.evaluate("name => { void jupyterapp.commands.execute(name); }", name)

    def panel(self, name: str) -> Any:
        """The locator of one panel."""
        return self.page.locator(f'.tunebook-panel[data-panel="{name}"]')

    def state(self) -> str:
        """The state that the train panel shows, as data."""
        return str(self.page.locator(".tb-progress-place").get_attribute("data-state"))

    def points(self, plot: str = "loss") -> int:
        """How many points a plot has."""
        found = self.page.locator(f'[data-plot="{plot}"]').get_attribute("data-points")
        return int(found or 0)

    def until(self, condition: Any, *, seconds: float = 60, what: str = "the condition") -> float:
        """Wait until `condition()` is true; returns the seconds that took."""
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() - begun < seconds, f"{what}: not within {seconds} s"
            self.page.wait_for_timeout(50)
        return time.monotonic() - begun

    def errors(self) -> list[str]:
        """What the console said that speaks of an error."""
        return [line for line in self.console if line.startswith(("error", "pageerror"))]

    def _heard(self, message: Any) -> None:
        self.console.append(f"{message.type}: {message.text} {message.location.get('url', '')}")


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lab_environment(folder: Path, python: Path) -> dict[str, str]:
    """The environment of a server that keeps to its own folders and needs no network."""
    own = {
        f"JUPYTER{name}_DIR": str(folder / name.strip("_").lower())
        for name in ("LAB_SETTINGS", "LAB_WORKSPACES", "_CONFIG", "_RUNTIME", "_DATA")
    }
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    one_thread = {"OMP_NUM_THREADS": "1"}  # on a busy machine two threads wait for each other
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **own, **offline, **one_thread, "PATH": path}


@contextlib.contextmanager
def running_lab(
    folder: Path,
    *,
    python: Path | None = None,
    stacks: tuple[str, ...] = (),
    base_url: str = "/",
    app: str = "lab",
) -> Iterator[Lab]:
    """Start JupyterLab, or another `app` of Jupyter, on a free port over `folder/root`.

    Args:
        folder: for the server's files; must exist.
        python: of the environment that JupyterLab and tunebook are installed in; None is this one.
        stacks: further kernels, by their names in `stacks.STACKS`.
        base_url: where the server's pages begin, such as `/user/x/` below a JupyterHub.
    """
    python = python or Path(sys.executable)
    quiet = folder / "lab_settings/@jupyterlab/apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    write_kernels(folder / "data", stacks)
    command = [
        *(str(python), "-m", "jupyter", app),
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with serving(folder, command, lab_environment(folder, python), base_url) as lab:
        yield lab


@contextlib.contextmanager
def serving(
    folder: Path, command: list[str], environment: dict[str, str], base_url: str = "/"
) -> Iterator[Lab]:
    """Start a Jupyter server over `folder/root` and end it."""
    root = folder / "root"
    root.mkdir()
    port = free_port()
    log = folder / "lab.log"
    arguments = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    arguments += [f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={TOKEN}"]
    arguments.append(f"--ServerApp.base_url={base_url}")
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*command, *arguments],
            env=environment,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    lab = Lab(f"http://127.0.0.1:{port}{base_url.rstrip('/')}", root, log)
    try:
        wait_until_up(lab, server)
        yield lab
    finally:
        with contextlib.suppress(OSError):
            lab.end_sessions()
        server.terminate()
        server.wait(30)


def wait_until_up(lab: Lab, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    for _ in range(240):
        assert server.poll() is None, lab.log.read_text()
        try:
            lab.api("status")
            return
        except OSError:
            time.sleep(0.25)
    raise AssertionError(f"JupyterLab did not answer:\n{lab.log.read_text()}")


@contextlib.contextmanager
def running_browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = chromium.ensure()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()
