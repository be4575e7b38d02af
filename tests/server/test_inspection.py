"""What the server tells of model files: to whom, for which paths, and of bad files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

pytest.importorskip("jupyter_server")


def write_gguf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("output.weight", np.ones((4, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_is_told_by_its_path_below_the_root(server: Any) -> None:
    write_gguf(server.root / "models/a b #é .gguf")
    status, told, _ = server.ask("inspect", path="models/a b #é .gguf")
    assert status == 200
    assert (told["kind"], told["path"]) == ("gguf", "models/a b #é .gguf")
    assert told["types"] == [
        {"type": "F16", "tensors": 1, "parameters": 128, "bytes": 256, "bits": 16.0}
    ]
    assert str(server.root) not in str(told)


@pytest.mark.parametrize("route", ["inspect", "inspect/adapters"])
@pytest.mark.parametrize("token", ["", "wrong"])
def test_nothing_is_told_without_the_token(server: Any, route: str, token: str) -> None:
    write_gguf(server.root / "guarded.gguf")
    status, told, _ = server.ask(route, token=token, path="guarded.gguf")
    assert status == 403
    assert "types" not in told
    assert "folders" not in told


@pytest.mark.parametrize(
    "path", ["../outside.gguf", "a/../../outside.gguf", "./../outside.gguf", ".hidden.gguf"]
)
@pytest.mark.parametrize("route", ["inspect", "inspect/adapters"])
def test_no_path_leads_out_or_to_what_is_hidden(server: Any, route: str, path: str) -> None:
    write_gguf(server.root.parent / "outside.gguf")
    write_gguf(server.root / ".hidden.gguf")
    status, told, _ = server.ask(route, path=path)
    assert status == 403
    assert told["error"]["name"] == "PathRefused"


def test_an_absolute_path_is_one_below_the_root(server: Any) -> None:
    outside = write_gguf(server.root.parent / "outside.gguf")
    assert server.ask("inspect", path=str(outside))[0] == 422
    write_gguf(server.root / "top.gguf")
    assert server.ask("inspect", path="/top.gguf")[0] == 200


def test_a_link_to_another_disk_is_followed(server: Any) -> None:
    outside = write_gguf(server.root.parent / "elsewhere/model.gguf")
    os.symlink(outside.parent, server.root / "linked")
    assert server.ask("inspect", path="linked/model.gguf")[0] == 200


@pytest.mark.parametrize("content", [b"", b"<html>404</html>" * 9, b"GGUF\3\0\0\0" + bytes(9)])
def test_a_bad_file_is_an_error_in_three_parts(server: Any, content: bytes) -> None:
    (server.root / "bad.gguf").write_bytes(content)
    status, told, _ = server.ask("inspect", path="bad.gguf")
    assert status == 422
    assert told["error"]["name"] == "FileInvalid"
    assert all(told["error"][part] for part in ("what", "why", "do"))
    assert told["message"] == told["error"]["what"]


def test_folders_that_hold_an_adapter_are_named(server: Any) -> None:
    for name in ("adapter é", "other", "checkpoint-2"):
        (server.root / "run" / name).mkdir(parents=True)
    (server.root / "run/adapter é/adapter_config.json").write_text("{}")
    (server.root / "run/checkpoint-2/adapter_config.json").write_text("{}")
    status, told, _ = server.ask("inspect/adapters", path="run")
    assert status == 200
    assert told["folders"] == ["adapter é", "checkpoint-2"]
    assert server.ask("inspect/adapters", path="missing")[0] == 500


def test_no_torch_is_loaded_to_inspect() -> None:
    code = "import sys, tunebook.server.inspection; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
