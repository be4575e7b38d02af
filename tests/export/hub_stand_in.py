"""A local stand-in of the hub's HTTP interface: what an upload asks for, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_LARGE = (".safetensors", ".gguf")
GOOD_TOKEN = "hf_" + "goodtokengoodtokengoodtoken"


@dataclass
class Hub:
    """What was sent to it, and how it is to answer."""

    url: str = ""
    repos: dict[str, bool] = field(default_factory=dict)
    """Name and whether it is private."""
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    fail: dict[str, int] = field(default_factory=dict)
    """Part of an address and the status with which it is refused."""
    busy: dict[str, list[str]] = field(default_factory=dict)
    """Part of an address, and for each time that it answers 429 the seconds after which to try again."""
    puts: list[str] = field(default_factory=list)
    """The large files that were sent, by their SHA-256."""
    breaks: list[str] = field(default_factory=list)
    """Large files at which the connection is lost, each as often as it stands here."""

    def forget(self) -> None:
        """Be as new."""
        for memory in (self.repos, self.files, self.large, self.fail, self.busy):
            memory.clear()
        for things in (self.commits, self.puts, self.breaks):
            things.clear()


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve on a free port."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _sibling(path: str, data: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
    seen: dict[str, Any] = {"rfilename": path, "size": len(data)}
    seen["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if path.endswith(_LARGE):
        sha256 = hashlib.sha256(data).hexdigest()
        seen["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
    return seen


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {GOOD_TOKEN}":
            return self._answer({"error": "Invalid username or password."}, 401)
        name = self.path.removeprefix("/api/models/").split("?")[0]
        if name not in self.state.repos:
            return self._answer({"error": "Repository not found"}, 404)
        return self._answer(
            {"id": name, "siblings": [_sibling(*it) for it in self.state.files.items()]}
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for part, status in self.state.fail.items():
            if part in self.path:
                return self._answer({"error": f"refused with {status}"}, status)
        for part, waits in self.state.busy.items():
            if part in self.path and waits:
                self.send_response(429)
                self.send_header("Retry-After", waits.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {GOOD_TOKEN}":
            return self._answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if "/preupload/" in self.path:
            return self._preupload(json.loads(body))
        if self.path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if "/commit/" in self.path:
            return self._commit(body)
        return self._answer({"error": f"no such place: {self.path}"}, 404)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        oid = self.path.rsplit("/", 1)[1]
        self.state.puts.append(oid)
        if oid in self.state.breaks:
            self.state.breaks.remove(oid)
            self.close_connection = True
            return
        self.state.large[oid] = body
        self._answer({})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.state.repos:
            return self._answer({"error": "You already created this model repo", "url": name}, 409)
        self.state.repos[name] = asked.get("private", False) or asked.get("visibility") == "private"
        return self._answer({"url": f"{self.state.url}/{name}"})

    def _preupload(self, asked: dict[str, Any]) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in asked["files"]
        ]
        self._answer({"files": files})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {
                "oid": item["oid"],
                "size": item["size"],
                **self._actions(item["oid"]),
            }
            for item in asked["objects"]
        ]
        self._answer({"transfer": "basic", "objects": objects})

    def _actions(self, oid: str) -> dict[str, Any]:
        """Where to send a file; nothing for one that has arrived."""
        if oid in self.state.large:
            return {}
        return {"actions": {"upload": {"href": f"{self.state.url}/lfs/{oid}"}}}

    def _commit(self, body: bytes) -> None:
        for line in body.decode().splitlines():
            item = json.loads(line)
            if item["key"] == "header":
                self.state.commits.append(item["value"]["summary"])
            elif item["key"] == "deletedFile":
                del self.state.files[item["value"]["path"]]
            elif item["key"] == "file":
                value = item["value"]
                self.state.files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                value = item["value"]
                self.state.files[value["path"]] = self.state.large[value["oid"]]
        oid = "0" * 40
        self._answer(
            {"success": True, "commitOid": oid, "commitUrl": f"{self.state.url}/me/x/commit/{oid}"}
        )

    def _answer(self, value: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
