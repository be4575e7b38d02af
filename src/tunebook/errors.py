"""The errors a user can cause or meet, each in three parts: what happened, why, what to do next.

This module knows nothing of torch, widgets or files; whoever raises supplies the facts.
"""

from __future__ import annotations

import errno
import traceback as _traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WHY, _DO = "\n  Why: ", "\n  Do:  "


class TunebookError(Exception):
    """An error with three parts, shown alike by Python, the command line and every panel.

    Args:
        what: what happened, one sentence.
        why: the cause, with the row, field or number that shows it.
        do: what to do next, with the exact knob.
    """

    def __init__(self, what: str, why: str = "", do: str = "") -> None:
        if not why and _WHY in what:  # a data loader's worker raised it, and tells it as one text
            what, why, do = self._told(what)
        super().__init__(what, why, do)
        self.what = what
        self.why = why
        self.do = do

    def __str__(self) -> str:
        return f"{self.what}{_WHY}{self.why}{_DO}{self.do}"

    @classmethod
    def _told(cls, text: str) -> tuple[str, str, str]:
        """The parts of an error in a text that ends with it, such as a traceback."""
        head, _, rest = text.rpartition(_WHY)
        why, _, do = rest.partition(_DO)
        return head.rpartition(f"{cls.__name__}: ")[2], why, do.strip()

    @property
    def name(self) -> str:
        """The class name, a stable identifier for programs (`DatasetEmpty`, `DiskFull`, ...)."""
        return type(self).__name__

    def to_dict(self, *, traceback: bool = False) -> dict[str, str]:
        """The error as plain text fields: `name`, `what`, `why`, `do` and, if asked, `traceback`."""
        parts = {"name": self.name, "what": self.what, "why": self.why, "do": self.do}
        if traceback:
            parts["traceback"] = "".join(_traceback.format_exception(self))
        return parts


class RecipeInvalid(TunebookError):
    """A recipe field has a value that it cannot have, or a field that does not exist was named."""


class SourceMissing(TunebookError):
    """A dataset file or hub dataset cannot be found."""


class DatasetUnreadable(TunebookError):
    """A dataset exists but a part of it cannot be parsed."""


class DatasetEmpty(TunebookError):
    """A dataset has no rows, or none that can be trained on."""


class FormatUnknown(TunebookError):
    """The columns of a dataset match no known format and no mapping was given."""


class RowInvalid(TunebookError):
    """One row lacks a key or holds something that cannot be turned into a conversation."""


class ImagesUnsupported(RowInvalid):
    """A row holds a picture or a sound, and the model reads text only."""


class ImageInvalid(RowInvalid):
    """A picture of a row cannot be read, or pictures and their places in the row do not match."""


class ImageTooLong(RowInvalid):
    """A picture takes more tokens than a row may have, so that the row cannot be cut around it."""


class FormatUnsuitable(TunebookError):
    """The data is of a known format that the training method cannot learn from as it is."""


class FormulaInvalid(TunebookError):
    """A formula is not in the part of LaTeX that can be drawn."""


class TemplateInvalid(TunebookError):
    """A chat template is missing, does not parse, or raises on a conversation."""


class NothingToLearn(TunebookError):
    """Every label is masked: no token would be trained on."""


class ModelMissing(TunebookError):
    """A model name is neither in the catalogue, nor a folder, nor reachable on the hub."""


class ModelInvalid(TunebookError):
    """A model folder exists but is not a model that can be loaded."""


class FileInvalid(TunebookError):
    """A model file is missing, damaged, cut off, or not what its name says."""


class TensorUnsuitable(TunebookError):
    """A tensor cannot be written as asked: its rows do not divide into the type's blocks."""


class TokenizerMissing(TunebookError):
    """A model folder holds no tokenizer."""


class TokenizerUnsupported(TunebookError):
    """A tokenizer is of a kind that the format to be written does not know."""


class PretokenizerUnknown(TokenizerUnsupported):
    """A tokenizer cuts text in a way that llama.cpp cannot."""


class VocabularyTooLarge(TunebookError):
    """A tokenizer has tokens for which the model has no embedding."""


