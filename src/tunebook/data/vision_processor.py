"""One model's processor, asked for batches and for what a picture costs, in one way for all families.

Knows `transformers` processors; knows no conversations, no labels and no model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunebook.data.vision_spans import Replaced, as_they_are
from tunebook.errors import ImageInvalid, ModelInvalid
from tunebook.models.vision_shape import fit_pixels

if TYPE_CHECKING:
    from PIL import Image
    from transformers import ProcessorMixin

BY_TOKEN = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "mm_token_type_ids",
    "cross_attention_mask",
)
"""What a processor gives for every token, (rows, tokens, ...); the rest it gives for pictures."""

_REFUSALS = (ValueError, TypeError, ZeroDivisionError, IndexError)
"""What processors raise at pictures that they cannot read."""


class PictureProcessor:
    """A processor with a budget of pixels.

    Args:
        min_pixels, max_pixels: of a picture; None leaves that to the processor.

    Raises:
        ModelInvalid: the processor has no token that stands for a picture.
    """

    def __init__(
        self, processor: ProcessorMixin, min_pixels: int | None, max_pixels: int | None
    ) -> None:
        token: str | None = getattr(processor, "image_token", None)
        if token is None:
            raise ModelInvalid(
                "The model's processor has no token for a picture.",
                f"{type(processor).__name__} names no `image_token`.",
                "choose a vision model that takes pictures among its words.",
            )
        self.processor, self.token = processor, token
        self._budget = (min_pixels, max_pixels)
        self._own_size = _pixel_size(getattr(processor, "image_processor", None))

    def __call__(
        self,
        texts: list[str],
        images: Sequence[Sequence[Image.Image]],
        *,
        multiple: int | None = None,
    ) -> tuple[dict[str, Any], list[str], list[list[Replaced]]]:
        """The processor's batch, what it gave the tokenizer, and where it put pictures in that.

        Args:
            texts: with one `token` for each picture.
            images: of each text.
            multiple: of which the batch's length is made.

        Raises:
            ImageInvalid: the processor refuses something; whose, the caller knows.
        """
        process: Any = copy.copy(self.processor)
        heard: list[tuple[list[str], list[Any]]] = []

        def replace(*args: Any, **kwargs: Any) -> Any:
            heard.append(self.processor.get_text_with_replacements(*args, **kwargs))
            return heard[-1]

        process.get_text_with_replacements = replace
        fitted = [[self._fitted(image) for image in row] for row in images]
        try:
            batch = process(
                text=list(texts),
                images=fitted if any(fitted) else None,
                padding=True,
                padding_side="right",
                pad_to_multiple_of=multiple,
                add_special_tokens=False,
                return_tensors="pt",
                **self._pixel_limits(),
            )
        except _REFUSALS as error:
            raise _refused(images, error) from error
        if heard and any(heard[-1][1]):
            written, offsets = heard[-1]
            places = [[(r["span"], r["new_span"]) for r in row] for row in offsets]
        else:  # no picture, or a processor that writes each as the one token that it is
            written, places = texts, [as_they_are(text, self.token) for text in texts]
        return dict(batch), list(written), places

    def written(self, image: Image.Image) -> str:
        """What the tokenizer is given for a picture.

        Raises:
            ImageInvalid: the processor refuses it.
        """
        return self([self.token], [[image]])[1][0]

    def tokens(self, size: tuple[int, int]) -> int | None:
        """How many tokens a picture takes without its frame, by arithmetic; None if it cannot be said."""
        width, height = size if self._own_size else fit_pixels(size, *self._budget)
        try:
            counts: Any = self.processor._get_num_multimodal_tokens(  # type: ignore[attr-defined]
                image_sizes=[(height, width)], **self._pixel_limits()
            )
            return int(counts["num_image_tokens"][0])
        except (AttributeError, KeyError, *_REFUSALS):
            return None

    def _fitted(self, image: Image.Image) -> Image.Image:
        """The picture within the budget, where the processor does not see to that itself."""
        size = image.size if self._own_size else fit_pixels(image.size, *self._budget)
        return image if size == image.size else image.resize(size)

    def _pixel_limits(self) -> dict[str, Any]:
        if self._own_size is None or self._budget == (None, None):
            return {}
        least, most = (
            said if said is not None else own
            for said, own in zip(self._budget, self._own_size, strict=True)
        )
        return {"size": {"shortest_edge": min(least, most), "longest_edge": max(least, most)}}


def _pixel_size(image_processor: Any) -> tuple[int, int] | None:
    """The least and most pixels of a processor that keeps pictures between two numbers of them.

    Such as Qwen's, which calls these numbers edges.
    """
    size = getattr(image_processor, "size", None) or {}
    least, most = (dict(size).get(name) for name in ("shortest_edge", "longest_edge"))
    merges = hasattr(image_processor, "merge_size")
    return (least, most) if merges and least is not None and most is not None else None


def _refused(images: Sequence[Sequence[Image.Image]], error: Exception) -> ImageInvalid:
    sizes = ", ".join(f"{i.width:,} x {i.height:,}" for row in images for i in row) or "none"
    return ImageInvalid(
        "the model's processor refuses it.",
        f"{str(error).splitlines()[0] if str(error) else type(error).__name__} (pictures: {sizes}).",
        "mend or delete the row; very long or narrow pictures are best cut into parts "
        "(`data.on_bad_rows: skip` leaves such rows out).",
    )
