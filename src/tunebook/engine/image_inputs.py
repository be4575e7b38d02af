"""Runs a model whose images come as patches with a grid (Qwen VL) without a wait for the device.

Transformers works out from the grids, in each forward and with several waits, where tokens and patches
stand and which of them belong together. Here the first is done on the host with the batch
(`host_inputs`), the second once for each set of grids, so that a step can be captured as a graph.
Knows the arguments of such models; knows no trainer and no picture.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from tunebook.engine.linear_group import LAYOUT
from tunebook.engine.locks import unwrapped

Batch = dict[str, Any]
Grids = tuple[tuple[int, int, int], ...]
"""Of each image its patches in time (1), height and width."""

_MOST = 256  # sets of grids whose tables are kept: a few ten kilobytes each
_TABLES: WeakKeyDictionary[nn.Module, OrderedDict[Any, Batch]] = WeakKeyDictionary()


@dataclass(frozen=True)
class GridInputs:
    """Replaces in a batch on the host what a model of this kind would have to wait for.

    Attributes:
        image_token: its id in the text.
        merge: patches on each side that become one token.
    """

    image_token: int
    merge: int

    def __call__(self, batch: Batch) -> Batch:
        """The batch with `position_ids` (3, batch, length), and where it has images `image_grids` and
        `image_rows` (int64, flat positions of their tokens) instead of grids and types of tokens.

        A batch with a video is left as it is.
        """
        if batch.get("pixel_values_videos") is not None or "position_ids" in batch:
            return batch
        batch = dict(batch)
        batch.pop("mm_token_type_ids", None)
        grid = batch.pop("image_grid_thw", None)
        grids: Grids = () if grid is None else tuple((t, h, w) for t, h, w in grid.tolist())
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        is_image = ids == self.image_token
        batch["position_ids"] = _positions(is_image, mask, grids, self.merge)
        if grids:
            batch["image_grids"] = grids
            batch["image_rows"] = is_image.flatten().nonzero()[:, 0]
        return batch


def host_inputs(model: nn.Module) -> Callable[[Batch], Batch]:
    """What a collator's batches pass through for this model; most models want nothing of it.

    The result knows numbers only: it may be sent to another process.
    """
    config = getattr(unwrapped(model), "config", None)
    vision, text = (getattr(config, name, None) for name in ("vision_config", "text_config"))
    parameters = getattr(text, "rope_parameters", None) or {}
    merge = getattr(vision, "spatial_merge_size", None)
    if "mrope_section" not in parameters or merge is None or not _has_grid_tower(model):
        return lambda batch: batch
    return GridInputs(int(config.image_token_id), int(merge))  # type: ignore[union-attr]


def plain_inputs(kwargs: Batch) -> Batch:
    """Arguments for the model's own forward."""
    grids = kwargs.get("image_grids")
    kept = {k: v for k, v in kwargs.items() if k not in ("image_grids", "image_rows")}
    if grids is not None:
        kept["image_grid_thw"] = torch.tensor(grids, device=kept["input_ids"].device)
    return kept


def hidden_states_of(body: Any, kwargs: Batch) -> torch.Tensor:
    """The last hidden states, (batch, length, hidden_size), of a model without its head."""
    if "image_grids" not in kwargs:
        states: torch.Tensor = body(**kwargs).last_hidden_state
        return states
    given = {name: value for name, value in kwargs.items() if value is not None}
    grids, rows = given.pop("image_grids"), given.pop("image_rows")
    tower, language = body.visual, body.language_model
    pixels = given.pop("pixel_values").type(tower.dtype)
    embedded = body.get_input_embeddings()(given.pop("input_ids"))
    tables = _tables_of(tower, grids, pixels.device)
    seen = tower(pixels, **tables)
    flat = embedded.flatten(0, 1)
    merged = flat.index_copy(0, rows, seen.pooler_output.to(flat.dtype)).view_as(embedded)
    deep = getattr(seen, "deepstack_features", None)
    if deep is not None:
        given |= {"visual_pos_masks": rows, "deepstack_visual_embeds": list(deep)}
    with _deep_features_by_rows(language, deep is not None):
        result: torch.Tensor = language(inputs_embeds=merged, **given).last_hidden_state
    return result


