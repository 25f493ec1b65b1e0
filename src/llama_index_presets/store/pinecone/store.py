"""Pinecone vector store, a managed service."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, ClassVar

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets._options import Limits, refuse_values, strict
from llama_index_presets.errors import SettingsError, StoreError
from llama_index_presets.filters import render
from llama_index_presets.packages.extras import require

require("llama_index.vector_stores.pinecone", extra="pinecone")
from llama_index.vector_stores.pinecone import PineconeVectorStore as OfficialStore  # noqa: E402
from pinecone import Pinecone  # noqa: E402
from pinecone.errors import NotFoundError  # noqa: E402

from llama_index_presets.store.base import (  # noqa: E402
    CLOSED,
    FIXED_LIMITS,
    NodeQuery,
    StoreBase,
    agreed_fingerprint,
)
from llama_index_presets.store.node_codec import restricting_ids  # noqa: E402
from llama_index_presets.store.pinecone.filters import PineconeDialect  # noqa: E402
from llama_index_presets.store.pinecone.namespace import FINGERPRINTS, PineconeSpace, request  # noqa: E402
from llama_index_presets.store.pinecone.records import node_id_of, node_of, record_id, record_of  # noqa: E402
from llama_index_presets.store.query_modes import diversity, empty_result, mmr  # noqa: E402
from llama_index_presets.store.vectors import checked_question, checked_vectors  # noqa: E402
from llama_index_presets.text.utf8 import check_name, printable  # noqa: E402

__all__ = ["MODES", "PineconeVectorStore"]

MODES = frozenset({VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR})
"""What the service answers with the vectors that it keeps; text search is a matter of `BM25Index`."""

MOST_ROWS = 10_000
"""Most records that one query gives."""

SPARE_ROWS = 16

_SPARSE = "Sparse vectors are not supported. Put a BM25Index beside the store."

_LIMITS: Limits = {
    **FIXED_LIMITS,
    "insert_kwargs": ((None, {}), "requests are made here. Set namespace and batch_size."),
    "add_sparse_vector": ((None, False), _SPARSE),
    "sparse_embedding_model": ((None,), _SPARSE),
    "tokenizer": ((None,), _SPARSE),
    "default_empty_query_vector": ((None,), _SPARSE),
    "text_key": ((None, "text"), "the text is kept under 'text'."),
    "remove_text_from_metadata": ((None, False), "the record is where the text is kept."),
}
"""Options of the official adapter that have one value here; any other is refused with its reason."""


@strict()
class PineconeVectorStore(StoreBase, OfficialStore):  # type: ignore[misc]  # get_nodes of the official one
    """Pinecone under the promises that a managed service can keep.

    Scores are cosine similarity. `add` replaces nodes of the same id, in parallel requests: each request happens
    whole or not at all, a call of several requests does not. The service is eventually consistent: what was
    written may take seconds to be found.

    Args:
        index_name: Name of an index with cosine metric; may be None where `host` or `pinecone_index` is given.
        namespace: Keeps tenants apart; None is the default namespace.
        host: Address of the index, instead of looking it up by name.
        api_key: Else ``PINECONE_API_KEY``; never kept in a field.
        fingerprint: What makes the vectors (see `values.Fingerprint`); an empty namespace adopts it, another one
            must agree.
        pinecone_index: An open index of the SDK, instead of all the above.
        batch_size: Records in a request, 1 to 1000; 2 MB end one sooner.
        **official: Other options of the official adapter; sparse vectors are refused, ``environment`` is without
            effect there, too.

    Raises:
        SettingsError: No index is named, or an option is unknown (the message names the nearest) or not supported.

    Example:
        >>> PineconeVectorStore("papers", host="http://127.0.0.1:1", api_key="k", namespace="tenant-1").class_name()
        'PineconeVectorStore'
    """

    _modes: ClassVar[frozenset[VectorStoreQueryMode]] = MODES
    _space: PineconeSpace = PrivateAttr()
    _dim: int | None = PrivateAttr(default=None)
    _checked: bool = PrivateAttr(default=False)
    _closed: bool = PrivateAttr(default=False)
    _fingerprint: str | None = PrivateAttr(default=None)

    def __init__(
        self,
        index_name: str | None = None,
        *,
        namespace: str | None = None,
        host: str | None = None,
        api_key: str | None = None,
        fingerprint: str | None = None,
        pinecone_index: Any | None = None,
        batch_size: int = 200,
        **official: Any,
    ) -> None:
        refuse_values("PineconeVectorStore", official, _LIMITS)
        if namespace:
            check_name("namespace", namespace)
        if namespace == FINGERPRINTS:
            raise SettingsError(f"The namespace '{FINGERPRINTS}' is taken by this package. Choose another.")
        fields: dict[str, Any] = {
            "api_key": None,
            "index_name": index_name,
            "environment": None,
            "namespace": namespace,
            "insert_kwargs": {},
            "add_sparse_vector": False,
            "text_key": "text",
            "batch_size": batch_size,
            "remove_text_from_metadata": False,
        }
        # Not through the official constructor: it keeps the key in a field.
        super(OfficialStore, self).__init__(**fields)
        self._sparse_embedding_model = None
        self._pinecone_index = pinecone_index or _connect(index_name, host, api_key)
        self._space = PineconeSpace(self._pinecone_index, namespace or "")
        self._fingerprint = fingerprint

    @classmethod
    def from_params(  # type: ignore[override]
        cls, api_key: str | None = None, index_name: str | None = None, **options: Any
    ) -> Any:
        """Open a store by the official adapter's arguments."""
        return cls(index_name, api_key=api_key, **options)

    @property
    def client(self) -> Any:
        """The SDK's index."""
        return self._pinecone_index

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the vectors, as the namespace remembers it."""
        self._check()
        return self._fingerprint

    # ---- writing -----------------------------------------------------------------------------------------

    def _upsert(self, nodes: list[BaseNode], *, replacing: Sequence[str] = (), bulk: bool = False) -> None:
        """Write the new records, then delete what is left of the documents: a reader may see both, never none."""
        self._check()
        vectors = checked_vectors(nodes, self._dim)
        records = [record_of(node, vector) for node, vector in zip(nodes, vectors, strict=True)]
        self._agree(write=True, dim=vectors.shape[1])
        self._space.upsert(records, self.batch_size)
        self._delete_documents(replacing, keep={record_id(node.ref_doc_id, node.node_id) for node in nodes})

    def _clear(self) -> None:
        self._space.delete(delete_all=True)
        self._space.forget()

    def _delete(self, selection: NodeQuery) -> None:
        if selection.filtered and selection.node_ids is None:
            self._space.delete(filter=render(selection.filters, PineconeDialect()).sql)
        elif selection.doc_ids is not None:
            self._delete_documents(selection.doc_ids)
        else:
            self._space.delete_ids([record.id for record in self._records(selection)])

    def _delete_documents(self, ref_doc_ids: Sequence[str], keep: Set[str] = frozenset()) -> None:
        """Delete by id prefix, which every serverless index offers and which costs nothing per stored record."""
        for ref_doc_id in dict.fromkeys(ref_doc_ids):
            self._space.delete_ids(
                [one for one in self._space.ids(record_id(ref_doc_id, "")) if one not in keep]
            )

    # ---- reading -----------------------------------------------------------------------------------------

    def _select(self, selection: NodeQuery) -> list[BaseNode]:
        return [
            node_of(record.id, dict(record.metadata or {}), record.values)
            for record in self._records(selection)
        ]

    def _records(self, selection: NodeQuery) -> Iterator[Any]:
        if selection.doc_ids is not None:
            yield from self._space.of_documents(selection.doc_ids)
            return
        condition = render(selection.filters, PineconeDialect()).sql
        if selection.node_ids is None:
            yield from self._space.where(condition)
            return
        accepts: Any = None
        if selection.filtered:
            accepts = {record.id for record in self._space.where(condition)}
        for record in self._space.named(selection.node_ids):
            if accepts is None or record.id in accepts:
                yield record

    def node_ids(self) -> list[str]:
        """Ids of all nodes, sorted; without reading the nodes."""
        self._check_usable()
        return sorted({node_id_of(one) for one in self._space.ids()})

    def _search(
        self, query: VectorStoreQuery, mode: VectorStoreQueryMode, options: Mapping[str, Any]
    ) -> VectorStoreQueryResult:
        condition = self._condition(query)
        self._check()
        question = checked_question(query.query_embedding, self._dim).tolist()
        if not query.similarity_top_k or query.doc_ids == []:
            return empty_result()
        if mode is VectorStoreQueryMode.MMR:
            choice = diversity(query, options)
            return mmr(query, choice, self._nearest(question, choice.candidates, condition, True))
        return self._nearest(question, query.similarity_top_k, condition, False)

    # ---- life --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections; closing twice is fine."""
        self._closed = True
        close = getattr(self._pinecone_index, "close", None)
        if close:
            close()

    def _check_usable(self, *, write: bool = False) -> None:
        if self._closed:
            raise StoreError(CLOSED)

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be pickled: the copy would need the key."""
        raise StoreError("A PineconeVectorStore cannot be pickled, as it holds a key. Open one per process.")

    # ---- requests ----------------------------------------------------------------------------------------

    def _condition(self, query: VectorStoreQuery) -> Any:
        parts: list[Any] = []
        if query.filters is not None and query.filters.filters:
            parts.append(render(query.filters, PineconeDialect()).sql)
        if query.node_ids:
            kinds = {
                node_id_of(record.id): (record.metadata or {}).get("kind", "")
                for record in self._space.named(query.node_ids)
            }
            wanted = restricting_ids(query.node_ids, kinds)
            if wanted is not None:
                parts.append({"id": {"$in": wanted}})
        if query.doc_ids:
            parts.append({"ref": {"$in": list(query.doc_ids)}})
        return {"$and": parts} if len(parts) > 1 else parts[0] if parts else None

    def _nearest(
        self, question: list[float], top_k: int, condition: Any, vectors: bool
    ) -> VectorStoreQueryResult:
        matches = self._space.query(
            vector=question,
            top_k=min(MOST_ROWS, top_k + SPARE_ROWS),
            filter=condition,
            include_values=vectors,
        )
        best = sorted(matches, key=lambda match: (-match.score, node_id_of(match.id)))[:top_k]
        return VectorStoreQueryResult(
            nodes=[
                node_of(match.id, dict(match.metadata or {}), match.values if vectors else None)
                for match in best
            ],
            similarities=[max(-1.0, min(1.0, float(match.score))) for match in best],
            ids=[node_id_of(match.id) for match in best],
        )

    def _check(self) -> None:
        """Learn the dimension, refuse another metric, agree on the fingerprint; once."""
        if self._checked:
            return
        stats = self._space.stats()
        metric = getattr(stats, "metric", None)
        if metric not in (None, "", "cosine"):
            raise StoreError(
                f"The index compares by '{metric}'; this store needs an index with metric 'cosine'."
            )
        self._dim = stats.dimension or None
        self._agree(write=False, dim=self._dim)
        self._checked = True

    def _agree(self, *, write: bool, dim: int | None) -> None:
        stored = self._space.fingerprint()
        agreed = agreed_fingerprint(
            stored, self._fingerprint, place=f"Namespace '{self._space.name}'", kind="namespace"
        )
        if agreed and not stored and dim and (write or not self._space.is_empty()):
            self._space.remember(agreed, dim)
        self._fingerprint = agreed


def _connect(name: str | None, host: str | None, api_key: str | None) -> Any:
    key = api_key or os.environ.get("PINECONE_API_KEY")
    if not key:
        raise SettingsError("No Pinecone key: set PINECONE_API_KEY, or give api_key.")
    if not name and not host:
        raise SettingsError("PineconeVectorStore needs an index_name, or the host of an index.")
    client = Pinecone(api_key=key, source_tag="llamaindex")
    if host:
        return client.Index(host=host)
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?", name or ""):
        raise SettingsError(
            f"index_name is {printable(repr(name))}. Pinecone takes 1 to 45 small letters, digits and -, which stands "
            "neither first nor last."
        )
    try:
        return request(lambda: client.Index(name or ""))
    except StoreError as error:
        if not isinstance(error.__cause__, NotFoundError):
            raise
        raise StoreError(
            f"Pinecone has no index '{name}' under this key. Create it with metric cosine and the dimension of the "
            "embedding model, or correct the name."
        ) from error.__cause__
