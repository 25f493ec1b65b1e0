"""What a block wants done to the keyword index when it ends well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from llama_index.core.schema import BaseNode

from llama_index_presets.retrieve.journal import Entry, Record

__all__ = ["Change", "listed"]


class Change:
    """Collects what `BM25Index.change` does in one step at its end."""

    def __init__(self) -> None:
        self._nodes: list[BaseNode] = []
        self._ids: list[str] = []
        self._documents: list[str] = []

    def upsert(self, nodes: Iterable[BaseNode]) -> None:
        """Add these nodes, or replace those whose id is there."""
        self._nodes.extend(nodes)

    def delete(self, ids: str | Iterable[str] = (), *, documents: str | Iterable[str] = ()) -> None:
        """Delete these nodes, and all nodes of these documents, but for those that this change upserts."""
        self._ids.extend(listed(ids))
        self._documents.extend(listed(documents))

    def record(
        self,
        present: Callable[[Sequence[str], Sequence[str]], list[str]],
        entries: Callable[[Iterable[BaseNode]], list[Entry]],
        documents: Sequence[str],
    ) -> Record:
        """The whole change as one record that also ends the change of `documents`."""
        kept = {node.node_id for node in self._nodes}
        drop = [name for name in present(self._ids, self._documents) if name not in kept]
        return Record(drop=drop, put=entries(self._nodes), end=documents)


def listed(names: str | Iterable[str]) -> list[str]:
    """A list of names, also where one name was given as a string."""
    return [names] if isinstance(names, str) else list(names)
