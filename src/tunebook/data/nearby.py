"""Data files near a notebook, and where a path that was dropped or dragged leads.

It looks at names and sizes and opens no file; what is in them, `files` reads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel

from tunebook.data.files import file_kind

NEAR = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
_SKIPPED = {"node_modules", "__pycache__", "site-packages", "venv", "env", "build", "dist", "lib"}
_RUN = {"recipe.yaml", "events.jsonl"}  # what a run writes is no data
_NOT_DATA = {
    *("package.json", "package-lock.json", "tsconfig.json", "tokenizer.json", "config.json"),
    *("tokenizer_config.json", "generation_config.json", "special_tokens_map.json"),
    *("adapter_config.json", "vocab.json", "trainer_state.json", "events.jsonl"),
}
_LEAST_JSON = 1024  # bytes; smaller ones are settings
_HUB = ("huggingface.co", "hf.co", "www.huggingface.co")


class NearbyFile(BaseModel):
    """A file that could be a dataset; `path` is relative to the folder that was searched."""

    path: str
    size: int


def nearby_files(
    folder: Path | str = ".", *, most: int = 60, deepest: int = 3, entries: int = 4000
) -> list[NearbyFile]:
    """Data files in a folder and below it, nearest first; hidden ones and packages are left out.

    Args:
        most: no more files than these.
        deepest: levels of folders below the first.
        entries: no more names are looked at, so that a huge folder costs no time.
    """
    folder = Path(folder)
    found: list[NearbyFile] = []
    for entry in _walk(folder, deepest, entries):
        if entry.name.lower() in _NOT_DATA or not _ends_as_data(entry.name):
            continue
        try:
            size = entry.stat().st_size
        except OSError:
            continue
        if size >= (_LEAST_JSON if entry.name.lower().endswith(".json") else 1):
            path = os.path.relpath(entry.path, folder)
            found.append(NearbyFile(path=path, size=size))
        if len(found) >= most:
            break
    return found


def dropped_path(path: str, root: str | None = None, folder: Path | None = None) -> Path | None:
    """The file that a path of JupyterLab's file browser means here; None if there is none.

    Args:
        path: relative to the server's root, perhaps behind a drive (`RTC:data/a.jsonl`).
        root: the server's root as its page says, if it says so.
        folder: where the kernel works; one of the folders above it is the root otherwise.
    """
    drive, _, rest = path.partition(":")
    path = rest if rest and "/" not in drive else path
    here = (folder or Path.cwd()).absolute()
    roots = [Path(root).expanduser()] if root else []
    for base in [*roots, here, *here.parents]:
        candidate = base / path.lstrip("/")
        if candidate.exists():
            return candidate
    return None


def source_of_text(text: str) -> str:
    """The source that dropped or pasted text means: a file's address, a hub page, or as it stands."""
    text = text.strip().splitlines()[0].strip() if text.strip() else ""
    address = urlsplit(text)
    if address.scheme == "file":
        return unquote(address.path)
    if address.scheme in ("http", "https") and address.hostname in _HUB:
        parts = address.path.strip("/").split("/")
        return "/".join(parts[1:3]) if parts[0] == "datasets" else text
    return text.strip("\"'")


def _walk(folder: Path, deepest: int, entries: int) -> Iterator[os.DirEntry[str]]:
    """The files, level by level; of each folder in the order of their names."""
    waiting = deque([(str(folder), 0)])
    while waiting and entries > 0:
        place, depth = waiting.popleft()
        try:
            with os.scandir(place) as listed:
                inside = sorted(listed, key=lambda entry: entry.name.lower())
        except OSError:
            continue
        if depth and {entry.name for entry in inside} >= _RUN:
            continue
        for entry in inside:
            entries -= 1
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield entry
            elif depth < deepest and entry.name not in _SKIPPED and _is_folder(entry):
                waiting.append((entry.path, depth + 1))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _ends_as_data(name: str) -> bool:
    path = Path(name.lower())
    stem = path.stem if path.suffix in (".gz", ".bz2", ".xz") else path.name
    return stem.endswith(NEAR) and file_kind(path) is not None
