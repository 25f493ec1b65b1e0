"""Compaction of a storage: every file rewritten without deleted text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llama_index_presets.answer.cache.store import AnswerCache, SentenceCache
from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.errors import SettingsError
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.ingest.manifest import Manifest
from llama_index_presets.presets.index.storage import Storage, read_metadata, resolve_storage

__all__ = ["CompactReport", "compact_parts", "compact_storage"]

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactReport:
    """Result of a compaction.

    Attributes:
        storage: The folder, or the URL without its password.
        parts: Names of the parts, in order.
        bytes_before: Size of the storage folder before, in bytes.
        bytes_after: The same, after.
    """

    storage: str
    parts: tuple[str, ...]
    bytes_before: int
    bytes_after: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"parts": list(self.parts)}


def compact_storage(storage: str | Path, *, progress: Progress | None = None) -> CompactReport:
    """Compact a storage without building its engine: no model, no key and no preset is needed.

    Args:
        storage: The folder, or the URL of the vectors.
        progress: Called with the name of each part before its turn.

    Raises:
        StoreError: There is no index, or another process has its DuckDB file open.
    """
    location = resolve_storage(storage)
    metadata = read_metadata(location)
    with ExitStack() as opened, ingest_lock(location.lock):
        store = _open(location, str(metadata["fingerprint"]), opened)
        keyword = _keyword_index(location)
        return compact_parts(location, store=store, keyword=keyword, progress=progress)


def compact_parts(
    location: Storage, *, store: Any, keyword: Any = None, progress: Progress | None = None
) -> CompactReport:
    """Compact a storage whose parts are open, under its ingest lock. Each part is safe to interrupt and to repeat.

    Args:
        location: The storage.
        store: Its vector store; one of a managed service has nothing on a disk of ours, and is left out.
        keyword: Its keyword index, where there is one.
        progress: Called with the name of each part before its turn.
    """
    before, done = _size(location.folder), []
    for name, compact in _steps(location, store, keyword):
        if progress is not None:
            progress(name)
        compact()
        done.append(name)
    location.protect()
    return CompactReport(
        storage=location.shown, parts=tuple(done), bytes_before=before, bytes_after=_size(location.folder)
    )


def _steps(location: Storage, store: Any, keyword: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    if hasattr(store, "compact"):
        own_server = location.address is None and type(store).__name__ == "PostgresVectorStore"
        yield "vectors", (lambda: store.compact(own_server=True)) if own_server else store.compact
    if hasattr(keyword, "compact"):
        yield "keywords", keyword.compact
    if location.manifest.exists():
        yield "documents", lambda: _closing(Manifest(location.manifest))
    if location.embeddings.is_dir():
        # It is not known which vectors belong to removed texts, and a vector tells something of its text.
        yield "embeddings", lambda: _closing(EmbeddingCache(location.embeddings))
    if location.answers.exists():
        # Which answers were written from removed texts is not asked: all go.
        yield "answers", lambda: _closing(AnswerCache(location.answers, max_bytes=1, max_age_s=1))
    if location.contexts.exists():
        # Sentences about removed chunks; what is in the index keeps its own.
        yield "contexts", lambda: _closing(SentenceCache(location.contexts, max_bytes=1, max_age_s=1))


def _closing(part: Any) -> None:
    try:
        part.compact()
    finally:
        part.close()


def _open(location: Storage, fingerprint: str, opened: ExitStack) -> Any:
    dim = re.search(r"(?:^|;)dim=(\d+)", fingerprint)
    kind = location.address.store if location.address else _kind(location)
    opener = _OPENERS.get(kind or "")
    if opener is None:
        return None
    store = opener(location, int(dim[1]) if dim else 0, opened)
    opened.callback(store.close)
    return store


def _kind(location: Storage) -> str | None:
    if location.vectors.with_suffix(".duckdb").exists():
        return "duckdb"
    if (location.vectors / "PG_VERSION").exists():
        return "pgvector"
    return "lancedb" if location.vectors.is_dir() else None


def _duckdb(location: Storage, dim: int, opened: ExitStack) -> Any:
    from llama_index_presets.store.duckdb.store import DuckDBVectorStore

    return DuckDBVectorStore(location.vectors.with_suffix(".duckdb"), shared=True)


def _lancedb(location: Storage, dim: int, opened: ExitStack) -> Any:
    from llama_index_presets.store.lancedb.store import LanceDBVectorStore

    return LanceDBVectorStore(location.address.url if location.address else str(location.vectors))


def _pgvector(location: Storage, dim: int, opened: ExitStack) -> Any:
    from llama_index_presets.store.postgres.embedded import embedded_postgres
    from llama_index_presets.store.postgres.store import PostgresVectorStore

    if not dim:
        raise SettingsError(
            f"'{location.metadata_file}' does not say how long the vectors are. Restore it from a backup."
        )
    url = location.address.url.partition("#")[0] if location.address else ""
    options = location.address.options if location.address else {}
    return PostgresVectorStore.from_url(
        url or opened.enter_context(embedded_postgres(location.vectors)),
        embed_dim=dim,
        table_name=options.get("table", "chunks"),
        schema_name=options.get("schema", "public"),
    )


_OPENERS: dict[str, Callable[[Storage, int, ExitStack], Any]] = {
    "duckdb": _duckdb,
    "lancedb": _lancedb,
    "pgvector": _pgvector,
}


def _keyword_index(location: Storage) -> Any:
    from llama_index_presets.retrieve.bm25.index import BM25Index

    return BM25Index(location.keywords) if (location.keywords / "MANIFEST.json").exists() else None


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it vanished meanwhile, or belongs to another user
            continue
    return total
