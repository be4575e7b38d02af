"""One picture, in whatever form a row holds it, as RGB pixels; and what had to be mended for that.

Knows files, bytes and Pillow; knows no model and no network: nothing is ever fetched.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebook.data.turns import describe
from tunebook.errors import ImageInvalid
from tunebook.models.vision_shape import fit_pixels

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 2**24
"""Larger pictures are shrunk to this when they are opened: no model looks at more (Qwen: 12.8 million)."""
DECODED_PIXELS = 178_956_970
"""Larger ones are not decoded (Pillow's own limit), except JPEG, which is read at a fraction."""
SMALLEST_SIDE = 4
"""Of a side of 1 or 3 pixels processors take it for the colours."""

_TURNED = range(2, 9)  # EXIF orientations other than upright; from 5 on the sides change places
_ORIENTATION = 0x0112
_DEEP = ("I", "F")  # how the modes with more than 8 bits a channel begin
_ADDRESS = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
_DATA_URL = re.compile(r"^data:[^,]*,")
_BASE64 = re.compile(r"^[A-Za-z0-9+/\s]{100,}={0,2}\s*$")
_LONGEST_PATH = 4096
_KEYS = ("bytes", "image", "image_url", "path", "url")


def open_image(
    value: Any, place: str = "The row", *, folder: Path | str | None = None
) -> Image.Image:
    """The pixels of a picture, mode RGB, upright, mended as `image_fixes` says.

    Args:
        value: a path, bytes, a Pillow image, `{"bytes", "path"}` as `datasets.Image` stores it, a
            data URL or base64 text, or an array (height, width[, channels]) of 8-bit values.
        place: which row, for the error.
        folder: where relative paths begin; None: the working directory.

    Raises:
        ImageInvalid: naming the row and why.
    """
    with _opened(value, place, folder) as picture:
        try:
            return _as_rgb(picture)
        except ImageInvalid:
            raise
        except Exception as error:  # decoders of strangers' files may raise anything
            raise _damaged(place, error) from error


def image_size(
    value: Any, place: str = "The row", *, folder: Path | str | None = None
) -> tuple[int, int]:
    """Width and height as `open_image` gives them, without decoding the pixels.

    Raises:
        ImageInvalid: as `open_image`, for what the head of a file shows.
    """
    with _opened(value, place, folder) as picture:
        return _final_size(picture)


def image_fixes(
    value: Any, place: str = "The row", *, folder: Path | str | None = None
) -> list[str]:
    """What `open_image` does to this picture besides reading it, in words; empty for most.

    Raises:
        ImageInvalid: as `image_size`.
    """
    with _opened(value, place, folder) as picture:
        fixes = []
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            fixes.append(f"the first of {frames} frames is taken")
        if _orientation(picture) in _TURNED:
            fixes.append("turned upright, as the camera noted")
        if picture.mode.startswith(_DEEP):
            fixes.append(f"brought from mode {picture.mode} to 8 bits a channel")
        elif picture.has_transparency_data:
            fixes.append("its transparent parts are laid on white")
        elif picture.mode not in ("RGB", "L", "1"):
            names = {"P": "a palette", "CMYK": "CMYK"}
            fixes.append(f"converted from {names.get(picture.mode, picture.mode)} to RGB")
        before, after = _upright_size(picture), _final_size(picture)
        if before != after:
            verb = "shrunk" if math.prod(before) > math.prod(after) else "enlarged"
            fixes.append(f"{verb} from {_by(before)} to {_by(after)} pixels")
        return fixes


def is_pillow(value: Any) -> bool:
    """Whether a value is a Pillow image, without importing Pillow for what is none."""
    return any(cls.__module__ == "PIL.Image" for cls in type(value).__mro__)


@contextmanager
def _opened(value: Any, place: str, folder: Path | str | None) -> Iterator[Image.Image]:
    """The picture, its pixels not decoded yet; a file that was opened here is closed after."""
    from PIL import Image

    if is_pillow(value):
        _require_size(value, place)
        yield value
        return
    if hasattr(value, "__array_interface__"):
        try:
            picture = Image.fromarray(value)
        except (TypeError, ValueError, OSError) as error:
            raise _wrong(place, f"an array cannot be one: {error}", _GIVE) from error
        _require_size(picture, place)
        yield picture
        return
    source = _source(value, place, folder)
    try:
        picture = _open(source)
    except Exception as error:
        raise _unopened(source, place, error) from error
    with picture:
        _require_size(picture, place)
        yield picture


def _open(source: Path | io.BytesIO) -> Image.Image:
    from PIL import Image, JpegImagePlugin, PngImagePlugin

    try:
        return Image.open(source)
    except Image.DecompressionBombError:  # its size is wanted all the same
        for kind in (PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile):
            try:
                if isinstance(source, io.BytesIO):
                    source.seek(0)
                return kind(source)
            except SyntaxError:
                continue
        raise


def _source(value: Any, place: str, folder: Path | str | None) -> Path | io.BytesIO:
    """The file or the bytes that a value means."""
    if isinstance(value, Mapping):
        found = next((value[key] for key in _KEYS if value.get(key) is not None), None)
        if found is None:
            raise _wrong(place, f"it holds {describe(dict(value))} instead of a picture", _GIVE)
        return _source(found, place, folder)
    if isinstance(value, bytes | bytearray | memoryview):
        if not len(value):
            raise _wrong(place, "it holds 0 bytes", "write the picture again, or delete the row")
        return io.BytesIO(bytes(value))
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str):
        raise _wrong(place, f"it holds {describe(value)} instead of a picture", _GIVE)
    if _DATA_URL.match(value):
        return _decoded(value.partition(",")[2], place)
    address = _ADDRESS.match(value)
    if address and address.group(1).lower() != "file":
        raise _wrong(
            place,
            f"it is the address {value[:100]}, and nothing is fetched from the network",
            "download the pictures first and name the files",
        )
    return _file(value.removeprefix("file://"), place, folder)


