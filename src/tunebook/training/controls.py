"""What is asked of a run while it goes on: pause, save, sample; by this process or another.

Asking only makes a file; the trainer acts between two steps. Knows a run folder and no trainer.
"""

from __future__ import annotations

import contextlib
import threading
import time

from tunebook.training.folder import Request, RunFolder

_LOOK = 0.1  # seconds between two looks at the folder
REQUESTS: tuple[Request, ...] = ("pause", "save", "sample")


class Controls:
    """The requests of one run: each is a file of its name in the folder, as soon as there is one.

    So every process that sees the folder can take a request back, whoever made it.

    Args:
        folder: the run's.

    Attributes:
        resting: whether the run rests in a pause just now.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.resting = False
        self._folder = folder
        self._asked: set[Request] = set()
        self._files: frozenset[Request] = frozenset()
        self._looked_at = 0.0
        self._lock = threading.RLock()
        self._changed = threading.Event()

    @property
    def asked(self) -> frozenset[Request]:
        """What is asked for and not done yet."""
        now = time.monotonic()
        with self._lock:
            if now - self._looked_at >= _LOOK:
                self._looked_at = now
                self._write_down()
                self._files = self._folder.requests() - {"stop"}
            return frozenset(self._asked | self._files)

    def ask(self, request: Request) -> None:
        """Ask for something; safe from any thread."""
        with self._lock:
            self._asked.add(request)
            self._write_down()
        self._changed.set()

    def drop(self, request: Request) -> None:
        """It is done, or no longer wanted."""
        with self._lock:
            self._asked.discard(request)
            self._files = self._files - {request}
            self._folder.request_file(request).unlink(missing_ok=True)
        self._changed.set()

    def take(self, request: Request) -> bool:
        """Whether it is asked for; it no longer is then."""
        with self._lock:
            if request not in self.asked:
                return False
            self.drop(request)
            return True

    def clear(self) -> None:
        """Forget all requests, as a run that begins or has ended does."""
        for request in REQUESTS:
            self.drop(request)

    def wake(self) -> None:
        """Let `wait` return: something else has changed, such as a stop."""
        self._changed.set()

    def wait(self) -> None:
        """Wait until something may have changed, a tenth of a second at most."""
        self._changed.wait(_LOOK)
        self._changed.clear()

    def _write_down(self) -> None:
        """Make files of what was asked before there was a folder, or on a disk that was full."""
        with contextlib.suppress(OSError):
            for request in tuple(self._asked) if self._folder.exists() else ():
                self._folder.request_file(request).touch()
                self._files |= {request}
                self._asked.discard(request)
