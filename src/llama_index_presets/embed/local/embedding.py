"""Local text embedding on ONNX Runtime or torch: small length-sorted batches, texts of any length."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from llama_index_instrumentation import get_dispatcher
from pydantic import Field, PrivateAttr

from llama_index_presets._options import strict
from llama_index_presets.counting import counted
from llama_index_presets.embed.catalogue import EmbeddingModel, embedding_model
from llama_index_presets.embed.local.encoders import (
    Encoder,
    EncoderPool,
    Precision,
    backend_of,
    load_encoder,
    load_pool,
    moves_for_long_runs,
)
from llama_index_presets.embed.local.huggingface_names import (
    OFFICIAL,
    OfficialAttributes,
    check_length,
    own_settings,
    usual_instruction,
)
from llama_index_presets.embed.threaded import ThreadedEmbedding
from llama_index_presets.embed.tokens import Tokenizer
from llama_index_presets.embed.vectors import pooled
from llama_index_presets.embed.weights import find_hub_model, find_weights, weights_hash
from llama_index_presets.errors import ModelError, SettingsError
from llama_index_presets.events import EmbeddingUsageEvent
from llama_index_presets.inference.backends import Backend, Choice
from llama_index_presets.inference.graph_writer import INT8_BLOCK
from llama_index_presets.inference.loading import loading
from llama_index_presets.inference.long_runs import LONG_RUN_TOKENS
from llama_index_presets.inference.model_folder import ModelFolder, read_model_folder
from llama_index_presets.inference.processor import cpu_computes_bfloat16

__all__ = [
    "LocalEmbedding",
]

logger = logging.getLogger(__name__)
dispatcher = get_dispatcher(__name__)
_ON_CPU: Final = 8  # texts of a forward pass: few, so that little is padded and the caches hold them
_ON_GPU: Final = 128
_questions: Final = deque[tuple[object, str, np.ndarray]](maxlen=16)
"""Encoder, prefixed text and vector of the questions embedded last by any instance: as many as are answered at once."""
_WORTH_PROCESSES: Final = 128
"""Texts below which sending them to other processes costs more than it gives."""


@strict(also=OFFICIAL)
class LocalEmbedding(OfficialAttributes, ThreadedEmbedding):
    """A sentence-transformers model on this machine; never sends a text anywhere.

    Vectors are float lists of shape ``(dim,)`` with unit length. The model is loaded at first use and shared by
    all instances of the process with the same settings. Thread safe; async methods run off the event loop.

    Args:
        model_name: A local model of the catalogue (``"all-MiniLM-L6-v2"``, ``"all-mpnet-base-v2"``, one of your own),
            a name on the hub (``"BAAI/bge-small-en-v1.5"``), or the path of a folder in sentence-transformers format.
            Tokenizer, length, pooling and prompts are read from the model's files.
        backend: ``"onnx"`` runs the model on ONNX Runtime, in float32 on the CPU, without torch; ``"openvino"`` on
            OpenVINO, in bfloat16 where the CPU computes in it; ``"torch"`` on sentence-transformers. ``"auto"`` takes
            what is installed and fastest here: ONNX Runtime, or torch where there is a GPU, where a ``device`` other
            than the CPU is named, for ``precision="bfloat16"`` and for models that only torch runs. Where the extra
            ``local-openvino`` is installed and the CPU computes in bfloat16, a long ingest moves to OpenVINO by itself.
            See `explain`.
        precision: ``"auto"`` is the fastest whose vectors agree with float32 to a cosine of 0.9999: float32 on ONNX
            Runtime, bfloat16 on torch where the hardware computes in it. ``"int8"`` is faster than float32 on a CPU
            and further from it (MiniLM: cosine 0.9996); see `agreement`.
        device: ``"cpu"``, ``"cuda"``, …; None chooses a GPU when there is one.
        allow_download: Whether the hub may be asked for weights that are not on this machine.
        compute_batch_size: Texts per forward pass, after sorting by length; None takes 8 on a CPU, 128 elsewhere.
        processes: Processes that embed large batches, each with its own copy of the model; for CPUs of many cores.
            They are spawned, so a script needs its ``if __name__ == "__main__":``.
        long_text: What becomes of a text that is longer than the model reads: ``"pool"`` embeds its pieces and takes
            their mean, weighted by tokens, at unit length; ``"truncate"`` embeds its beginning, as
            `HuggingFaceEmbedding` does; both log one warning. ``"raise"`` raises (``"refuse"`` means the same).
        query_prefix: Put before questions, for models that need it; None takes the catalogue's or the model's own.
        passage_prefix: Put before passages.
        **settings: What `BaseEmbedding` takes, and the names of `HuggingFaceEmbedding`: ``query_instruction`` and
            ``text_instruction`` are the prefixes, ``local_files_only=True`` is ``allow_download=False``,
            ``max_length`` reads fewer tokens, ``cache_folder`` is the hub's cache, ``trust_remote_code`` is the consent
            to run code of a model's repository; what cannot be honoured, such as
            ``normalize=False``, is refused with the reason and the way to get it.

    Raises:
        SettingsError: Unknown model name; an option that is unknown (the message names the nearest) or cannot be
            honoured.
        ModelError: At first use: weights missing or damaged, a model that nothing installed can run, or a text longer
            than the model reads with ``long_text="raise"``.

    Example:
        >>> from llama_index_presets.embed.local.embedding import LocalEmbedding
        >>> len(LocalEmbedding("all-MiniLM-L6-v2").get_text_embedding("Hello"))
        384
    """

    backend: Backend = "auto"
    precision: Precision = "auto"
    device: str | None = None
    allow_download: bool = True
    compute_batch_size: int | None = Field(default=None, gt=0)
    processes: int = Field(default=1, ge=1)
    long_text: Literal["pool", "truncate", "raise", "refuse"] = "pool"
    query_prefix: str | None = None
    passage_prefix: str | None = None
    max_length: int | None = Field(default=None, gt=0)
    cache_folder: str | None = None
    trust_remote_code: bool = False
    _model: EmbeddingModel | None = PrivateAttr(default=None)
    _warned: bool = PrivateAttr(default=False)

    def __init__(self, model_name: str = "all-MiniLM-L6-v2", **settings: Any) -> None:
        settings = own_settings(settings)
        # Sorting by length pays over many texts, so hand all of them to one call.
        settings.setdefault("embed_batch_size", 512 if settings.get("processes", 1) == 1 else 2048)
        super().__init__(model_name=str(model_name), **settings)
        self._model = _catalogue_entry(str(model_name))
        if self._model is not None and self._model.provider != "local":
            raise SettingsError(f"'{model_name}' is a model of {self._model.provider}, not a local one.")
        check_length(self.max_length, self.model_name, self._model.max_tokens if self._model else None)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "LocalEmbedding"

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._model.dim if self._model else self._encoder.dim

    def explain(self) -> str:
        """What runs this model here, and why; the weights must be on this machine.

        Example:
            >>> LocalEmbedding("all-MiniLM-L6-v2", backend="onnx").explain()
            'all-MiniLM-L6-v2 runs on onnx (float32): asked for'
        """
        choice = self._choice
        exact = "float32" if choice.backend == "onnx" or not cpu_computes_bfloat16() else "bfloat16"
        precision = exact if self.precision == "auto" else self.precision
        told = f"{self._name} runs on {choice.backend} ({precision}): {choice.reason}"
        if choice.backend == "onnx" and moves_for_long_runs(self._described, self.precision, self.backend):
            told += f"; passages beyond {LONG_RUN_TOKENS:,} tokens run on openvino (bfloat16), about twice as fast"
        return told

    @property
    def max_tokens(self) -> int:
        """Tokens of a passage that the model reads, special tokens included and its prefix left out."""
        prefix = self._prefix("passage")
        return self._reads - (len(self.tokenize(prefix)) if prefix else 0)

    @property
    def vector_identity(self) -> str:
        """Identity of the vectors: weights, precision, prefixes. Computed without loading the model.

        Runtimes and precisions whose vectors agree to a cosine of 0.9999 share one, under the name that earlier
        releases gave it on this machine.
        """
        known = (self._model.sha256 or self._model.name) if self._model and not self._model.path else ""
        weights = known or weights_hash(self._folder)
        precision = "bfloat16" if cpu_computes_bfloat16() else "float32"
        if self.precision == "int8":
            precision = f"int8-block{INT8_BLOCK}" if self._choice.backend == "onnx" else "int8"
        prefixes = [self._prefix("query"), self._prefix("passage")]
        more = f":{prefixes}" if any(prefixes) else ""
        more += f":{counted(self.max_length, 'token')}" if self.max_length else ""
        more += ":truncated" if self.long_text == "truncate" else ""
        return f"local:{weights}:{precision}:{self.device or 'auto'}{more}"

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in tokens of this model, special tokens included."""
        return self._tokenizer.count(texts)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text without special tokens: the tokenizer to give to a splitter."""
        return self._tokenizer.tokenize(text)

    @property
    def word_length(self) -> Callable[[str], int] | None:
        """Counts the tokens of one ASCII word faster than `tokenize` does; None where the tokenizer has no such way."""
        return self._tokenizer.word_length

    def vectors(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> np.ndarray:
        """Unit vectors for comparisons that are part of another call: no usage is reported and nothing is cached.

        Each text is computed by itself, so its vector does not depend on what is asked for together with it; what is
        longer than the model reads is cut off. A question that was just embedded for retrieval is not computed again.

        Args:
            texts: What to embed.
            kind: Which prefix is put before each.

        Returns:
            float32, shape (n, dim).
        """
        prefixed = [self._prefix(kind) + text for text in texts]
        if kind == "query":
            known = [
                vector
                for encoder, text, vector in tuple(_questions)
                if [text] == prefixed and encoder is self._encoder
            ]
            if known:
                return known[-1][None, :]
        return self._encoder.encode(prefixed, 1)

    def agreement(self, texts: Sequence[str]) -> tuple[float, float]:
        """Measure how close this precision comes to float32 on texts of yours.

        Args:
            texts: Passages that the model can read; 50 to 100 give a fair picture.

        Returns:
            Mean and least cosine between the vectors, at most 1.
        """
        exact = load_encoder(self._folder, "float32", self.device or "auto", *self._loading)
        own = self._encoder.encode(list(texts), self._batch_size)
        cosines = np.sum(exact.encode(list(texts), _ON_CPU).astype(np.float64) * own, axis=1)
        return float(cosines.mean()), float(cosines.min())

    @property
    def _folder(self) -> Path:
        return _find(self.model_name, self.allow_download, self.cache_folder)

    @property
    def _described(self) -> ModelFolder:
        return _describe(self._folder)

    @property
    def _choice(self) -> Choice:
        return backend_of(
            self._folder, self.precision, self.device or "auto", self.backend, self.trust_remote_code
        )

    @property
    def _loading(self) -> tuple[str, int | None, bool, str | None]:
        known_as = self._model.name if self._model and self._model.sha256 else None
        return self.backend, self.max_length, self.trust_remote_code, known_as

    @property
    def _reads(self) -> int:
        """Tokens that the model reads, special tokens and prefix included."""
        if self.max_length:
            return self.max_length
        if self._model is not None:
            return self._model.max_tokens
        return self._described.max_tokens if self._described.config else self._encoder.max_tokens

    @property
    def _tokenizer(self) -> Tokenizer:
        return _load_tokenizer(self._described.transformer)

    @property
    def _encoder(self) -> Encoder:
        with loading(self._name, "embedding"):
            _ = self._tokenizer  # read by the first call as well: part of the load
            return load_encoder(self._folder, self.precision, self.device or "auto", *self._loading)

    @property
    def _pool(self) -> EncoderPool:
        with loading(self._name, "embedding"):
            return load_pool(
                self._folder,
                self.precision,
                self.device or "auto",
                self.processes,
                *self._loading,
            )

    @property
    def _name(self) -> str:
        return self._model.name if self._model else Path(self.model_name).name

    @property
    def _batch_size(self) -> int:
        on_cpu = (self.device or self._encoder.device) == "cpu"
        return self.compute_batch_size or (_ON_CPU if on_cpu else _ON_GPU)

    def _prefix(self, kind: str) -> str:
        own = self.query_prefix if kind == "query" else self.passage_prefix
        if own is not None:
            return own
        if self._model is not None:
            return self._model.query_prefix if kind == "query" else self._model.passage_prefix
        return self._stated_prompt(kind) or usual_instruction(self.model_name, kind)

    def _stated_prompt(self, kind: str) -> str:
        """The prompt of the model's own files, by the first of its names there, as sentence-transformers takes it."""
        prompts, described = self._described.prompts, self._described
        names = ("query",) if kind == "query" else ("document", "passage", "corpus", "text")
        return next((prompts[name] for name in (*names, described.default_prompt) if name in prompts), "")

    # -- embedding ------------------------------------------------------------------------------------------------

    def _embed(self, texts: list[str], *, kind: str = "passage") -> list[list[float]]:
        if self.processes == 1:
            _ = self._encoder  # loaded before anything is counted, so that all of it is one load
        prefix = self._prefix(kind)
        lengths = self.count_tokens([prefix + text for text in texts] if prefix else texts)
        most = self._reads
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
        if self.long_text in ("raise", "refuse"):
            raise ModelError(
                f"A {'query' if kind == 'query' else 'text'} has {counted(length, 'token')}; '{self.model_name}' "
                f"reads {most:,} "
                f"and would ignore the rest. Shorten it, split it with chunk_size={most - 2}, or embed its pieces and "
                'take their mean with long_text="pool".'
            )
        self._warn(length, most)
        prefix = self._prefix(kind)
        if self.long_text == "truncate":
            return [prefix + text]  # the model's tokenizer cuts it
        room = most - (len(self.tokenize(prefix)) if prefix else 0)
        return [prefix + piece for piece in self._tokenizer.pieces(text, room)]

    def _warn(self, length: int, most: int) -> None:
        """Log once what becomes of long texts."""
        if self._warned:
            return
        self._warned = True
        what = (
            "its beginning is embedded" if self.long_text == "truncate" else "the mean of its pieces is taken"
        )
        logger.warning(
            "A text has %s tokens and '%s' reads %s: %s, as of every such text. Split texts with chunk_size=%s, or "
            'choose with long_text="pool", "truncate" or "raise".',
            *(f"{length:,}", self.model_name, f"{most:,}", what, most - 2),
        )

    def _joined(self, pieces: Sequence[Sequence[str]], vectors: np.ndarray) -> np.ndarray:
        found, place = [], 0
        for text in pieces:
            own = vectors[place : place + len(text)]
            place += len(text)
            found.append(own[0] if len(text) == 1 else pooled(own, self.count_tokens(text)))
        return np.stack(found)

    def _get_query_embedding(self, query: str) -> list[float]:
        vector = self._embed([query], kind="query")[0]
        _questions.append(
            (self._encoder, self._prefix("query") + query, np.asarray(vector, dtype=np.float32))
        )
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts)


