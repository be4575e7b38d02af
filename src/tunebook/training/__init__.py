"""Runs: train a recipe in a thread of this process, watch it, stop it, resume it, talk to it.

This layer drives TRL's trainer over a prepared model and writes events; it knows no panel.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunebook.training.run import Run, list_runs, open_run, train

__all__ = ["Run", "list_runs", "open_run", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tunebook.training' has no attribute {name!r}")
    return getattr(importlib.import_module("tunebook.training.run"), name)
