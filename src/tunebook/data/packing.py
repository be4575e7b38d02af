"""Several rows in one sequence, so that no time goes into padding, each learning as if alone.

Position ids restart at every row, which is how transformers and flash attention know that no row
may look at another. This module knows token ids and lengths; it knows no text and no trainer.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tunebook.data.spool import Spool, dataset_of

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

MASKED = -100
COVERED = 0.995  # of the rows, whole within the suggested length
_STEP = 64
_DOCUMENTS_STEP, _LONGEST_STEP = 16, 256
_BATCH = 200


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows put together so that few sequences are needed: longest first, each where least is left.

    Args:
        lengths: of the rows in tokens; one longer than the capacity gets a sequence of its own.
        capacity: tokens in a sequence.

    Returns:
        For each sequence the numbers of its rows. O(n log n + n * different room left).
    """
    packs: list[list[int]] = []
    room: dict[int, list[int]] = {}  # tokens left -> packs that have so much left
    rooms: list[int] = []  # the keys of `room`, in order
    for number in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[number]
        place = bisect_left(rooms, length)
        if place < len(rooms):
            left = rooms[place]
            pack = room[left].pop()
            if not room[left]:
                del room[left], rooms[place]
        else:
            left, pack = capacity, len(packs)
            packs.append([])
        packs[pack].append(number)
        left -= length
        if left > 0:
            if left not in room:
                room[left] = []
                insort(rooms, left)
            room[left].append(pack)
    return packs


def pack_rows(table: Dataset, max_length: int, lengths: Sequence[int] | None = None) -> Dataset:
    """A table of packed sequences from one of rows.

    Args:
        table: columns `input_ids` and `labels`.
        max_length: tokens in a sequence.
        lengths: of the rows, if they are known.

    Returns:
        Columns `input_ids`, `labels` (the first of each row masked: the row before must not
        predict it), `position_ids` (from 0 in each row) and `seq_lengths`.
    """
    import pyarrow as pa

    if lengths is None:
        lengths = [len(ids) for ids in table["input_ids"]]
    spool = Spool()
    packs = best_fit_decreasing(lengths, max_length)
    kind = pa.list_(pa.int32())
    for first in range(0, len(packs), _BATCH):
        done = [_joined(rows) for rows in _rows_of(table, packs[first : first + _BATCH])]
        arrays = [pa.array([pack[name] for pack in done], kind) for name in _COLUMNS]
        spool.add(pa.record_batch(arrays, names=_COLUMNS))
    return dataset_of(spool.table())


