"""Local text embedding: small length-sorted batches, bfloat16 where the CPU computes in it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index_instrumentation import get_dispatcher
from pydantic import Field, PrivateAttr

from llama_index_presets._options import strict
from llama_index_presets.embed.catalogue import EmbeddingModel, embedding_model
from llama_index_presets.embed.encoder import (
    Encoder,
    EncoderPool,
    Precision,
    cpu_computes_bfloat16,
    load_encoder,
    load_pool,
)
from llama_index_presets.embed.huggingface_names import OFFICIAL, check_length, own_settings
from llama_index_presets.embed.tokens import Tokenizer
from llama_index_presets.embed.vectors import pooled
from llama_index_presets.embed.weights import find_weights, weights_hash
from llama_index_presets.errors import ModelError, SettingsError
from llama_index_presets.events import EmbeddingUsageEvent
from llama_index_presets.loading import loading

__all__ = ["LocalEmbedding", "cpu_computes_bfloat16"]

dispatcher = get_dispatcher(__name__)
_ON_CPU: Final = 8  # texts of a forward pass: few, so that little is padded and the caches hold them
_ON_GPU: Final = 128
_WORTH_PROCESSES: Final = 128
"""Texts below which sending them to other processes costs more than it gives."""


@strict(also=OFFICIAL)
class LocalEmbedding(BaseEmbedding):
    """A sentence-transformers model on this machine; never sends a text anywhere.

    Vectors are float lists of shape ``(dim,)`` with unit length. The model is loaded at first use and shared by
    all instances of the process with the same settings. Thread safe; async methods run off the event loop.

    Args:
        model_name: A local model of the catalogue (``"all-MiniLM-L6-v2"``, ``"all-mpnet-base-v2"``, one of your own),
            or the path of a folder in sentence-transformers format.
        precision: ``"auto"`` computes in bfloat16 where the hardware does, else in float32; vectors are float32
            and renormalised either way (cosine to float32: 0.9999). ``"int8"`` is for CPUs without bfloat16: faster
            than float32, and further from it (MiniLM: cosine 0.99); see `agreement`.
        device: ``"cpu"``, ``"cuda"``, …; None chooses a GPU when there is one.
        allow_download: Whether the hub may be asked for weights that are not on this machine.
        compute_batch_size: Texts per forward pass, after sorting by length; None takes 8 on a CPU, 128 elsewhere.
        processes: Processes that embed large batches, each with its own copy of the model; for CPUs of many cores.
            They are spawned, so a script needs its ``if __name__ == "__main__":``.
        long_text: What becomes of a text that is longer than the model reads: ``"refuse"`` raises; ``"pool"`` embeds
            its pieces and takes their mean, weighted by tokens, at unit length.
        query_prefix: Put before questions, for models that need it; None takes the catalogue's.
        passage_prefix: Put before passages.
        **settings: What `BaseEmbedding` takes, and the names of `HuggingFaceEmbedding`: ``query_instruction`` and
            ``text_instruction`` are the prefixes, ``local_files_only=True`` is ``allow_download=False``; what cannot
            be honoured, such as ``normalize=False``, is refused with the reason and the way to get it.

    Raises:
        SettingsError: Unknown model name; an option that is unknown (the message names the nearest) or cannot be
            honoured.
        ModelError: At first use: weights missing or damaged, or a text longer than the model reads.

    Example:
        >>> from llama_index_presets.embed.local import LocalEmbedding
        >>> len(LocalEmbedding("all-MiniLM-L6-v2").get_text_embedding("Hello"))
        384
    """

    precision: Precision = "auto"
    device: str | None = None
    allow_download: bool = True
    compute_batch_size: int | None = Field(default=None, gt=0)
    processes: int = Field(default=1, ge=1)
    long_text: Literal["refuse", "pool"] = "refuse"
    query_prefix: str | None = None
    passage_prefix: str | None = None
    _model: EmbeddingModel | None = PrivateAttr(default=None)

    def __init__(self, model_name: str = "all-MiniLM-L6-v2", **settings: Any) -> None:
        settings = own_settings(settings)
        max_length = settings.pop("max_length", None)
        # Sorting by length pays over many texts, so hand all of them to one call.
        settings.setdefault("embed_batch_size", 512 if settings.get("processes", 1) == 1 else 2048)
        super().__init__(model_name=model_name, **settings)
        self._model = None if Path(model_name).is_dir() else embedding_model(model_name)
        if self._model is not None and self._model.provider != "local":
            raise SettingsError(f"'{model_name}' is a model of {self._model.provider}, not a local one.")
        check_length(max_length, model_name, self._model.max_tokens if self._model else None)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "LocalEmbedding"

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._model.dim if self._model else self._encoder.dim

    @property
    def max_tokens(self) -> int:
        """Tokens of a passage that the model reads, special tokens included and its prefix left out."""
        whole = self._model.max_tokens if self._model else self._encoder.max_tokens
        prefix = self._prefix("passage")
        return whole - (len(self.tokenize(prefix)) if prefix else 0)

    @property
    def vector_identity(self) -> str:
        """All that decides a vector: weights, precision, prefixes. Found without loading the model."""
        own = self._model.path if self._model else self.model_name
        known = (self._model.sha256 or self._model.name) if self._model else ""
        weights = weights_hash(Path(own).expanduser()) if own else known
        precision = self.precision
        if precision == "auto":
            precision = "bfloat16" if cpu_computes_bfloat16() else "float32"
        prefixes = [self._prefix("query"), self._prefix("passage")]
        more = f":{prefixes}" if any(prefixes) else ""
        return f"local:{weights}:{precision}:{self.device or 'auto'}{more}"

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in tokens of this model, special tokens included."""
        return self._tokenizer.count(texts)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text without special tokens: the tokenizer to give to a splitter."""
        return self._tokenizer.tokenize(text)

    def agreement(self, texts: Sequence[str]) -> tuple[float, float]:
        """Measure how close this precision comes to float32 on texts of yours.

        Args:
            texts: Passages that the model can read; 50 to 100 give a fair picture.

        Returns:
            Mean and least cosine between the vectors, at most 1.
        """
        exact = load_encoder(self._folder, "float32", self.device or "auto").encode(list(texts), _ON_CPU)
        own = self._encoder.encode(list(texts), self._batch_size)
        cosines = np.sum(exact.astype(np.float64) * own, axis=1)
        return float(cosines.mean()), float(cosines.min())

    @property
    def _folder(self) -> Path:
        return _find(self.model_name, self.allow_download)

    @property
    def _tokenizer(self) -> Tokenizer:
        return _load_tokenizer(self._folder)

    @property
    def _encoder(self) -> Encoder:
        with loading(self._name, "embedding"):
            _ = self._tokenizer  # read by the first call as well: part of the load
            return load_encoder(self._folder, self.precision, self.device or "auto")

    @property
    def _pool(self) -> EncoderPool:
        with loading(self._name, "embedding"):
            return load_pool(self._folder, self.precision, self.device or "auto", self.processes)

    @property
    def _name(self) -> str:
        return self._model.name if self._model else Path(self.model_name).name

    @property
    def _batch_size(self) -> int:
        on_cpu = (self.device or self._encoder.device) == "cpu"
        return self.compute_batch_size or (_ON_CPU if on_cpu else _ON_GPU)

    def _prefix(self, kind: str) -> str:
        own = self.query_prefix if kind == "query" else self.passage_prefix
        if own is not None or self._model is None:
            return own or ""
        return self._model.query_prefix if kind == "query" else self._model.passage_prefix

    # -- embedding ------------------------------------------------------------------------------------------------

    def _embed(self, texts: list[str], *, kind: str = "passage") -> list[list[float]]:
        if self.processes == 1:
            _ = self._encoder  # loaded before anything is counted, so that all of it is one load
        prefix = self._prefix(kind)
        lengths = self.count_tokens([prefix + text for text in texts] if prefix else texts)
        most = self._model.max_tokens if self._model else self._encoder.max_tokens
        pieces = [
            [prefix + text] if length <= most else self._cut(text, length, most, kind)
            for text, length in zip(texts, lengths, strict=True)
        ]
        vectors = self._encode([piece for text in pieces for piece in text])
        if len(vectors) > len(texts):
            vectors = self._joined(pieces, vectors)
        dispatcher.event(
            EmbeddingUsageEvent(
                provider="local",
                model=self._name,
                texts=len(texts),
                prompt_tokens=sum(lengths),
                usage_source="counted",
            )
        )
        return vectors.tolist()  # type: ignore[no-any-return]

    def _encode(self, texts: list[str]) -> np.ndarray:
        if self.processes == 1 or len(texts) < _WORTH_PROCESSES:
            return self._encoder.encode(texts, self._batch_size)
        return self._pool.encode(texts, self.compute_batch_size or _ON_CPU)

    def _cut(self, text: str, length: int, most: int, kind: str) -> list[str]:
        if self.long_text == "refuse":
            raise ModelError(
                f"A {'query' if kind == 'query' else 'text'} has {length:,} tokens; '{self.model_name}' reads {most:,} "
                f"and would ignore the rest. Shorten it, split it with chunk_size={most - 2}, or embed its pieces and "
                'take their mean with long_text="pool".'
            )
        prefix = self._prefix(kind)
        room = most - (len(self.tokenize(prefix)) if prefix else 0)
        return [prefix + piece for piece in self._tokenizer.pieces(text, room)]

    def _joined(self, pieces: Sequence[Sequence[str]], vectors: np.ndarray) -> np.ndarray:
        found, place = [], 0
        for text in pieces:
            own = vectors[place : place + len(text)]
            place += len(text)
            found.append(own[0] if len(text) == 1 else pooled(own, self.count_tokens(text)))
        return np.stack(found)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([query], kind="query")[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


_finding = threading.Lock()


def _find(name: str, allow_download: bool) -> Path:
    with _finding:  # two threads must not download or verify the same weights at once
        return _find_once(name, allow_download)


@cache
def _find_once(name: str, allow_download: bool) -> Path:
    folder = Path(name)
    return folder if folder.is_dir() else find_weights(embedding_model(name), allow_download=allow_download)


@cache
def _load_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)
