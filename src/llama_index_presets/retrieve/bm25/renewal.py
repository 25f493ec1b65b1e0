"""Renewal of a keyword index that an earlier version wrote: its nodes are indexed again, once."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from llama_index.core.schema import BaseNode

from llama_index_presets.counting import counted
from llama_index_presets.errors import RetrievalError, StoreLockedError, StoreWriteError
from llama_index_presets.retrieve.bm25.documents import (
    indexed_text,
    node_tokens,
    serialize_entry,
    serialize_payload,
)
from llama_index_presets.retrieve.bm25.state import KeywordState, analyzer_of
from llama_index_presets.retrieve.bm25.write_ahead_log import NodeEntry
from llama_index_presets.retrieve.node_sources import NodeSource, all_nodes

__all__ = ["renew"]

_log = logging.getLogger(__name__)


def renew(state: KeywordState, source: NodeSource | None) -> None:
    """Index the nodes of an outdated folder again, with fields, positions and identifiers, and say so in the log.

    Where that is not possible now (the nodes cannot be listed, the folder cannot be written, another process writes),
    the index stays as it is and answers as before: without word pairs, phrases and whole identifiers.

    Args:
        state: Of the outdated folder.
        source: Who holds the nodes; None where the folder does.

    Raises:
        StoreCorruptError: A node is not as it was written down.
    """
    _log.warning(
        "The keyword index in %s was written by an earlier version; it is built again from its %s, once.",
        state.place,
        counted(len(state.heads()), "node"),
    )
    try:
        state.renew(_entries(state, source))
    except (RetrievalError, StoreWriteError, StoreLockedError) as error:
        _log.warning(
            "The keyword index in %s stays as it is, without word pairs, phrases and whole identifiers: %s",
            state.place,
            error,
        )


def _entries(state: KeywordState, source: NodeSource | None) -> list[NodeEntry]:
    settings = state.renewed_settings()
    analyzer = analyzer_of(settings["language"])
    entries = []
    for node in _nodes(state, source):
        head = serialize_entry(node, indexed_text(node, settings["text"]))
        body = serialize_payload(node) if source is None else None
        entries.append(NodeEntry(head.to_json(), node_tokens(node, settings, analyzer), body))
    return entries


def _nodes(state: KeywordState, source: NodeSource | None) -> Iterable[BaseNode]:
    """Nodes that the index holds; what a store has beyond them is for `check_consistency`."""
    if source is None:
        return state.nodes()
    held = {head.id for head in state.heads()}
    return [node for node in all_nodes(source) if node.node_id in held]
