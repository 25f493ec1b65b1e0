"""Vectors of sentences, kept in memory: each is embedded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding

__all__ = ["SentenceVectors"]

_KEPT: Final = 20_000
"""Sentences; of 384 numbers each they take 30 MB."""

_LONGEST: Final = 600
"""Characters of a sentence that are embedded: less than any embedding model reads."""


class SentenceVectors:
    """Similarities of a question and sentences; the sentences used last are kept, the questions are not. Thread safe.

    Vectors of a `CachedEmbedding` are computed by its model itself: sentences are many, and belong in no cache on disk.

    Args:
        embed_model: Embeds questions and sentences.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> [round(one, 3) for one in SentenceVectors(MockEmbedding(embed_dim=2)).similarities("q", ["a", "b"])]
        [1.0, 1.0]
    """

    def __init__(self, embed_model: BaseEmbedding) -> None:
        self._embed_model: BaseEmbedding = getattr(embed_model, "inner", embed_model)
        # A local model computes each text by itself: in a batch, rounding depends on what else is in it, and with it
        # which of two sentences is better. It reports no usage either: comparing is part of the answer's own call.
        self._own: Callable[..., np.ndarray] | None = getattr(self._embed_model, "vectors", None)
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def similarities(self, question: str, texts: Sequence[str]) -> list[float]:
        """Cosine of the question and each text, -1 to 1, in their order."""
        if not texts:
            return []
        asked = self._question(question)
        vectors = self._vectors([text[:_LONGEST] for text in texts])
        return [float(vector @ asked) for vector in vectors]

    def _question(self, text: str) -> np.ndarray:
        if self._own is not None:  # in full: it was embedded for retrieval, and is kept
            return _unit(self._own([text], kind="query")[0])
        return _unit(self._embed_model.get_query_embedding(text[:_LONGEST]))

    def _vectors(self, texts: Sequence[str]) -> list[np.ndarray]:
        with self._lock:
            known = {text: self._kept[text] for text in texts if text in self._kept}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            found = self._own(missing) if self._own else self._embed_model.get_text_embedding_batch(missing)
            known |= {text: _unit(vector) for text, vector in zip(missing, found, strict=True)}
        with self._lock:
            for text in texts:
                self._kept[text] = known[text]
                self._kept.move_to_end(text)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return [known[text] for text in texts]


def _unit(vector: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(vector, dtype=np.float32)
    return array / max(float(np.linalg.norm(array)), 1e-12)