class TargetsMissing(TunebookError):
    """LoRA target names match no linear layer of the model."""


class DoesNotFit(TunebookError):
    """The forecast says that the recipe does not fit into the memory budget."""


class DiskFull(TunebookError):
    """There is not enough room on the disk for what is about to be written."""


class FolderExists(TunebookError):
    """A folder that would be written already exists and holds something else."""


class VerificationFailed(TunebookError):
    """What was written was read again and is not the model; it did not get its name."""


class GradientAudit(TunebookError):
    """A trainable tensor gets no gradient, or a wrong one, or a frozen one gets any."""


class ConversationTooLong(TunebookError):
    """A conversation leaves no room for an answer in the model's context."""


class RunMissing(TunebookError):
    """A path is not a run folder."""


class CaseInvalid(TunebookError):
    """A test case asks or expects nothing, or a line of a file of cases is none."""


class PathRefused(TunebookError):
    """A path leads out of the folder that may be seen, or to something hidden."""


class CheckpointUnsuitable(TunebookError):
    """A checkpoint was made with another adapter or optimizer than the run that resumes it."""


class RunBusy(TunebookError):
    """The run is in a state that does not allow what was asked."""


class RunFailed(TunebookError):
    """Training stopped by an error that has no better name; the cause is chained."""


class Cancelled(TunebookError):
    """The user stopped something that was going on; nothing half-done is kept."""


class HubRefused(TunebookError):
    """The hub does not accept a token, a name or what was sent."""


class HubTokenRefused(HubRefused):
    """The hub knows no such token, or none was given."""


class HubNameTaken(HubRefused):
    """A repository of the hub holds another model already."""


class HubUnreachable(TunebookError):
    """There is no way to the hub just now."""


class ExtraMissing(TunebookError):
    """An optional package is needed for what was asked and is not installed."""


class FrontEndMissing(TunebookError):
    """The panels' built JavaScript is not there: a source tree that was not built."""


def as_tunebook_error(error: BaseException, *, during: str) -> TunebookError:
    """`error` itself if it has three parts already, else a named error made from it.

    Args:
        error: what was raised.
        during: what was being done, completing the sentence "Tunebook could not ...".
    """
    if isinstance(error, TunebookError):
        return error
    if (full := as_disk_full(error, during=during)) is not None:
        return full
    text = str(error).strip() or "no message was given"
    return RunFailed(
        f"Tunebook could not {during}.",
        f"{type(error).__name__}: {text}",
        "read the traceback; if the cause is Tunebook's own, report it with `tunebook doctor`'s output.",
    )


def as_disk_full(error: BaseException, *, during: str) -> DiskFull | None:
    """A `DiskFull` if that is what an error means, else None.

    Args:
        during: see `as_tunebook_error`.
    """
    reason = getattr(error, "strerror", None)
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    else:  # libraries written in Rust, such as safetensors, have errors of their own
        full = f"(os error {errno.ENOSPC})" in str(error)
    if not full:
        return None
    where = getattr(error, "filename", None) or "the disk"
    return DiskFull(
        f"Tunebook could not {during}: the disk is full.",
        f"writing to {where} failed: {reason or error}.",
        "free some space, or choose another folder; what was saved before is untouched.",
    )


@contextmanager
def three_part(during: str) -> Iterator[None]:
    """Turn whatever is raised inside into a `TunebookError`, with the original as its cause."""
    try:
        yield
    except TunebookError:
        raise
    except Exception as error:
        raise as_tunebook_error(error, during=during) from error


def require_disk_space(folder: Path, needed: int, *, purpose: str) -> None:
    """Raise `DiskFull` unless `needed` bytes are free where `folder` is or will be.

    Args:
        folder: an existing or future folder.
        needed: bytes.
        purpose: what the space is for, such as "the merged weights".
    """
    import shutil

    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise DiskFull(
            f"There is not enough room for {purpose}.",
            f"{needed / 2**20:,.0f} MiB are needed in {folder}, {free / 2**20:,.0f} MiB are free.",
            "free some space or choose another folder.",
        )