def _file(text: str, place: str, folder: Path | str | None) -> Path | io.BytesIO:
    path = Path(text).expanduser()
    short = len(text) < _LONGEST_PATH and "\0" not in text
    try:
        for found in [path] if folder is None else [Path(folder) / path, path]:
            if short and found.is_file():
                return found
    except OSError:  # such as a name that is too long
        pass
    path = path if folder is None else Path(folder) / path
    if _BASE64.match(text):
        return _decoded(text, place)
    near = f"{path.parent.absolute()} is a folder" if short and path.parent.is_dir() else ""
    near = f"; {near}, and holds no {path.name!r}" if near else ""
    raise _wrong(
        place,
        f"there is no file {text[:200]!r}{near}",
        "check the path; relative ones begin at the data file's folder, else at the working "
        "directory",
    )


def _decoded(text: str, place: str) -> io.BytesIO:
    try:
        return io.BytesIO(base64.b64decode(text, validate=False))
    except (binascii.Error, ValueError) as error:
        raise _wrong(place, f"its base64 text is damaged: {error}", _GIVE) from error


def _require_size(picture: Image.Image, place: str) -> None:
    width, height = picture.size
    if not width or not height:
        raise _wrong(place, f"it has {_by(picture.size)} pixels", "delete the row")
    if width * height > DECODED_PIXELS and picture.format != "JPEG":
        raise _wrong(
            place,
            f"it has {_by(picture.size)} pixels, and {picture.format or 'such a picture'} must be "
            f"decoded whole: {width * height * 3 / 2**30:.1f} GiB",
            f"shrink it below {DECODED_PIXELS:,} pixels, or cut it into parts",
        )


def _orientation(picture: Image.Image) -> int:
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # Pillow would decode it to look behind the pixels
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged notes of a camera are no reason to refuse the picture
        return 1


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    width, height = picture.size
    return (height, width) if _orientation(picture) >= 5 else (width, height)


def _final_size(picture: Image.Image) -> tuple[int, int]:
    width, height = fit_pixels(_upright_size(picture), max_pixels=MOST_PIXELS)
    return max(width, SMALLEST_SIDE), max(height, SMALLEST_SIDE)


def _as_rgb(picture: Image.Image) -> Image.Image:
    from PIL import Image, ImageOps

    size, orientation = _final_size(picture), _orientation(picture)
    if getattr(picture, "is_animated", False):
        picture.seek(0)
    if picture.format == "JPEG" and hasattr(picture, "draft"):
        picture.draft(picture.mode, size if orientation < 5 else size[::-1])
    rgb = _colours(picture)
    if orientation in _TURNED:
        rgb.getexif()[_ORIENTATION] = orientation
        rgb = ImageOps.exif_transpose(rgb)
    if rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.LANCZOS)
    return rgb


def _colours(picture: Image.Image) -> Image.Image:
    """A new RGB picture."""
    from PIL import Image

    if picture.mode.startswith(_DEEP):
        return _eight_bits(picture).convert("RGB")
    if picture.has_transparency_data:
        whole = picture.convert("RGBA")
        rgb = Image.new("RGB", whole.size, "white")
        rgb.paste(whole, mask=whole.getchannel("A"))
        return rgb
    return picture.copy() if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Greys of 16 or 32 bits, or of floats, over the range of 8 bits."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
    top = values.max(initial=0.0)
    if picture.mode.startswith("I;16"):
        top = 65535.0
    elif picture.mode == "I":
        top = next((limit for limit in (255.0, 65535.0) if top <= limit), top)
    elif top > 1.0:
        top = max(top, 255.0)
    else:
        top = 1.0
    return Image.fromarray((values.clip(0) * (255.0 / top)).round().astype(np.uint8), "L")


def _unopened(source: Path | io.BytesIO, place: str, error: Exception) -> ImageInvalid:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        what = f"{source.name!r}" if isinstance(source, Path) else "what it holds"
        why = f"{what} is no picture in a format that is known here"
        return _wrong(place, why, "write it as PNG or JPEG, or delete the row")
    return _damaged(place, error)


def _damaged(place: str, error: Exception) -> ImageInvalid:
    why = f"its file is damaged or cut off: {str(error) or type(error).__name__}"
    return _wrong(place, why, "write the picture again, or delete the row")


_GIVE = "give a path, bytes, a Pillow image or a data URL"


def _wrong(place: str, why: str, do: str) -> ImageInvalid:
    skip = " (`data.on_bad_rows: skip` leaves such rows out)"
    return ImageInvalid(f"{place}: the picture cannot be used.", f"{why}.", f"{do}{skip}.")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]:,} x {size[1]:,}"
