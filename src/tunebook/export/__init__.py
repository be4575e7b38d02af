"""Take a tuned model away: adapter folders and merged weights, proved, and put on the hub.

This layer knows models and files; it knows nothing of training or panels. Importing it imports
neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "FORMATS": "formats",
    "predicted_sizes": "formats",
    "Inspection": "inspect",
    "inspect_file": "inspect",
    "Progress": "progress",
    "save_adapter": "adapter",
    "save_merged": "merge",
    "modelfile": "ollama",
    "write_modelfile": "ollama",
    "save_gguf": "gguf.writer",
    "Importance": "gguf.importance",
    "measure_importance": "gguf.importance",
    "load_imatrix": "gguf.imatrix",
    "save_imatrix": "gguf.imatrix",
    "DynamicReport": "gguf.report",
    "four_bit_skips": "skips",
    "linear_tensors": "skips",
    "usage": "commands",
    "Verification": "verification",
    "verify": "verification",
    "upload": "hub",
    "saved_token": "hub",
}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'tunebook.export' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tunebook.export.{_NAMES[name]}"), name)


if TYPE_CHECKING:
    from tunebook.export.adapter import save_adapter as save_adapter
    from tunebook.export.commands import usage as usage
    from tunebook.export.formats import FORMATS as FORMATS, predicted_sizes as predicted_sizes
    from tunebook.export.gguf.imatrix import (
        load_imatrix as load_imatrix,
        save_imatrix as save_imatrix,
    )
    from tunebook.export.gguf.importance import (
        Importance as Importance,
        measure_importance as measure_importance,
    )
    from tunebook.export.gguf.report import DynamicReport as DynamicReport
    from tunebook.export.gguf.writer import save_gguf as save_gguf
    from tunebook.export.hub import saved_token as saved_token, upload as upload
    from tunebook.export.inspect import Inspection as Inspection, inspect_file as inspect_file
    from tunebook.export.merge import save_merged as save_merged
    from tunebook.export.ollama import modelfile as modelfile, write_modelfile as write_modelfile
    from tunebook.export.progress import Progress as Progress
    from tunebook.export.skips import (
        four_bit_skips as four_bit_skips,
        linear_tensors as linear_tensors,
    )
    from tunebook.export.verification import Verification as Verification, verify as verify
