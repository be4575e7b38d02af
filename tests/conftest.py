"""Fixtures that every test may use; nothing here imports torch."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


# Of several processes each computes on its part of the cores, and so does what it starts. This is
# read before the conftest of any folder, which may import torch.
if _workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    _threads = max(1, (os.cpu_count() or 1) // _workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads))


def pytest_collection_finish() -> None:
    """What was imported stays: no collection of garbage looks through it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Libraries that look for leaks at the end find none."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real tokenizers, templates and datasets beside the checkout; the test skips where they are not."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def unpacked_tokenizers(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Real tokenizers by name (`qwen2.5`, `llama-3.1`, ...), unpacked once."""
    import tarfile

    folder = tmp_path_factory.mktemp("tokenizers")
    for archive in sorted((shared_data / "tokenizers").glob("*.tar.xz")):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it and every disk reports that one byte is free."""
    import shutil

    usage = type(shutil.disk_usage("."))
    return lambda: monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 2**40 - 1, 1))
