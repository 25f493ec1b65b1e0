"""Open the vector store of a cell inside an engine's folder."""

from __future__ import annotations

from collections.abc import Callable

from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_presets.presets.storage import Storage
from llama_index_presets.values import Fingerprint

__all__ = ["open_store"]


def open_store(name: str, storage: Storage, fingerprint: Fingerprint) -> BasePydanticVectorStore:
    """Open a store.

    Args:
        name: Key of `parts.STORES`.
        storage: Where its files lie.
        fingerprint: What makes the vectors.

    Raises:
        StoreError: It cannot be opened; FingerprintError when another model made it.
    """
    return _OPENERS[name](storage, fingerprint)


def _open_lancedb(storage: Storage, fingerprint: Fingerprint) -> BasePydanticVectorStore:
    from llama_index_presets.store.lancedb import LanceDBVectorStore

    store: BasePydanticVectorStore = LanceDBVectorStore(str(storage.vectors), fingerprint=str(fingerprint))
    return store


def _open_duckdb(storage: Storage, fingerprint: Fingerprint) -> BasePydanticVectorStore:
    from llama_index_presets.store.duckdb import DuckDBVectorStore

    path = str(storage.vectors.with_suffix(".duckdb"))
    return DuckDBVectorStore(path, dim=fingerprint.dim, fingerprint=str(fingerprint))


_OPENERS: dict[str, Callable[[Storage, Fingerprint], BasePydanticVectorStore]] = {
    "lancedb": _open_lancedb,
    "duckdb": _open_duckdb,
}
