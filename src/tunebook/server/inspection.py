"""Answers what a model file or adapter folder below the server's root says of itself.

`tunebook.export.inspect` looks; here is who may ask, for which paths, and in which thread. Links are
followed, as the server's own file browser does: models often lie on another disk.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

from tunebook.errors import FileInvalid, PathRefused, TunebookError, as_tunebook_error
from tunebook.export import inspect_file

MOST_TENSORS = 5_000  # listed by name; the sums count all
MOST_ENTRIES = 10_000  # of a folder that are looked at for adapters
STATUS: dict[type[TunebookError], int] = {PathRefused: 403, FileInvalid: 422}


class InspectHandler(APIHandler):
    """GET `path`: an `Inspection` of it as plain data, or an error in three parts."""

    auth_resource = "contents"

    @web.authenticated
    @authorized
    async def get(self) -> None:
        await self.answer(inspected)

    async def answer(self, work: Callable[[Path, str], Any]) -> None:
        """Do blocking work on the asked path in a thread, and send what it returns."""
        asked = self.get_query_argument("path", "", strip=False)
        try:
            root, hidden = root_of(self.contents_manager), bool(self.contents_manager.allow_hidden)
            place = place_below(root, asked, hidden=hidden)
            value = await asyncio.to_thread(work, place, asked)
        except Exception as error:  # whatever a strange file does, the view shows three parts
            told = as_tunebook_error(error, during="inspect the file")
            if told is error:
                self.log.debug("%s", told)
            else:
                self.log.exception("Inspecting %r failed", asked)
            self.set_status(STATUS.get(type(told), 500))
            self.finish(json.dumps({"message": told.what, "error": told.to_dict()}))
            return
        self.finish(json.dumps(value))


class AdapterFoldersHandler(InspectHandler):
    """GET `path`: the names of the folders directly in it that hold an adapter."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        await self.answer(adapter_folders)


def handlers(base_url: str) -> list[tuple[str, type[InspectHandler]]]:
    """The routes of this module below a base URL."""
    return [
        (url_path_join(base_url, "tunebook", "inspect"), InspectHandler),
        (url_path_join(base_url, "tunebook", "inspect", "adapters"), AdapterFoldersHandler),
    ]


def inspected(place: Path, asked: str) -> dict[str, Any]:
    """What the view shows; the path is the one that was asked for."""
    return inspect_file(place).to_dict(most_tensors=MOST_TENSORS) | {"path": asked.strip("/")}


def adapter_folders(place: Path, asked: str) -> dict[str, Any]:
    """The names of the folders directly in a folder that hold an adapter."""
    names = []
    with os.scandir(place) as entries:
        for _, entry in zip(range(MOST_ENTRIES), entries, strict=False):
            if entry.is_dir() and os.path.isfile(os.path.join(entry.path, "adapter_config.json")):
                names.append(entry.name)
    return {"path": asked.strip("/"), "folders": sorted(names)}


def root_of(contents: Any) -> Path:
    """The folder that the server's file browser shows.

    Raises:
        PathRefused: the server keeps its files elsewhere than in a folder.
    """
    root = getattr(contents, "root_dir", "")
    if not root:
        raise PathRefused(
            "The files of this server cannot be inspected.",
            f"{type(contents).__name__} does not keep them in a folder.",
            "use `tunebook.inspect_file(path)` in a notebook.",
        )
    return Path(root).expanduser().absolute()


def place_below(root: Path, asked: str, *, hidden: bool = False) -> Path:
    """A client's path, relative to the root with forward slashes, as a path of this machine.

    Raises:
        PathRefused: it leads upwards, or to something hidden and `hidden` is not allowed.
    """
    parts = [part for part in asked.split("/") if part]
    upwards = any(part in (".", "..") or "\0" in part or os.sep in part for part in parts)
    upwards = upwards or any(os.path.isabs(part) or os.path.splitdrive(part)[0] for part in parts)
    if upwards or (not hidden and any(part.startswith(".") for part in parts)):
        raise PathRefused(
            f"The path {asked!r} cannot be opened.",
            "it has a part that is hidden or leads upwards.",
            "give a path below the folder that the server was started in.",
        )
    return root.joinpath(*parts)
