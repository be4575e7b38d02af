"""Pictures in every form that rows hold them, good and bad."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tunebook.data.image_storage import looks_like_image, stored_image
from tunebook.data.images import MOST_PIXELS, image_fixes, image_size, open_image
from tunebook.errors import ImageInvalid


def picture(size=(6, 5), mode="RGB", color=None):
    made = Image.new(mode, size, color if color is not None else 200)
    if mode == "RGB":
        made.putpixel((2, 1), (10, 20, 30))
    return made


def written(image, format="PNG", **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def empty_png(width, height):
    """The head of a PNG of any size, and nothing behind it."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def test_every_form_of_one_picture_gives_the_same_pixels(tmp_path):
    image = picture()
    raw = written(image)
    path = tmp_path / "a picture.png"
    path.write_bytes(raw)
    text = base64.b64encode(raw).decode()
    forms = [
        image,
        raw,
        bytearray(raw),
        path,
        str(path),
        f"file://{path}",
        {"bytes": raw, "path": None},
        {"bytes": None, "path": str(path)},
        {"type": "image", "image": raw},
        {"image_url": {"url": f"data:image/png;base64,{text}"}},
        f"data:image/png;base64,{text}",
        np.asarray(image),
    ]
    for form in forms:
        found = open_image(form)
        assert (found.mode, found.tobytes()) == ("RGB", image.tobytes()), form
        assert image_size(form) == (6, 5)
        assert image_fixes(form) == []


def test_a_relative_path_begins_at_the_folder_given(tmp_path):
    picture().save(tmp_path / "x.png")
    assert image_size("x.png", folder=tmp_path) == (6, 5)
    with pytest.raises(ImageInvalid, match=r"no file 'y.png'"):
        image_size("y.png", "Row 7", folder=tmp_path)


def test_base64_text_without_a_head_is_a_picture():
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    raw = written(Image.fromarray(noise))
    assert open_image(base64.b64encode(raw).decode()).tobytes() == noise.tobytes()


@pytest.mark.parametrize(
    ("mode", "color", "seen", "fix"),
    [
        ("CMYK", (0, 255, 255, 0), (255, 0, 0), "CMYK"),
        ("P", 0, (0, 0, 0), "palette"),
        ("L", 77, (77, 77, 77), None),
        ("1", 1, (255, 255, 255), None),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255), "white"),
        ("LA", (0, 255), (0, 0, 0), "white"),
        ("I;16", 65535, (255, 255, 255), "8 bits"),
        ("I", 257 * 100, (100, 100, 100), "8 bits"),
        ("F", 0.5, (128, 128, 128), "8 bits"),
    ],
)
def test_modes_are_brought_to_rgb_and_said(mode, color, seen, fix):
    image = Image.new(mode, (5, 5), color)
    if mode == "LA":
        image.putpixel((4, 4), (0, 0))  # one transparent point
    assert open_image(image).getpixel((0, 0)) == seen
    fixes = image_fixes(image)
    assert fixes == [] if fix is None else fix in fixes[0]


def test_black_ink_on_a_transparent_ground_stays_legible():
    ink = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    ink.putpixel((3, 3), (0, 0, 0, 255))
    seen = open_image(written(ink))
    assert seen.getpixel((3, 3)) == (0, 0, 0)
    assert seen.getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_jpeg_and_sixteen_bit_png_from_files():
    red = written(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert np.abs(np.array(open_image(red).getpixel((8, 8))) - (255, 0, 0)).max() <= 3
    deep = written(Image.fromarray(np.full((8, 8), 32768, np.uint16)))
    assert open_image(deep).getpixel((0, 0)) == (128, 128, 128)


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    gif = written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(gif).getpixel((1, 1)) == (255, 0, 0)
    assert image_fixes(gif)[0] == "the first of 3 frames is taken"


def test_a_photo_taken_sideways_is_turned_upright():
    image = picture((32, 16))
    image.paste((255, 0, 0), (0, 0, 8, 8))  # the left upper corner
    notes = Image.Exif()
    notes[0x0112] = 6  # to be turned clockwise
    photo = written(image, "JPEG", exif=notes, quality=100)
    assert image_size(photo) == (16, 32)
    upright = open_image(photo)
    assert upright.size == (16, 32)
    assert upright.getpixel((12, 3))[0] > 240  # now the right upper one
    assert upright.getpixel((12, 3))[1] < 30
    assert image_fixes(photo) == ["turned upright, as the camera noted"]


def test_giants_are_shrunk_and_the_size_is_known_before():
    giant = written(Image.new("L", (6000, 5000), 90), "JPEG")
    size = image_size(giant)
    assert size[0] * size[1] <= MOST_PIXELS
    assert open_image(giant).size == size
    assert image_fixes(giant) == [f"shrunk from 6,000 x 5,000 to {size[0]:,} x {size[1]:,} pixels"]


def test_tiny_ones_are_enlarged():
    line = Image.new("RGB", (40, 1))
    assert image_size(line) == open_image(line).size == (40, 4)
    assert image_fixes(line) == ["enlarged from 40 x 1 to 40 x 4 pixels"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "missing instead of a picture"),
        ("https://example.org/cat.png", "nothing is fetched"),
        ("s3://bucket/cat.png", "nothing is fetched"),
        ("nowhere/cat.png", "there is no file"),
        (b"", "0 bytes"),
        (b"certainly no picture", "no picture in a format"),
        (written(picture((50, 50)))[:80], "damaged or cut off"),
        (written(picture((50, 50)))[:20], "damaged|no picture"),
        (empty_png(30_000, 30_000), "30,000 x 30,000 pixels"),
        (Image.new("RGB", (0, 5)), "0 x 5 pixels"),
        ({"bytes": None, "path": None}, "instead of a picture"),
        (17, "instead of a picture"),
        ("x.y" * 5000, "there is no file"),
        ("a\0b", "there is no file"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_row(value, why):
    with pytest.raises(ImageInvalid, match=why) as caught:
        open_image(value, "Row 12 (counted from 0)")
    assert caught.value.what.startswith("Row 12 (counted from 0)")
    assert caught.value.do


def test_broken_pixels_behind_a_good_head_are_named():
    raw = bytearray(
        written(Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)))
    )
    raw[len(raw) // 2 :] = b"\0" * (len(raw) - len(raw) // 2)
    assert image_size(bytes(raw)) == (64, 64)
    with pytest.raises(ImageInvalid, match="damaged"):
        open_image(bytes(raw))


def test_what_looks_like_a_picture():
    assert looks_like_image(picture())
    assert looks_like_image(b"...")
    assert looks_like_image({"bytes": b"..", "path": None})
    assert looks_like_image("a/b.JPG")
    assert not looks_like_image("a sentence.")
    assert not looks_like_image({"role": "user"})
    assert not looks_like_image(None)


def test_a_stored_picture_reads_back(tmp_path):
    for mode in ("RGB", "L", "RGBA", "CMYK", "P", "F"):
        image = Image.new(mode, (5, 6))
        assert open_image(stored_image(image)).tobytes() == open_image(image).tobytes(), mode
    picture().save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as opened:
        assert stored_image(opened) == {"bytes": None, "path": str(tmp_path / "x.png")}
        opened.thumbnail((5, 4))  # is another picture than the file now
        assert open_image(stored_image(opened)).size == opened.size
