"""Encrypted store over any vector store: below it are vectors and ciphertext only."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    IndexNode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llama_index_presets._options import strict
from llama_index_presets._utf8 import check_ids
from llama_index_presets.encryption import Encryptor
from llama_index_presets.errors import (
    EncryptionError,
    FilterError,
    NodeRejectedError,
    QueryError,
    SettingsError,
)
from llama_index_presets.filters import REFERENCE_KEYS
from llama_index_presets.filters.values import check
from llama_index_presets.store.base import ThreadedAsync
from llama_index_presets.store.node_codec import Row, to_node, to_row
from llama_index_presets.store.query_options import check_texts

__all__ = ["EncryptedVectorStore", "sealed_filters"]

# Filters over a store that is encrypted: on metadata that stays in clear, and on the source document by equality.


_EQUALITY = (
    FilterOperator.EQ,
    FilterOperator.NE,
    FilterOperator.IN,
    FilterOperator.NIN,
    FilterOperator.IS_EMPTY,
)


def sealed_filters(
    filters: MetadataFilters, searchable: Collection[str], sealer: Encryptor
) -> MetadataFilters:
    """Equivalent filters over encrypted metadata, for the store below.

    Raises:
        FilterError: A filter is on a key that is encrypted, or compares source documents by more than equality.
    """
    parts = [
        sealed_filters(part, searchable, sealer)
        if isinstance(part, MetadataFilters)
        else _sealed(part, searchable, sealer)
        for part in filters.filters
    ]
    return MetadataFilters(filters=parts, condition=filters.condition)


def _sealed(part: MetadataFilter, searchable: Collection[str], sealer: Encryptor) -> MetadataFilter:
    check(part)
    if part.key in searchable:
        return part
    if part.key not in REFERENCE_KEYS:
        allowed = ", ".join([*searchable, *REFERENCE_KEYS])
        raise FilterError(
            f"Metadata '{part.key}' is encrypted and cannot be filtered on. Searchable here: {allowed}. Name the key "
            "in searchable_metadata when a new index is made; its values then lie on disk in clear."
        )
    if part.operator not in _EQUALITY:
        raise FilterError(
            f"'{part.operator.value}' on '{part.key}' reads ids of documents, which are encrypted. Use ==, !=, in or "
            "nin."
        )
    return MetadataFilter(key=part.key, operator=part.operator, value=_sealed_value(part.value, sealer))


def _sealed_value(value: Any, sealer: Encryptor) -> Any:
    if isinstance(value, list):
        return [_sealed_value(item, sealer) for item in value]
    return sealer.seal_id(value) if isinstance(value, str) else value


_MODES = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)


@strict()
class EncryptedVectorStore(ThreadedAsync, BasePydanticVectorStore):
    """Vector store that encrypts on the way in and decrypts on the way out, over any LlamaIndex vector store.

    Text, metadata, relationships and every other field of a node are one AES-256-GCM ciphertext bound to the node's
    id; ids of nodes and of their documents are AES-SIV ciphertexts. What stays in clear: the vectors (from which text
    can be guessed at, see docs/how-to/encryption.md), the lengths, how many nodes a document has, and the metadata keys
    named in `searchable`. Hits come back whole, with their own ids. Safe for threads where the store below is.

    Args:
        inner: The store that keeps the ciphertext. Nothing else may write to it.
        sealer: Holds the key.
        searchable: Metadata keys whose values stay in clear, so that filters can use them. Fixed for the life of the
            store: nodes written before a key was added lack it.

    Raises:
        SettingsError: `searchable` names one of `filters.REFERENCE_KEYS`, which always mean the source document.

    Example:
        >>> import tempfile
        >>> from llama_index_presets.store.duckdb.store import DuckDBVectorStore
        >>> inner = DuckDBVectorStore(":memory:")
        >>> store = EncryptedVectorStore(inner, sealer=Encryptor(bytes(range(32))), searchable=["ward"])
        >>> store.add([TextNode(id_="a", text="Jane Doe", metadata={"ward": 3}, embedding=[1.0, 0.0])])
        ['a']
        >>> store.get_nodes(["a"])[0].text, "Jane" in inner.get_nodes()[0].get_content("all")
        ('Jane Doe', False)
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    searchable: tuple[str, ...] = ()

    _inner: Any = PrivateAttr()
    _sealer: Encryptor = PrivateAttr()

    def __init__(
        self, inner: BasePydanticVectorStore, *, sealer: Encryptor, searchable: Sequence[str] = ()
    ) -> None:
        reserved = sorted(set(searchable) & set(REFERENCE_KEYS))
        if reserved:
            raise SettingsError(
                f"{', '.join(reserved)} cannot be searchable metadata: filters on it mean the source document, and "
                "work without being named."
            )
        super().__init__(searchable=tuple(searchable))  # type: ignore[call-arg]  # a pydantic field
        self._inner = inner
        self._sealer = sealer

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "EncryptedVectorStore"

    @property
    def client(self) -> Any:
        """The client of the store below; it sees ciphertext."""
        return self._inner.client

    @property
    def inner(self) -> BasePydanticVectorStore:
        """The store below."""
        store: BasePydanticVectorStore = self._inner
        return store

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the vectors, as the store below remembers it."""
        return getattr(self._inner, "fingerprint", None)

    # -- writing --------------------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Encrypt and insert nodes, replacing those of the same id.

        Returns:
            Their ids, in the order given.

        Raises:
            NodeRejectedError: A node cannot be stored; nothing was written where the store below is atomic.
        """
        sealed = self._seal_all(nodes)
        with self._real_ids():
            self._inner.add(sealed, **add_kwargs)
        return [node.node_id for node in nodes]

    def replace_documents(self, ref_doc_ids: Sequence[str], nodes: Sequence[BaseNode]) -> list[str]:
        """Replace all nodes of some documents by new ones; in one commit where the store below can.

        Raises:
            NodeRejectedError: A node cannot be stored.
        """
        check_ids(ref_doc_ids, "document")
        sealed, documents = self._seal_all(nodes), [self._sealer.seal_id(name) for name in ref_doc_ids]
        with self._real_ids():
            if hasattr(self._inner, "replace_documents"):
                self._inner.replace_documents(documents, sealed)
            else:
                for document in documents:
                    self._inner.delete(document)
                self._inner.add(sealed)
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of one document; an unknown id is no error."""
        check_ids([ref_doc_id], "document")
        self._inner.delete(self._sealer.seal_id(ref_doc_id), **delete_kwargs)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete the nodes that have one of the ids and match the filters."""
        self._inner.delete_nodes(self._sealed_ids(node_ids), self._filters(filters), **delete_kwargs)

    def clear(self) -> None:
        """Delete every node."""
        self._inner.clear()

    # -- reading --------------------------------------------------------------------------------------------------

    def get_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **kwargs: Any,
    ) -> list[BaseNode]:
        """Nodes that have one of the ids and match the filters, decrypted.

        Returns:
            In the order of `node_ids` where they are given, else by id.

        Raises:
            EncryptionError: A row does not open with this key.
        """
        found = self._inner.get_nodes(self._sealed_ids(node_ids), self._filters(filters), **kwargs)
        nodes = [self._opened(node) for node in found]
        return nodes if node_ids is not None else sorted(nodes, key=lambda node: node.node_id)

    def node_ids(self) -> list[str]:
        """Ids of all nodes, sorted; without reading the nodes where the store below can."""
        if not hasattr(self._inner, "node_ids"):
            return [node.node_id for node in self.get_nodes()]
        return sorted(self._sealer.open_id(name) for name in self._inner.node_ids())

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find the nodes closest to a query, decrypted.

        Best first, ties by id; where not all of equal hits fit, the store below chooses among them by sealed id.

        Raises:
            QueryError: The mode reads text, which is encrypted.
            FilterError: A filter is on a key that is not searchable.
            EncryptionError: A row does not open with this key.
        """
        if query.mode not in _MODES:
            raise QueryError(
                f"mode='{query.mode.value}' reads the text, which is encrypted here. Use 'default' or 'mmr', or a "
                "store without encryption."
            )
        check_texts(query)
        found = self._inner.query(self._sealed_query(query), **kwargs)
        nodes = [self._opened(node) for node in found.nodes or []]
        scores = list(found.similarities) if found.similarities is not None else [0.0] * len(nodes)
        hits = list(zip(scores, nodes, strict=True))
        if query.mode is VectorStoreQueryMode.DEFAULT:
            hits.sort(key=lambda hit: (-hit[0], hit[1].node_id))
        return VectorStoreQueryResult(
            nodes=[node for _, node in hits],
            similarities=[score for score, _ in hits],
            ids=[node.node_id for _, node in hits],
        )

    # -- life -----------------------------------------------------------------------------------------------------

    def finish_load(self) -> None:
        """Index and compact once, after a bulk load, where the store below can."""
        if hasattr(self._inner, "finish_load"):
            self._inner.finish_load()

    def compact(self) -> None:
        """Remove what was deleted from the disk, where the store below can."""
        if hasattr(self._inner, "compact"):
            self._inner.compact()

    def close(self) -> None:
        """Close the store below, where it can be closed."""
        if hasattr(self._inner, "close"):
            self._inner.close()

    def persist(self, persist_path: str = "", fs: Any = None) -> None:
        """Let the store below persist itself."""
        self._inner.persist(persist_path, fs)

    # -- sealing --------------------------------------------------------------------------------------------------

    def _seal_all(self, nodes: Sequence[BaseNode]) -> list[BaseNode]:
        return [self._sealed(node) for node in nodes]

    def _sealed(self, node: BaseNode) -> BaseNode:
        shadowed = sorted(set(node.metadata) & set(REFERENCE_KEYS))
        if shadowed:
            raise NodeRejectedError(
                f"Node '{node.node_id}' has the metadata key {', '.join(shadowed)}, which filters on an encrypted "
                "store take for the source document. Rename it. Nothing was written.",
                [node.node_id],
            )
        row = to_row(node)
        name = self._sealer.seal_id(node.node_id)
        payload = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()
        sealed = _shell(row.kind, name, self._sealer.seal(payload, place=name))
        sealed.metadata = {key: node.metadata[key] for key in self.searchable if key in node.metadata}
        sealed.embedding = node.embedding
        if row.ref_doc_id is not None:
            source = RelatedNodeInfo(node_id=self._sealer.seal_id(row.ref_doc_id))
            sealed.relationships[NodeRelationship.SOURCE] = source
        return sealed

    def _opened(self, sealed: BaseNode) -> BaseNode:
        payload = self._sealer.open(sealed.get_content(), place=sealed.node_id)
        row = Row(*json.loads(payload))
        if self._sealer.open_id(sealed.node_id) != row.node_id:
            raise EncryptionError(
                f"Row '{sealed.node_id}' holds another node than its id says; it was altered."
            )
        return to_node(row, sealed.embedding)

    def _sealed_query(self, query: VectorStoreQuery) -> VectorStoreQuery:
        from dataclasses import replace

        return replace(
            query,
            query_str=None,
            node_ids=self._sealed_ids(query.node_ids),
            doc_ids=self._sealed_ids(query.doc_ids),
            filters=self._filters(query.filters),
        )

    def _sealed_ids(self, names: Sequence[str] | None) -> list[str] | None:
        check_ids(names, "node")
        return None if names is None else [self._sealer.seal_id(name) for name in names]

    def _filters(self, filters: MetadataFilters | None) -> MetadataFilters | None:
        return None if filters is None else sealed_filters(filters, self.searchable, self._sealer)

    @contextmanager
    def _real_ids(self) -> Iterator[None]:
        """Name a refused node by its own id, not by the one below."""
        try:
            yield
        except NodeRejectedError as error:
            message, names = str(error), [self._sealer.open_id(name) for name in error.node_ids]
            for sealed, name in zip(error.node_ids, names, strict=True):
                message = message.replace(sealed, name)
            raise NodeRejectedError(message, names) from error


def _shell(kind: str, name: str, text: str) -> TextNode:
    """Empty node that a store below restricts as it would the real one (see `rows.restricting_ids`)."""
    if kind == "ImageNode":
        return ImageNode(id_=name, text=text)
    if kind == "IndexNode":
        return IndexNode(id_=name, text=text, index_id=name)
    return TextNode(id_=name, text=text)
