"""Pictures among the values of a row: told from other values, and stored in tables without pixels.

Knows Pillow's images and tables of the `datasets` library; opens nothing.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.images import is_pillow, open_image
from tunebook.data.turns import too_deep

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL import Image

_PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")


def looks_like_image(value: Any) -> bool:
    """Whether a row's value is a picture, by its kind alone; a text is one if it names such a file."""
    if isinstance(value, Mapping):
        held = {key for key, item in value.items() if item is not None}
        return bool(held) and held <= {"bytes", "path"}
    if isinstance(value, str):
        text = value.strip()
        return text.lower().endswith(_PICTURE_ENDINGS) or text.startswith("data:image/")
    return isinstance(value, bytes | bytearray) or is_pillow(value)


def stored_image(value: Image.Image) -> dict[str, Any]:
    """A Pillow image as a table stores it, `{"bytes", "path"}`: the path of a file not read yet."""
    name = getattr(value, "filename", "")
    unread = bool(getattr(value, "tile", None))  # what is read may have been changed since
    if name and unread and Path(name).is_file():
        return {"bytes": None, "path": str(Path(name).absolute())}
    written = io.BytesIO()
    keeps = value.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    (value if keeps else open_image(value)).save(written, "PNG")
    return {"bytes": written.getvalue(), "path": None}


def stored_images(row: Any) -> Any:
    """A row with every Pillow image in it as `stored_image`, but for those in rows without an end."""
    return _stored(row) if "PIL.Image" in sys.modules and too_deep(row) is None else row


def without_decoding(table: Dataset) -> Dataset:
    """The table over the same data, whose pictures come as `{"bytes", "path"}`, not as pixels."""
    import datasets

    def holds_pictures(feature: Any) -> bool:
        if isinstance(feature, dict | list):
            return any(map(holds_pictures, getattr(feature, "values", lambda: feature)()))
        return isinstance(feature, datasets.Image) or holds_pictures(
            getattr(feature, "feature", [])
        )

    if not holds_pictures(dict(table.features)):
        return table
    plain = table.data.table.replace_schema_metadata(None)
    mark = f"{table._fingerprint}-undecoded"
    return datasets.Dataset(plain, indices_table=table._indices, fingerprint=mark)


def _stored(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stored(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_stored(item) for item in value]
    return stored_image(value) if is_pillow(value) else value
