"""A file that comes in pieces, such as from a browser, on its way into a folder.

Nothing in it is looked at or run. It has its name only once all of it is there; until then, and
after a cancel, no half file can be mistaken for a whole one.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import unicodedata
from pathlib import Path
from typing import IO

from tunebook.data.files import FILE_KINDS, file_kind
from tunebook.errors import DatasetUnreadable, RecipeInvalid, require_disk_space

LONGEST_NAME = 120  # characters
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f]')
_RESERVED = {"con", "prn", "aux", "nul", *(f"{n}{i}" for n in ("com", "lpt") for i in range(1, 10))}


def safe_name(name: str) -> str:
    """The last part of a file's name without anything that a file system or a shell could misread.

    Raises:
        DatasetUnreadable: it does not end like a data file.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    plain = "".join(c for c in last if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))
    plain = _FORBIDDEN.sub("_", plain).strip(" .") or "data"
    if file_kind(Path(plain)) is None:
        endings = ", ".join(FILE_KINDS)
        raise DatasetUnreadable(
            f"The file {plain} is no data file that can be read.",
            f"its name ends in none of {endings} (nor in one of these with .gz, .bz2 or .xz).",
            "drop a file of one of these kinds; an Excel sheet can be saved as CSV.",
        )
    stem, dot, ending = plain.partition(".")
    if stem.lower() in _RESERVED or not stem:
        stem = f"data-{stem}".rstrip("-")
    ending = dot + ending
    return stem[: max(1, LONGEST_NAME - len(ending))] + ending[-LONGEST_NAME:]


class Upload:
    """One file on its way.

    Args:
        name: as the sender calls it; see `safe_name`.
        size: its bytes.
        folder: where it goes; made if it is not there.

    Raises:
        DatasetUnreadable: it is no data file, or has no bytes.
        DiskFull: there is not enough room for it.
    """

    def __init__(self, name: str, size: int, folder: Path | str) -> None:
        self.name, self.size, self.received = safe_name(name), size, 0
        self.folder = Path(folder).expanduser()
        if size <= 0:
            raise DatasetUnreadable(
                f"The file {self.name} is empty.", "it has 0 bytes.", "choose a file with rows."
            )
        require_disk_space(self.folder, size, purpose=f"the file {self.name}")
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = tempfile.NamedTemporaryFile(  # noqa: SIM115  # closed by finish or cancel
            dir=self.folder, prefix=".upload-", delete=False
        )
        self._file: IO[bytes] = handle
        self._partial = Path(handle.name)

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self.received == self.size

    def add(self, offset: int, piece: bytes | memoryview) -> None:
        """Take in the next piece.

        Raises:
            RecipeInvalid: it is not the next one, or more than the file's size.
        """
        if offset != self.received or offset + len(piece) > self.size:
            raise RecipeInvalid(
                f"The upload of {self.name} lost its order.",
                f"bytes from {self.received:,} of {self.size:,} were expected, and "
                f"{len(piece):,} from {offset:,} came.",
                "upload the file again.",
            )
        self._file.write(piece)
        self.received += len(piece)

    def finish(self) -> Path:
        """Give the file its name, or that with a number where such a file is there already."""
        self._file.close()
        stem, dot, ending = self.name.partition(".")
        for number in range(1, 10_000):
            path = self.folder / (self.name if number == 1 else f"{stem}-{number}{dot}{ending}")
            try:
                path.touch(exist_ok=False)  # takes the name, whoever else wants it
            except FileExistsError:
                continue
            self._partial.chmod(0o644)
            self._partial.replace(path)
            return path
        raise FileExistsError(self.folder / self.name)

    def cancel(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):
            self._file.close()
            self._partial.unlink(missing_ok=True)
