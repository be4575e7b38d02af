"""The one path from messages with pictures to what a vision model reads: ids, labels and pixels.

Training, the token view and the checks use it. It knows a processor, which alone decides how many
tokens a picture takes; it knows no model, no files and no trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.conversations import Conversation, Message
from tunebook.data.images import open_image
from tunebook.data.masking import MASKED, Encoded, TrainOn, first_token
from tunebook.data.pictures import place_images
from tunebook.data.turns import IMAGE_MARK, to_message
from tunebook.data.vision_processor import BY_TOKEN, PictureProcessor
from tunebook.data.vision_spans import (
    EncodedVision as EncodedVision,
    ImageSpan as ImageSpan,
    as_they_are,
    moved,
    with_images,
)
from tunebook.data.vision_texts import VisionTexts
from tunebook.errors import ImageInvalid, ImageTooLong, ModelInvalid

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from tunebook.data.rendering import Renderer, Span
    from tunebook.data.tools import Tool


@dataclass
class VisionRow:
    """A conversation with marks where its pictures stand, the pictures opened, and what to call it."""

    messages: list[Message]
    images: list[Image.Image]
    place: str = "The row"


class VisionEncoder:
    """Encodes rows for one processor; what it learns of the template serves the next row.

    Args:
        processor: with a fast tokenizer and a chat template.
        train_on: "responses" (every assistant turn), "last_response", or "all" but the pictures.
        max_length: in tokens. A longer row is cut on the right as text is, but never in a picture:
            the turns from that picture on are left out, back to the last whole answer.
        min_pixels, max_pixels: of a picture; None leaves that to the processor.
        every_turn: work out the spans of user and system turns too.
        folder: where relative paths of pictures begin.
        variables: what the template is given besides the conversation.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        *,
        train_on: TrainOn = "responses",
        max_length: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        every_turn: bool = False,
        folder: Path | None = None,
        variables: dict[str, Any] | None = None,
    ) -> None:
        self.pictures = PictureProcessor(processor, min_pixels, max_pixels)
        self.max_length = max_length
        self.folder = folder
        self.texts = VisionTexts(
            processor,
            train_on=train_on,
            max_length=max_length,
            every_turn=every_turn,
            variables=variables,
        )

    def __call__(self, messages: list[Message]) -> EncodedVision:
        """One conversation of `to_messages(..., pictures=True)`, whose pictures are opened here."""
        images = getattr(messages, "images", [])
        return self.batch([vision_row(messages, images, folder=self.folder)])[0][0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The processor's."""
        return self.texts.tokenizer

    @property
    def hidden_tools(self) -> int:
        """Rows so far whose tools the template does not write."""
        return self.texts.hidden_tools

    def renderer(self, tools: list[Tool] | None = None) -> Renderer:
        """What renders conversations with these tools."""
        return self.texts.renderer(tools)

    def batch(
        self, rows: Sequence[VisionRow], *, pad_to_multiple_of: int | None = None
    ) -> tuple[list[EncodedVision], dict[str, Any]]:
        """Encode rows together.

        Returns:
            Each row, and the batch: `input_ids`, `labels` and what else the processor gives, as
            tensors, padded on the right.

        Raises:
            ImageInvalid: the pictures of a row do not match its text, or the processor refuses one.
            ImageTooLong: a picture leaves no room for an answer.
        """
        lengths: dict[int, int] = {}
        rows = list(rows)
        while True:
            encoded, batch = self._encode(rows, pad_to_multiple_of)
            shorter = [self._without_cut_image(*pair) for pair in zip(rows, encoded, strict=True)]
            for number, (row, other) in enumerate(zip(rows, shorter, strict=True)):
                if other is not row:
                    lengths.setdefault(number, encoded[number].length)
            if all(row is other for row, other in zip(rows, shorter, strict=True)):
                break
            rows = shorter
        for number, length in lengths.items():
            encoded[number].truncated, encoded[number].length = True, length
        return encoded, self._as_cut(batch, encoded)

    def _encode(
        self, rows: list[VisionRow], multiple: int | None
    ) -> tuple[list[EncodedVision], dict[str, Any]]:
        rendered = [self._rendered(row.messages, len(row.images), row.place) for row in rows]
        texts, images = [text for text, _ in rendered], [row.images for row in rows]
        try:
            batch, texts, places = self.pictures(texts, images, multiple=multiple)
        except ImageInvalid as error:
            if len(rows) == 1:
                raise ImageInvalid(f"{rows[0].place}: {error.what}", error.why, error.do) from error
            for row in rows:  # which of them is it?
                self._encode([row], multiple)
            raise ImageInvalid(
                "The model's processor refuses rows together that it takes one by one.",
                error.why,
                "set `training.batch_size` to 1; newer releases of transformers may take them.",
            ) from error
        grids = iter(batch["image_grid_thw"].tolist() if "image_grid_thw" in batch else [])
        tokenized = self.texts.ids(texts)
        encoded = []
        for number, row in enumerate(rows):
            (ids, encoding), found = tokenized[number], places[number]
            self._require_same(ids, batch, number)
            spans = [moved(span, found) for span in rendered[number][1]]
            whole = self.texts.finish(texts[number], spans, ids, encoding)
            seen = []
            for (_, (start, end)), image in zip(found, row.images, strict=True):
                first, last = (first_token(encoding, at, len(ids)) for at in (start, end))
                grid = next(grids, None)
                shape = (grid[1], grid[2]) if grid else None
                seen.append(ImageSpan(first, last, *image.size, shape))
            encoded.append(with_images(whole, seen))
        return encoded, batch

    def unseen(self, messages: list[Message], images: int, place: str) -> tuple[Encoded, list[int]]:
        """A row before its pictures are looked at, each one token; and which tokens they are.

        Raises:
            ImageInvalid: the text has more or fewer places than there are pictures.
        """
        text, spans = self._rendered(messages, images, place)
        ((ids, encoding),) = self.texts.ids([text])
        places = [old[0] for old, _ in as_they_are(text, self.pictures.token)]
        marks = [first_token(encoding, at, len(ids)) for at in places]
        return self.texts.finish(text, spans, ids, encoding), marks

    def _rendered(self, messages: list[Message], images: int, place: str) -> tuple[str, list[Span]]:
        text, spans, _ = self.texts.render(messages)
        places = text.count(self.pictures.token)
        if places != images:
            why = f"it has {images} pictures, and its text {places} times {self.pictures.token!r}"
            raise ImageInvalid(
                f"{place}: pictures and image tokens do not match.",
                f"{why}: the words hold that token, or the chat template does not write pictures.",
                "take the token out of the words, or choose the model's own chat template.",
            )
        return text, spans

    def _require_same(self, ids: list[int], batch: dict[str, Any], number: int) -> None:
        read = batch["input_ids"][number][batch["attention_mask"][number] == 1].tolist()
        if read != ids:
            raise ModelInvalid(
                "The model's processor and its tokenizer make different tokens of one text.",
                f"{type(self.pictures.processor).__name__}: {len(read)} tokens, the tokenizer {len(ids)}.",
                "use the processor's own tokenizer.",
            )

    def _without_cut_image(self, row: VisionRow, encoded: EncodedVision) -> VisionRow:
        """The row itself, or without the turns from the first picture on that would be cut."""
        limit = self.max_length
        cut = next((i for i, s in enumerate(encoded.images) if limit and s.end > limit), None)
        if cut is None:
            return row
        of_turns = [i for i, m in enumerate(row.messages) for _ in range(_count(m))]
        earlier = row.messages[: of_turns[cut]]
        answered = [i for i, m in enumerate(earlier) if m["role"] == "assistant"]
        if not answered:
            span = encoded.images[cut]
            size, tokens = (span.width, span.height), span.end - span.start
            raise too_long(row.place, cut + 1, size, tokens, limit or 0)
        kept = list(row.messages[: answered[-1] + 1])
        images = sum(map(_count, kept))
        tools = getattr(row.messages, "tools", None)
        return VisionRow(Conversation(kept, tools), row.images[:images], row.place)

    def _as_cut(self, batch: dict[str, Any], encoded: list[EncodedVision]) -> dict[str, Any]:
        import torch

        limit = self.max_length
        if limit is not None and batch["input_ids"].shape[1] > limit:
            batch |= {name: batch[name][:, :limit] for name in BY_TOKEN if name in batch}
        labels = torch.full_like(batch["input_ids"], MASKED)
        for number, row in enumerate(encoded):
            for first, last in row.learnt:
                labels[number, first:last] = batch["input_ids"][number, first:last]
        return {**batch, "labels": labels}


def encode_vision_row(
    messages: list[Message],
    images: Sequence[Any],
    processor: ProcessorMixin,
    *,
    train_on: TrainOn = "responses",
    max_length: int | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    place: str = "The row",
) -> EncodedVision:
    """One conversation with pictures, as ids, labels, spans and pixels.

    Args:
        messages: contents are text, or parts such as `{"type": "image"}`, with or without the
            picture in them; or text with marks, as `to_messages(..., pictures=True)` gives it.
        images: for the parts without, in order; anything that `open_image` opens.
        place: which row, for errors.

    Raises:
        ImageInvalid: a picture cannot be opened, or there are more or fewer than places.
        ImageTooLong, TemplateInvalid: see `VisionEncoder`.
    """
    encoder = VisionEncoder(
        processor,
        train_on=train_on,
        max_length=max_length,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        every_turn=True,
    )
    row = vision_row(messages, images, place)
    (encoded,), batch = encoder.batch([row])
    encoded.pixels = {k: v for k, v in batch.items() if k not in ("input_ids", "labels")}
    return encoded


def vision_row(
    messages: list[Message],
    images: Sequence[Any],
    place: str = "The row",
    folder: Path | None = None,
) -> VisionRow:
    """A row whose pictures are opened, from messages in whichever form (see `encode_vision_row`).

    Args:
        folder: where relative paths begin.

    Raises:
        RowInvalid, ImageInvalid: naming the row.
    """
    values = list(images)
    marked = any(IMAGE_MARK in str(message.get("content")) for message in messages)
    if not marked:
        turns = [to_message(m, place, f"turn {i}") for i, m in enumerate(messages)]
        turns, values = place_images(turns, {"images": values}, ["images"], place)
        messages = Conversation(turns, getattr(messages, "tools", None))
    many = len(values) > 1
    return VisionRow(
        messages,
        [
            open_image(value, f"{place}, picture {number}" if many else place, folder=folder)
            for number, value in enumerate(values, start=1)
        ],
        place,
    )


def too_long(
    place: str, picture: int, size: tuple[int, int], tokens: int, limit: int
) -> ImageTooLong:
    """The error of a row that a picture leaves no room for an answer."""
    return ImageTooLong(
        f"{place}: its picture does not fit into {limit:,} tokens.",
        f"picture {picture} ({size[0]:,} x {size[1]:,} pixels) takes {tokens:,} tokens.",
        "lower `data.max_pixels`, or raise `model.max_seq_length`.",
    )


def _count(message: Message) -> int:
    """How many pictures a turn shows."""
    return int(message["content"].count(IMAGE_MARK))
