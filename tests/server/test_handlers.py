"""The server extension in a real Jupyter server below a base URL."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROUTES = ("runs", "run", "run/contents", "run/events", "gpu")


def test_no_torch_is_loaded_to_serve_runs(make_run: Any, tmp_path: Path) -> None:
    pytest.importorskip("jupyter_server")
    make_run(tmp_path / "a", ended="completed")
    code = (
        "import sys, tunebook.server.handlers; from tunebook.server.library import RunLibrary;"
        "library = RunLibrary('.'); library.list(); library.picture('a'); library.contents('a');"
        "print([m for m in ('torch', 'transformers', 'trl', 'ipywidgets') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("token", ["", "wrong"])
def test_nothing_is_told_without_the_token(server: Any, route: str, token: str) -> None:
    status, body, _ = server.ask(route, token=token, path="x")
    assert status == 403
    assert "runs" not in body


def test_nothing_is_asked_of_a_run_without_the_token(server: Any, make_run: Any) -> None:
    folder = make_run(server.root / "guarded")
    for wish in ("stop", "pause"):
        about = {"path": "guarded", "for": wish}
        assert server.ask("run/ask", method="POST", token="", **about)[0] == 403
    assert not folder.requests()


def test_runs_are_listed_and_not_sent_twice(server: Any, make_run: Any) -> None:
    make_run(server.root / "listing/a b é", ended="completed")
    status, body, headers = server.ask("runs")
    assert status == 200
    (run,) = (run for run in body["runs"] if run["name"] == "a b é")
    assert (run["path"], run["state"]) == ("listing/a b é", "completed")
    again = server.ask("runs", etag=headers["Etag"])
    assert again[0] == 304


def test_a_run_its_contents_and_its_events(server: Any, make_run: Any) -> None:
    make_run(server.root / "one", steps=3)
    path = {"path": "one"}
    picture = server.ask("run", **path)[1]
    assert len(base64.b64decode(picture["loss_points"])) == 4 * 3 * 4
    assert server.ask("run/contents", **path)[1]["recipe"]["error"] == {}
    assert len(server.ask("run/events", offset=0, **path)[1]["events"]) == 5
    assert server.ask("run/events", offset="-1", **path)[0] == 400


def test_a_number_that_is_none_is_null(server: Any, make_run: Any) -> None:
    folder = make_run(server.root / "nan", steps=1)
    line = folder.log.path.read_text().splitlines()[1].replace('"loss":10.0', '"loss":"NaN"')
    with folder.log.path.open("a") as file:
        file.write(line + "\n")
    assert server.ask("run", path="nan")[1]["last_loss"] is None


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("../outside", 403, "PathRefused"),
        ("..%2foutside", 403, "PathRefused"),
        ("link", 403, "PathRefused"),
        (".hidden", 403, "PathRefused"),
        ("nothing", 404, "RunMissing"),
    ],
)
def test_errors_have_three_parts(
    server: Any, make_run: Any, path: str, status: int, error: str
) -> None:
    outside = server.root.parent / "outside"
    if not outside.exists():
        make_run(outside)
        (server.root / "link").symlink_to(outside)
    for route in ("run", "run/contents", "run/events"):
        told = server.ask(route, path=path)
        assert told[0] == status
        assert told[1]["error"]["name"] == error
        assert told[1]["error"]["do"]
    assert server.ask("run/ask", method="POST", **{"path": path, "for": "stop"})[0] == status


def test_a_run_that_ended_takes_no_request_and_none_is_made_up(server: Any, make_run: Any) -> None:
    make_run(server.root / "ended", ended="completed")
    status, body, _ = server.ask("run/ask", method="POST", **{"path": "ended", "for": "save"})
    assert status == 409
    assert body["error"]["name"] == "RunBusy"
    assert server.ask("run/ask", method="POST", **{"path": "ended", "for": "delete"})[0] == 400


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_without_leave_to_read_hides_no_other(server: Any, make_run: Any) -> None:
    make_run(server.root / "closed/a").path.parent.chmod(0)
    assert server.ask("runs")[0] == 200
