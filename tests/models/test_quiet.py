"""What other libraries say is heard, but for lines that mean nothing."""

from __future__ import annotations

import logging

from tunebook.models.quiet import quiet_checkpoints

SUSPICION = "mtime may not be reliable on this filesystem, falling back to numerical ordering"


def test_only_the_suspicion_of_the_filesystem_is_left_out() -> None:
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    talks, ear = logging.getLogger("transformers.trainer_utils"), Ear()
    talks.addHandler(ear)
    try:
        with quiet_checkpoints():
            talks.warning(SUSPICION)
            talks.warning("the disk is full")
        talks.warning(SUSPICION)
    finally:
        talks.removeHandler(ear)
    assert heard == ["the disk is full", SUSPICION]
