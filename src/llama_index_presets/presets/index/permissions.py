"""Permissions of an engine's documents: what an ingest puts on them, and their change without embedding again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from llama_index.core.schema import BaseNode

from llama_index_presets.counting import counted
from llama_index_presets.errors import PermissionsError
from llama_index_presets.filters import filterable_metadata, predicate
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.ingest.metadata.document_metadata import ALLOWED, ALLOWED_KEY
from llama_index_presets.ingest.metadata.ownership import Ownership
from llama_index_presets.ingest.metadata.permissions import Permissions, check_names, names_of, put_names
from llama_index_presets.ingest.sources.source import Source
from llama_index_presets.ingest.stored_nodes import batches, nodes_of_documents
from llama_index_presets.presets.engine_parts import EngineParts
from llama_index_presets.provenance import document_id

__all__ = [
    "finish_permissions",
    "list_permissions",
    "permissions_of_run",
    "refuse_unseen",
    "replace_set_permissions",
    "seen_only",
    "set_permissions",
]

_log = logging.getLogger(__name__)
_UNSEEN = "The index holds a document of this id, which this user does not see; it was kept. Give this one another id."


def permissions_of_run(parts: EngineParts) -> Permissions | None:
    """What an ingest puts on documents; None where the storage has no permissions.

    In the view of a user only the caller's word and the user's name count: whoever can send a document could send a
    sidecar, too.
    """
    if not parts.permissions.on():
        return None
    overrides = parts.manifest.permissions()
    if parts.access is None or parts.access.everything:
        return Permissions(trusted=parts.settings.permissions_from, overrides=overrides)
    return Permissions(overrides=overrides, default=parts.access.default, of_user=True)


def replace_set_permissions(parts: EngineParts, found: Sequence[Source], ownership: Ownership) -> None:
    """Let what the caller of this run says of documents replace what was set by hand before, at once.

    It does not wait for a document to be written again: one whose text is as it was is not, and one that cannot be read
    is not either.
    """
    overrides = ownership.overrides
    if overrides.permissions is None or overrides.permissions.of_user:
        return
    by_hand = parts.manifest.permissions()
    put = {one.doc_id: overrides.of(one.doc_id) for one in found if one.doc_id in by_hand}
    said = {doc_id: check_names(own[ALLOWED]) for doc_id, own in put.items() if ALLOWED in own}
    mine = ownership.may_change(said)
    said = {doc_id: names for doc_id, names in said.items() if doc_id in mine}
    parts.manifest.begin_permissions(said)
    _write(parts, said)
    parts.manifest.forget_permissions(said)


def refuse_unseen(parts: EngineParts, found: Sequence[Source]) -> list[Source]:
    """The same documents; those that would replace one that the engine's user does not see are refused."""
    if parts.access is None or parts.access.everything:
        return list(found)
    ids = [source.doc_id for source in found if not source.refusal]
    unseen = _unseen(parts, ids)
    return [source.refused(_UNSEEN) if source.doc_id in unseen else source for source in found]


def seen_only(parts: EngineParts, vanished: Callable[[str], bool] | None) -> Callable[[str], bool] | None:
    """Vanished documents that the engine's user sees; only they are removed."""
    if vanished is None or parts.access is None or parts.access.everything:
        return vanished
    return lambda doc_id: vanished(doc_id) and not _unseen(parts, [doc_id])


def _unseen(parts: EngineParts, doc_ids: Iterable[str]) -> set[str]:
    """Those of these documents that are stored with a node that the user does not see."""
    unseen: set[str] = set()
    for some in batches(doc_ids):
        stored = [node for nodes in _nodes_of(parts, some).values() for node in nodes]
        seen = {node.node_id for node in parts.visible(stored)}
        unseen |= {document_id(node) for node in stored if node.node_id not in seen}
    return unseen


def set_permissions(
    parts: EngineParts, doc_ids: Sequence[str], allowed: Iterable[str], *, wait: bool = True
) -> int:
    """See `PresetEngine.set_permissions`."""
    _refuse_users(parts)
    names = check_names(allowed if isinstance(allowed, str) else list(allowed))
    with ingest_lock(parts.storage.lock, wait=wait):
        finish_permissions(parts)
        known = parts.manifest.hashes()
        wanted = [doc_ids] if isinstance(doc_ids, str) else list(dict.fromkeys(doc_ids))
        there = _within_filters(parts, [doc_id for doc_id in wanted if doc_id in known])
        parts.manifest.begin_permissions(dict.fromkeys(there, names))  # from here on nobody sees them
        _write(parts, dict.fromkeys(there, names))
    who = parts.user or "the engine itself"
    _log.info("Permissions of %s were set by %s.", counted(len(there), "document"), who)
    return len(there)


def list_permissions(parts: EngineParts, doc_ids: Sequence[str] | None) -> dict[str, list[str]]:
    """See `PresetEngine.permissions`."""
    _refuse_users(parts)
    known = parts.manifest.hashes()
    wanted = (
        sorted(known) if doc_ids is None else [doc_id for doc_id in dict.fromkeys(doc_ids) if doc_id in known]
    )
    found: dict[str, list[str]] = {}
    for some in batches(_within_filters(parts, wanted)):
        for doc_id, nodes in _nodes_of(parts, some).items():
            allowed = {name for node in nodes for name in names_of(node.metadata.get(ALLOWED_KEY))}
            found[doc_id] = sorted(allowed)
    return found


def _refuse_users(parts: EngineParts) -> None:
    if parts.access is not None and not parts.access.everything:
        raise PermissionsError(
            "This engine is held to a user, who cannot change permissions or list them. Use the engine itself, or "
            "as_user(user=..., everything=True)."
        )


def _within_filters(parts: EngineParts, doc_ids: list[str]) -> list[str]:
    """Those of these documents that the engine's filters, such as a tenant's, let through."""
    if parts.filters is None:
        return doc_ids
    test = predicate(parts.filters)
    return [
        doc_id
        for some in batches(doc_ids)
        for doc_id, nodes in _nodes_of(parts, some).items()
        if nodes and all(test(filterable_metadata(node)) for node in nodes)
    ]


def finish_permissions(parts: EngineParts) -> None:
    """Finish a change that a process left in the middle; under the ingest lock."""
    if not parts.permissions.on():
        return
    pending = parts.manifest.pending_permissions()
    if pending:
        set_by_hand = parts.manifest.permissions()
        _write(parts, {doc_id: set_by_hand[doc_id] for doc_id in sorted(pending)})


def _write(parts: EngineParts, allowed: Mapping[str, Sequence[str]]) -> None:
    """Write permissions to the store and the keyword index, with the vectors that are there."""
    for some in batches(allowed):
        nodes = _nodes_of(parts, some)
        for doc_id, own in nodes.items():
            for node in own:
                put_names(node, allowed[doc_id])
        changed = [node for own in nodes.values() for node in own]
        keyword = parts.retrieval.keyword
        if not changed:
            pass
        elif keyword is None:
            parts.vector_store.add(changed)
        else:
            with keyword.transaction(some) as change:
                parts.vector_store.add(changed)
                change.upsert(changed)
        parts.manifest.end_permissions(some)


def _nodes_of(parts: EngineParts, doc_ids: list[str]) -> dict[str, list[BaseNode]]:
    found: dict[str, list[BaseNode]] = {doc_id: [] for doc_id in doc_ids}
    for node in nodes_of_documents(parts.vector_store, doc_ids):
        found[document_id(node)].append(node)
    return found
