"""Node sources: a vector store, a document store, or an index made of both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_presets.counting import counted
from llama_index_presets.errors import RetrievalError, WrongTypeError

__all__ = ["NodeSource", "all_nodes", "count_nodes", "fetch_nodes"]

NodeSource = BaseIndex[Any] | BasePydanticVectorStore | BaseDocumentStore
"""What nodes can be read from."""


def _node_holder(source: NodeSource) -> BasePydanticVectorStore | BaseDocumentStore:
    """Store that holds the nodes of an index; a store is its own holder.

    Raises:
        RetrievalError: The index holds no nodes that can be read.
    """
    if isinstance(source, (BasePydanticVectorStore, BaseDocumentStore)):
        return source
    store = getattr(source, "vector_store", None)
    if isinstance(store, BasePydanticVectorStore) and store.stores_text:
        return store
    docstore = getattr(source, "docstore", None)
    if not isinstance(docstore, BaseDocumentStore):
        raise WrongTypeError(
            f"The source of nodes is a {type(source).__name__}. Give an index, a vector store or a document store."
        )
    return docstore


def all_nodes(source: NodeSource) -> list[BaseNode]:
    """Every node of a source.

    Raises:
        RetrievalError: The source cannot list its nodes.
    """
    holder = _node_holder(source)
    try:
        if isinstance(holder, BasePydanticVectorStore):
            return list(holder.get_nodes(None, None))
        return _own_nodes(holder, source)
    except Exception as error:
        raise RetrievalError(
            f"{type(holder).__name__} cannot list its nodes ({error}). Build the keyword index from the "
            "nodes themselves: BM25Index(...).add(nodes), and pass it as keyword=."
        ) from error


def count_nodes(source: NodeSource) -> int | None:
    """How many nodes a source holds; None where it cannot count them without reading them all."""
    holder = _node_holder(source)
    if isinstance(holder, BaseDocumentStore):
        return len(_own_nodes(holder, source))
    count = getattr(holder, "node_count", None)
    return int(count()) if callable(count) else None


def fetch_nodes(source: NodeSource, ids: Sequence[str]) -> dict[str, BaseNode]:
    """Nodes by id; an id that the source does not hold is absent.

    Raises:
        RetrievalError: The source cannot read nodes by id.
    """
    holder = _node_holder(source)
    try:
        if isinstance(holder, BasePydanticVectorStore):
            found: Iterable[BaseNode] = holder.get_nodes(node_ids=list(ids))
        else:
            found = holder.get_nodes(list(ids), raise_error=False)
    except Exception as error:
        raise RetrievalError(
            f"{type(holder).__name__} could not read {counted(len(ids), 'node')} by id ({error})."
        ) from error
    return {node.node_id: node for node in found if node is not None}


def _own_nodes(holder: BaseDocumentStore, source: NodeSource) -> list[BaseNode]:
    """Nodes of this index only: a document store may serve several, and keep whole documents beside nodes."""
    nodes_dict = getattr(getattr(source, "index_struct", None), "nodes_dict", None)
    if nodes_dict is None:
        return list(holder.docs.values())
    own = set(nodes_dict.values())
    return [node for name, node in holder.docs.items() if name in own]
