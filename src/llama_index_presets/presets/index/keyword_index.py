"""Keyword index of the hybrid pattern: opened, checked against the vector store, rebuilt where they differ."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_presets.counting import counted
from llama_index_presets.errors import StoreCorruptError
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.presets.index.storage import Storage
from llama_index_presets.retrieve.bm25.consistency import (
    ConsistencyReport,
    check_consistency,
    counts_apart,
    rebuild,
)
from llama_index_presets.retrieve.bm25.index import BM25Index
from llama_index_presets.retrieve.bm25.languages import AUTO

__all__ = ["KeywordOpening", "open_keyword_index"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeywordOpening:
    """How a keyword index is opened.

    Attributes:
        preset: Whose index it is; for the command that repairs it.
        strict: Whether fewer nodes than in the store are an error. Not where others write to the store past this
            folder: a store given by hand, or one on a server.
        repair: Whether to make the index equal to the store, building it afresh where its files are damaged.
    """

    preset: str
    strict: bool = True
    repair: bool = False


def open_keyword_index(
    storage: Storage, store: BasePydanticVectorStore, opening: KeywordOpening
) -> tuple[BM25Index, ConsistencyReport | None]:
    """Open the keyword index of a storage.

    A change that was cut short is repaired. The number of nodes is then compared with the store's, where the store can
    count without reading its nodes and neither is being changed at this moment.

    Returns:
        The index, and what was repaired because `repair` asked for it, else None.

    Raises:
        StoreCorruptError: Its files are damaged, or it holds fewer nodes than the store; names the command.
        StoreLockedError: `repair` is wanted, and another process ingests.
    """
    if opening.repair:
        with ingest_lock(storage.lock, wait=False):
            return _repaired(storage, store)
    remedy = (
        f"Rebuild it from the store: 'llama-presets doctor {opening.preset} --storage {storage.shown} --repair' with "
        "the same --settings and --offline, or build(..., repair=True)."
    )
    try:
        keyword = _opened(storage, store)
    except StoreCorruptError as error:
        raise StoreCorruptError(f"The keyword index cannot be read: {error} {remedy}") from error
    _compare(keyword, store, remedy, strict=opening.strict)
    return keyword, None


def _opened(storage: Storage, store: BasePydanticVectorStore) -> BM25Index:
    keyword = BM25Index(storage.keywords, nodes=store, language=_language(storage.keywords))
    if keyword.unfinished:  # a run was killed between the two
        check_consistency(store, keyword, documents=keyword.unfinished, repair=True)
    return keyword


def _language(folder: Path) -> str | None:
    """That of each document in a new index; one that is there keeps its own."""
    return None if folder.exists() else AUTO


def _repaired(storage: Storage, store: BasePydanticVectorStore) -> tuple[BM25Index, ConsistencyReport]:
    try:
        keyword = _opened(storage, store)
        return keyword, check_consistency(store, keyword, repair=True)
    except StoreCorruptError as error:
        _log.warning("The keyword index is built afresh from the store: %s", error)
        keyword = rebuild(store, storage.keywords)
        names = tuple(keyword.digests())
        report = ConsistencyReport(
            checked=len(names), missing=names, extra=(), changed=(), unfinished=(), repaired=True
        )
        return keyword, report


def _compare(keyword: BM25Index, store: BasePydanticVectorStore, remedy: str, *, strict: bool) -> None:
    apart = counts_apart(store, keyword)
    if apart is None:
        return
    held, indexed = apart
    fact = f"The keyword index holds {counted(indexed, 'node')} and the vector store {held:,}"
    if strict and indexed < held:
        raise StoreCorruptError(f"{fact}: passages would be missed without a word. {remedy}")
    _log.warning("%s. %s", fact, remedy)
