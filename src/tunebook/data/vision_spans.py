"""Where the pictures of a row lie in its text and in its tokens, and what is learnt beside them.

Knows places only: no processor, no pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tunebook.data.masking import Encoded
from tunebook.data.rendering import Span


class ImageSpan(NamedTuple):
    """The tokens [start, end) of one picture, with all that frames them, and its size in pixels.

    `grid` is how many patches high and wide it is, for processors that say so.
    """

    start: int
    end: int
    width: int
    height: int
    grid: tuple[int, int] | None = None


@dataclass
class EncodedVision(Encoded):
    """One row with pictures as the model sees it; no token of a picture is ever learnt.

    `text` is what the tokenizer was given, pictures as the processor writes them. `pixels` is what
    the model gets besides `input_ids`, as tensors of this row alone; empty for a row of a batch.
    """

    images: list[ImageSpan] = field(default_factory=list)
    pixels: dict[str, Any] = field(default_factory=dict, repr=False)


Replaced = tuple[tuple[int, int], tuple[int, int]]
"""Where a picture's token stood in the rendered text, and where what replaces it stands."""


def with_images(encoded: Encoded, images: list[ImageSpan]) -> EncodedVision:
    """The same with its pictures, whose tokens are not learnt."""
    values = {name: getattr(encoded, name) for name in Encoded.__dataclass_fields__}
    values["learnt"] = list(_outside(encoded.learnt, images))
    if encoded.uncut is not None:
        values["uncut"] = list(_outside(encoded.uncut, images))
    return EncodedVision(**values, images=images)


def _outside(ranges: list[tuple[int, int]], images: list[ImageSpan]) -> Iterator[tuple[int, int]]:
    """The ranges without the tokens of pictures."""
    for first, last in ranges:
        for image in images:
            if first < image.end and image.start < last:
                if first < image.start:
                    yield first, image.start
                first = image.end
        if first < last:
            yield first, last


def moved(span: Span, places: list[Replaced]) -> Span:
    """A span of the rendered text, in the text whose pictures were written out."""
    return span._replace(start=_at(span.start, places), end=_at(span.end, places))


def _at(place: int, places: list[Replaced]) -> int:
    return place + sum(
        new[1] - new[0] - (old[1] - old[0]) for old, new in places if old[1] <= place
    )


def as_they_are(text: str, token: str) -> list[Replaced]:
    found, start = [], text.find(token)
    while start >= 0:
        here = (start, start + len(token))
        found.append((here, here))
        start = text.find(token, here[1])
    return found