def flatten_batch(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch without padding: all rows, packed or not, as one sequence (1, tokens).

    Returns:
        `input_ids`, `labels`, `position_ids`: (1, tokens) int64; `cu_seq_lens_q` and
        `cu_seq_lens_k`: (rows + 1,) int32, where each row begins; `max_length_q` and
        `max_length_k`: the longest. There is no attention mask: transformers then takes the
        boundaries from the position ids (sdpa, eager, flex) or from the lengths (flash).
    """
    import torch

    parts = [row if "position_ids" in row else _joined([row]) for row in rows]
    ids, labels, positions, lengths = (
        [item for part in parts for item in part[name]] for name in _COLUMNS
    )
    starts = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    longest = max(lengths)
    return {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([labels]),
        "position_ids": torch.tensor([positions]),
        "cu_seq_lens_q": starts,
        "cu_seq_lens_k": starts,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def lean_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """A padded or packed batch with what a fused loss wants, and without a needless mask.

    With causal attention no token looks at padding on its right, and what padding looks at is never
    learnt, so that a mask of rows padded on the right changes nothing but the time.

    Args:
        batch: of a collator, on the host: `input_ids`, `labels` and often `attention_mask`.

    Returns:
        The same with `loss_rows`, int64, the flat positions whose next token is learnt, filled up to
        one of a few lengths with positions that are not (absent if that is nearly all), and
        `token_counts`: tokens without padding, and with a label. Boundaries of packed rows
        (`cu_seq_lens_q`, `max_length_q` and those of k) are filled up to few lengths too, by empty
        documents: libraries choose and compile for each new shape.
    """
    batch = dict(batch)
    tokens = batch["input_ids"].numel()
    mask = batch.get("attention_mask")
    if mask is not None:
        tokens = int(mask.sum())
        if mask.dim() == 2 and bool((mask[:, 1:] <= mask[:, :-1]).all()):
            del batch["attention_mask"]
    labels = batch["labels"]
    rows = _loss_rows(labels)
    if rows is not None:
        batch["loss_rows"] = rows
    batch["token_counts"] = (tokens, int((labels != MASKED).sum()))
    for name in ("cu_seq_lens_q", "cu_seq_lens_k"):
        if name in batch:
            batch[name] = _with_empty_documents(batch[name])
    for name in ("max_length_q", "max_length_k"):
        if name in batch:
            length = _up_to(int(batch[name]), _LONGEST_STEP)
            batch[name] = min(length, batch["input_ids"].shape[1])
    return batch


def _loss_rows(labels: torch.Tensor) -> torch.Tensor | None:
    """Flat positions whose next token has a label, and others up to a multiple of an eighth of all."""
    import torch

    learnt = torch.zeros_like(labels, dtype=torch.bool)
    learnt[:, :-1] = labels[:, 1:] != MASKED
    learnt = learnt.flatten()
    rows = learnt.nonzero().squeeze(1)
    wanted = _up_to(len(rows), _up_to(-(-len(learnt) // 8), 64))
    if wanted >= len(learnt):
        return None
    others = (~learnt).nonzero().squeeze(1)[: wanted - len(rows)]
    return torch.cat([rows, others])


def _with_empty_documents(starts: torch.Tensor) -> torch.Tensor:
    import torch

    wanted = _up_to(len(starts) - 1, _DOCUMENTS_STEP) + 1
    return torch.cat([starts, starts[-1:].expand(wanted - len(starts))])


def _up_to(count: int, step: int) -> int:
    return -(-count // step) * step


def block_diagonal_mask(
    position_ids: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The causal mask in which a row of a packed sequence sees itself only.

    Args:
        position_ids: (batch, tokens), from 0 in each row.
        dtype: for a mask that is added to the scores; None gives booleans (True: may look).

    Returns:
        (batch, 1, tokens, tokens), for models that do not make one from position ids.
    """
    import torch

    row = (position_ids == 0).cumsum(-1)
    tokens = torch.arange(position_ids.shape[-1], device=position_ids.device)
    seen = (row[:, :, None] == row[:, None, :]) & (tokens[:, None] >= tokens[None, :])
    if dtype is None:
        return seen[:, None]
    added = torch.zeros(seen.shape, dtype=dtype, device=position_ids.device)
    return added.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def suggest_max_length(lengths: Sequence[int], truncated: int) -> int | None:
    """A better `max_seq_length`, a multiple of 64 that holds 99.5 % of the rows whole.

    Args:
        lengths: of the rows before any cut.
        truncated: how many are cut now.

    Returns:
        None where at most 0.5 % of the rows are cut, or there are none.
    """
    if not lengths or truncated <= (1 - COVERED) * len(lengths):
        return None
    ordered = sorted(lengths)
    whole = ordered[min(len(ordered) - 1, int(COVERED * len(ordered)))]
    return -(-whole // _STEP) * _STEP


_COLUMNS = ["input_ids", "labels", "position_ids", "seq_lengths"]


def _rows_of(table: Dataset, packs: list[list[int]]) -> Iterator[list[dict[str, Any]]]:
    numbers = [number for pack in packs for number in pack]
    columns = table[numbers]
    place = 0
    for pack in packs:
        yield [
            {"input_ids": columns["input_ids"][i], "labels": columns["labels"][i]}
            for i in range(place, place + len(pack))
        ]
        place += len(pack)


def _joined(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    lengths = [len(row["input_ids"]) for row in rows]
    return {
        "input_ids": [token for row in rows for token in row["input_ids"]],
        "labels": [label for row in rows for label in (MASKED, *row["labels"][1:])],
        "position_ids": [place for length in lengths for place in range(length)],
        "seq_lengths": lengths,
    }