_finding = threading.Lock()


def _find(name: str, allow_download: bool, hub_cache: str | None) -> Path:
    with _finding:  # two threads must not download or verify the same weights at once
        return _find_once(name, allow_download, hub_cache)


@cache
def _find_once(name: str, allow_download: bool, hub_cache: str | None) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    model = _catalogue_entry(name)
    if model is not None:
        return find_weights(model, allow_download=allow_download, hub_cache=hub_cache)
    return find_hub_model(name, allow_download=allow_download, hub_cache=hub_cache)


def _catalogue_entry(name: str) -> EmbeddingModel | None:
    """The entry of a name, or None for a folder or a name on the hub that the catalogue does not know.

    Raises:
        SettingsError: Neither a folder, nor a name of the catalogue, nor one of the form ``organisation/model``.
    """
    if Path(name).expanduser().is_dir():
        return None
    try:
        return embedding_model(name)
    except SettingsError:
        organisation, slash, short = name.partition("/")
        if slash and organisation in ("", ".", "..", "~"):
            raise SettingsError(f"There is no folder '{name}'. Give that of a saved model.") from None
        if slash and short and "/" not in short:
            return None
        raise


@cache
def _describe(folder: Path) -> ModelFolder:
    return read_model_folder(folder)


@cache
def _load_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)
