"""Which columns of a row hold pictures, and where in its conversation each of them stands.

Knows messages with marks for pictures; knows no pixels and no processor.
"""

from __future__ import annotations

import re
from typing import Any

from tunebook.data.image_storage import looks_like_image
from tunebook.data.turns import IMAGE_MARK, Message
from tunebook.errors import ImageInvalid, ImagesUnsupported

LITERAL = "<image>"
"""How LLaVA's data and its kin write the place of a picture in plain text."""

_NAMED = re.compile(r"image|img|picture|photo|figure|screenshot|scan", re.IGNORECASE)
_OTHER = re.compile(r"audio|speech|sound|video", re.IGNORECASE)
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def picture_columns(names: list[str], sample: list[dict[str, Any]]) -> list[str]:
    """The columns that hold pictures, or lists of them, by what stands in the first row that has any."""
    return [
        name
        for name in names
        if not _OTHER.search(name)
        and _is_picture(next((r[name] for r in sample if r.get(name) not in _EMPTY), None), name)
    ]


def place_images(
    messages: list[Message], row: dict[str, Any], columns: list[str], place: str
) -> tuple[list[Message], list[Any]]:
    """The messages with a mark for every picture, and the pictures' values in the same order.

    Pictures that stand in the parts of a turn stay there. Those of columns go, in order, where a
    part says `{"type": "image"}`, else where the text says `<image>`, else before the first question.

    Raises:
        ImageInvalid: there are more pictures than places, or fewer.
    """
    held = [image for message in messages for image in message.get("images", ())]
    messages = [{k: v for k, v in message.items() if k != "images"} for message in messages]
    given = _values(row, columns)
    if held:
        if all(image is not None for image in held):
            return messages, held
        empty = sum(image is None for image in held)
        if empty != len(given):
            raise _uneven(place, len(given), empty, 'parts `{"type": "image"}`')
        rest = iter(given)
        return messages, [next(rest) if image is None else image for image in held]
    if not columns:
        return messages, []
    literal = sum(m["content"].count(LITERAL) for m in messages if m["role"] != "assistant")
    if literal:
        if literal != len(given):
            raise _uneven(place, len(given), literal, f"places `{LITERAL}`")
        return [_marked(message) for message in messages], given
    if given:
        asked = next((i for i, m in enumerate(messages) if m["role"] == "user"), None)
        if asked is None:
            raise ImageInvalid(
                f"{place}: there is no turn for its pictures.",
                "no turn is a question of the user.",
                "give the row a question.",
            )
        first = messages[asked]
        marks = IMAGE_MARK * len(given)
        messages[asked] = {**first, "content": marks + first["content"]}
    return messages, given


def require_text(messages: list[Message], place: str) -> None:
    """Look that no turn holds a picture.

    Raises:
        ImagesUnsupported: naming the turn that does.
    """
    for turn, message in enumerate(messages):
        if "images" in message:
            raise ImagesUnsupported(
                f"{place} holds a picture.",
                f"turn {turn} holds {len(message['images'])}; this model reads text only.",
                "choose a vision model for such rows, or leave them out (`data.on_bad_rows: skip`).",
            )


def parts_of(content: str) -> list[dict[str, str]]:
    """Words with marks as content parts, `{"type": "image"}` and `{"type": "text", "text": ...}`."""
    parts: list[dict[str, str]] = []
    for number, text in enumerate(content.split(IMAGE_MARK)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": text}] if text else []
    return parts


def _is_picture(value: Any, name: str) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_picture(item, name) for item in value)
    if isinstance(value, str):
        return bool(_NAMED.search(name)) and looks_like_image(value)
    return looks_like_image(value)


def _values(row: dict[str, Any], columns: list[str]) -> list[Any]:
    """All pictures of a row, in the order of the columns."""
    found: list[Any] = []
    for name in columns:
        value = row.get(name)
        found += value if isinstance(value, list | tuple) else [value]
    return [value for value in found if not isinstance(value, str | None) or value]


def _marked(message: Message) -> Message:
    if message["role"] == "assistant" or LITERAL not in message["content"]:
        return message
    return {**message, "content": message["content"].replace(LITERAL, IMAGE_MARK)}


def _uneven(place: str, images: int, places: int, what: str) -> ImageInvalid:
    more = "more" if images > places else "fewer"
    return ImageInvalid(
        f"{place}: there are {more} pictures than places for them.",
        f"it has {images} pictures and {places} {what}.",
        "make them as many, or take the places out of the text: then the pictures stand before the "
        "first question.",
    )
