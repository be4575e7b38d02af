"""Batches of rows with pictures, opened and encoded when they are needed: in a worker, if there is one.

Knows rows in any form that is detected, and a processor; knows no trainer and keeps no picture.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunebook.data.conversations import Conversation, to_messages
from tunebook.data.formats import Detection, detect_format
from tunebook.data.masking import MASKED, TrainOn
from tunebook.data.vision import VisionEncoder, VisionRow, vision_row
from tunebook.errors import RowInvalid

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL import Image
    from transformers import ProcessorMixin

logger = logging.getLogger(__name__)

_SMALL = 2**17  # pixels
Resize = Literal["min", "max"] | int | tuple[int, int]


class VisionDataCollator:
    """Makes batches of conversations with pictures: ids, labels and pixels, padded on the right.

    Only what the assistant says is learnt, found by the same spans as in text. Rows may hold messages
    with parts, messages beside a column of pictures, LLaVA's `<image>`, or a picture and a text.

    Args:
        model: whose `max_seq_length` is the length where none is given.
        processor: the model's.
        max_seq_length: longer rows are cut, never in a picture: then whole turns are left out.
        formatting_func: called with each row; gives messages, or a row of another form.
        resize: longest side in pixels, or (width, height) that a picture is to fit in. "min" and "max"
            leave that to the processor.
        ignore_index: label of what is not learnt.
        train_on_responses_only: False learns all but the pictures; None and True what `train_on` says.
        completion_only_loss: learn the completion alone, of rows with a prompt; they are always so.
        pad_to_multiple_of: round lengths up, so that there are few.
        last_response_only: learn the last answer of each row alone.
        chat_template_kwargs: given to the template besides the messages.
        mask_out_tokens: texts or ids of tokens that are never learnt.
        min_pixels, max_pixels: of a picture; None leaves that to the processor.
        train_on: as in the recipe.
        on_bad_rows: "skip" leaves out rows that cannot be used, and logs them.
        image_counts: put how many pictures each row has into the batch, which models do not take.
        instruction_part, response_part, force_match, num_proc, snap_to_patch_size, resize_dimension,
            padding_free: of other libraries; the spans of turns are known here without them, and sizes
            are the processor's matter.

    Raises:
        RowInvalid: naming a row that cannot be used, when a batch is made.
    """

    def __init__(
        self,
        model: Any = None,
        processor: ProcessorMixin | None = None,
        max_seq_length: int | None = None,
        formatting_func: Callable[[Any], Any] | None = None,
        resize: Resize | None = "min",
        ignore_index: int = MASKED,
        train_on_responses_only: bool | None = None,
        instruction_part: str | None = None,
        response_part: str | None = None,
        force_match: bool = True,
        num_proc: int | None = None,
        completion_only_loss: bool = True,
        pad_to_multiple_of: int | None = None,
        resize_dimension: int | str = 0,
        snap_to_patch_size: bool = False,
        last_response_only: bool = False,
        chat_template_kwargs: dict[str, Any] | None = None,
        mask_out_tokens: Sequence[str | int] | None = None,
        padding_free: bool = False,
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        train_on: TrainOn = "responses",
        on_bad_rows: Literal["stop", "skip"] = "stop",
        image_counts: bool = False,
    ) -> None:
        if processor is None:
            raise TypeError("VisionDataCollator needs the model's processor")
        if train_on_responses_only is False:
            train_on = "all"
        self.encoder = VisionEncoder(
            processor,
            train_on="last_response" if last_response_only else train_on,
            max_length=max_seq_length or getattr(model, "max_seq_length", None),
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            variables=chat_template_kwargs,
        )
        self.pad_to_multiple_of = pad_to_multiple_of
        self.skips = on_bad_rows == "skip"
        self.image_counts = image_counts
        self._ignore = ignore_index
        self._resize = resize
        self._format = formatting_func
        self._never = [
            item if isinstance(item, int) else processor.tokenizer.convert_tokens_to_ids(item)
            for item in mask_out_tokens or ()
        ]
        self._detections: dict[tuple[str, ...], Detection] = {}
        self._good: VisionRow | None = None

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        rows = list(self._rows(examples))
        if not rows and self._good is not None:  # nothing is learnt of it
            batch = self._encoded([self._good])
            batch["labels"].fill_(MASKED)
        else:
            batch = self._encoded(rows)
        labels = batch["labels"]
        for token in self._never:
            labels[labels == token] = MASKED
        if self._ignore != MASKED:
            labels[labels == MASKED] = self._ignore
        return batch

    def small(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One row as a batch, with its pictures shrunk, to try a model on."""
        processor = self.encoder.pictures.processor
        made = VisionDataCollator(
            processor=processor, formatting_func=self._format, max_pixels=_SMALL
        )
        return made([row])

    def _encoded(self, rows: list[VisionRow]) -> dict[str, Any]:
        encoded, batch = self.encoder.batch(rows, pad_to_multiple_of=self.pad_to_multiple_of)
        if self.image_counts:
            batch["image_counts"] = tuple(len(row.images) for row in encoded)
        return batch

    def _rows(self, examples: Sequence[Mapping[str, Any]]) -> Iterator[VisionRow]:
        """The rows of a batch, opened; those that cannot be used are left out where they may be."""
        last: RowInvalid | None = None
        found = 0
        for number, example in enumerate(examples):
            try:
                row = self._row(example, f"Row {number} of the batch")
                if self.skips:
                    self.encoder.batch([row])  # may refuse it
            except RowInvalid as error:
                if not self.skips:
                    raise
                logger.warning("A row is left out. %s %s", error.what, error.why)
                last = error
                continue
            found += 1
            self._good = row if self.skips else None
            yield row
        if last is not None and not found and self._good is None:
            raise last

    def _row(self, example: Any, place: str) -> VisionRow:
        if self._format is not None:
            example = self._format(example)
        if isinstance(example, list):
            example = {"messages": example}
        messages = example.get("messages")
        if isinstance(messages, Conversation):  # of `VisionRows`
            place = example.get("place", place)
            row = vision_row(messages, example["images"], place, example.get("folder"))
        else:
            talk = to_messages(example, self._detected(example), pictures=True)
            row = vision_row(talk, talk.images, place)
        row.images = [self._resized(image) for image in row.images]
        return row

    def _detected(self, example: Mapping[str, Any]) -> Detection:
        """What the keys of a row mean; found out once for each set of keys."""
        keys = tuple(example)
        if keys not in self._detections:
            self._detections[keys] = detect_format([dict(example)])
        return self._detections[keys]

    def _resized(self, image: Image.Image) -> Image.Image:
        wanted = self._resize
        if isinstance(wanted, str) or not wanted:
            return image
        width, height = (wanted, wanted) if isinstance(wanted, int) else wanted
        image.thumbnail((width, height))
        return image


class VisionRows(Sequence[dict[str, Any]]):
    """Some rows of a table as the collator takes them; no picture of them is opened or kept.

    Args:
        table: whose pictures are stored, not decoded.
        detection: what its columns mean.
        numbers: of the rows, in order.
        folder: where relative paths of pictures begin.
    """

    def __init__(
        self,
        table: Dataset,
        detection: Detection,
        numbers: Sequence[int],
        folder: Path | None = None,
    ) -> None:
        self.table, self.detection, self.numbers, self.folder = table, detection, numbers, folder

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        number = self.numbers[place]
        if isinstance(place, slice):
            return VisionRows(self.table, self.detection, number, self.folder)
        talk = to_messages(self.table[number], self.detection, number=number, pictures=True)
        return {
            "messages": talk,
            "images": talk.images,
            "place": f"Row {number} (counted from 0)",
            "folder": self.folder,
        }
