"""Reader of stock nodes: what a move needs of its source, and the stock row format."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from llama_index_presets.errors import StoreCorruptError, StoreError
from llama_index_presets.store.node_codec import what_fails

__all__ = ["StockReader", "node_of_row", "without_copies"]


class StockReader(ABC):
    """Nodes of a stock adapter, read-only; the source of `llama_index_presets.store.move.move`.

    Attributes:
        place: Where the nodes are, for messages.
        fingerprint: None: stock adapters do not keep which model made the vectors.
    """

    place: str
    fingerprint: str | None = None

    @abstractmethod
    def ids_as_stored(self) -> list[str]:
        """Ids of all nodes, each once, in the order in which they are read fastest."""

    @abstractmethod
    def get_nodes(self, node_ids: list[str]) -> list[BaseNode]:
        """Nodes with their embeddings, in any order.

        Raises:
            StoreCorruptError: A row is not what the stock adapter writes, or an id has two different nodes.
        """

    @contextmanager
    def frugal_reads(self, threads: int) -> Iterator[None]:
        """While in the block, read with few threads."""
        yield

    def drop_cache(self) -> None:  # noqa: B027 - nothing to give back, unless a reader says so
        """Give back memory that holds copies of the files."""

    def close(self) -> None:  # noqa: B027 - as above
        """Close what was opened. Safe to call twice."""

    def class_name(self) -> str:
        """Name for messages."""
        return type(self).__name__


def node_of_row(
    node_id: str, text: str | None, metadata: str | Mapping[str, Any] | None, vector: Any, *, place: str
) -> BaseNode:
    """Node of a row as ``node_to_metadata_dict`` of llama-index-core wrote it.

    Args:
        node_id: The id of the row; it must be that of the node.
        text: Its text.
        metadata: The metadata with ``_node_content``, as JSON or as a mapping.
        vector: Its embedding, shape (dim,).
        place: The table, for messages.

    Raises:
        StoreCorruptError: The row has no node in it, a node of another id, or no embedding.
    """
    try:
        values = json.loads(metadata) if isinstance(metadata, str) else dict(metadata or {})
        node = metadata_dict_to_node(values, text=text)
    except ValueError as error:
        raise StoreCorruptError(
            f"Row '{node_id}' of {place} holds no LlamaIndex node ({what_fails(error)}). Was the table "
            "written by something else?"
        ) from error
    if node.node_id != node_id:
        raise StoreCorruptError(f"Row '{node_id}' of {place} holds the node '{node.node_id}'.")
    if vector is None:
        raise StoreCorruptError(f"Row '{node_id}' of {place} has no embedding. Embed its document again.")
    node.embedding = [float(value) for value in vector]
    return node


def without_copies(nodes: Sequence[BaseNode], *, place: str) -> list[BaseNode]:
    """Each node once: stock adapters add a row again when a document is added twice.

    Raises:
        StoreError: Rows of one id differ, so that one of them would be lost.
    """
    first: dict[str, BaseNode] = {}
    for node in nodes:
        known = first.setdefault(node.node_id, node)
        if known is not node and not _equal(known, node):
            raise StoreError(
                f"{place} holds two different nodes with the id '{node.node_id}'. Delete one of them first."
            )
    return list(first.values())


def _equal(left: BaseNode, right: BaseNode) -> bool:
    plain = [node.model_copy(update={"embedding": None}) for node in (left, right)]
    same_vector = np.array_equal(
        np.asarray(left.get_embedding(), np.float32), np.asarray(right.get_embedding(), np.float32)
    )
    return same_vector and plain[0] == plain[1]
