"""Nodes that a vector store holds, from a store of LlamaIndex that may not be able to tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import BasePydanticVectorStore, MetadataFilters

__all__ = ["batches", "stored_nodes"]

_AT_ONCE: Final = 100


def stored_nodes(
    store: BasePydanticVectorStore, ids: Sequence[str] | None = None, filters: MetadataFilters | None = None
) -> list[BaseNode]:
    """Nodes by their ids or by filters; none where the store has no such call, which LlamaIndex leaves open.

    Then the manifest alone knows whose documents are: its owners, and no nodes beside it.
    """
    try:
        return store.get_nodes(None if ids is None else list(ids), filters)
    except NotImplementedError:
        return []


def batches(ids: Iterable[str]) -> Iterator[list[str]]:
    """Ids in lists that a store can be asked for at once."""
    rest = iter(ids)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
