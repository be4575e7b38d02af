"""Keep other libraries' chatter out of cells and terminals; our own events say what matters.

Knows which lines of transformers and bitsandbytes mean nothing to a user; hides no error.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, no notices of coming renames, no hint at optional CPU kernels."""
    from transformers.utils import logging as transformers_logging

    bars: Any = transformers_logging

    # bitsandbytes looks for the `kernels` package and says so when it is not there, which is fine
    optional = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level, shown = optional.level, bars.is_progress_bar_enabled()
    optional.setLevel(logging.ERROR)
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
            yield
    finally:
        optional.setLevel(level)
        if shown:
            bars.enable_progress_bar()


@contextmanager
def quiet_checkpoints() -> Iterator[None]:
    """Checkpoints less than a second apart make transformers suspect the filesystem, to no effect."""
    talks = logging.getLogger("transformers.trainer_utils")
    talks.addFilter(_means_something)
    try:
        yield
    finally:
        talks.removeFilter(_means_something)


def _means_something(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("mtime may not be reliable")
