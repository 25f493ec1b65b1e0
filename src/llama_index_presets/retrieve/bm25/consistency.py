"""Consistency check of a keyword index against its vector store, and repair of the difference."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llama_index.core.schema import BaseNode

from llama_index_presets.errors import StoreWriteError
from llama_index_presets.retrieve.bm25.index import BM25Index, listed
from llama_index_presets.retrieve.bm25.languages import AUTO
from llama_index_presets.retrieve.node_sources import NodeSource, all_nodes, count_nodes

__all__ = ["ConsistencyReport", "check_consistency", "counts_apart", "rebuild"]

_LOOKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyReport:
    """Differences between a keyword index and a store.

    Attributes:
        checked: How many nodes the store holds, of the documents that were compared.
        missing: Ids of nodes that the store holds and the keyword index does not.
        extra: Ids of nodes that the keyword index holds and the store does not.
        changed: Ids of nodes whose text or metadata differ.
        unfinished: Source documents whose change a crash cut short.
        repaired: Whether the keyword index was made equal to the store.
    """

    checked: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    changed: tuple[str, ...]
    unfinished: tuple[str, ...]
    repaired: bool

    @property
    def consistent(self) -> bool:
        """Whether nothing differs, and no change was cut short."""
        return not (self.missing or self.extra or self.changed or self.unfinished)


def check_consistency(
    store: NodeSource,
    keyword: BM25Index,
    *,
    documents: str | Iterable[str] | None = None,
    repair: bool = False,
) -> ConsistencyReport:
    """Compare a keyword index with the vector store, document store or index that holds the nodes.

    The store is the truth: repairing adds, replaces and deletes in the keyword index, in one step, and
    declares unfinished changes over. All nodes of the store are read, whatever `documents` says: not every
    store can select by document.

    Args:
        store: Holds the nodes.
        keyword: Is compared with it.
        documents: Ids of source documents to compare; None compares everything. After a crash,
            ``keyword.unfinished`` is enough.
        repair: Whether to make the keyword index equal to the store.

    Returns:
        What differed before the repair.

    Raises:
        RetrievalError: The store cannot list its nodes.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from llama_index.core.storage.docstore import SimpleDocumentStore
        >>> store, words = SimpleDocumentStore(), BM25Index()
        >>> store.add_documents([TextNode(id_="a", text="red fish")])
        >>> check_consistency(store, words, repair=True).missing
        ('a',)
        >>> check_consistency(store, words).consistent
        True
    """
    chosen = None if documents is None else set(listed(documents))
    held = {node.node_id: node for node in all_nodes(store) if chosen is None or node.ref_doc_id in chosen}
    known = keyword.digests(chosen)
    unfinished = keyword.unfinished if chosen is None else keyword.unfinished & chosen
    report = ConsistencyReport(
        checked=len(held),
        missing=tuple(name for name in held if name not in known),
        extra=tuple(name for name in known if name not in held),
        changed=tuple(
            name for name, node in held.items() if known.get(name, "") not in ("", keyword.digest_of(node))
        ),
        unfinished=tuple(sorted(unfinished)),
        repaired=repair,
    )
    if repair and not report.consistent:
        _repair(keyword, held, report)
    return report


def counts_apart(store: NodeSource, keyword: BM25Index) -> tuple[int, int] | None:
    """Node counts of the store and the keyword index, where they differ; neither is read.

    Changes that `BM25Index.transaction` announces are waited for: they begin in the keyword index before the store is
    touched and end in it afterwards, so an index that is the same before and after the store was counted, and knows of
    no beginning without an end, belongs to that count.

    Returns:
        (nodes of the store, nodes of the index); None where they are equal, where the store cannot count, or while
        others keep changing the two.
    """
    for _ in range(_LOOKS):
        before = keyword.mark()
        held = count_nodes(store)
        if held is None or keyword.mark().changing:
            return None
        if keyword.mark() == before:
            return None if held == before.nodes else (held, before.nodes)
    return None


def rebuild(store: NodeSource, path: Path) -> BM25Index:
    """Build a keyword index from a store, in place of one whose files are damaged.

    The new one is complete before the old one is deleted. It has the default settings, and the language of each node:
    those of the old one are not to be trusted.

    Args:
        store: Holds the nodes.
        path: The folder.

    Raises:
        RetrievalError: The store cannot list its nodes.
        StoreWriteError: The folder cannot be written; the old files are as they were.
    """
    draft, old = (path.with_name(f"{path.name}.{suffix}") for suffix in ("new", "old"))
    for rest in (draft, old):  # of a rebuild that was cut short
        shutil.rmtree(rest, ignore_errors=True)
    BM25Index.from_source(store, draft, language=AUTO).compact()
    try:
        if path.exists():
            path.rename(old)
        draft.rename(path)
    except OSError as error:
        raise StoreWriteError(
            f"'{path}' cannot be replaced ({error}). Fix its rights and try again."
        ) from error
    shutil.rmtree(old, ignore_errors=True)
    return BM25Index(path, nodes=store)


def _repair(keyword: BM25Index, held: dict[str, BaseNode], report: ConsistencyReport) -> None:
    with keyword.transaction(report.unfinished) as change:
        change.delete(report.extra)
        change.upsert(held[name] for name in (*report.missing, *report.changed))
