"""CLIP embedding: text and images in one vector space, on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from llama_index.core.embeddings.multi_modal_base import MultiModalEmbedding
from llama_index_instrumentation import get_dispatcher
from pydantic import Field, PrivateAttr

from llama_index_presets._options import strict
from llama_index_presets.counting import counted
from llama_index_presets.embed.catalogue import EmbeddingModel, embedding_model
from llama_index_presets.embed.clip.model import (
    ClipCard,
    ClipModel,
    ClipTokenizer,
    load_clip,
    load_clip_tokenizer,
    read_clip_card,
)
from llama_index_presets.embed.threaded import ThreadedEmbedding
from llama_index_presets.embed.weights import find_weights
from llama_index_presets.errors import ModelError, SettingsError
from llama_index_presets.events import EmbeddingUsageEvent
from llama_index_presets.images import MAX_PIXELS, open_image
from llama_index_presets.inference.loading import loading

__all__ = ["ClipEmbedding"]

dispatcher = get_dispatcher(__name__)


@strict()
class ClipEmbedding(ThreadedEmbedding, MultiModalEmbedding):
    """A CLIP model on this machine; never sends a text or an image anywhere.

    Vectors are float lists of shape ``(dim,)`` with unit length; those of texts and of images can be compared. The
    model is loaded at first use and shared by all instances of the process. Thread safe; async methods run off the
    event loop.

    An image is a path, bytes, a binary file, a PIL image, an `ImageNode` or an `ImageDocument`. It is turned upright
    (EXIF), put over white where it is transparent, and of an animation the first frame is taken. The model sees the
    middle square of it.

    Args:
        model_name: A CLIP model of the catalogue (``"clip-ViT-B-32"``), or the path of a folder in the format of
            sentence-transformers or transformers.
        backend: ``"onnx"`` runs both towers on ONNX Runtime, in float32 on the CPU, without torch; ``"torch"`` on
            transformers; ``"auto"`` takes the former, and torch where there is a GPU.
        device: ``"cpu"``, ``"cuda"``, …; None chooses a GPU when there is one.
        allow_download: Whether the hub may be asked for weights that are not on this machine.
        compute_batch_size: Texts or images per forward pass.
        max_pixels: Larger images are refused before they are decoded.

    Raises:
        SettingsError: Unknown model name, or a model that reads text only.
        ModelError: At first use: weights missing or damaged, or a text longer than the model reads.
        ImageError: An image that cannot be read; names the file.

    Example:
        >>> from llama_index_presets.embed.clip.embedding import ClipEmbedding
        >>> ClipEmbedding("clip-ViT-B-32").max_tokens
        77
    """

    backend: Literal["auto", "onnx", "torch"] = "auto"
    device: str | None = None
    allow_download: bool = True
    compute_batch_size: int = Field(default=16, gt=0)
    max_pixels: int = Field(default=MAX_PIXELS, gt=0)
    _model: EmbeddingModel | None = PrivateAttr(default=None)

    def __init__(self, model_name: str = "clip-ViT-B-32", **settings: Any) -> None:
        settings.setdefault("embed_batch_size", 64)
        super().__init__(model_name=str(model_name), **settings)
        self._model = None if Path(model_name).is_dir() else embedding_model(str(model_name))
        if self._model is not None and self._model.modality != "image":
            raise SettingsError(f"'{model_name}' reads text only. Use LocalEmbedding, or a CLIP model.")

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "ClipEmbedding"

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._model.dim if self._model else self._card.dim

    @property
    def vector_identity(self) -> str:
        """Identity of the vectors: the model of the catalogue, or the current files of the folder."""
        if self._model is not None:
            return f"ClipEmbedding:{self._model.name}:{self._model.dim}"
        files = sorted(path for path in self._card.folder.rglob("*") if path.is_file())
        stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return f"ClipEmbedding:{self._card.folder}:{stamps}"

    @property
    def max_tokens(self) -> int:
        """Tokens of text that the model reads, special tokens included."""
        return self._model.max_tokens if self._model else self._card.max_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in tokens of this model, special tokens included."""
        return self._tokenizer.count(texts)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text without special tokens: the tokenizer to give to a splitter."""
        return self._tokenizer.tokenize(text)

    def check_weights(self) -> None:
        """Check that the weights are on this machine and are those of the model.

        Raises:
            ModelError: They are missing, or make vectors of another length.
        """
        card = self._card
        if card.dim != self.dim:
            raise ModelError(
                f"'{card.folder}' makes vectors of {card.dim} numbers; '{self.model_name}' makes {self.dim}. It is "
                "another model: give its folder as the model's name."
            )

    @property
    def _card(self) -> ClipCard:
        return _read_card(self.model_name, self.allow_download)

    @property
    def _tokenizer(self) -> ClipTokenizer:
        return load_clip_tokenizer(self._card.folder)

    @property
    def _clip(self) -> ClipModel:
        with loading(self._name, "embedding"):
            self.check_weights()
            _ = self._tokenizer  # read by the first call as well: part of the load
            return load_clip(self._card, self.device, self.backend)

    def _embed_texts(self, texts: Sequence[str], *, kind: str = "text") -> list[list[float]]:
        model = self._clip
        lengths = self.count_tokens(texts)
        longest = max(lengths, default=0)
        if longest > self.max_tokens:
            raise ModelError(
                f"A {kind} has {counted(longest, 'token')}; '{self._name}' reads {self.max_tokens:,} and would "
                f"ignore the rest. Shorten it, or split it with chunk_size={self.max_tokens - 2}."
            )
        vectors = model.encode_texts(texts, self.compute_batch_size)
        self._used(len(texts), sum(lengths))
        return vectors.tolist()  # type: ignore[no-any-return]

    def _embed_images(self, images: Sequence[Any]) -> list[list[float]]:
        model, found = self._clip, []
        for start in range(0, len(images), self.compute_batch_size):  # decoded pixels of one batch at a time
            batch = images[start : start + self.compute_batch_size]
            pixels = [open_image(image, max_pixels=self.max_pixels).pixels for image in batch]
            found += model.encode_images(pixels, self.compute_batch_size).tolist()
        self._used(len(images), 0)
        return found

    def _used(self, inputs: int, tokens: int) -> None:
        dispatcher.event(
            EmbeddingUsageEvent(
                provider="local",
                model=self._name,
                texts=inputs,
                prompt_tokens=tokens,
                usage_source="counted",
            )
        )

    @property
    def _name(self) -> str:
        return self._model.name if self._model else Path(self.model_name).name

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed_texts([query], kind="query")[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed_texts([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed_texts(texts)

    def _get_image_embedding(self, img_file_path: Any) -> list[float]:
        return self._embed_images([img_file_path])[0]

    def _get_image_embeddings(self, img_file_paths: list[Any]) -> list[list[float]]:
        return self._embed_images(img_file_paths)

    async def _aget_image_embedding(self, img_file_path: Any) -> list[float]:
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)

    async def _aget_image_embeddings(self, img_file_paths: list[Any]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_image_embeddings, img_file_paths)


@cache
def _read_card(name: str, allow_download: bool) -> ClipCard:
    folder = Path(name)
    if not folder.is_dir():
        folder = find_weights(embedding_model(name), allow_download=allow_download)
    return read_clip_card(folder.resolve())
