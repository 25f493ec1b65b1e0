"""Keyword search in the languages that an embedding model was not trained for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from llama_index_presets.retrieve.bm25.index import BM25Index
from llama_index_presets.retrieve.bm25.languages import AUTO
from llama_index_presets.retrieve.node_sources import NodeSource, all_nodes
from llama_index_presets.text.languages import language_code, likely_languages

__all__ = ["LanguageFallback"]


class LanguageFallback:
    """Answers questions in a language that the embedding model does not know by their words.

    To MiniLM a Thai text is one unknown word, and the nearest vectors are any. The nodes in such languages are put into
    a keyword index in memory at the first question that needs it, and again after the index has changed; nothing is
    kept on disk, so an encrypted storage stays encrypted. Safe for threads.

    Args:
        source: Holds the nodes, with their language in the metadata.
        known: Codes of the languages that the embedding model knows.
        others: Gives the other languages that the documents are in.
        version: Gives a mark that differs after every change of the documents.
        keyword: A keyword index of all nodes, where there is one already; then none is made.
    """

    def __init__(
        self,
        source: NodeSource,
        *,
        known: Collection[str],
        others: Callable[[Collection[str]], Sequence[str]],
        version: Callable[[], object],
        keyword: BM25Index | None = None,
    ) -> None:
        self._keyword = keyword
        self._source, self._known = source, tuple(known)
        self._others, self._version = others, version
        self._lock = threading.Lock()
        self._built: tuple[object, BM25Index] | None = None

    def covers(self, question: str) -> bool:
        """Whether a question is in a language of the documents that the embedding model does not know."""
        others = self._others(self._known)
        if not others or not question.strip():
            return False
        likely = likely_languages(question, [*self._known, *others])
        return bool(likely) and likely[0] not in self._known

    def retrieve(
        self, query: QueryBundle, top_k: int, filters: MetadataFilters | None = None
    ) -> list[NodeWithScore]:
        """The nodes that share the most words with a question, best first.

        Raises:
            RetrievalError: The source cannot list its nodes.
        """
        return self._index().as_retriever(top_k, filters).retrieve(query)

    def _index(self) -> BM25Index:
        if self._keyword is not None:
            return self._keyword
        with self._lock:
            version = self._version()
            if self._built is None or self._built[0] != version:
                nodes = [node for node in all_nodes(self._source) if self._is_other(node.metadata)]
                index = BM25Index(language=AUTO, nodes=self._source)
                index.add(nodes)
                self._built = version, index
            return self._built[1]

    def _is_other(self, metadata: Mapping[str, Any]) -> bool:
        stated = metadata.get("language")
        return isinstance(stated, str) and (language_code(stated) or self._known[0]) not in self._known
