"""CachedMultiModalEmbedding: a model of texts and images behind a cache that finds images by their bytes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.embeddings.multi_modal_base import MultiModalEmbedding

from llama_index_presets._options import strict
from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.embed.cached import CachedEmbedding

__all__ = ["CachedMultiModalEmbedding"]


@strict()
class CachedMultiModalEmbedding(CachedEmbedding, MultiModalEmbedding):
    """`CachedEmbedding` for a `MultiModalEmbedding`, such as `ClipEmbedding`: images are looked up, too.

    An image is found by the bytes of its file, so a renamed or copied file is not computed again. One without bytes of
    a file, such as a PIL image that a program drew, goes to the model. Arguments and errors are those of
    `CachedEmbedding`.

    Example:
        >>> import tempfile
        >>> from llama_index_presets.embed.cache import EmbeddingCache
        >>> from llama_index_presets.embed.clip import ClipEmbedding
        >>> model = CachedMultiModalEmbedding(ClipEmbedding("clip-ViT-B-32"), EmbeddingCache(tempfile.mkdtemp()))
        >>> model.missing_images([b"the bytes of a picture", b"the bytes of a picture"])
        [0]
    """

    def __init__(self, inner: BaseEmbedding, cache: EmbeddingCache, **settings: Any) -> None:
        super().__init__(inner, cache, **settings)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "CachedMultiModalEmbedding"

    def missing_images(self, images: Sequence[Any]) -> list[int]:
        """Tell which images would have to be computed: their positions, repetitions left out."""
        contents = [bytes_of(image) for image in images]
        places = [place for place, content in enumerate(contents) if content is not None]
        keys = self.cache.keys(self.identity, "image", [contents[place] or b"" for place in places])
        known = self.cache.contains_many(list(dict.fromkeys(keys)))
        new = {
            key: place
            for key, place in zip(reversed(keys), reversed(places), strict=True)
            if key not in known
        }
        drawn = [place for place, content in enumerate(contents) if content is None]
        return sorted([*new.values(), *drawn])

    def get_image_embedding(self, img_file_path: Any) -> Embedding:
        """Embed one image, of any kind that the model takes."""
        return self.get_image_embedding_batch([img_file_path])[0]

    def get_image_embedding_batch(
        self, img_file_paths: list[Any], show_progress: bool = False
    ) -> list[Embedding]:
        """Embed images; those that are new go to the model's own batch method."""
        inner: Any = self.inner
        contents = [bytes_of(image) for image in img_file_paths]
        drawn = [image for image, content in zip(img_file_paths, contents, strict=True) if content is None]
        of_drawn = iter(inner.get_image_embedding_batch(drawn, show_progress) if drawn else [])

        # The model is given what the caller gave, whose path its errors name.
        of = {
            content: image
            for content, image in zip(contents, img_file_paths, strict=True)
            if content is not None
        }

        def compute(new: list[bytes]) -> list[Embedding]:
            found: list[Embedding] = inner.get_image_embedding_batch(
                [of[content] for content in new], show_progress
            )
            return found

        files = [content for content in contents if content is not None]
        of_files = iter(self._through(files, "image", compute) if files else [])
        return [next(of_drawn if content is None else of_files) for content in contents]

    async def aget_image_embedding(self, img_file_path: Any) -> Embedding:
        """`get_image_embedding`, without blocking the event loop."""
        return await asyncio.to_thread(self.get_image_embedding, img_file_path)

    async def aget_image_embedding_batch(
        self, img_file_paths: list[Any], show_progress: bool = False
    ) -> list[Embedding]:
        """`get_image_embedding_batch`, without blocking the event loop."""
        return await asyncio.to_thread(self.get_image_embedding_batch, img_file_paths, show_progress)

    def _get_image_embedding(self, img_file_path: Any) -> Embedding:
        return self.get_image_embedding(img_file_path)

    async def _aget_image_embedding(self, img_file_path: Any) -> Embedding:
        return await self.aget_image_embedding(img_file_path)


def bytes_of(image: Any) -> bytes | None:
    """The bytes of an image's file; None where it has none, or none that can be read: the model says what is wrong."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, BytesIO):
        return image.getvalue()
    if encoded := getattr(image, "image", None):
        return _decoded(encoded)
    path = image if isinstance(image, str | Path) else getattr(image, "image_path", None)
    try:
        return Path(path).read_bytes() if path else None
    except (OSError, ValueError):
        return None


def _decoded(encoded: Any) -> bytes | None:
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        return None
