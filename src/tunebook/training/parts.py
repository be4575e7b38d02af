"""Cuts a batch that is too large for the device into smaller ones with the same tokens in all.

Knows batches as collators make them; knows no model and not why a batch is too large.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


def split_batch(inputs: dict[str, Any], parts: int) -> Iterator[dict[str, Any]]:
    """A batch as batches of fewer rows, or of fewer documents where it is packed in one row.

    One with images stays whole.
    """
    rows = inputs["input_ids"].shape[0]
    whole = {key: value for key, value in inputs.items() if key != "loss_rows"}
    if parts == 1 or "pixel_values" in whole:  # which patches are whose is the model's business
        yield inputs
    elif rows > 1:
        yield from _by_rows(whole, rows, parts)
    elif "cu_seq_lens_q" in whole:
        yield from _by_documents(whole, parts)
    else:
        yield inputs


def _by_rows(whole: dict[str, Any], rows: int, parts: int) -> Iterator[dict[str, Any]]:
    each = -(-rows // parts)
    for first in range(0, rows, each):
        yield {
            key: value[first : first + each]
            if isinstance(value, torch.Tensor) and value.dim() > 1
            else value
            for key, value in whole.items()
        }


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
