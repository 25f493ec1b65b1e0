"""Open the vector store of a cell inside an engine's folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_presets.presets.storage import Storage
from llama_index_presets.values import Fingerprint

__all__ = ["open_store"]


def open_store(
    name: str, storage: Storage, fingerprint: Fingerprint, opened: ExitStack
) -> BasePydanticVectorStore:
    """Open a store.

    Args:
        name: Key of `parts.STORES`.
        storage: Where its files lie.
        fingerprint: What makes the vectors.
        opened: Takes what must be closed.

    Raises:
        StoreError: It cannot be opened; FingerprintError when another model made it.
    """
    store = _OPENERS[name](storage, fingerprint, opened)
    close = getattr(store, "close", None)
    if close is not None:
        opened.callback(close)
    return store


def _open_lancedb(storage: Storage, fingerprint: Fingerprint, opened: ExitStack) -> BasePydanticVectorStore:
    from llama_index_presets.store.lancedb import LanceDBVectorStore

    store: BasePydanticVectorStore = LanceDBVectorStore(str(storage.vectors), fingerprint=str(fingerprint))
    return store


def _open_duckdb(storage: Storage, fingerprint: Fingerprint, opened: ExitStack) -> BasePydanticVectorStore:
    from llama_index_presets.store.duckdb import DuckDBVectorStore

    path = str(storage.vectors.with_suffix(".duckdb"))
    return DuckDBVectorStore(path, dim=fingerprint.dim, fingerprint=str(fingerprint))


def _open_postgres(storage: Storage, fingerprint: Fingerprint, opened: ExitStack) -> BasePydanticVectorStore:
    from llama_index_presets.store.embedded_postgres import embedded_postgres
    from llama_index_presets.store.postgres import PostgresVectorStore

    url = opened.enter_context(embedded_postgres(storage.vectors))
    store: BasePydanticVectorStore = PostgresVectorStore.from_url(
        url, embed_dim=fingerprint.dim, fingerprint=str(fingerprint)
    )
    return store


_OPENERS: dict[str, Callable[[Storage, Fingerprint, ExitStack], BasePydanticVectorStore]] = {
    "lancedb": _open_lancedb,
    "duckdb": _open_duckdb,
    "pgvector": _open_postgres,
}
