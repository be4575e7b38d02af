"""Turn whatever a person has (a file, a hub id, the demo, a list) into one table of rows.

This module does not know what the columns mean, and writes nothing into the working directory.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.files import (
    FILE_KINDS,
    file_kind,
    first_rows,
    read_file,
    read_files,
)
from tunebook.data.image_storage import without_decoding
from tunebook.data.sources import from_hub, from_memory
from tunebook.data.splits import (
    listed,
    one_split,
    parsed_split,
    sliced,
)
from tunebook.data.spool import Skipped
from tunebook.errors import DatasetEmpty, SourceMissing
from tunebook.recipe import DataPart

if TYPE_CHECKING:
    from datasets import Dataset

DEMO = "tunebook-demo"
HEAD = 100


@dataclass
class Loaded:
    """The rows of a source and what was left out of it."""

    table: Dataset
    skipped: Skipped


def load_rows(part: DataPart, *, rows: Any = None) -> Dataset:
    """The rows that a recipe's data part names, cut to its split and row limit.

    Args:
        part: source, config, split, max_rows, streaming and on_bad_rows are used.
        rows: in-memory data to use instead of `part.source`: a list of dicts or texts, a dict of
            columns, a `datasets.Dataset`, `DatasetDict` or `IterableDataset`, a pandas or polars
            DataFrame, a pyarrow Table.

    Raises:
        SourceMissing: no such file, folder, hub dataset or split.
        DatasetUnreadable: the file is broken; the line is named.
        DatasetEmpty: there is not one row.
        RecipeInvalid: the split is not written as `name` or `name[from:to]`.
    """
    return read_rows(part, rows=rows).table


def read_rows(part: DataPart, *, rows: Any = None) -> Loaded:
    """`load_rows` with the count of rows that were left out, where `on_bad_rows` allows that."""
    skipped = Skipped(part.on_bad_rows == "skip")
    with quiet_datasets():
        if rows is not None:
            table = sliced(from_memory(rows, part, skipped), part.split)
            source = "the rows given"
        else:
            source = part.source
            table = _from_source(part, skipped)
    if part.max_rows is not None and len(table) > part.max_rows:
        table = table.select(range(part.max_rows))
    if len(table) == 0:
        raise DatasetEmpty(
            f"The dataset {source} is empty.",
            f"the split `{part.split}` has 0 rows.",
            "choose a file with rows in it, or a wider `data.split`.",
        )
    return Loaded(table, skipped)


def read_page(
    part: DataPart, start: int, count: int, *, rows: Any = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Some rows from `start` on, and the first 100 to detect the format from.

    A local file is read no further than these rows; of other sources all is read.

    Raises:
        As `load_rows`.
    """
    path = Path(part.source).expanduser()
    whole = part.split == "train" and path.is_file() and file_kind(path) is not None
    if rows is not None or not whole:
        table = load_rows(part, rows=rows)
        stop = min(start + count, len(table))
        return (
            [table[number] for number in range(start, stop)],
            [table[number] for number in range(min(HEAD, len(table)))],
        )
    limit = part.max_rows if part.max_rows is not None else start + count
    skipped = Skipped(part.on_bad_rows == "skip")
    wanted = max(0, min(start + count, limit) - start)
    if start + wanted <= HEAD:
        head = first_rows(path, 0, HEAD, skipped)
        page = head[start : start + wanted]
    else:
        head = first_rows(path, 0, HEAD, skipped)
        page = first_rows(path, start, wanted, skipped)
    if not head:
        raise DatasetEmpty(
            f"The file {path} is empty.", "it has 0 rows.", "choose a file with rows in it."
        )
    return page, head[: part.max_rows]


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """No progress bars of the `datasets` library inside; its former setting comes back after."""
    import datasets

    before = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if before:
            datasets.enable_progress_bars()


def _from_source(part: DataPart, skipped: Skipped) -> Dataset:
    if part.source == DEMO:
        return _demo(part.split)
    path = Path(part.source).expanduser()
    if path.is_file():
        if "+" in part.split or parsed_split(part.split)["name"] != "train":
            _bad_file_split(path, part.split)
        return sliced(read_file(path, skipped), part.split)
    if path.is_dir():
        return sliced(_from_folder(path, part.split, skipped), part.split)
    if _looks_like_path(part.source):
        raise _missing_file(path)
    return from_hub(part, skipped)


def _demo(split: str) -> Dataset:
    from tunebook.data.demo import demo_path

    try:
        path = demo_path(parsed_split(split)["name"])
    except ValueError as error:
        raise SourceMissing(
            f"The demo has no split `{split}`.", str(error), "set `data.split` to `train`."
        ) from None
    return sliced(read_file(path), split)


def _bad_file_split(path: Path, split: str) -> None:
    parsed_split(split)
    raise SourceMissing(
        f"The file {path} has no split `{split}`.",
        "a file is one split, called `train`.",
        "set `data.split` to `train` or a slice such as `train[:1000]`.",
    )


def _looks_like_path(source: str) -> bool:
    name = source.lower()
    return (
        name.endswith(tuple(FILE_KINDS)) or source.startswith((".", "/", "~")) or "\\" in source
    ) or source.count("/") > 1


def _missing_file(path: Path) -> SourceMissing:
    folder = path.parent
    if not folder.is_dir():
        why, hint = f"there is no folder {folder.absolute()}.", "check the path."
    else:
        names = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
        near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
        near = near or [name for name in names if name.lower().endswith(tuple(FILE_KINDS))][:5]
        why = f"{folder.absolute()} holds no file of that name."
        hint = f"did you mean {listed(near)}?" if near else "check the path."
    return SourceMissing(f"The data file {path} does not exist.", why, hint)


def _from_folder(path: Path, split: str, skipped: Skipped) -> Dataset:
    """A folder written by `save_to_disk`, or one with data files, which become one table.

    Files whose names hold the name of a split (`train-00.jsonl`) make up that split.
    """
    import datasets

    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return without_decoding(one_split(datasets.load_from_disk(str(path)), split, str(path)))
    found = sorted(f for f in path.rglob("*") if f.is_file() and file_kind(f) is not None)
    files = [f for f in found if not any(p.startswith(".") for p in f.relative_to(path).parts)]
    # Readmes and the like stand beside the data.
    files = [f for f in files if f.suffix.lower() != ".md"] or files
    if not files:
        raise SourceMissing(
            f"The folder {path} is not a dataset.", "it holds no data file.", "check the path."
        )
    name = parsed_split(split)["name"]
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(str(file.relative_to(path))), []).append(file)
    if name not in by_split:
        raise SourceMissing(
            f"The folder {path} has no split `{name}`.",
            f"it holds {listed(by_split)}: {listed(f.name for f in files[:5])}.",
            "set `data.split` to one of these, or name one file as `data.source`.",
        )
    return read_files(by_split[name], skipped)


_SPLIT_WORDS = {
    "test": ["test", "testing", "eval", "evaluation"],
    "validation": ["validation", "valid", "dev", "val"],
}


def _split_of(name: str) -> str:
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((split for split, known in _SPLIT_WORDS.items() if words & set(known)), "train")
