"""What a keyword search found: ids and scores at once, nodes when they are wanted."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import MetadataFilters

from llama_index_presets.filters import filterable_metadata, predicate
from llama_index_presets.retrieve.journal import damaged
from llama_index_presets.retrieve.records import node_of
from llama_index_presets.retrieve.shelf import Shelf
from llama_index_presets.retrieve.sources import NodeSource, fetch_nodes

__all__ = ["Found"]

_log = logging.getLogger(__name__)


class Found:
    """Hits of one search. Not a dataclass: tracers write out dataclasses whole, and this one reaches every text.

    Args:
        pairs: (node id, score), best first, ties by id.
        rows: Row of each hit on the shelf.
        shelf: What was known of the nodes when the search ran.
        source: Who holds the nodes; None where the shelf does.
        filters: What the search was asked to respect.
    """

    __slots__ = ("_filters", "_rows", "_shelf", "_source", "pairs")

    def __init__(
        self,
        pairs: list[tuple[str, float]],
        rows: list[int],
        shelf: Shelf,
        source: NodeSource | None,
        filters: MetadataFilters | None,
    ) -> None:
        self.pairs = pairs
        self._rows, self._shelf, self._source, self._filters = rows, shelf, source, filters

    def __repr__(self) -> str:
        return f"Found({self.pairs})"

    def nodes(self, ids: Iterable[str] | None = None) -> dict[str, BaseNode]:
        """Nodes by id, of all hits or of some.

        A node that its store no longer holds, or that no longer satisfies the filters, is absent, and logged:
        `verify_in_step` repairs the index.

        Raises:
            StoreCorruptError: A node is not as it was written down.
            RetrievalError: The store that holds the nodes cannot read them.
        """
        wanted = {name: row for (name, _), row in zip(self.pairs, self._rows, strict=True)}
        if ids is not None:
            wanted = {name: wanted[name] for name in ids}
        if self._source is None:
            return {name: self._read(row) for name, row in wanted.items()}
        return self._fetched(list(wanted), self._source) if wanted else {}

    def _read(self, row: int) -> BaseNode:
        try:
            return node_of(self._shelf.body(row))
        except (ValueError, TypeError, AttributeError) as error:
            raise damaged(self._shelf.place, f"node {row} cannot be read") from error

    def _fetched(self, names: list[str], source: NodeSource) -> dict[str, BaseNode]:
        found = fetch_nodes(source, names)
        if self._filters is not None:
            test = predicate(self._filters)
            found = {name: node for name, node in found.items() if test(filterable_metadata(node))}
        if len(found) < len(names):
            _log.warning(
                "%d of %d keyword hits are not in the store as they were indexed; run verify_in_step(..., "
                "repair=True).",
                len(names) - len(found),
                len(names),
            )
        return found
