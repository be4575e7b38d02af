"""Rows that a notebook holds already: data frames, datasets, lists of dicts, dicts of lists.

It looks at the exact types of values and at the lengths of what is known; an object of any other
class is left alone, so no code of a user's runs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

_LOOKED_AT = 50  # items of a list
_FEW = 3  # texts that are no dataset yet
_COLUMNS = 8  # named
_SHELL = {"In", "Out", "exit", "quit", "get_ipython"}


class FoundVariable(BaseModel):
    """A variable that can be trained on; `rows` is None where counting would mean computing."""

    name: str
    kind: str
    rows: int | None
    columns: list[str]


def find_variables(namespace: Mapping[str, Any], *, most: int = 40) -> list[FoundVariable]:
    """The variables of a namespace that hold rows, in the order in which they were made."""
    found: list[FoundVariable] = []
    for name, value in list(namespace.items()):
        if name.startswith("_") or name in _SHELL:
            continue
        seen = _look_at(value)
        if seen is not None:
            kind, rows, columns = seen
            found.append(FoundVariable(name=name, kind=kind, rows=rows, columns=columns))
        if len(found) >= most:
            break
    return found


def _look_at(value: Any) -> tuple[str, int | None, list[str]] | None:
    kind = type(value)
    if kind is list:
        return _list(value)
    if kind is dict:
        return _dict(value)
    known = _library_classes().get(kind)
    return _LOOKS[known](value) if known else None


def _library_classes() -> dict[type, str]:
    """Classes of libraries that are imported already, by what looks at them."""
    named = {
        "pandas": {"DataFrame": "frame"},
        "polars": {"DataFrame": "polars", "LazyFrame": "lazy"},
        "pyarrow": {"Table": "arrow"},
        "datasets": {
            "Dataset": "dataset",
            "DatasetDict": "splits",
            "IterableDataset": "stream",
        },
    }
    found: dict[type, str] = {}
    for module, classes in named.items():
        loaded = sys.modules.get(module)
        for name, look in classes.items():
            cls = getattr(loaded, name, None) if loaded is not None else None
            if isinstance(cls, type):
                found[cls] = look
    return found


def _list(value: list[Any]) -> tuple[str, int | None, list[str]] | None:
    sample = value[:_LOOKED_AT]
    if sample and all(type(item) is dict for item in sample):
        names = list(dict.fromkeys(key for item in sample for key in item if type(key) is str))
        return ("list of dicts", len(value), names[:_COLUMNS]) if names else None
    if len(value) > _FEW and all(type(item) is str for item in sample):
        return "list of texts", len(value), ["text"]
    return None


def _dict(value: dict[Any, Any]) -> tuple[str, int | None, list[str]] | None:
    columns = list(value.items())
    if not columns or not all(type(k) is str and type(v) is list for k, v in columns):
        return None
    lengths = {len(column) for _, column in columns}
    if len(lengths) != 1 or not lengths - {0}:
        return None
    return "dict of lists", lengths.pop(), [name for name, _ in columns[:_COLUMNS]]


def _named(columns: Any) -> list[str]:
    return [name for name in list(columns)[:_COLUMNS] if type(name) is str]


def _splits(value: Any) -> tuple[str, int | None, list[str]]:
    return "datasets, by split", sum(map(len, value.values())), list(value)[:_COLUMNS]


_LOOKS: dict[str, Any] = {
    "frame": lambda value: ("pandas data frame", len(value), _named(value.columns)),
    "polars": lambda value: ("polars data frame", value.height, _named(value.columns)),
    "lazy": lambda value: ("polars lazy frame", None, []),
    "arrow": lambda value: ("Arrow table", value.num_rows, _named(value.column_names)),
    "dataset": lambda value: ("dataset", len(value), _named(value.column_names)),
    "stream": lambda value: ("streamed dataset", None, _named(value.column_names or [])),
    "splits": _splits,
}
