"""How far the writing of files is, what is to be said of them, and the way to stop it.

Knows bytes and nothing of what is written.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from tunebook.errors import Cancelled

logger = logging.getLogger(__name__)
Tell = Callable[[int, int], Any]
"""Called with the bytes done and the bytes in all."""


class Progress:
    """Counts bytes, tells somebody, and raises `Cancelled` once a stop was asked for.

    `notes` are sentences on what the files do otherwise than the model.

    Args:
        tell: called with done and total whenever more was done; None tells nobody, and notes are
            logged.
        stop: set it from anywhere to end the writing at the next tensor or file.
        what: what is being written, for the message of a stop.
    """

    def __init__(
        self,
        tell: Tell | None = None,
        stop: threading.Event | None = None,
        *,
        what: str = "Saving",
    ) -> None:
        self._tell, self._stop, self._what = tell, stop, what
        self.done = self.total = 0
        self.notes: list[str] = []

    def begin(self, total: int) -> None:
        """So many bytes are to be written."""
        self.done, self.total = 0, total
        self.add(0)

    def check(self) -> None:
        """Look whether to go on, where nothing is written yet.

        Raises:
            Cancelled: a stop was asked for.
        """
        if self._stop is not None and self._stop.is_set():
            raise Cancelled(
                f"{self._what} was stopped.",
                "you asked for it; nothing half-written was kept.",
                "begin again whenever you like.",
            )

    def add(self, count: int) -> None:
        """So many more were written.

        Raises:
            Cancelled: a stop was asked for.
        """
        self.check()
        self.done += count
        if self._tell is not None:
            self._tell(min(self.done, self.total), self.total)

    def note(self, sentence: str) -> None:
        """Something that whoever uses the files has to know."""
        self.notes.append(sentence)
        if self._tell is None:
            logger.warning("%s", sentence)

    def finish(self) -> None:
        """All of it is written."""
        self.add(self.total - self.done)
