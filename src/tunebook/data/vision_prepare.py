"""From a recipe to rows with pictures that are opened when they are needed, with figures about them.

Every row is rendered and its pictures' heads are read; pixels are read in training, and kept nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.collecting import BATCH, RowCollector
from tunebook.data.conversations import Conversation, to_messages
from tunebook.data.formats import Detection
from tunebook.data.images import image_size
from tunebook.data.spool import Skipped
from tunebook.data.vision import VisionEncoder, too_long
from tunebook.data.vision_collator import VisionRows
from tunebook.errors import RowInvalid, TemplateInvalid
from tunebook.recipe import DataPart, Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin

Progress = Callable[[int, int], None]

_SURE = 3  # pictures of different costs whose frames take the same number of tokens
_SLACK = 8  # tokens by which a text without pictures may be cut otherwise


def recipe_vision_encoder(
    recipe: Recipe, processor: ProcessorMixin, *, every_turn: bool = False
) -> VisionEncoder:
    """The encoder that a recipe's mask, length and pixel budget ask for."""
    return VisionEncoder(
        processor,
        train_on=recipe.data.train_on,
        max_length=recipe.model.max_seq_length,
        min_pixels=recipe.data.min_pixels,
        max_pixels=recipe.data.max_pixels,
        every_turn=every_turn,
    )


def picture_folder(part: DataPart) -> Path | None:
    """Where relative paths of pictures begin: the folder of the data file, if it is one."""
    path = Path(part.source).expanduser()
    return path.parent if path.is_file() else path if path.is_dir() else None


class ImageCosts:
    """How many tokens pictures take, by their size; the processor is asked, with blank pictures.

    Where it can say so by arithmetic, only what frames a picture is found out with blank ones.
    """

    def __init__(self, encoder: VisionEncoder) -> None:
        self._encoder = encoder
        self._known: dict[tuple[int, int], int] = {}
        self._frames: dict[int, int] = {}

    def __call__(self, size: tuple[int, int]) -> int:
        """Tokens of a picture of this width and height, with those that frame it.

        Raises:
            ImageInvalid, ImageTooLong: the processor refuses the size.
        """
        if size not in self._known:
            self._known[size] = self._count(size)
        return self._known[size]

    def _count(self, size: tuple[int, int]) -> int:
        tokens = self._encoder.image_tokens(size)
        if tokens is None:
            return self._tried(size)
        if tokens not in self._frames:
            frames = set(self._frames.values())
            if len(self._frames) >= _SURE and len(frames) == 1:
                return tokens + next(iter(frames))
            self._frames[tokens] = self._tried(size) - tokens
        return tokens + self._frames[tokens]

    def _tried(self, size: tuple[int, int]) -> int:
        from PIL import Image

        return self._encoder.cost(Image.new("RGB", size))


def prepare_rows(
    numbers: Sequence[int],
    table: Dataset,
    detection: Detection,
    encoder: VisionEncoder,
    skipped: Skipped,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> tuple[VisionRows, RowCollector]:
    """Those rows of a table that can be learnt from, and their figures.

    Raises:
        RowInvalid, ImageInvalid, ImageTooLong, TemplateInvalid: naming the row, unless such rows are
            skipped.
    """
    costs, collected, kept = ImageCosts(encoder), RowCollector(), []
    for done, number in enumerate(numbers, start=1):
        try:
            talk = to_messages(table[number], detection, number=number, pictures=True)
            if _measured(talk, number, encoder, costs, collected, folder):
                kept.append(number)
        except RowInvalid as error:
            skipped.take(error)
        except TemplateInvalid as error:
            why = f"row {number} (counted from 0): {error.why}"
            skipped.take(TemplateInvalid(error.what, why, error.do))
        if progress is not None and (done % BATCH == 0 or done == len(numbers)):
            progress(done, len(numbers))
    return VisionRows(table, detection, kept, folder), collected


def _measured(
    talk: Conversation,
    number: int,
    encoder: VisionEncoder,
    costs: ImageCosts,
    collected: RowCollector,
    folder: Path | None,
) -> bool:
    """Count a row; whether anything of it is learnt within the length."""
    place = f"Row {number} (counted from 0)"
    sizes = [image_size(value, place, folder=folder) for value in talk.images]
    encoded, marks = encoder.unseen(talk, len(sizes), place)
    extra = [costs(size) - 1 for size in sizes]
    ends = [mark + 1 + sum(extra[: i + 1]) for i, mark in enumerate(marks)]
    length = encoded.length + sum(extra)
    limit = encoder.max_length or length + _SLACK
    fit = sum(end + _SLACK <= limit for end in ends)
    # of the text as it is without pictures
    room = limit - sum(extra) if fit == len(ends) else marks[fit]
    learnt = sum(max(0, min(last, room) - first) for first, last in encoded.would_learn)
    if not learnt and fit < len(ends):
        raise too_long(place, fit + 1, sizes[fit], extra[fit] + 1, limit)
    if not collected.count(number, min(length, limit), length, learnt):
        return False
    collected.images += len(sizes)
    collected.image_tokens += sum(extra) + len(extra)
    return True
