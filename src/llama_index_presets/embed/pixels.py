"""Pixels as CLIP reads them: shortest edge scaled, the middle cut out, each channel normalised."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llama_index_presets.errors import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PixelRecipe", "read_pixel_recipe"]

# The constants of the original model, which its preprocessor_config.json repeats.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3
_STRIP = 8
"""A picture longer than this many times its width is cut to that first: scaled whole, it would be a bomb."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelRecipe:
    """What is done to an image before the model sees it.

    Attributes:
        edge: Length of the shortest edge after scaling, in pixels.
        side: Side of the square that is cut out of the middle, in pixels; what is outside is not seen.
        mean: Subtracted from each channel, on a scale of 0 to 1.
        std: Then divided by.
        resample: Pillow's number of the scaling filter.

    Example:
        >>> from PIL import Image
        >>> PixelRecipe(edge=8, side=8).array(Image.new("RGB", (30, 20))).shape
        (3, 8, 8)
    """

    edge: int = 224
    side: int = 224
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD
    resample: int = _BICUBIC

    def array(self, image: Image) -> npt.NDArray[np.float32]:
        """Pixels of an RGB image, shape (3, side, side)."""
        square = self._middle(self._scaled(_without_ends(image)))
        values = np.asarray(square, dtype=np.float32) / 255.0
        normal = (values - np.array(self.mean, dtype=np.float32)) / np.array(self.std, dtype=np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1))

    def _scaled(self, image: Image) -> Image:
        short = min(image.size)
        width, height = (
            self.edge if length == short else int(self.edge * length / short) for length in image.size
        )
        return image.resize((width, height), resample=self.resample)

    def _middle(self, image: Image) -> Image:
        left, top = (image.width - self.side) // 2, (image.height - self.side) // 2
        return image.crop((left, top, left + self.side, top + self.side))


def _without_ends(image: Image) -> Image:
    longest = _STRIP * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(length, longest) for length in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def read_pixel_recipe(folder: Path) -> PixelRecipe:
    """Read ``preprocessor_config.json`` (or ``processor_config.json``) of a CLIP folder.

    Raises:
        ModelError: There is none, or it is not that of a CLIP model.
    """
    try:
        config = _config(folder)
        size = config["size"]
        return PixelRecipe(
            edge=_side(size),
            side=_side(config.get("crop_size", size)),
            mean=tuple(config.get("image_mean", _MEAN)),
            std=tuple(config.get("image_std", _STD)),
            resample=int(config.get("resample", _BICUBIC)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"'{folder}' has no preprocessor_config.json of a CLIP model ({type(error).__name__}: {error}). "
            "Save the model with its image processor, or download it again."
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
            return dict(content.get("image_processor", content))
    raise FileNotFoundError("no such file")


def _side(size: Any) -> int:
    """Pixels of a square that the file gives as a number or as an object."""
    if isinstance(size, dict):
        return int(size["shortest_edge"] if "shortest_edge" in size else size["height"])
    return int(size)
