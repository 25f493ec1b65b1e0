"""Images as people have them become upright RGB, or an error that names the file."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.schema import ImageNode
from PIL import Image, PngImagePlugin

from llama_index_presets.errors import ImageError
from llama_index_presets.images import name_of, open_image

RED = (255, 0, 0)


def saved(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Path:
    path = tmp_path / name
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.webp", "a.gif", "a.bmp", "a.tif"])
def test_every_format_is_read(tmp_path: Path, name: str) -> None:
    """Seven kinds of file, the same picture."""
    opened = open_image(saved(tmp_path, Image.new("RGB", (40, 30), RED), name))
    assert (opened.width, opened.height, opened.pixels.mode, opened.frames) == (40, 30, "RGB", 1)
    assert np.abs(np.array(opened.pixels.getpixel((20, 15))) - RED).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    """Palette, grey, alpha, print colours, 16 and 32 bits."""
    assert open_image(Image.new(mode, (5, 5))).pixels.mode == "RGB"


def test_transparency_shows_white(tmp_path: Path) -> None:
    """A logo on nothing is not a logo on black; also where a palette says which colour is clear."""
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert open_image(clear).pixels.getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    path = saved(tmp_path, palette, "p.png", transparency=0)
    assert open_image(path).pixels.getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_keep_their_grey(tmp_path: Path) -> None:
    """Pillow's own conversion would make a mid grey white."""
    grey = Image.fromarray(np.full((4, 4), 32_768, dtype=np.uint16))
    assert open_image(saved(tmp_path, grey, "g.png")).pixels.getpixel((0, 0)) == (127, 127, 127)


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    """EXIF says that the camera was held sideways."""
    image = Image.new("RGB", (40, 20), RED)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "A red wall"
    opened = open_image(saved(tmp_path, image, "side.jpg", exif=exif))
    assert (opened.width, opened.height, opened.description) == (20, 40, "A red wall")


def test_a_description_is_read_from_png_text(tmp_path: Path) -> None:
    """What the file says of itself, in one line."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Description", "A pump\n with its valve")
    opened = open_image(saved(tmp_path, Image.new("RGB", (4, 4)), "d.png", pnginfo=info))
    assert opened.description == "A pump with its valve"


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    """And how many there are is known."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    opened = open_image(path)
    assert opened.frames == 3 and opened.pixels.getpixel((4, 4))[0] > 200


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no known format"),
        (b"plain text, named like a picture", "no known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no known format"),
        (bomb(60_000, 60_000), "decompression bomb or far too large"),
        (bomb(10_000, 9_000), r"has 10,000 × 9,000 pixels; at most 89,478,485"),
        (bomb(50, 50), r"cannot be (read|decoded)"),
    ],
    ids=["empty", "text", "postscript", "bomb", "large", "cut-off"],
)
def test_what_cannot_be_opened_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """Nothing of it is decoded, and no program is run on it."""
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        open_image(path)
    assert caught.value.source == str(path)


def test_half_a_photo_is_not_a_photo(tmp_path: Path) -> None:
    """A download that stopped is found when it is decoded, not shown half grey."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    buffer = BytesIO()
    noise.save(buffer, "JPEG")
    with pytest.raises(ImageError, match="cannot be read .*truncated"):
        open_image(buffer.getvalue()[:9000])


def test_more_pixels_can_be_allowed() -> None:
    """The limit is the caller's."""
    image = Image.new("L", (100, 100))
    with pytest.raises(ImageError, match="at most 9,999"):
        open_image(image, max_pixels=9_999)
    assert open_image(image, max_pixels=10_000).width == 100


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.com/a.png", "is a web address; nothing is fetched"),
        (ImageNode(id_="n1", image_url="https://example.com/a.png"), "'n1' has a web address only"),
        (ImageNode(id_="n1"), "'n1' is a node without an image"),
        (ImageNode(id_="n1", image="!!"), "'n1' is not base64"),
        ("nowhere/a.png", r"nowhere/a\.png' does not exist"),
        (3.5, "'float' is no image"),
    ],
)
def test_what_is_no_image_is_refused(source: object, message: str) -> None:
    """Nothing is fetched, and nothing is guessed."""
    with pytest.raises(ImageError, match=message):
        open_image(source)


def test_a_name_never_holds_content() -> None:
    """Messages name a path, a node or a kind."""
    assert (name_of(b"secret"), name_of(ImageNode(id_="n", image="c2VjcmV0"))) == ("bytes", "n")
