"""Turn whatever a person has (a file, a hub id, the demo, a list) into one table of rows.

This module does not know what the columns mean, and writes nothing into the working directory.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.files import FILE_KINDS, read_file
from tunebook.errors import DatasetEmpty, DatasetUnreadable, RecipeInvalid, SourceMissing
from tunebook.recipe import DataPart

if TYPE_CHECKING:
    from datasets import Dataset

DEMO = "tunebook-demo"
_SPLIT = re.compile(r"^(?P<name>\w[\w.-]*)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?$")


def load_rows(part: DataPart, *, rows: Any = None) -> Dataset:
    """The rows that a recipe's data part names, cut to its split and row limit.

    Args:
        part: source, config, split and max_rows are used; the format is not.
        rows: in-memory data to use instead of `part.source`: a list of dicts or texts, a dict of
            columns, a `datasets.Dataset` or `DatasetDict`, a DataFrame.

    Raises:
        SourceMissing: no such file, folder, hub dataset or split.
        DatasetUnreadable: the file is broken; the line is named.
        DatasetEmpty: there is not one row.
        RecipeInvalid: the split is not written as `name` or `name[from:to]`.
    """
    with quiet_datasets():
        if rows is not None:
            table = _sliced(_from_memory(rows, part.split), part.split)
            source = "the rows given"
        else:
            source = part.source
            table = _from_source(part)
    if part.max_rows is not None and len(table) > part.max_rows:
        table = table.select(range(part.max_rows))
    if len(table) == 0:
        raise DatasetEmpty(
            f"The dataset {source} is empty.",
            f"the split `{part.split}` has 0 rows.",
            "choose a file with rows in it, or a wider `data.split`.",
        )
    return table


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


def _from_source(part: DataPart) -> Dataset:
    if part.source == DEMO:
        return _demo(part.split)
    path = Path(part.source).expanduser()
    if path.is_file():
        if not (match := _SPLIT.match(part.split)) or match["name"] != "train":
            _bad_file_split(path, part.split)
        return _sliced(read_file(path), part.split)
    if path.is_dir():
        return _sliced(_from_folder(path, part.split), part.split)
    if _looks_like_path(part.source):
        raise _missing_file(path)
    return _from_hub(part)


def _demo(split: str) -> Dataset:
    from tunebook.data.demo import demo_path

    try:
        path = demo_path(_parsed(split)["name"])
    except ValueError as error:
        raise SourceMissing(
            f"The demo has no split `{split}`.", str(error), "set `data.split` to `train`."
        ) from None
    return _sliced(read_file(path), split)


def _bad_file_split(path: Path, split: str) -> None:
    _parsed(split)
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
        hint = f"did you mean {_listed(near)}?" if near else "check the path."
    return SourceMissing(f"The data file {path} does not exist.", why, hint)


def _from_folder(path: Path, split: str) -> Dataset:
    """A folder written by `save_to_disk`."""
    import datasets

    try:
        return _one_split(datasets.load_from_disk(str(path)), split, str(path))
    except FileNotFoundError:
        files = sorted(f.name for f in path.iterdir() if f.name.lower().endswith(tuple(FILE_KINDS)))
        found = f"it holds {_listed(files[:5])}." if files else "it holds no data file."
        raise SourceMissing(
            f"The folder {path} is not a saved dataset.",
            found,
            "name one file in it as `data.source`." if files else "check the path.",
        ) from None


def _from_hub(part: DataPart) -> Dataset:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    _parsed(part.split)
    try:
        return datasets.load_dataset(part.source, part.config, split=part.split)
    except DatasetNotFoundError as error:
        raise SourceMissing(
            f"The dataset `{part.source}` was not found.",
            f"it is neither a file here nor a dataset that you may read ({_first_line(error)}).",
            "check the spelling; for a gated dataset accept its terms, then `hf auth login`.",
        ) from None
    except (ConnectionError, OSError) as error:
        raise SourceMissing(
            f"The dataset `{part.source}` cannot be reached.",
            f"it is no file here, and the hub did not answer ({_first_line(error)}).",
            "check the network, or name a file; `tunebook-demo` needs no network.",
        ) from None
    except ValueError as error:  # unknown split or configuration
        raise SourceMissing(
            f"The dataset `{part.source}` has no such part.",
            f"{_first_line(error)}.",
            "set `data.split` and `data.config` to names that it has.",
        ) from None
    except datasets.exceptions.DatasetGenerationError as error:
        raise DatasetUnreadable(
            f"The dataset `{part.source}` cannot be read.",
            _first_line(error.__cause__ or error),
            "try another `data.config`, or download one of its files and name that.",
        ) from error


def _from_memory(rows: Any, split: str) -> Dataset:
    import datasets
    import pandas as pd

    from tunebook.data.files import table_from_rows

    if isinstance(rows, datasets.Dataset | datasets.DatasetDict):
        return _one_split(rows, split, "the rows given")
    if isinstance(rows, pd.DataFrame):
        return datasets.Dataset.from_pandas(rows, preserve_index=False)
    if isinstance(rows, dict):
        return datasets.Dataset.from_dict(rows)
    items = list(rows)
    if items and all(isinstance(item, str) for item in items):
        items = [{"text": item} for item in items]
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise DatasetUnreadable(
                "The rows given are not a table.",
                f"row {number} is a {type(item).__name__}, not a dict.",
                "give a list of dicts, a `datasets.Dataset` or a DataFrame.",
            )
    return table_from_rows(items, "the rows given")


def _one_split(data: Any, split: str, where: str) -> Dataset:
    import datasets

    if not isinstance(data, datasets.DatasetDict):
        return data
    name = _parsed(split)["name"]
    if name not in data:
        raise SourceMissing(
            f"There is no split `{name}` in {where}.",
            f"it has {_listed(data)}.",
            "set `data.split` to one of these.",
        )
    return data[name]


def _parsed(split: str) -> re.Match[str]:
    match = _SPLIT.match(split)
    if match is None and "+" not in split:
        raise RecipeInvalid(
            f"The split `{split}` cannot be understood.",
            "a split is a name, or a name with a slice of rows or percent.",
            "write `data.split` like `train`, `train[:1000]` or `train[10%:20%]`.",
        )
    return match or _parsed(split.split("+")[0].strip())


def _sliced(table: Dataset, split: str) -> Dataset:
    match = _parsed(split)
    if match["start"] is None and match["stop"] is None:
        return table
    start = _position(match["start"], len(table), 0)
    stop = _position(match["stop"], len(table), len(table))
    return table.select(range(start, max(start, stop)))


def _position(text: str | None, count: int, default: int) -> int:
    if text is None:
        return default
    value = round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
    return min(max(value + count if value < 0 else value, 0), count)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
