"""Models that are on this disk already: folders with a config, and the hub's cache.

Looks at names and small JSON files only; loads nothing and asks no network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_DEPTH = 4
_MOST_FOLDERS = 3000
_SKIPPED = {"node_modules", "__pycache__", "site-packages", "checkpoints", "labextension"}


@dataclass(frozen=True)
class LocalModel:
    """One model on the disk.

    Attributes:
        name: what a recipe calls it: a path as the user would type it, or the hub's id.
        config: its `config.json` as plain data.
    """

    name: str
    source: Literal["folder", "cache"]
    config: dict[str, Any]


def find_local(root: Path | str = ".", *, most: int = 50) -> list[LocalModel]:
    """Models in folders below `root`, then those in the hub's cache, each by name.

    Args:
        most: of each kind.
    """
    return [*_some(_in_folders(Path(root)), most), *_some(_in_cache(), most)]


def _some(models: Iterator[LocalModel], most: int) -> list[LocalModel]:
    found: list[LocalModel] = []
    for model in models:
        found.append(model)
        if len(found) == most:
            break
    return sorted(found, key=lambda model: model.name.lower())


def _in_folders(root: Path) -> Iterator[LocalModel]:
    """Folders that hold a model's config beside weights, hidden folders and environments left out."""
    for seen, (path, folders, files) in enumerate(os.walk(root)):
        if seen == _MOST_FOLDERS:
            return
        here = Path(path)
        depth = len(here.relative_to(root).parts)
        usable = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
        folders[:] = [] if depth == _DEPTH or "pyvenv.cfg" in files else sorted(usable)
        if depth and "config.json" in files and _has_weights(files):
            config = _config(here / "config.json")
            if config is not None:
                yield LocalModel(f".{os.sep}{here.relative_to(root)}", "folder", config)


def _in_cache() -> Iterator[LocalModel]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for folder in sorted(Path(HF_HUB_CACHE).glob("models--*--*")):
        for snapshot in sorted(folder.glob("snapshots/*"), key=_age):
            names = os.listdir(snapshot)
            config = _config(snapshot / "config.json") if _has_weights(names) else None
            if config is not None:
                yield LocalModel(folder.name[len("models--") :].replace("--", "/"), "cache", config)
                break


def _has_weights(names: list[str]) -> bool:
    return any(name.endswith(".safetensors") and "adapter" not in name for name in names)


def _age(path: Path) -> float:
    """Newest first."""
    return -path.stat().st_mtime


def _config(path: Path) -> dict[str, Any] | None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and "model_type" in config else None
