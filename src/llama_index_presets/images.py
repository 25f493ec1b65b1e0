"""Image decoding: any format to plain RGB pixels, or an error that names the path.

Nothing is fetched: an image that is only a web address is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import BaseNode

from llama_index_presets._options import strict
from llama_index_presets.errors import ImageError
from llama_index_presets.packages.extras import require

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FORMATS", "MAX_PIXELS", "SUFFIXES", "OpenedImage", "is_image_file", "name_of", "open_image"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is opened, by Pillow's names; no format that runs a program."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""File names that are taken for images, in lower case."""

MAX_PIXELS = 89_478_485
"""Pixels above which an image is refused before it is decoded: 256 MiB of RGB, Pillow's own limit."""

_ORIENTATION, _DESCRIPTION = 0x0112, 0x010E  # EXIF tags
_DESCRIBED_IN = ("Description", "Title", "Comment", "comment")


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """An image, decoded.

    Attributes:
        pixels: Upright, 8-bit RGB, over white where it is transparent; the first frame of an animation.
        format: Pillow's name of the format, such as ``"PNG"``; empty for pixels that were given.
        frames: Frames of an animation or pages of a TIFF; 1 for a still image.
        description: What the file says it shows (EXIF or PNG text), or empty.
    """

    pixels: Image
    format: str
    frames: int
    description: str

    @property
    def width(self) -> int:
        """Pixels from left to right, upright."""
        return self.pixels.width

    @property
    def height(self) -> int:
        """Pixels from top to bottom, upright."""
        return self.pixels.height


def is_image_file(path: Path) -> bool:
    """Whether a file name has an image's extension.

    Example:
        >>> is_image_file(Path("holiday.JPG")), is_image_file(Path("notes.txt"))
        (True, False)
    """
    return path.suffix.lower() in SUFFIXES


@strict()
def open_image(source: Any, *, max_pixels: int = MAX_PIXELS) -> OpenedImage:
    """Decode an image completely.

    Args:
        source: A path, bytes, a binary file, a PIL image, an `ImageNode` or an `ImageDocument`.
        max_pixels: Larger images are refused before they are decoded.

    Raises:
        ImageError: It is missing, damaged, of no known format, larger than `max_pixels`, or only a web address.
        MissingExtraError: Pillow is not installed.

    Example:
        >>> from PIL import Image
        >>> open_image(Image.new("LA", (4, 2))).pixels.getpixel((0, 0))
        (255, 255, 255)
    """
    pil = require("PIL.Image", extra="clip")
    name = name_of(source)
    if isinstance(source, pil.Image):
        _check_size(source, name, max_pixels)
        return _guarded(name, lambda: _opened(source, ""))
    opened = _resolve(source, name)
    return _guarded(name, lambda: _decode(pil, opened, name, max_pixels))


def name_of(source: Any) -> str:
    """Name of an image in messages: its path where it has one, else its kind; never its content."""
    if isinstance(source, str | Path):
        text = str(source)
        return text if len(text) <= 500 else f"{text[:60]}…"
    if isinstance(source, BaseNode):
        return str(getattr(source, "image_path", None) or source.node_id)
    return str(getattr(source, "filename", "") or getattr(source, "name", "") or type(source).__name__)


def _resolve(source: Any, name: str) -> Path | BytesIO | Any:
    if isinstance(source, BaseNode):
        return _of_node(source, name)
    if isinstance(source, bytes | bytearray | memoryview):
        return BytesIO(source)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise ImageError(name, "is a web address; nothing is fetched. Download it and give the file.")
    if isinstance(source, str | Path):
        return Path(source)
    if hasattr(source, "read"):
        return source
    raise ImageError(name, "is no image: give a path, bytes, a PIL image, an ImageNode or an ImageDocument.")


def _of_node(node: Any, name: str) -> Path | BytesIO:
    encoded, path = getattr(node, "image", None), getattr(node, "image_path", None)
    if encoded:
        try:
            return BytesIO(base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError) as error:
            raise ImageError(name, "is not base64. Encode its bytes, or give image_path.") from error
    if path:
        return Path(path)
    if getattr(node, "image_url", None):
        raise ImageError(name, "has a web address only; nothing is fetched. Download it and give image_path.")
    raise ImageError(name, "is a node without an image. Give it image_path or image.")


def _guarded(name: str, decode: Callable[[], OpenedImage]) -> OpenedImage:
    """Run a decoder; any exception over a damaged file becomes one error with the file's name."""
    try:
        return decode()
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(name, "does not exist. Check the path.") from error
    except OSError as error:
        # Pillow says UnidentifiedImageError (an OSError) of a file that is of none of the formats.
        if type(error).__name__ == "UnidentifiedImageError":
            raise ImageError(
                name, f"is of no known format ({', '.join(FORMATS)}), or damaged. Convert or replace it."
            ) from error
        raise ImageError(name, f"cannot be read ({error}). It may be cut off or damaged.") from error
    except Exception as error:  # a decoder may fail in any way on a damaged file
        raise ImageError(name, f"cannot be decoded ({type(error).__name__}: {error}).") from error


def _decode(pil: Any, file: Any, name: str, max_pixels: int) -> OpenedImage:
    try:
        image = pil.open(file, formats=FORMATS)
    except pil.DecompressionBombError as error:
        raise ImageError(name, f"is a decompression bomb or far too large ({error}).") from error
    with image:
        _check_size(image, name, max_pixels)
        return _opened(image, image.format or "")


def _check_size(image: Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            name,
            f"has {width:,} × {height:,} pixels; at most {max_pixels:,} in all are decoded. "
            "Scale it down, or raise max_pixels.",
        )
    if not width * height:
        raise ImageError(name, f"has {width} × {height} pixels. Replace it.")


def _opened(image: Image, format_name: str) -> OpenedImage:
    frames = int(getattr(image, "n_frames", 1))
    if frames > 1:
        image.seek(0)
    image.load()
    described = _description(image)
    return OpenedImage(_rgb(_upright(image)), format_name, frames, described)


def _upright(image: Image) -> Image:
    ops = require("PIL.ImageOps", extra="clip")
    turned: Image = ops.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image
    return turned


def _rgb(image: Image) -> Image:
    """8-bit RGB; transparency shows white, and more than 8 bits keep their highest ones."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        pil = require("PIL.Image", extra="clip")
        image = image.convert("RGBA")
        return pil.alpha_composite(pil.new("RGBA", image.size, "white"), image).convert("RGB")  # type: ignore[no-any-return]
    return image.convert("RGB")


def _eight_bits(image: Image) -> Image:
    """Grey levels of 16 or more bits, as 8: converting them as they are would make nearly all of them white."""
    import numpy as np

    pil = require("PIL.Image", extra="clip")
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = 65_535.0 if image.mode != "F" and values.max(initial=0) > 255 else 255.0
    if image.mode == "F" and values.max(initial=0) <= 1:
        top = 1.0
    return pil.fromarray((np.clip(values / top, 0, 1) * 255).astype(np.uint8), mode="L")  # type: ignore[no-any-return]


def _description(image: Image) -> str:
    found = [image.info.get(key) for key in _DESCRIBED_IN] + [image.getexif().get(_DESCRIPTION)]
    for text in found:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        if isinstance(text, str) and text.strip(" \0\t\r\n"):
            return " ".join(text.replace("\0", " ").split())[:2_000]
    return ""
