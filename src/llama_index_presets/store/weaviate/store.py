"""Weaviate vector store, a managed service or a server of your own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets._options import Limits, refuse_unknown, refuse_values, strict
from llama_index_presets.errors import SettingsError, StoreError
from llama_index_presets.filters import filterable_metadata, predicate, render
from llama_index_presets.packages.extras import require

require("llama_index.vector_stores.weaviate", extra="weaviate")
import weaviate  # noqa: E402
from llama_index.vector_stores.weaviate import WeaviateVectorStore as OfficialStore  # noqa: E402
from weaviate.exceptions import WeaviateBaseError  # noqa: E402

from llama_index_presets.store.base import CLOSED, FIXED_LIMITS, NodeQuery, StoreBase, agreed_fingerprint  # noqa: E402
from llama_index_presets.store.node_codec import restricting_ids  # noqa: E402
from llama_index_presets.store.query_modes import answer, empty_result  # noqa: E402
from llama_index_presets.store.vectors import checked_question, checked_vectors  # noqa: E402
from llama_index_presets.store.weaviate.collection import MOST_ROWS, WeaviateCollection  # noqa: E402
from llama_index_presets.store.weaviate.objects import document_label, node_of, object_id, object_of  # noqa: E402
from llama_index_presets.text.utf8 import check_name  # noqa: E402

__all__ = ["MODES", "WeaviateVectorStore", "connect", "shown"]

# -- connection -----------------------------------------------------------------------------------------------


def shown(url: str) -> str:
    """Give a URL without user, password and options."""
    return url.split("?")[0].split("@")[-1]


def connect(host: str, port: int | None, asked: dict[str, list[str]], api_key: str | None) -> Any:
    """Open a client.

    Args:
        host: Name of the server.
        port: Of its REST interface; None for the usual one.
        asked: Options of the URL: ``grpc``, ``secure``.
        api_key: Else ``WEAVIATE_API_KEY``, else none.

    Raises:
        StoreError: The server cannot be reached.
    """
    key = api_key or os.environ.get("WEAVIATE_API_KEY") or None
    cloud = host.endswith((".weaviate.cloud", ".weaviate.network"))
    secure = cloud or asked.get("secure", ["false"])[0] == "true"
    grpc_host = f"grpc-{host}" if cloud else host
    credentials = weaviate.auth.AuthApiKey(key) if key else None
    try:
        # The client's own initial checks ask PyPI for the newest version; nothing of that kind happens here.
        return weaviate.connect_to_custom(
            http_host=host,
            http_port=port or (443 if secure else 8080),
            http_secure=secure,
            grpc_host=grpc_host,
            grpc_port=int(asked.get("grpc", ["443" if secure else "50051"])[0]),
            grpc_secure=secure,
            auth_credentials=credentials,
            skip_init_checks=True,
        )
    except WeaviateBaseError as error:
        said = str(error).split("\n")[0][:300]
        raise StoreError(
            f"Weaviate at {host} cannot be reached: {said}. Start the server or check the URL."
        ) from error


MODES = frozenset(
    {
        VectorStoreQueryMode.DEFAULT,
        VectorStoreQueryMode.TEXT_SEARCH,
        VectorStoreQueryMode.SPARSE,
        VectorStoreQueryMode.HYBRID,
        VectorStoreQueryMode.MMR,
    }
)

SPARE_ROWS = 16

_CONNECT = "WeaviateVectorStore.from_url('weaviate://HOST/COLLECTION', api_key=…) opens a client."

_LIMITS: Limits = {
    **FIXED_LIMITS,
    "text_key": ((None, "text"), "the text is kept under 'text'."),
    "class_prefix": ((None,), "give the whole name, index_name='PREFIX_Node'."),
    "url": ((None,), _CONNECT),
    "auth_config": ((None, {}), _CONNECT),
    "client_kwargs": ((None, {}), _CONNECT),
}
"""Options of the official adapter that have one value here; any other is refused with its reason."""


@strict()
class WeaviateVectorStore(StoreBase, OfficialStore):
    """Weaviate under the promises that a managed service can keep.

    Scores are cosine similarity, -1 to 1, higher is closer; BM25 for text search. `add` replaces nodes of the same id,
    in parallel requests of `batch_size`; a call of several requests is not whole or nothing.

    Args:
        weaviate_client: A connected ``weaviate.WeaviateClient``; stays the caller's to close. See `from_url` to open
            one.
        index_name: The collection, beginning with a capital letter; made by the first `add`. One collection a
            tenant keeps tenants apart.
        fingerprint: What makes the vectors (see `values.Fingerprint`); an empty collection adopts it, another one
            must agree.
        batch_size: Objects in a request.
        owns_client: Whether `close` closes the client.
        **official: Other options of the official adapter that have one meaning here (``text_key``).

    Raises:
        SettingsError: No client, or an option is unknown (the message names the nearest) or not supported.
            Everything else is raised by the first use:
        FingerprintError: The collection was made by another model.
        StoreError: The service cannot be reached, or the collection was made by another program.

    Example:
        >>> from llama_index_presets.store.weaviate.store import WeaviateVectorStore
        >>> WeaviateVectorStore.class_name()
        'WeaviateVectorStore'
    """

    batch_size: int = 200

    _modes: ClassVar[frozenset[VectorStoreQueryMode]] = MODES
    _is_self_created_weaviate_client: bool = PrivateAttr(default=False)
    _collection: WeaviateCollection = PrivateAttr()
    _dim: int | None = PrivateAttr(default=None)
    _checked: bool = PrivateAttr(default=False)
    _closed: bool = PrivateAttr(default=False)
    _fingerprint: str | None = PrivateAttr(default=None)

    def __init__(
        self,
        weaviate_client: Any | None = None,
        *,
        index_name: str = "LlamaIndex",
        fingerprint: str | None = None,
        batch_size: int = 200,
        owns_client: bool = False,
        **official: Any,
    ) -> None:
        refuse_values("WeaviateVectorStore", official, _LIMITS)
        if not isinstance(weaviate_client, weaviate.WeaviateClient):
            raise SettingsError(
                "WeaviateVectorStore needs a connected weaviate.WeaviateClient (async methods run in worker threads, "
                "so no async client). WeaviateVectorStore.from_url(…) opens one."
            )
        _check_index_name(index_name)
        # Not through the official constructor: it makes another schema, and keeps the credentials in a field.
        fields: dict[str, Any] = {
            "url": None,
            "index_name": index_name,
            "text_key": "text",
            "auth_config": {},
            "client_kwargs": {},
        }
        super(OfficialStore, self).__init__(**fields)
        self.batch_size = batch_size
        self._client = weaviate_client
        self._is_self_created_weaviate_client = owns_client
        self._collection = WeaviateCollection(weaviate_client, index_name)
        self._fingerprint = fingerprint

    @classmethod
    def from_url(cls, url: str, *, api_key: str | None = None, **options: Any) -> WeaviateVectorStore:
        """Open a store by its URL.

        Args:
            url: ``weaviate://HOST[:PORT]/COLLECTION[?grpc=PORT][&secure=true]``; the ports are 8080 and 50051 unless
                given, 443 with ``secure=true`` and for ``*.weaviate.cloud``.
            api_key: Else ``WEAVIATE_API_KEY``; never kept in a field.
            **options: As in the constructor.

        Raises:
            SettingsError: The URL names no collection.
            StoreError: The server cannot be reached.
        """
        parts = urlsplit(url)
        name = parts.path.strip("/")
        if parts.scheme != "weaviate" or not parts.hostname or not name:
            raise SettingsError(f"'{shown(url)}' is no place. Give weaviate://HOST/COLLECTION.")
        _check_index_name(name)
        refuse_unknown("The URL of a WeaviateVectorStore", parse_qs(parts.query), ("grpc", "secure"))
        client = connect(parts.hostname, parts.port, parse_qs(parts.query), api_key)
        return cls(client, index_name=name, owns_client=True, **options)

    @property
    def client(self) -> Any:
        """The Weaviate client."""
        return self._client

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the vectors, as the collection remembers it."""
        self._check()
        return self._fingerprint

    # ---- writing -----------------------------------------------------------------------------------------

    def _upsert(self, nodes: list[BaseNode], *, replacing: Sequence[str] = (), bulk: bool = False) -> None:
        """Write the new objects, then delete what is left of the documents: a reader may see both, never none."""
        self._check()
        vectors = checked_vectors(nodes, self._dim)
        objects = [object_of(node, vector) for node, vector in zip(nodes, vectors, strict=True)]
        numbers = frozenset(
            name for one in objects for name in one.properties if name.split("_")[0] in _NUMBERS
        )
        self._collection.make(self._fingerprint, numbers)
        self._collection.insert(objects, self.batch_size)
        self._dim = vectors.shape[1]
        if replacing:
            old = self._collection.where(self._documents(replacing))
            new = {object_id(node.node_id) for node in nodes}
            self._collection.delete_named(
                [one.properties["node_id"] for one in old if str(one.uuid) not in new]
            )

    def _clear(self) -> None:
        """Delete the collection; the next `add` makes it anew, with its own dimension and fingerprint."""
        if self._check():
            self._collection.drop()
        self._checked, self._dim = False, None

    def delete_index(self) -> None:
        """See `clear`."""
        self.clear()

    def _delete(self, selection: NodeQuery) -> None:
        if not self._check():
            return
        if selection.doc_ids is not None:
            self._collection.delete_where(self._documents(selection.doc_ids))
        elif selection.node_ids is None:
            self._collection.delete_where(render(selection.filters, self._collection.dialect()).sql)
        elif selection.filtered:
            self._collection.delete_named([node.node_id for node in self._select(selection)])
        else:
            self._collection.delete_named(selection.node_ids)

    def _documents(self, ref_doc_ids: Sequence[str]) -> Any:
        return self._collection.dialect().labelled(*map(document_label, ref_doc_ids))

    # ---- reading -----------------------------------------------------------------------------------------

    def _select(self, selection: NodeQuery) -> list[BaseNode]:
        if not self._check():
            return []
        if selection.node_ids is not None:
            return self._accepted(map(node_of, self._collection.named(selection.node_ids)), selection)
        if selection.doc_ids is not None:
            return self._nodes_of_documents(selection.doc_ids)
        if not selection.filtered:
            return [node_of(found) for found in self._collection.every()]
        condition = render(selection.filters, self._collection.dialect()).sql
        found = list(self._collection.where(condition))
        if len(found) < MOST_ROWS:
            return [node_of(one) for one in found]
        # More than one question may give: read all of them and filter here.
        return self._accepted(map(node_of, self._collection.every()), selection)

    def _nodes_of_documents(self, doc_ids: Sequence[str]) -> list[BaseNode]:
        found = [node_of(one) for one in self._collection.where(self._documents(doc_ids))]
        if len(found) < MOST_ROWS:
            return found
        wanted = set(doc_ids)
        return [node for node in map(node_of, self._collection.every()) if node.ref_doc_id in wanted]

    def _accepted(self, nodes: Any, selection: NodeQuery) -> list[BaseNode]:
        # refuses what the service cannot say, in any case
        render(selection.filters, self._collection.dialect())
        accepts = predicate(selection.filters)
        return [node for node in nodes if accepts(filterable_metadata(node))]

    def node_ids(self) -> list[str]:
        """Ids of all nodes, sorted; without reading the nodes."""
        self._check_usable()
        if not self._check():
            return []
        return sorted(one.properties["node_id"] for one in self._collection.every(["node_id"], vectors=False))

    def _search(
        self, query: VectorStoreQuery, mode: VectorStoreQueryMode, options: Mapping[str, Any]
    ) -> VectorStoreQueryResult:
        """At most 10,000 nodes; HYBRID is fused here, from a vector and a BM25 search, as in the other stores."""
        render(query.filters, self._collection.dialect())
        if not self._check() or query.doc_ids == []:
            return empty_result()
        condition = self._condition(query)
        return answer(
            query,
            mode,
            options,
            nearest=lambda top_k, vectors: self._nearest(query, top_k, condition, vectors),
            words=lambda top_k: self._words(query.query_str or "", top_k, condition),
        )

    def _condition(self, query: VectorStoreQuery) -> Any:
        dialect = self._collection.dialect()
        parts: list[Any] = []
        if query.filters is not None and query.filters.filters:
            parts.append(render(query.filters, dialect).sql)
        if query.node_ids:
            named = self._collection.named(query.node_ids, vectors=False)
            kinds = {one.properties["node_id"]: one.properties["kind"] for one in named}
            wanted = restricting_ids(query.node_ids, kinds)
            if wanted is not None:
                ids = [object_id(one) for one in wanted]
                parts.append(weaviate.classes.query.Filter.by_id().contains_any(ids))
        if query.doc_ids:
            parts.append(self._documents(query.doc_ids))
        return dialect.all_of(parts) if parts else None

    def _nearest(
        self, query: VectorStoreQuery, top_k: int, condition: Any, vectors: bool
    ) -> VectorStoreQueryResult:
        question = checked_question(query.query_embedding, self._dim).tolist()
        if not top_k:
            return empty_result()
        limit = min(MOST_ROWS, top_k + SPARE_ROWS)
        found = self._collection.nearest(question, limit, condition, vectors=vectors)
        return _best([(1.0 - one.metadata.distance, node_of(one)) for one in found], top_k, cosine=True)

    def _words(self, words: str, top_k: int, condition: Any) -> VectorStoreQueryResult:
        if not top_k:
            return empty_result()
        found = self._collection.matching(words, min(MOST_ROWS, top_k + SPARE_ROWS), condition)
        return _best([(one.metadata.score, node_of(one)) for one in found], top_k, cosine=False)

    # ---- life --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the client, where `from_url` opened it; closing twice is fine."""
        if self._is_self_created_weaviate_client:
            self._closed = True
            self._client.close()

    def _check_usable(self, *, write: bool = False) -> None:
        if self._closed:
            raise StoreError(CLOSED)

    def __del__(self) -> None:
        """Close a client left open; a constructor that refused its options opened none."""
        if self.__dict__:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be pickled: the copy would need the key."""
        raise StoreError(
            "A WeaviateVectorStore cannot be pickled, as it holds a connection. Open one per process."
        )

    def _check(self) -> bool:
        """Learn dimension and fingerprint, once they are there; whether there is a collection."""
        if self._checked:
            return True
        if not self._collection.look():
            return False
        self._dim = self._collection.dim()
        if self._dim is None:
            return True  # empty: the next `add` says what made its vectors
        stored = self._collection.fingerprint
        place = f"Collection '{self.index_name}'"
        agreed = agreed_fingerprint(stored, self._fingerprint, place=place, kind="index_name")
        if agreed and not stored:
            self._collection.make(agreed, frozenset())
        self._fingerprint = agreed
        self._checked = True
        return True


def _check_index_name(name: str) -> None:
    check_name("index_name", name)
    if not re.fullmatch(r"[A-Z][_0-9A-Za-z]{0,254}", name):
        raise SettingsError(
            f"index_name is '{name}'. Weaviate wants a capital letter first, then letters, digits and _ of ASCII, 255 "
            "in all at most."
        )


_NUMBERS = frozenset({"number", "coded", "digest"})


def _best(scored: list[tuple[float, BaseNode]], top_k: int, *, cosine: bool) -> VectorStoreQueryResult:
    ordered = islice(sorted(scored, key=lambda pair: (-pair[0], pair[1].node_id)), top_k)
    nodes, scores = [], []
    for score, node in ordered:
        nodes.append(node)
        scores.append(max(-1.0, min(1.0, float(score))) if cosine else float(score))
    return VectorStoreQueryResult(nodes=nodes, similarities=scores, ids=[node.node_id for node in nodes])
