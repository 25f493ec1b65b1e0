"""Local text embedding: small length-sorted batches, bfloat16 where the CPU computes in it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index_instrumentation import get_dispatcher
from pydantic import Field, PrivateAttr

from llama_index_presets._extras import require
from llama_index_presets.embed.catalogue import EmbeddingModel, embedding_model
from llama_index_presets.embed.tokens import Tokenizer
from llama_index_presets.embed.weights import find_weights, weights_hash
from llama_index_presets.errors import ModelError, SettingsError
from llama_index_presets.events import EmbeddingUsageEvent

__all__ = ["LocalEmbedding", "cpu_computes_bfloat16"]

dispatcher = get_dispatcher(__name__)

Precision = Literal["auto", "float32", "bfloat16"]


def cpu_computes_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere it is slower than float32.

    Args:
        cpuinfo: Where Linux lists the CPU's flags; a missing file (other systems) means no.
    """
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))


class LocalEmbedding(BaseEmbedding):
    """A sentence-transformers model on this machine; never sends a text anywhere.

    Vectors are float lists of shape ``(dim,)`` with unit length. The model is loaded at first use and shared by
    all instances of the process with the same settings. Thread safe; async methods run off the event loop.

    Args:
        model_name: A name of the catalogue (``"all-MiniLM-L6-v2"``, ``"all-mpnet-base-v2"``), or the path of a
            folder in sentence-transformers format.
        precision: ``"auto"`` computes in bfloat16 where the hardware does, else in float32; vectors are float32
            and renormalised either way (cosine to float32: 0.9999).
        device: ``"cpu"``, ``"cuda"``, …; None chooses a GPU when there is one.
        allow_download: Whether the hub may be asked for weights that are not on this machine.
        compute_batch_size: Texts per forward pass, after sorting by length.

    Raises:
        SettingsError: Unknown model name.
        ModelError: At first use: weights missing or damaged, or a text longer than the model reads.

    Example:
        >>> from llama_index_presets.embed.local import LocalEmbedding
        >>> len(LocalEmbedding("all-MiniLM-L6-v2").get_text_embedding("Hello"))
        384
    """

    precision: Precision = "auto"
    device: str | None = None
    allow_download: bool = True
    compute_batch_size: int = Field(default=8, gt=0)
    _model: EmbeddingModel | None = PrivateAttr(default=None)

    def __init__(self, model_name: str = "all-MiniLM-L6-v2", **settings: Any) -> None:
        # Sorting by length pays over many texts, so hand all of them to one call.
        settings.setdefault("embed_batch_size", 512)
        super().__init__(model_name=model_name, **settings)
        self._model = None if Path(model_name).is_dir() else embedding_model(model_name)
        if self._model is not None and self._model.provider != "local":
            raise SettingsError(f"'{model_name}' is a model of {self._model.provider}, not a local one.")

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "LocalEmbedding"

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._model.dim if self._model else int(self._encoder.dim)

    @property
    def max_tokens(self) -> int:
        """Tokens that the model reads, special tokens included."""
        return self._model.max_tokens if self._model else self._encoder.max_tokens

    @property
    def vector_identity(self) -> str:
        """All that decides a vector: weights and precision. Found without loading the model."""
        weights = (
            self._model.sha256 or self._model.name if self._model else weights_hash(Path(self.model_name))
        )
        precision = self.precision
        if precision == "auto":
            precision = "bfloat16" if cpu_computes_bfloat16() else "float32"
        return f"local:{weights}:{precision}:{self.device or 'auto'}"

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in tokens of this model, special tokens included."""
        return self._tokenizer.count(texts)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text without special tokens: the tokenizer to give to a splitter."""
        return self._tokenizer.tokenize(text)

    @property
    def _tokenizer(self) -> Tokenizer:
        return _load_tokenizer(self.model_name, self.allow_download)

    @property
    def _encoder(self) -> _Encoder:
        return _load(self.model_name, self.precision, self.device, self.allow_download)

    def _embed(self, texts: list[str], *, kind: str = "text") -> list[list[float]]:
        lengths = self.count_tokens(texts)
        longest = max(lengths, default=0)
        if longest > self.max_tokens:
            raise ModelError(
                f"A {kind} has {longest:,} tokens; '{self.model_name}' reads {self.max_tokens:,} and would ignore "
                f"the rest. Shorten it, or split it with chunk_size={self.max_tokens - 2}."
            )
        vectors = self._encoder.encode(texts, self.compute_batch_size)
        dispatcher.event(
            EmbeddingUsageEvent(
                provider="local",
                model=self._model.name if self._model else Path(self.model_name).name,
                texts=len(texts),
                prompt_tokens=sum(lengths),
                usage_source="counted",
            )
        )
        return vectors.tolist()  # type: ignore[no-any-return]

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


class _Encoder:
    """A loaded sentence-transformers model; one lock, since its tokenizer keeps state between calls."""

    def __init__(self, folder: Path, precision: Precision, device: str | None) -> None:
        torch = require("torch", extra="local")
        sentence_transformers = require("sentence_transformers", extra="local")
        require(
            "transformers", extra="local"
        ).utils.logging.disable_progress_bar()  # it draws one per loaded model
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if _use_bfloat16(precision, device, torch) else torch.float32
        self._model = sentence_transformers.SentenceTransformer(
            str(folder), device=device, model_kwargs={"torch_dtype": dtype}, local_files_only=True
        )
        self._lock = threading.Lock()
        self.max_tokens = int(self._model.max_seq_length)
        self.dim = self._model.get_embedding_dimension()

    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        """Texts to unit vectors, float32, shape (n, dim). The library sorts the texts by length."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        with self._lock:
            tensors = self._model.encode(
                texts, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
            )
        vectors = tensors.float().cpu().numpy()
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _use_bfloat16(precision: Precision, device: str, torch: Any) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    return device == "cpu" and cpu_computes_bfloat16()


_loading = threading.Lock()


def _load(name: str, precision: Precision, device: str | None, allow_download: bool) -> _Encoder:
    with _loading:  # two threads must not load the same weights at once
        return _load_once(name, precision, device, allow_download)


@cache
def _load_once(name: str, precision: Precision, device: str | None, allow_download: bool) -> _Encoder:
    return _Encoder(_folder(name, allow_download), precision, device)


@cache
def _load_tokenizer(name: str, allow_download: bool) -> Tokenizer:
    return Tokenizer(_folder(name, allow_download))


@cache
def _folder(name: str, allow_download: bool) -> Path:
    folder = Path(name)
    return folder if folder.is_dir() else find_weights(embedding_model(name), allow_download=allow_download)
