"""Compaction of a storage: every file rewritten without deleted text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llama_index_presets.answer_cache.store import AnswerCache, SentenceCache
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
    place = resolve_storage(storage)
    card = read_metadata(place)
    with ExitStack() as opened, ingest_lock(place.lock):
        store = _open(place, str(card["fingerprint"]), opened)
        keyword = _keyword_index(place)
        return compact_parts(place, store=store, keyword=keyword, progress=progress)


def compact_parts(
    place: Storage, *, store: Any, keyword: Any = None, progress: Progress | None = None
) -> CompactReport:
    """Compact a storage whose parts are open, under its ingest lock. Each part is safe to interrupt and to repeat.

    Args:
        place: The storage.
        store: Its vector store; one of a managed service has nothing on a disk of ours, and is left out.
        keyword: Its keyword index, where there is one.
        progress: Called with the name of each part before its turn.
    """
    before, done = _size(place.folder), []
    for name, compact in _steps(place, store, keyword):
        if progress is not None:
            progress(name)
        compact()
        done.append(name)
    place.protect()
    return CompactReport(
        storage=place.shown, parts=tuple(done), bytes_before=before, bytes_after=_size(place.folder)
    )


def _steps(place: Storage, store: Any, keyword: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    if hasattr(store, "compact"):
        own_server = place.address is None and type(store).__name__ == "PostgresVectorStore"
        yield "vectors", (lambda: store.compact(own_server=True)) if own_server else store.compact
    if hasattr(keyword, "compact"):
        yield "keywords", keyword.compact
    if place.manifest.exists():
        yield "documents", lambda: _closing(Manifest(place.manifest))
    if place.embeddings.is_dir():
        # It is not known which vectors belong to removed texts, and a vector tells something of its text.
        yield "embeddings", lambda: _closing(EmbeddingCache(place.embeddings))
    if place.answers.exists():
        # Which answers were written from removed texts is not asked: all go.
        yield "answers", lambda: _closing(AnswerCache(place.answers, max_bytes=1, max_age_s=1))
    if place.contexts.exists():
        # Sentences about removed chunks; what is in the index keeps its own.
        yield "contexts", lambda: _closing(SentenceCache(place.contexts, max_bytes=1, max_age_s=1))


def _closing(part: Any) -> None:
    try:
        part.compact()
    finally:
        part.close()


def _open(place: Storage, fingerprint: str, opened: ExitStack) -> Any:
    dim = re.search(r"(?:^|;)dim=(\d+)", fingerprint)
    kind = place.address.store if place.address else _kind(place)
    opener = _OPENERS.get(kind or "")
    if opener is None:
        return None
    store = opener(place, int(dim[1]) if dim else 0, opened)
    opened.callback(store.close)
    return store


def _kind(place: Storage) -> str | None:
    if place.vectors.with_suffix(".duckdb").exists():
        return "duckdb"
    if (place.vectors / "PG_VERSION").exists():
        return "pgvector"
    return "lancedb" if place.vectors.is_dir() else None


def _duckdb(place: Storage, dim: int, opened: ExitStack) -> Any:
    from llama_index_presets.store.duckdb.store import DuckDBVectorStore

    return DuckDBVectorStore(place.vectors.with_suffix(".duckdb"))


def _lancedb(place: Storage, dim: int, opened: ExitStack) -> Any:
    from llama_index_presets.store.lancedb.store import LanceDBVectorStore

    return LanceDBVectorStore(place.address.url if place.address else str(place.vectors))


def _pgvector(place: Storage, dim: int, opened: ExitStack) -> Any:
    from llama_index_presets.store.postgres.embedded import embedded_postgres
    from llama_index_presets.store.postgres.store import PostgresVectorStore

    if not dim:
        raise SettingsError(
            f"'{place.metadata_file}' does not say how long the vectors are. Restore it from a backup."
        )
    url = place.address.url.partition("#")[0] if place.address else ""
    options = place.address.options if place.address else {}
    return PostgresVectorStore.from_url(
        url or opened.enter_context(embedded_postgres(place.vectors)),
        embed_dim=dim,
        table_name=options.get("table", "chunks"),
        schema_name=options.get("schema", "public"),
    )


_OPENERS: dict[str, Callable[[Storage, int, ExitStack], Any]] = {
    "duckdb": _duckdb,
    "lancedb": _lancedb,
    "pgvector": _pgvector,
}


def _keyword_index(place: Storage) -> Any:
    from llama_index_presets.retrieve.bm25.index import BM25Index

    return BM25Index(place.keywords) if (place.keywords / "MANIFEST.json").exists() else None


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it vanished meanwhile, or belongs to another user
            continue
    return total
