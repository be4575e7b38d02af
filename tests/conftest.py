"""Fixtures that every test may use; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
