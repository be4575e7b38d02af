"""The HTTP face of the server extension: who may ask, in which thread it is answered, how errors look.

All logic is in `library` and `gpu`. Clients poll: a question with an offset or an entity tag goes
through every proxy, holds no connection, and goes on where it was after a laptop slept.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

from tunebook.errors import PathRefused, RunBusy, RunMissing, TunebookError, as_tunebook_error
from tunebook.server.gpu import GpuMonitor
from tunebook.server.library import RESTING, RunLibrary, Wish

NAMESPACE = "tunebook"
STATUS: dict[type[TunebookError], int] = {PathRefused: 403, RunMissing: 404, RunBusy: 409}


class TunebookHandler(APIHandler):
    """What every handler does alike."""

    auth_resource = NAMESPACE
    _track_activity = False  # a page left open is no use of the server

    def initialize(self, library: RunLibrary, gpus: GpuMonitor) -> None:
        self.library = library
        self.gpus = gpus

    @property
    def path(self) -> str:
        """The run that is asked about."""
        return str(self.get_query_argument("path"))

    async def answer(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do blocking work in a thread and send what it returns, or its error in three parts."""
        try:
            value = await asyncio.get_running_loop().run_in_executor(None, work, *arguments)
        except (TunebookError, OSError) as error:
            self.refuse(as_tunebook_error(error, during="read the run"))
            return None
        self.finish(json.dumps(plain(value), allow_nan=False))
        return value

    def refuse(self, error: TunebookError) -> None:
        """Send an error in its three parts."""
        self.set_status(STATUS.get(type(error), 500))
        self.finish(json.dumps({"message": error.what, "error": error.to_dict()}))


class RunsHandler(TunebookHandler):
    """GET: every run below the root."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        listed = await self.answer(self.library.list)
        if listed and any(run["state"] not in RESTING for run in listed["runs"]):
            # a hub that ends idle servers must not end one that trains and is watched
            self._track_activity = True
            self.update_api_activity()


class RunHandler(TunebookHandler):
    """GET: one run as its events tell it."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        await self.answer(self.library.picture, self.path)


class ContentsHandler(TunebookHandler):
    """GET: recipe, plan and files of one run."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        await self.answer(self.library.contents, self.path)


class EventsHandler(TunebookHandler):
    """GET: the events of one run after a byte offset."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        asked = self.get_query_argument("offset", "0")
        if not asked.isdecimal():
            raise web.HTTPError(400, "offset must be a whole number of bytes")
        await self.answer(self.library.events, self.path, int(asked))


class AskHandler(TunebookHandler):
    """POST: ask one live run to stop, pause, continue, save or sample."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        wish = self.get_query_argument("for")
        if wish not in get_args(Wish):
            raise web.HTTPError(400, f"for must be one of {', '.join(get_args(Wish))}")
        await self.answer(self.library.ask, self.path, wish)


class GpuHandler(TunebookHandler):
    """GET: memory and use of the server's GPUs; `gpus` is null where there are none."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        await self.answer(lambda: {"gpus": self.gpus.read()})


ROUTES: dict[str, type[TunebookHandler]] = {
    "runs": RunsHandler,
    "run": RunHandler,
    "run/contents": ContentsHandler,
    "run/events": EventsHandler,
    "run/ask": AskHandler,
    "gpu": GpuHandler,
}


def add_handlers(server_app: Any) -> None:
    """Serve the routes of this module below the server's base URL."""
    shared = {"library": RunLibrary(root_of(server_app)), "gpus": GpuMonitor()}
    base = server_app.web_app.settings["base_url"]
    routes = [
        (url_path_join(base, NAMESPACE, route), handler, shared)
        for route, handler in ROUTES.items()
    ]
    server_app.web_app.add_handlers(".*$", routes)


def root_of(server_app: Any) -> Path:
    """The folder that the server's file browser shows."""
    contents = getattr(server_app, "contents_manager", None)
    return Path(getattr(contents, "root_dir", "") or server_app.root_dir).expanduser()


def plain(value: Any) -> Any:
    """A value as JSON has it: bytes in base64, and null for a number that is none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
