"""Nodes that a vector store holds, from a store of LlamaIndex that may not be able to tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from llama_index.core.schema import BaseNode, ImageNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from llama_index_presets.provenance import document_id

__all__ = ["batches", "nodes_of_documents", "stored_nodes", "stored_vectors"]

_AT_ONCE: Final = 100


def stored_nodes(store: BasePydanticVectorStore, ids: Sequence[str]) -> list[BaseNode]:
    """Nodes by their ids; none where the store has no such call, which LlamaIndex leaves open.

    Then the manifest alone knows whose documents are: its owners, and no nodes beside it.
    """
    try:
        return store.get_nodes(list(ids))
    except NotImplementedError:
        return []


def nodes_of_documents(store: BasePydanticVectorStore, doc_ids: Sequence[str]) -> list[BaseNode]:
    """Nodes of documents, whatever their metadata says, with those that have no source and are documents themselves.

    A store of another package is asked by a filter, which metadata with a ``ref_doc_id`` of its own can mislead.

    Raises:
        NotImplementedError: The store has no such call.
    """
    own = getattr(store, "document_nodes", None)
    if own is not None:
        found = own(list(doc_ids))
    else:
        of_documents = MetadataFilter(key="ref_doc_id", operator=FilterOperator.IN, value=list(doc_ids))
        found = store.get_nodes(None, MetadataFilters(filters=[of_documents]))
    nodes = {node.node_id: node for node in [*found, *store.get_nodes(list(doc_ids))]}
    wanted = set(doc_ids)
    return [node for node in nodes.values() if document_id(node) in wanted]


def stored_vectors(store: BasePydanticVectorStore, doc_ids: Sequence[str]) -> dict[str, list[float]]:
    """Vectors of the chunks of documents, by the text that was embedded; empty where the store cannot list them."""
    try:
        nodes = nodes_of_documents(store, doc_ids)
    except NotImplementedError:
        return {}
    return {
        node.get_content(MetadataMode.EMBED): node.embedding
        for node in nodes
        if node.embedding is not None and not isinstance(node, ImageNode)
    }


def batches(ids: Iterable[str]) -> Iterator[list[str]]:
    """Ids in lists that a store can be asked for at once."""
    rest = iter(ids)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