def _has_grid_tower(model: nn.Module) -> bool:
    tower = getattr(getattr(unwrapped(model), "base_model", None), "visual", None)
    return tower is not None and hasattr(tower, "spatial_merge_size")


def _positions(
    is_image: torch.Tensor, mask: torch.Tensor | None, grids: Grids, merge: int
) -> torch.Tensor:
    """Where each token stands in time, height and width: (3, batch, length), int64.

    Text goes on by one in all three. An image stands at one moment, its tokens by their rows and
    columns, and the text behind it goes on after its longer side. Padding is at 0. Source: Wang et
    al. 2024, arXiv:2409.12191, section 2.1.
    """
    batch, length = is_image.shape
    positions = torch.zeros((3, batch, length), dtype=torch.int64)
    left = iter(grids)
    for row in range(batch):
        seen = is_image[row] if mask is None else is_image[row][mask[row].bool()]
        pieces = list(_pieces(seen, left, merge))
        placed = torch.cat(pieces, dim=1) if pieces else positions[:, row, :0]
        if mask is None:
            positions[:, row] = placed
        else:
            positions[:, row, mask[row].bool()] = placed
    return positions


def _pieces(is_image: torch.Tensor, grids: Iterator[Any], merge: int) -> Iterator[torch.Tensor]:
    """Positions of one row without padding, text and images in turn, each (3, tokens)."""
    kinds, counts = torch.unique_consecutive(is_image, return_counts=True)
    at = 0
    for image, count in zip(kinds.tolist(), counts.tolist(), strict=True):
        if not image:
            yield torch.arange(at, at + count).expand(3, -1)
            at += count
        while image and count > 0:  # images may follow each other without text between
            time, height, width = next(grids)
            height, width = height // merge, width // merge
            axes = (torch.arange(size) for size in (time, height, width))
            grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
            yield grid + at
            at += max(height, width)
            count -= time * height * width


def _tables_of(tower: Any, grids: Grids, device: torch.device) -> Batch:
    """The tower's arguments beside the patches: made at the first use of these grids, then kept.

    A captured graph reads them where they lie, so that none is given up unannounced.
    """
    known = _TABLES.setdefault(tower, OrderedDict())
    key = (grids, device)
    if key not in known:
        known[key] = {
            name: value.to(device)
            if isinstance(value, torch.Tensor) and name != "grid_thw"
            else value
            for name, value in _make_tables(tower, torch.tensor(grids)).items()
        }
        if len(known) > _MOST:
            known.popitem(last=False)
            LAYOUT.changed()
    known.move_to_end(key)
    return dict(known[key])


def _make_tables(tower: Any, grid: torch.Tensor) -> Batch:
    """On the host, by the functions that transformers' towers call themselves."""
    from transformers import vision_utils

    merge = tower.spatial_merge_size
    made: Batch = {
        "grid_thw": grid,
        "position_ids": vision_utils.get_vision_position_ids(grid, merge),
        "cu_seqlens": vision_utils.get_vision_cu_seqlens(grid),
        "max_seqlen": int((grid[:, 1] * grid[:, 2]).max()),
    }
    if hasattr(tower, "window_size"):
        index, starts = vision_utils.get_vision_window_index(
            grid,
            spatial_merge_size=merge,
            window_size=tower.window_size,
            patch_size=tower.patch_size,
        )
        made |= {"window_index": index, "cu_window_seqlens": starts}
        made["max_window_seqlen"] = int(starts.diff().max())
    if hasattr(tower, "pos_embed"):
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=merge,
        )
        made |= {"interp_indices": indices, "interp_weights": weights}
    return made


@contextmanager
def _deep_features_by_rows(language: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, Qwen 3's language tower adds image features to rows of given numbers, not of a mask."""
    if wanted:
        language.__dict__["_deepstack_process"] = MethodType(_add_to_rows, language)
    try:
        yield
    finally:
        language.__dict__.pop("_deepstack_process", None)


def _add_to_rows(
    language: nn.Module, hidden_states: torch.Tensor, rows: torch.Tensor, features: torch.Tensor
) -> torch.Tensor:
    flat = hidden_states.flatten(0, 1)
    return flat.index_add(0, rows, features.to(flat.dtype)).view_as(hidden_states)
