"""Errors in three parts, and what becomes of those that come without them."""

from __future__ import annotations

import errno
import inspect
from pathlib import Path

import pytest

from tunebook import errors
from tunebook.errors import DiskFull, RunFailed, TunebookError, require_disk_space, three_part


def test_an_error_shows_what_why_and_what_to_do() -> None:
    error = errors.DatasetEmpty("There are no rows.", "the file is empty.", "add some.")
    assert str(error).splitlines() == [
        "There are no rows.",
        "  Why: the file is empty.",
        "  Do:  add some.",
    ]
    assert error.to_dict()["name"] == "DatasetEmpty"


def test_every_error_says_what_it_means() -> None:
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, TunebookError):
            assert cls.__doc__


def test_a_full_disk_is_named_and_its_cause_kept() -> None:
    with (
        pytest.raises(DiskFull, match="save the adapter") as caught,
        three_part("save the adapter"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")
    assert isinstance(caught.value.__cause__, OSError)
    assert "model.safetensors" in caught.value.why


def test_an_unforeseen_error_gets_three_parts_and_its_traceback() -> None:
    with pytest.raises(RunFailed) as caught, three_part("train"):
        raise ZeroDivisionError("by zero")
    assert "ZeroDivisionError: by zero" in caught.value.why
    assert "raise ZeroDivisionError" in caught.value.to_dict(traceback=True)["traceback"]


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with pytest.raises(DiskFull, match="the merged weights"):
        require_disk_space(target, 2**62, purpose="the merged weights")
    assert not (tmp_path / "a").exists()
