"""Rows from the hub and from memory: datasets, streams, data frames, lists.

Reads through the `datasets` library; files on the disk are read elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebook.data.files import table_from_rows
from tunebook.data.image_storage import stored_images, without_decoding
from tunebook.data.splits import first_line, one_split, parsed_split, streamed_slice
from tunebook.data.spool import RowSpool, Skipped, dataset_of
from tunebook.data.turns import too_deep
from tunebook.errors import DatasetUnreadable, SourceMissing, TunebookError
from tunebook.recipe import DataPart

if TYPE_CHECKING:
    from datasets import Dataset


def from_hub(part: DataPart, skipped: Skipped) -> Dataset:
    """A dataset of the hub, downloaded, or read as it comes if `part.streaming` says so.

    Raises:
        SourceMissing: it does not exist, has no such part, or cannot be reached.
        DatasetUnreadable: its files are broken.
        RecipeInvalid: the split cannot be understood, or not be streamed.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    parsed_split(part.split)
    try:
        if part.streaming:
            name, start, count = streamed_slice(part.split, part.max_rows)
            stream = datasets.load_dataset(part.source, part.config, split=name, streaming=True)
            return _from_stream(stream, part.source, start, count, skipped)
        return without_decoding(datasets.load_dataset(part.source, part.config, split=part.split))
    except TunebookError:
        raise
    except DatasetNotFoundError as error:
        raise SourceMissing(
            f"The dataset `{part.source}` was not found.",
            f"it is neither a file here nor a dataset that you may read ({first_line(error)}).",
            "check the spelling; for a gated dataset accept its terms, then `hf auth login`.",
        ) from None
    except (ConnectionError, OSError) as error:
        raise SourceMissing(
            f"The dataset `{part.source}` cannot be reached.",
            f"it is no file here, and the hub did not answer ({first_line(error)}).",
            "check the network, or name a file; `tunebook-demo` needs no network.",
        ) from None
    except ValueError as error:  # unknown split or configuration
        raise SourceMissing(
            f"The dataset `{part.source}` has no such part.",
            f"{first_line(error)}.",
            "set `data.split` and `data.config` to names that it has.",
        ) from None
    except datasets.exceptions.DatasetGenerationError as error:
        raise DatasetUnreadable(
            f"The dataset `{part.source}` cannot be read.",
            first_line(error.__cause__ or error),
            "try another `data.config`, or download one of its files and name that.",
        ) from error


def from_memory(rows: Any, part: DataPart, skipped: Skipped) -> Dataset:
    """Rows in memory as a table, before any slice is cut.

    Raises:
        DatasetUnreadable: they are not a table; the row is named.
        SourceMissing: a dictionary of datasets has no such split.
    """
    import datasets
    import pandas as pd
    import pyarrow as pa

    rows = one_split(rows, part.split, "the rows given") if _are_splits(rows) else rows
    if isinstance(rows, datasets.Dataset):
        return without_decoding(rows)
    if isinstance(rows, datasets.IterableDataset):
        limit = None if "[" in part.split else part.max_rows
        return _from_stream(rows, "the rows given", 0, limit, skipped)
    if isinstance(rows, pd.DataFrame):
        return datasets.Dataset.from_pandas(rows, preserve_index=False)
    if isinstance(rows, pa.Table):
        return dataset_of(rows)
    if hasattr(rows, "collect") and hasattr(rows, "lazy"):  # polars, lazy or not
        rows = rows.lazy().collect()
    if hasattr(rows, "to_arrow"):
        return dataset_of(_plain_text(rows.to_arrow()))
    if isinstance(rows, dict):
        return datasets.Dataset.from_dict(rows)
    items = [stored_images(row) for row in rows]
    if items and all(isinstance(item, str) for item in items):
        items = [{"text": item} for item in items]
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise DatasetUnreadable(
                "The rows given are not a table.",
                f"row {number} is a {type(item).__name__}, not a dict.",
                "give a list of dicts, a `datasets.Dataset` or a DataFrame.",
            )
    return table_from_rows(items, "the rows given", skipped)


def _are_splits(rows: Any) -> bool:
    import datasets

    return isinstance(rows, datasets.DatasetDict | datasets.IterableDatasetDict)


def _from_stream(
    stream: Any, where: str, start: int, count: int | None, skipped: Skipped
) -> Dataset:
    """The rows of a stream, written to an Arrow table as they come."""
    if stream.features:
        stream = stream.decode(False)
    stream = stream.skip(start) if start else stream
    stream = stream.take(count) if count is not None else stream
    spool = RowSpool(where, skipped)
    for number, row in enumerate(stream, start=start):
        why = too_deep(row)
        if why is not None:
            error = DatasetUnreadable(
                f"A row of {where} cannot be used.",
                f"row {number} (counted from 0): {why}.",
                "leave such rows out with `data.on_bad_rows: skip`.",
            )
            skipped.take(error)
            continue
        spool.add(number, stored_images(row))
    return spool.dataset()


def _plain_text(table: Any) -> Any:
    """The table with Arrow's large and viewed texts as ordinary ones, at any depth of lists."""
    import pyarrow as pa

    def plain(kind: Any) -> Any:
        if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            return pa.string()
        if pa.types.is_large_list(kind) or pa.types.is_list(kind):
            return pa.list_(plain(kind.value_type))
        if pa.types.is_struct(kind):
            return pa.struct([(field.name, plain(field.type)) for field in kind])
        return kind

    return table.cast(pa.schema([(field.name, plain(field.type)) for field in table.schema]))
