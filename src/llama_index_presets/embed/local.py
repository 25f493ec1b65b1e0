"""Local text embedding: small length-sorted batches, bfloat16 where the CPU computes in it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numkong
import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index_instrumentation import get_dispatcher
from pydantic import Field, PrivateAttr

from llama_index_presets._extras import require
from llama_index_presets._options import strict
from llama_index_presets.embed.catalogue import EmbeddingModel, embedding_model
from llama_index_presets.embed.huggingface_names import OFFICIAL, check_length, own_settings
from llama_index_presets.embed.tokens import Tokenizer
from llama_index_presets.embed.vectors import pooled
from llama_index_presets.embed.weights import find_weights, weights_hash
from llama_index_presets.errors import ModelError, SettingsError
from llama_index_presets.events import EmbeddingUsageEvent
from llama_index_presets.forks import TORCH
from llama_index_presets.loading import LoadOnce, loading

__all__ = [
    "Encoder",
    "EncoderPool",
    "LocalEmbedding",
    "Precision",
    "cpu_computes_bfloat16",
    "load_encoder",
    "load_pool",
]

# The loaded model behind `LocalEmbedding`: one precision, one device, here or in several processes.


Precision = Literal["auto", "float32", "bfloat16", "int8"]

_SLICE: Final = 64
"""Texts sent to a process at once: some seconds of work, so that all end at about the same time."""


def cpu_computes_bfloat16() -> bool:
    """Whether this x86 CPU multiplies bfloat16 in hardware; elsewhere it is slower than float32.

    `numkong` names the instruction sets by the processors that had them first: AVX512-BF16 came with AMD's Genoa, AMX
    with Intel's Sapphire Rapids.
    """
    has = numkong.get_capabilities()
    return bool(has.get("genoa") or has.get("sapphireamx"))


class Encoder:
    """A loaded sentence-transformers model; one lock, since its tokenizer keeps state between calls."""

    def __init__(self, folder: Path, precision: Precision, device: str) -> None:
        torch = require("torch", extra="local")
        sentence_transformers = require("sentence_transformers", extra="local")
        # It draws a bar for each loaded model.
        require("transformers", extra="local").utils.logging.disable_progress_bar()
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.precision = _resolved(precision, self.device, torch)
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        self._model = sentence_transformers.SentenceTransformer(
            str(folder), device=self.device, model_kwargs={"torch_dtype": dtype}, local_files_only=True
        )
        if self.precision == "int8":
            self._model = _quantized(self._model, torch)
        self._lock = threading.Lock()
        self.max_tokens = int(self._model.max_seq_length)
        self.dim = int(self._model.get_embedding_dimension())

    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        """Texts to unit vectors, float32, shape (n, dim). The library sorts the texts by length."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        TORCH.check()
        with self._lock:
            tensors = self._model.encode(
                texts, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
            )
        vectors = tensors.float().cpu().numpy()
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _resolved(precision: Precision, device: str, torch: Any) -> Precision:
    if precision == "int8" and device != "cpu":
        raise SettingsError(f"precision='int8' runs on the CPU, not on '{device}'. Use 'bfloat16' there.")
    if precision != "auto":
        return precision
    fast = torch.cuda.is_bf16_supported() if device.startswith("cuda") else cpu_computes_bfloat16()
    return "bfloat16" if fast and (device == "cpu" or device.startswith("cuda")) else "float32"


def _quantized(model: Any, torch: Any) -> Any:
    """Weights as int8, one scale a channel, but for layers that narrow.

    On MiniLM (cosine to float32): one scale a tensor 0.94, one a channel 0.98; with the narrowing layers of the
    feed-forward blocks left in float32, whose inputs have outliers, 0.99 at nearly the same speed.
    """
    quantization: Any = getattr(torch.ao, "quantization", None)
    if not hasattr(quantization, "quantize_dynamic"):
        raise ModelError(f"torch {torch.__version__} has no dynamic quantization. Use precision='float32'.")
    layers = {
        name: quantization.per_channel_dynamic_qconfig
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.in_features <= module.out_features
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it announces its own end, which the check above meets
        return quantization.quantize_dynamic(model, layers, dtype=torch.qint8)


class EncoderPool:
    """The same model in several processes, each with its share of the cores; thread safe.

    Args:
        folder: Of the model.
        precision: As of `LocalEmbedding`.
        device: As of `LocalEmbedding`.
        processes: How many, >= 2.
    """

    def __init__(self, folder: Path, precision: Precision, device: str, processes: int) -> None:
        threads = max((os.cpu_count() or 1) // processes, 1)
        # Spawned, not forked: a fork of a process with torch threads can hang.
        self._pool = ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin_worker,
            initargs=(folder, precision, device, threads),
        )
        self._run([([], 1)] * processes)  # so that each loads its model now, and not during the first batch

    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        """Texts to unit vectors, float32, shape (n, dim), in the order of the texts."""
        TORCH.check()  # the processes belong to the parent; a fork would wait for them for ever
        # Sorted here, so that each process pads little; longest first, so that none ends late.
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        slices = [order[start : start + _SLICE] for start in range(0, len(order), _SLICE)]
        vectors = np.concatenate(
            self._run([([texts[place] for place in places], batch_size) for places in slices])
        )
        result = np.empty_like(vectors)
        result[order] = vectors
        return result

    def _run(self, batches: Sequence[tuple[list[str], int]]) -> list[np.ndarray]:
        try:
            return [done.result() for done in [self._pool.submit(_work, *batch) for batch in batches]]
        except BrokenProcessPool as error:
            raise ModelError(
                "A process that embeds died: out of memory, or the program has no `if __name__ == '__main__':` around "
                "its start. Use fewer processes."
            ) from error


_worker: dict[str, Encoder] = {}


def _begin_worker(folder: Path, precision: Precision, device: str, threads: int) -> None:
    require("torch", extra="local").set_num_threads(threads)
    _worker["encoder"] = Encoder(folder, precision, device)


def _work(texts: list[str], batch_size: int) -> np.ndarray:
    return _worker["encoder"].encode(texts, batch_size)


def load_encoder(folder: Path, precision: Precision, device: str) -> Encoder:
    """Load a model, once in a process for the same settings.

    Raises:
        ModelError: The parent of this forked process has run a model.
    """
    TORCH.check()  # before the lock, which another thread of the parent may have held during the fork
    return _encoders(folder, precision, device)


def load_pool(folder: Path, precision: Precision, device: str, processes: int) -> EncoderPool:
    """Start the processes of a model, once for the same settings."""
    TORCH.check()
    return _pools(folder, precision, device, processes)


_encoders = LoadOnce(Encoder)
_pools = LoadOnce(EncoderPool)


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
        """Identity of the vectors: weights, precision, prefixes. Computed without loading the model."""
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
