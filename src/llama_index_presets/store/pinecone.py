"""Vector store on Pinecone, a managed service."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from llama_index_presets._extras import require
from llama_index_presets.errors import FingerprintError, SettingsError, StoreError
from llama_index_presets.filters import render

require("llama_index.vector_stores.pinecone", extra="pinecone")
from llama_index.vector_stores.pinecone import PineconeVectorStore as OfficialStore  # noqa: E402
from pinecone import Pinecone  # noqa: E402
from pinecone.errors import ApiError, PineconeConnectionError, PineconeTimeoutError  # noqa: E402

from llama_index_presets.store.blend import MMR_WIDTH, check_query, diverse, nothing  # noqa: E402
from llama_index_presets.store.pinecone_filters import PineconeDialect  # noqa: E402
from llama_index_presets.store.pinecone_records import batches, node_of, record_of  # noqa: E402
from llama_index_presets.store.rows import restricting_ids  # noqa: E402
from llama_index_presets.store.threaded import ThreadedAsync  # noqa: E402
from llama_index_presets.store.vectors import checked_question, checked_vectors  # noqa: E402

__all__ = ["MODES", "PineconeVectorStore"]

Result = TypeVar("Result")

MODES = frozenset({VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR})
"""What the service answers with the vectors that it keeps; text search is a matter of `BM25Index`."""

MOST_ROWS = 10_000
"""Most records that one query gives."""

SPARE_ROWS = 16
PARALLEL_REQUESTS = 4
ROUNDS = 3
FINGERPRINTS = "llama-index-presets"
"""Namespace that remembers what made the vectors of each namespace."""


class PineconeVectorStore(ThreadedAsync, OfficialStore):
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
        **official: Other options of the official adapter; sparse vectors are refused.

    Raises:
        SettingsError: No index is named, or an option is not supported.

    Example:
        >>> PineconeVectorStore("papers", host="http://127.0.0.1:1", api_key="k", namespace="tenant-1").class_name()
        'PineconeVectorStore'
    """

    _index: Any = PrivateAttr()
    _dim: int | None = PrivateAttr(default=None)
    _checked: bool = PrivateAttr(default=False)
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
        if official.get("add_sparse_vector") or official.get("sparse_embedding_model"):
            raise SettingsError("Sparse vectors are not supported. Put a BM25Index beside the store instead.")
        unknown = sorted(official.keys() - _IGNORED)
        if unknown:
            raise SettingsError(f"PineconeVectorStore does not know {', '.join(unknown)}. See its docstring.")
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
        self._index = pinecone_index or _connect(index_name, host, api_key)
        self._pinecone_index = self._index
        self._fingerprint = fingerprint

    @classmethod
    def from_params(  # type: ignore[override]
        cls, api_key: str | None = None, index_name: str | None = None, **options: Any
    ) -> Any:
        """Open a store by the official adapter's arguments."""
        return cls(index_name, api_key=api_key, **options)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "PineconeVectorStore"

    @property
    def client(self) -> Any:
        """The SDK's index."""
        return self._index

    @property
    def fingerprint(self) -> str | None:
        """What made the vectors, as the namespace remembers it."""
        self._check()
        return self._fingerprint

    # ---- writing -----------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Upsert nodes; all are checked before the first request.

        Args:
            nodes: With embeddings. Where an id comes twice, the last one wins.

        Returns:
            Their ids, in the order given.

        Raises:
            NodeRejectedError: A node cannot be stored; nothing was written.
            StoreError: The service failed again and again; some of the nodes may be written. Call again.
        """
        if not nodes:
            return []
        self._check()
        unique = list({node.node_id: node for node in nodes}.values())
        vectors = checked_vectors(unique, self._dim)
        records = [record_of(node, vector) for node, vector in zip(unique, vectors, strict=True)]
        self._agree(write=True, dim=vectors.shape[1])
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            list(pool.map(self._upsert, batches(records, self.batch_size)))
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of one document; an unknown id is no error."""
        self._delete_where({"ref": {"$eq": ref_doc_id}})

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete the nodes that have one of the ids and match the filters.

        Called with neither, it deletes nothing and warns.
        """
        if node_ids is None and (filters is None or not filters.filters):
            warnings.warn(
                "delete_nodes() got neither node_ids nor filters and deleted nothing. "
                "Give it one of them, or call clear() to delete everything.",
                stacklevel=2,
            )
        elif filters is None or not filters.filters:
            self._delete_ids(node_ids or [])
        elif node_ids is None:
            self._delete_where(render(filters, PineconeDialect()).sql)
        else:
            self._delete_ids([node.node_id for node in self.get_nodes(node_ids, filters)])

    def clear(self) -> None:
        """Delete every node of the namespace; it takes the fingerprint of what is added next."""
        self._delete(delete_all=True)
        self._call(lambda: self._index.delete(ids=[self._place], namespace=FINGERPRINTS))

    def finish_load(self) -> None:
        """Do nothing: the service builds its indexes itself."""

    # ---- reading -----------------------------------------------------------------------------------------

    def get_nodes(  # type: ignore[override]
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes, with their embeddings, that have one of the ids and match the filters.

        Returns:
            In the order of `node_ids` where they are given, else by id.
        """
        condition = render(filters, PineconeDialect()).sql
        if node_ids is None:
            found = {vector.id: vector for vector in self._fetch_where(condition)}
            node_ids = sorted(found)
        else:
            found = self._fetch(list(dict.fromkeys(node_ids)))
            if filters is not None and filters.filters:
                matching = {vector.id for vector in self._fetch_where(condition)}
                found = {node_id: vector for node_id, vector in found.items() if node_id in matching}
        return [
            node_of(node_id, dict(found[node_id].metadata or {}), found[node_id].values)
            for node_id in dict.fromkeys(node_ids)
            if node_id in found
        ]

    def node_ids(self) -> list[str]:
        """Ids of all nodes, sorted; without reading the nodes."""
        return sorted(vector.id for vector in self._fetch_where(PineconeDialect.true))

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find the nodes closest to a query.

        Args:
            query: Modes DEFAULT and MMR. An empty `node_ids` selects every node, as LlamaIndex always sends
                one; an empty `doc_ids` selects none.

        Returns:
            Best first, ties by id; at most 10,000.

        Raises:
            QueryError: The mode is not supported, or the query lacks what its mode needs.
            FilterError: A filter that Pinecone cannot say, or whose value does not fit its operator.
            StoreError: The service failed again and again.
        """
        check_query(query, query.mode, MODES, "PineconeVectorStore")
        condition = self._condition(query)
        self._check()
        question = checked_question(query.query_embedding, self._dim).tolist()
        if not query.similarity_top_k or query.doc_ids == []:
            return nothing()
        if query.mode == VectorStoreQueryMode.MMR:
            return diverse(
                query, self._nearest(question, query.similarity_top_k * MMR_WIDTH, condition, True)
            )
        return self._nearest(question, query.similarity_top_k, condition, False)

    # ---- life --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections."""
        close = getattr(self._index, "close", None)
        if close:
            close()

    def persist(self, persist_path: str = "", fs: Any = None) -> None:
        """Do nothing: the service keeps what it was sent."""

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be pickled: the copy would need the key."""
        raise StoreError("A PineconeVectorStore cannot be pickled, as it holds a key. Open one per process.")

    # ---- requests ----------------------------------------------------------------------------------------

    @property
    def _space(self) -> str:
        return self.namespace or ""

    @property
    def _place(self) -> str:
        """Id of the record that remembers this namespace's fingerprint."""
        return f"namespace:{self._space}"

    def _condition(self, query: VectorStoreQuery) -> Any:
        parts: list[Any] = []
        if query.filters is not None and query.filters.filters:
            parts.append(render(query.filters, PineconeDialect()).sql)
        if query.node_ids:
            kinds = {
                key: (v.metadata or {}).get("kind", "") for key, v in self._fetch(query.node_ids).items()
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
        answer = self._call(
            lambda: self._index.query(
                vector=question,
                top_k=min(MOST_ROWS, top_k + SPARE_ROWS),
                filter=condition,
                namespace=self._space,
                include_metadata=True,
                include_values=vectors,
            )
        )
        best = sorted(answer.matches, key=lambda match: (-match.score, match.id))[:top_k]
        return VectorStoreQueryResult(
            nodes=[
                node_of(match.id, dict(match.metadata or {}), match.values if vectors else None)
                for match in best
            ],
            similarities=[max(-1.0, min(1.0, float(match.score))) for match in best],
            ids=[match.id for match in best],
        )

    def _fetch(self, ids: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for start in range(0, len(ids), 100):
            some = list(ids[start : start + 100])
            found |= self._call(lambda some=some: self._index.fetch(ids=some, namespace=self._space)).vectors  # type: ignore[misc]
        return found

    def _fetch_where(self, condition: Any) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self._call(
                lambda token=token: self._index.fetch_by_metadata(  # type: ignore[misc]
                    filter=condition, namespace=self._space, limit=100, pagination_token=token
                )
            )
            yield from page.vectors.values()
            token = page.pagination.next if page.pagination else None
            if not token:
                return

    def _upsert(self, batch: list[dict[str, Any]]) -> None:
        self._call(lambda: self._index.upsert(vectors=batch, namespace=self._space))

    def _delete_ids(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), 1000):
            self._delete(ids=list(ids[start : start + 1000]))

    def _delete_where(self, condition: Any) -> None:
        self._delete(filter=condition)

    def _delete(self, **what: Any) -> None:
        def once() -> None:
            try:
                self._index.delete(namespace=self._space, **what)
            except ApiError as error:
                if error.status_code != 404:  # A namespace that nobody wrote to does not exist.
                    raise

        self._call(once)

    def _check(self) -> None:
        """Learn the dimension, refuse another metric, agree on the fingerprint; once."""
        if self._checked:
            return
        stats = self._call(self._index.describe_index_stats)
        metric = getattr(stats, "metric", None)
        if metric not in (None, "", "cosine"):
            raise StoreError(
                f"The index compares by '{metric}'; this store needs an index with metric 'cosine'."
            )
        self._dim = stats.dimension or None
        self._agree(write=False, dim=self._dim)
        self._checked = True

    def _agree(self, *, write: bool, dim: int | None) -> None:
        kept = self._call(lambda: self._index.fetch(ids=[self._place], namespace=FINGERPRINTS)).vectors
        record = kept.get(self._place)
        stored = (record.metadata or {}).get("fingerprint") if record else None
        given = self._fingerprint
        if stored and given and stored != given:
            raise FingerprintError(
                f"Namespace '{self._space}' holds vectors of '{stored}', not of '{given}'. "
                "Use the model that made it, or another namespace.",
                stored=stored,
                given=given,
            )
        if given and not stored and dim and (write or self._has_records()):
            marker = {"id": self._place, "values": [1.0] * dim, "metadata": {"fingerprint": given}}
            self._call(lambda: self._index.upsert(vectors=[marker], namespace=FINGERPRINTS))
        self._fingerprint = stored or given

    def _has_records(self) -> bool:
        spaces = self._call(self._index.describe_index_stats).namespaces or {}
        found = spaces.get(self._space) or spaces.get(self._space or "__default__")
        return bool(found and found.vector_count)

    def _call(self, request: Callable[[], Result]) -> Result:
        """Send a request. The SDK tries four times after a 429, a 5xx or a lost connection, as long apart as
        Retry-After says, and its index cannot be told otherwise; here such a round is repeated. All requests are
        safe to repeat.
        """
        rounds = Retrying(
            retry=retry_if_exception(_is_passing),
            stop=stop_after_attempt(ROUNDS),
            wait=_backoff,
            reraise=True,
        )
        try:
            return rounds(request)
        except (ApiError, PineconeConnectionError, PineconeTimeoutError) as error:
            said = str(error).split("\n")[0][:300]
            raise StoreError(
                f"Pinecone failed, also when tried again where that helps: {said}. What one request sent happened "
                "whole or not at all; calling again is safe."
            ) from error


_IGNORED = frozenset(
    {
        "environment",
        "insert_kwargs",
        "add_sparse_vector",
        "tokenizer",
        "text_key",
        "remove_text_from_metadata",
        "default_empty_query_vector",
        "sparse_embedding_model",
    }
)


def _connect(name: str | None, host: str | None, api_key: str | None) -> Any:
    key = api_key or os.environ.get("PINECONE_API_KEY")
    if not key:
        raise SettingsError("No Pinecone key: set PINECONE_API_KEY, or give api_key.")
    if not name and not host:
        raise SettingsError("PineconeVectorStore needs an index_name, or the host of an index.")
    client = Pinecone(api_key=key, source_tag="llamaindex")
    return client.Index(host=host) if host else client.Index(name or "")


_backoff = wait_exponential_jitter(initial=0.2, max=10.0)


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, ApiError):
        return error.status_code in (408, 429, 500, 502, 503, 504)
    return isinstance(error, (PineconeConnectionError, PineconeTimeoutError))
