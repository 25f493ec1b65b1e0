"""Encrypted store over any vector store: below it are vectors and ciphertext only."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

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
from llama_index_presets.errors import (
    EncryptionError,
    FilterError,
    NodeRejectedError,
    QueryError,
    SettingsError,
    StoreError,
)
from llama_index_presets.files.encryption import Encryptor
from llama_index_presets.filters import REFERENCE_KEYS
from llama_index_presets.filters.values import check
from llama_index_presets.store.base import NodeQuery, StoreBase
from llama_index_presets.store.node_codec import Row, to_node, to_row

__all__ = ["EncryptedVectorStore", "sealed_filters"]

# -- filters: on metadata in clear, and on the source document by equality ------------------------------------


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


_MODES = frozenset({VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR})


@strict()
class EncryptedVectorStore(StoreBase, BasePydanticVectorStore):
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

    _modes: ClassVar[frozenset[VectorStoreQueryMode]] = _MODES
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

    def _upsert(self, nodes: list[BaseNode], *, replacing: Sequence[str] = (), bulk: bool = False) -> None:
        """In one commit where the store below can."""
        sealed = [self._sealed(node) for node in nodes]
        documents = [self._sealer.seal_id(name) for name in replacing]
        with self._real_ids():
            if not documents:
                self._inner.add(sealed, **({"bulk": True} if bulk else {}))
            elif hasattr(self._inner, "replace_documents"):
                self._inner.replace_documents(documents, sealed)
            else:
                for document in documents:
                    self._inner.delete(document)
                self._inner.add(sealed)

    def _delete(self, selection: NodeQuery) -> None:
        if selection.doc_ids is None:
            self._inner.delete_nodes(
                self._sealed_ids(selection.node_ids), self._sealed_filters(selection.filters)
            )
        for document in selection.doc_ids or ():
            self._inner.delete(self._sealer.seal_id(document))

    def _clear(self) -> None:
        self._inner.clear()

    # -- reading --------------------------------------------------------------------------------------------------

    def _select(self, selection: NodeQuery) -> list[BaseNode]:
        """Nodes, decrypted.

        Raises:
            EncryptionError: A row does not open with this key.
        """
        if selection.doc_ids is not None:
            return [self._opened(node) for node in self._of_documents(selection.doc_ids)]
        nodes = self._inner.get_nodes(
            self._sealed_ids(selection.node_ids), self._sealed_filters(selection.filters)
        )
        return [self._opened(node) for node in nodes]

    def _of_documents(self, doc_ids: Sequence[str]) -> list[BaseNode]:
        sealed = [self._sealer.seal_id(doc_id) for doc_id in doc_ids]
        if isinstance(self._inner, StoreBase):
            return self._inner.document_nodes(sealed)
        of_documents = MetadataFilter(key="ref_doc_id", operator=FilterOperator.IN, value=sealed)
        return list(self._inner.get_nodes(None, MetadataFilters(filters=[of_documents])))

    def node_ids(self) -> list[str]:
        """Ids of all nodes, sorted; without reading the nodes where the store below can."""
        if not hasattr(self._inner, "node_ids"):
            return [node.node_id for node in self.get_nodes()]
        return sorted(self._sealer.open_id(name) for name in self._inner.node_ids())

    @property
    def _query_options(self) -> tuple[str, ...]:  # type: ignore[override]
        """Keywords of the store below."""
        return getattr(self._inner, "_query_options", ())

    def _mode(self, query: VectorStoreQuery, options: Mapping[str, Any]) -> VectorStoreQueryMode:
        if query.mode not in _MODES:
            raise QueryError(
                f"mode='{query.mode.value}' reads the text, which is encrypted here. Use 'default' or 'mmr', or a "
                "store without encryption."
            )
        return query.mode

    def _search(
        self, query: VectorStoreQuery, mode: VectorStoreQueryMode, options: Mapping[str, Any]
    ) -> VectorStoreQueryResult:
        """Hits, decrypted; where not all of equal hits fit, the store below chooses among them by sealed id.

        Raises:
            FilterError: A filter is on a key that is not searchable.
            EncryptionError: A row does not open with this key.
        """
        found = self._inner.query(self._sealed_query(query), **options)
        nodes = [self._opened(node) for node in found.nodes or []]
        scores = list(found.similarities) if found.similarities is not None else [0.0] * len(nodes)
        hits = list(zip(scores, nodes, strict=True))
        if mode is VectorStoreQueryMode.DEFAULT:
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

    @contextmanager
    def frugal_reads(self, threads: int) -> Iterator[None]:
        """See the store below."""
        if not isinstance(self._inner, StoreBase):
            yield
            return
        with self._inner.frugal_reads(threads):
            yield

    def drop_cache(self) -> None:
        """See the store below."""
        if isinstance(self._inner, StoreBase):
            self._inner.drop_cache()

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be pickled: the key would be written in clear."""
        raise StoreError(
            "An EncryptedVectorStore cannot be pickled: the key would be written in clear. Open one per process."
        )

    def check_ready(self) -> None:
        """Refuse when the store below cannot be read now."""
        if isinstance(self._inner, StoreBase):
            self._inner.check_ready()

    def _check_usable(self, *, write: bool = False) -> None:
        if isinstance(self._inner, StoreBase):
            self._inner._check_usable(write=write)

    def close(self) -> None:
        """Close the store below, where it can be closed."""
        if hasattr(self._inner, "close"):
            self._inner.close()

    def persist(self, persist_path: str = "", fs: Any = None) -> None:
        """Let the store below persist itself."""
        self._inner.persist(persist_path, fs)

    # -- sealing --------------------------------------------------------------------------------------------------

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
        return replace(
            query,
            query_str=None,
            node_ids=self._sealed_ids(query.node_ids),
            doc_ids=self._sealed_ids(query.doc_ids),
            filters=self._sealed_filters(query.filters),
        )

    def _sealed_ids(self, names: Sequence[str] | None) -> list[str] | None:
        return None if names is None else [self._sealer.seal_id(name) for name in names]

    def _sealed_filters(self, filters: MetadataFilters | None) -> MetadataFilters | None:
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
    """A node that a store below treats as it would treat the real one (see `node_codec.restricting_ids`)."""
    if kind == "ImageNode":
        return ImageNode(id_=name, text=text)
    if kind == "IndexNode":
        return IndexNode(id_=name, text=text, index_id=name)
    return TextNode(id_=name, text=text)
