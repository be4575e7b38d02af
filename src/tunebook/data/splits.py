"""Splits and slices: `train`, `train[:1000]`, `train[10%:20%]`, of tables and of streams.

This module knows how a part of a dataset is named; where the dataset comes from it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tunebook.errors import RecipeInvalid, SourceMissing

if TYPE_CHECKING:
    from datasets import Dataset

_SPLIT = re.compile(r"^(?P<name>\w[\w.-]*)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?$")


def parsed_split(split: str) -> re.Match[str]:
    """The parts of a split's name: `name`, `start`, `stop`; of `a+b` those of `a`.

    Raises:
        RecipeInvalid: it is not written so.
    """
    match = _SPLIT.match(split)
    if match is None and "+" not in split:
        raise RecipeInvalid(
            f"The split `{split}` cannot be understood.",
            "a split is a name, or a name with a slice of rows or percent.",
            "write `data.split` like `train`, `train[:1000]` or `train[10%:20%]`.",
        )
    return match or parsed_split(split.split("+")[0].strip())


def sliced(table: Dataset, split: str) -> Dataset:
    """The rows of a table that the slice of a split means."""
    match = parsed_split(split)
    if match["start"] is None and match["stop"] is None:
        return table
    start = _position(match["start"], len(table), 0)
    stop = _position(match["stop"], len(table), len(table))
    return table.select(range(start, max(start, stop)))


def streamed_slice(split: str, max_rows: int | None) -> tuple[str, int, int | None]:
    """Name of the split, rows to leave out and rows to take (None: all) of a stream.

    Raises:
        RecipeInvalid: the slice needs the number of rows, which a stream does not tell.
    """
    match = parsed_split(split)
    if "+" in split or any("%" in (match[k] or "") or "-" in (match[k] or "") for k in _ENDS):
        raise RecipeInvalid(
            f"The split `{split}` cannot be streamed.",
            "percent and places from the end need the number of rows, which a stream does not tell.",
            "write rows, such as `train[100:200]`, or set `data.streaming` to false.",
        )
    start = int(match["start"] or 0)
    count = None if match["stop"] is None else max(0, int(match["stop"]) - start)
    if max_rows is not None:
        count = max_rows if count is None else min(count, max_rows)
    return match["name"], start, count


_ENDS = ("start", "stop")


def one_split(data: Any, split: str, where: str) -> Any:
    """One split of a dictionary of datasets; anything else as it is.

    Raises:
        SourceMissing: there is no such split.
    """
    if not isinstance(data, dict):
        return data
    name = parsed_split(split)["name"]
    if name not in data:
        raise SourceMissing(
            f"There is no split `{name}` in {where}.",
            f"it has {listed(data)}.",
            "set `data.split` to one of these.",
        )
    return data[name]


def listed(names: Iterable[str]) -> str:
    """Names in backticks, for a sentence."""
    return ", ".join(f"`{name}`" for name in names)


def first_line(error: BaseException) -> str:
    """What an error says first."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


def _position(text: str | None, count: int, default: int) -> int:
    if text is None:
        return default
    value = round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
    return min(max(value + count if value < 0 else value, 0), count)
