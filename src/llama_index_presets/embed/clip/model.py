"""CLIP model loading and inference, from a folder of sentence-transformers or of transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llama_index_presets.embed.clip.towers import ClipTowers, open_towers
from llama_index_presets.embed.tokens import Tokenizer
from llama_index_presets.errors import ModelError
from llama_index_presets.inference.loading import LoadOnce

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "ClipCard",
    "ClipModel",
    "ClipTokenizer",
    "PixelRecipe",
    "load_clip",
    "load_clip_tokenizer",
    "read_clip_card",
]

# -- preprocessing of images ----------------------------------------------------------------------------------


# The constants of the original model, which its preprocessor_config.json repeats.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3
_STRIP = 8
"""A picture longer than this many times its width is cut to that first: scaled whole, it would be a bomb."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelRecipe:
    """Image preprocessing of a CLIP model.

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


def _read_pixel_recipe(folder: Path) -> PixelRecipe:
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


Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCard:
    """Model description read from a folder without loading the model.

    Attributes:
        folder: Where the weights, the tokenizer and the image processor lie.
        dim: Length of a vector.
        max_tokens: Tokens of text that it reads, special tokens included.
    """

    folder: Path
    dim: int
    max_tokens: int


def read_clip_card(folder: Path) -> ClipCard:
    """Read the model description of a folder.

    Args:
        folder: With ``config.json``, or with ``modules.json`` that names the folder which has it.

    Raises:
        ModelError: It holds no CLIP model.
    """
    inner = _inner(folder)
    try:
        config = json.loads((inner / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] != "clip":
            raise ModelError(
                f"'{folder}' holds a model of type '{config['model_type']}', not 'clip'. Text models: LocalEmbedding."
            )
        text = config["text_config"]
        return ClipCard(
            folder=inner,
            dim=int(config.get("projection_dim", 512)),
            max_tokens=int(text.get("max_position_embeddings", 77)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"'{folder}' holds no CLIP model ({type(error).__name__}: {error}). Give a folder with config.json, in the "
            "format of transformers or sentence-transformers."
        ) from error


def _inner(folder: Path) -> Path:
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return folder / str(modules[0]["path"])
    except (OSError, ValueError, LookupError, TypeError):
        return folder


class ClipTokenizer(Tokenizer):
    """The tokenizer of a CLIP folder; see `ClipCard.folder`."""

    def padded(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids and mask, shape (texts, tokens); a text is padded with its own last token, which ends it."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        length = max(len(encoding.ids) for encoding in encodings)
        ids = np.array(
            [[*one.ids, *[one.ids[-1]] * (length - len(one.ids))] for one in encodings], dtype=np.int64
        )
        mask = np.array(
            [[1] * len(one.ids) + [0] * (length - len(one.ids)) for one in encodings], dtype=np.int64
        )
        return ids, mask


class ClipModel:
    """A loaded CLIP model; threads may share it.

    Args:
        card: Which one.
        towers: What runs it.
    """

    def __init__(self, card: ClipCard, towers: ClipTowers) -> None:
        self.card = card
        self.recipe = _read_pixel_recipe(card.folder)
        self._towers = towers
        self._tokenizer = load_clip_tokenizer(card.folder)

    def encode_texts(self, texts: Sequence[str], batch_size: int) -> Vectors:
        """Texts to unit vectors, shape (n, dim), in the order given; sorted by length meanwhile."""
        order = np.argsort([-len(text) for text in texts], kind="stable")
        parts = self._towers.run(
            lambda places: self._towers.texts(*self._tokenizer.padded([texts[i] for i in places])),
            _batches(order, batch_size),
        )
        return _in_order(parts, order, self.card.dim)

    def encode_images(self, images: Sequence[Image], batch_size: int) -> Vectors:
        """RGB images to unit vectors, shape (n, dim)."""
        order = np.arange(len(images))
        parts = self._towers.run(
            lambda places: self._towers.images(np.stack([self.recipe.array(images[i]) for i in places])),
            _batches(order, batch_size),
        )
        return _in_order(parts, order, self.card.dim)


def _batches(order: npt.NDArray[np.intp], size: int) -> list[npt.NDArray[np.intp]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _in_order(parts: list[Vectors], order: npt.NDArray[np.intp], dim: int) -> Vectors:
    vectors = np.zeros((len(order), dim), dtype=np.float32)
    if parts:
        joined = np.concatenate(parts)
        vectors[order] = joined / np.linalg.norm(joined, axis=1, keepdims=True)
    return vectors


def load_clip(card: ClipCard, device: str | None, backend: str = "auto") -> ClipModel:
    """The model of a folder, loaded once a process, device and backend.

    Raises:
        ModelError: It is torch's, and the parent of this forked process has run a model on torch.
    """
    return _models(card, device, backend)


def _load(card: ClipCard, device: str | None, backend: str) -> ClipModel:
    return ClipModel(card, open_towers(card.folder, device, backend))


_models = LoadOnce(_load)


@cache
def load_clip_tokenizer(folder: Path) -> ClipTokenizer:
    """The tokenizer of a folder, loaded once a process."""
    return ClipTokenizer(folder)
