"""From a recipe to rows with pictures that are opened when they are needed, with figures about them.

Every row is rendered and its pictures' heads are read; pixels are read in training, and kept nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunebook.data.collecting import BATCH, RowCollector
from tunebook.data.conversations import Conversation, to_messages
from tunebook.data.formats import Detection
from tunebook.data.images import image_size
from tunebook.data.masking import Encoded
from tunebook.data.spool import Skipped
from tunebook.data.vision import VisionEncoder, too_long
from tunebook.data.vision_collator import VisionRows
from tunebook.errors import ImageInvalid, RowInvalid, TemplateInvalid
from tunebook.recipe import DataPart

if TYPE_CHECKING:
    from datasets import Dataset

Progress = Callable[[int, int], None]

_SURE = 3  # pictures of different costs whose frames take the same number of tokens
_SLACK = 8  # tokens by which a text without pictures may be cut otherwise


def picture_folder(part: DataPart) -> Path | None:
    """Where relative paths of pictures begin: the folder of the data file, if it is one."""
    path = Path(part.source).expanduser()
    return path.parent if path.is_file() else path if path.is_dir() else None


@dataclass(frozen=True)
class SizedRow:
    """A row whose pictures, given by their sizes, are as many tokens as they take.

    Which tokens these are is left open.
    """

    encoded: Encoded
    images: list[tuple[int, int]]
    image_tokens: int


class ImageCosts:
    """How many tokens pictures take, by their size; the processor is asked, with blank pictures.

    Where it can say so by arithmetic, only what frames a picture is found out with blank ones.
    """

    def __init__(self, encoder: VisionEncoder) -> None:
        self._encoder = encoder
        self._known: dict[tuple[int, int], int] = {}
        self._frames: dict[int, int] = {}

    def __call__(self, size: tuple[int, int], place: str = "The row") -> int:
        """Tokens of a picture of this width and height, with those that frame it.

        Args:
            place: which row, for the error.

        Raises:
            ImageInvalid, ImageTooLong: the processor refuses the size.
        """
        if size not in self._known:
            self._known[size] = self._count(size, place)
        return self._known[size]

    def _count(self, size: tuple[int, int], place: str) -> int:
        tokens = self._encoder.pictures.tokens(size)
        if tokens is None:
            return self._tried(size, place)
        if tokens not in self._frames:
            frames = set(self._frames.values())
            if len(self._frames) >= _SURE and len(frames) == 1:
                return tokens + next(iter(frames))
            self._frames[tokens] = self._tried(size, place) - tokens
        return tokens + self._frames[tokens]

    def _tried(self, size: tuple[int, int], place: str) -> int:
        from PIL import Image

        try:
            written = self._encoder.pictures.written(Image.new("RGB", size))
        except ImageInvalid as error:
            raise ImageInvalid(f"{place}: {error.what}", error.why, error.do) from error
        return len(self._encoder.texts.ids([written])[0][0])


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
            sized = sized_row(talk, f"Row {number} (counted from 0)", encoder, costs, folder)
            row = sized.encoded
            if collected.count(number, len(row.input_ids), row.length, row.n_trained):
                kept.append(number)
                collected.count_images(sized.images, sized.image_tokens)
        except RowInvalid as error:
            skipped.take(error)
        except TemplateInvalid as error:
            why = f"row {number} (counted from 0): {error.why}"
            skipped.take(TemplateInvalid(error.what, why, error.do))
        if progress is not None and (done % BATCH == 0 or done == len(numbers)):
            progress(done, len(numbers))
    return VisionRows(table, detection, kept, folder), collected


def sized_row(
    talk: Conversation,
    place: str,
    encoder: VisionEncoder,
    costs: ImageCosts,
    folder: Path | None = None,
) -> SizedRow:
    """A row as it is trained on but for the pixels: only the heads of its pictures are read.

    Near the length's limit it may differ by a few tokens.

    Raises:
        ImageInvalid, TemplateInvalid: as in training.
        ImageTooLong: a picture leaves no room for an answer.
    """
    sizes = [image_size(value, place, folder=folder) for value in talk.images]
    encoded, marks = encoder.unseen(talk, len(sizes), place)
    taken = [costs(size, place) for size in sizes]
    ends = [mark + sum(taken[: i + 1]) - i for i, mark in enumerate(marks)]
    ids: list[int] = []
    for token, count in _counted(encoded.uncut_ids, dict(zip(marks, taken, strict=True))):
        ids += [token] * count
    limit = encoder.max_length or len(ids) + _SLACK
    fit = sum(end + _SLACK <= limit for end in ends)
    room = limit if fit == len(ends) else ends[fit] - taken[fit]

    def moved(at: int) -> int:
        return at + sum(taken[i] - 1 for i, mark in enumerate(marks) if mark < at)

    uncut = [(moved(first), moved(last)) for first, last in encoded.would_learn]
    learnt = [(first, min(last, room)) for first, last in uncut if first < room]
    if not learnt and fit < len(ends):
        raise too_long(place, fit + 1, sizes[fit], taken[fit], limit)
    cut = len(ids) > limit
    row = Encoded(ids[:room], learnt, encoded.text, encoded.spans, cut, [], len(ids), uncut)
    return SizedRow(row, sizes, sum(taken))


def _counted(ids: list[int], counts: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Each token with how often it stands: once, or as a picture takes."""
    for place, token in enumerate(ids):
        yield token, counts.get(place, 1)
