"""Cuts a batch that is too large for the device into smaller ones with the same tokens in all.

Knows batches as collators make them; knows no model and not why a batch is too large.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tunebook.data.vision_processor import BY_TOKEN
from tunebook.engine import plain_inputs


def split_batch(inputs: dict[str, Any], parts: int) -> Iterator[dict[str, Any]]:
    """A batch as batches of fewer rows, or of fewer documents where it is packed in one row.

    One with images stays whole unless it says how many belong to each row.
    """
    rows = inputs["input_ids"].shape[0]
    whole = {key: value for key, value in inputs.items() if key != "loss_rows"}
    if parts == 1 or ("pixel_values" in inputs and "image_counts" not in inputs):
        yield inputs  # whose pictures are whose is not known
    elif rows > 1:
        if "image_grids" in whole:  # of all rows; for some the model makes its own
            whole = plain_inputs({k: v for k, v in whole.items() if k != "position_ids"})
        yield from _by_rows(whole, rows, parts)
    elif "cu_seq_lens_q" in whole:
        yield from _by_documents(whole, parts)
    else:
        yield inputs


def _by_rows(whole: dict[str, Any], rows: int, parts: int) -> Iterator[dict[str, Any]]:
    each = -(-rows // parts)
    for first in range(0, rows, each):
        if "image_counts" in whole:
            yield _with_images(whole, first, first + each)
            continue
        yield {
            key: value[first : first + each]
            if isinstance(value, torch.Tensor) and value.dim() > 1
            else value
            for key, value in whole.items()
        }


def _with_images(whole: dict[str, Any], first: int, last: int) -> dict[str, Any]:
    """Some rows with their pictures; processors give these by row, by picture or by patch."""
    counts = whole["image_counts"]
    begin, end = sum(counts[:first]), sum(counts[:last])
    by_row = any(name in whole for name in ("pixel_attention_mask", "aspect_ratio_ids"))
    grid = whole.get("image_grid_thw")
    part: dict[str, Any] = {"image_counts": counts[first:last]}
    for key, value in whole.items():
        if key == "image_counts" or not isinstance(value, torch.Tensor) or value.dim() < 2:
            part.setdefault(key, value)
        elif key in BY_TOKEN or key == "labels" or by_row:
            part[key] = value[first:last]
        elif key == "pixel_values" and grid is not None:
            patches = grid.prod(-1)
            begun = int(patches[:begin].sum())
            part[key] = value[begun : begun + int(patches[begin:end].sum())]
        else:
            part[key] = value[begin:end]
    return {k: v for k, v in part.items() if not (isinstance(v, torch.Tensor) and v.numel() == 0)}


def _by_documents(whole: dict[str, Any], parts: int) -> Iterator[dict[str, Any]]:
    """Whole documents side by side, of about as many tokens in each part."""
    starts = whole["cu_seq_lens_q"].tolist()  # waits for the device, as only a full one is made to
    each, first = starts[-1] / parts, 0
    for last in range(1, len(starts)):
        done = last == len(starts) - 1
        if starts[last] - starts[first] < each and not done:
            continue
        begin, end = starts[first], starts[last]
        if end > begin:
            lengths = whole["cu_seq_lens_q"][first : last + 1] - begin
            part = {
                key: value[:, begin:end]
                if isinstance(value, torch.Tensor) and value.dim() > 1
                else value
                for key, value in whole.items()
            }
            yield {**part, "cu_seq_lens_q": lengths, "cu_seq_lens_k": lengths}
        first = last
