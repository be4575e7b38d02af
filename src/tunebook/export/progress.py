"""How far measuring and writing are, what is to be said of the files, and the way to stop it.

Knows passes and bytes, and nothing of what is measured or written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunebook.errors import Cancelled

logger = logging.getLogger(__name__)
Tell = Callable[[int, int], Any]
"""Called with the bytes done and the bytes in all."""


@dataclass(frozen=True)
class Pass:
    """One pass of what is measured before anything is written.

    Attributes:
        title: what is measured in it.
        number, of: which pass of how many.
        done, total: steps of it, of about the same length.
        seconds_left: until its end, as the steps went so far; None before the first.
    """

    title: str
    number: int
    of: int
    done: int
    total: int
    seconds_left: float | None = None


class Progress:
    """Counts passes and bytes, tells somebody, and raises `Cancelled` once a stop was asked for.

    `notes` are sentences on what the files do otherwise than the model.

    Args:
        tell: called with done and total whenever more was done; None tells nobody, and notes are
            logged.
        stop: set it from anywhere to end the writing at the next tensor or file.
        what: what is being written, for the message of a stop.
        measuring: called with each `Pass` as it begins and whenever more of it was done.
    """

    def __init__(
        self,
        tell: Tell | None = None,
        stop: threading.Event | None = None,
        *,
        what: str = "Saving",
        measuring: Callable[[Pass], Any] | None = None,
    ) -> None:
        self._tell, self._stop, self._what = tell, stop, what
        self._measuring = measuring
        self._passes: list[str] = []
        self._pass: Pass | None = None
        self._began = 0.0
        self.done = self.total = 0
        self.notes: list[str] = []

    def plan(self, titles: Sequence[str]) -> None:
        """These passes of measuring are to come."""
        self._passes, self._pass = list(titles), None

    def begin_pass(self, title: str, total: int) -> None:
        """One of the passes begins, of so many steps."""
        known = title in self._passes
        number = self._passes.index(title) + 1 if known else 1
        self._began = time.monotonic()
        self._pass = Pass(title, number, len(self._passes) if known else 1, 0, total)
        self.step(0)

    def step(self, count: int = 1) -> None:
        """So many more steps of the pass are done, if there is one.

        Raises:
            Cancelled: a stop was asked for.
        """
        self.check()
        if self._pass is None:
            return
        done = min(self._pass.done + count, self._pass.total)
        left = None
        if done:
            left = (time.monotonic() - self._began) * (self._pass.total / done - 1)
        self._pass = replace(self._pass, done=done, seconds_left=left)
        if self._measuring is not None:
            self._measuring(self._pass)

    def begin(self, total: int) -> None:
        """So many bytes are to be written."""
        self._pass = None
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
