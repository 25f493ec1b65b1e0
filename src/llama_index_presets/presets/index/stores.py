"""Vector store of an engine, opened inside its folder or at the address that the user named."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import run_transformations
from llama_index.core.schema import BaseNode, TransformComponent
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError, StoreCorruptError
from llama_index_presets.ingest.manifest import Manifest
from llama_index_presets.presets.checks.readiness import STORE_KEYS
from llama_index_presets.presets.index.address import SCHEMES, Address
from llama_index_presets.presets.index.storage import Storage
from llama_index_presets.values import Fingerprint

__all__ = ["check_place", "make_index", "open_store", "refuse_lost_vectors"]


def check_place(store: str, place: Storage, *, preset: str, local: bool) -> None:
    """Refuse a storage that the store of a cell cannot use, before anything is opened.

    Args:
        store: Key of `matrix.STORES`.
        place: Where the user wants it.
        preset: Whose cell it is.
        local: Whether nothing may leave the machine.

    Raises:
        SettingsError: A managed store without an address, an address of another store, a remote one that may not be
            used, or a missing key.
    """
    address = place.address
    if address is None:
        if store not in _IN_A_FOLDER:
            raise SettingsError(
                f"The store '{store}' keeps no files: '{place.shown}' cannot hold its vectors. Give "
                f"storage={_form(store)} (--storage), or use offline=True (--offline)."
            )
        return
    if address.store != store:
        named = f"a folder or {_form(store)}" if store in _IN_A_FOLDER else _form(store)
        raise SettingsError(
            f"'{address.shown}' names the store '{address.store}'; the preset '{preset}' keeps its vectors in "
            f"'{store}' here. Give {named}, or set store = \"{address.store}\"."
        )
    if local and not address.local:
        raise SettingsError(
            f"'{address.shown}' is not on this machine, and nothing may leave it (offline, or a local preset). "
            "Give a folder."
        )
    key = STORE_KEYS.get(store)
    if key and not os.environ.get(key):
        raise SettingsError(
            f"'{address.shown}' needs {key}, which is not set. Set it, or use offline=True (--offline)."
        )


def open_store(
    name: str, storage: Storage, fingerprint: Fingerprint, opened: ExitStack, *, shared: bool = True
) -> BasePydanticVectorStore:
    """Open a store.

    Args:
        name: Key of `matrix.STORES`.
        storage: Where its files lie, or its address.
        fingerprint: What makes the vectors.
        opened: Takes what must be closed.
        shared: Whether other processes use it at the same time; every store but DuckDB's always allows that.

    Raises:
        StoreError: It cannot be opened; FingerprintError when another model made it.
    """
    opener = _open_lone_duckdb if name == "duckdb" and not shared else _OPENERS[name]
    store = opener(storage, fingerprint, opened)
    close = getattr(store, "close", None)
    if close is not None:
        opened.callback(close)
    return store


class _SettingsTransformations(TransformComponent):
    """LlamaIndex's transformations, taken from its settings when documents are inserted into the index.

    The index would take them at once, and their tokenizer reads its table for a fifth of a second, of which no question
    has any use.
    """

    def __call__(self, nodes: Sequence[BaseNode], **options: Any) -> Sequence[BaseNode]:
        return run_transformations(nodes, Settings.transformations, **options)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "SettingsTransformations"


def make_index(store: BasePydanticVectorStore, embed_model: BaseEmbedding) -> VectorStoreIndex:
    """LlamaIndex's index over a store, as ``VectorStoreIndex.from_vector_store`` makes it."""
    return VectorStoreIndex.from_vector_store(
        store, embed_model=embed_model, transformations=[_SettingsTransformations()]
    )


def refuse_lost_vectors(store: BasePydanticVectorStore, manifest: Manifest, storage: Storage) -> None:
    """Refuse a store that is empty although the manifest lists chunks: ingest would call every document unchanged.

    A file that was emptied and a folder that was deleted look like a store that was never filled. Only stores in the
    storage folder are asked: another machine may write to one on a server. Another process may fill or empty this one
    meanwhile; it says so in the manifest before and after, so that what was counted in between is counted again.

    Raises:
        StoreCorruptError: The vectors were lost.
    """
    count = getattr(store, "node_count", None)
    if storage.address is not None or count is None:
        return
    while True:
        version = manifest.version()
        documents, chunks = manifest.settled_totals()
        if not chunks or count():
            return
        if manifest.version() == version:
            break
    raise StoreCorruptError(
        f"The vector store in '{storage.shown}' is empty, and its manifest lists {counted(documents, 'document')} "
        f"with {counted(chunks, 'chunk')}: the vectors were lost. Restore the folder from a backup, or delete "
        f"'{storage.manifest}' and ingest again."
    )


def _open_lancedb(storage: Storage, fingerprint: Fingerprint, opened: ExitStack) -> BasePydanticVectorStore:
    from llama_index_presets.store.lancedb.store import LanceDBVectorStore

    uri = storage.address.url if storage.address else str(storage.vectors)
    store: BasePydanticVectorStore = LanceDBVectorStore(uri, fingerprint=str(fingerprint))
    return store


def _open_duckdb(
    storage: Storage, fingerprint: Fingerprint, opened: ExitStack, *, shared: bool = True
) -> BasePydanticVectorStore:
    from llama_index_presets.store.duckdb.store import DuckDBVectorStore

    path = str(storage.vectors.with_suffix(".duckdb"))
    # Without `dim` the table is made with the first nodes: an empty one would refuse every other model.
    return DuckDBVectorStore(path, fingerprint=str(fingerprint), shared=shared)


_open_lone_duckdb = partial(_open_duckdb, shared=False)


def _open_postgres(storage: Storage, fingerprint: Fingerprint, opened: ExitStack) -> BasePydanticVectorStore:
    from llama_index_presets.store.postgres.embedded import embedded_postgres
    from llama_index_presets.store.postgres.store import PostgresVectorStore

    if storage.address:
        url, options = storage.address.url.partition("#")[0], storage.address.options
    else:
        url, options = opened.enter_context(embedded_postgres(storage.vectors)), {}
    store: BasePydanticVectorStore = PostgresVectorStore.from_url(
        url,
        embed_dim=fingerprint.dim,
        table_name=options.get("table", "chunks"),
        schema_name=options.get("schema", "public"),
        fingerprint=str(fingerprint),
    )
    return store


def _open_pinecone(storage: Storage, fingerprint: Fingerprint, opened: ExitStack) -> BasePydanticVectorStore:
    from llama_index_presets.store.pinecone.store import PineconeVectorStore

    address = _address(storage)
    store: BasePydanticVectorStore = PineconeVectorStore(
        address.host,
        namespace=address.path or None,
        host=address.query.get("host"),
        fingerprint=str(fingerprint),
    )
    return store


def _open_weaviate(storage: Storage, fingerprint: Fingerprint, opened: ExitStack) -> BasePydanticVectorStore:
    from llama_index_presets.store.weaviate.store import WeaviateVectorStore

    store: BasePydanticVectorStore = WeaviateVectorStore.from_url(
        _address(storage).url, fingerprint=str(fingerprint)
    )
    return store


def _address(storage: Storage) -> Address:
    if storage.address is None:
        raise SettingsError(f"'{storage.shown}' is no address of a managed store.")
    return storage.address


def _form(store: str) -> str:
    forms = {
        "pgvector": "'postgresql://user@host/database'",
        "lancedb": "'s3://bucket/folder'",
        "weaviate": "'weaviate://HOST/COLLECTION'",
    }
    schemes = [scheme for scheme, known in SCHEMES.items() if known == store]
    return forms.get(store, f"'{schemes[0]}://INDEX'" if schemes else "a folder")


_OPENERS: dict[str, Callable[[Storage, Fingerprint, ExitStack], BasePydanticVectorStore]] = {
    "lancedb": _open_lancedb,
    "duckdb": _open_duckdb,
    "pgvector": _open_postgres,
    "pinecone": _open_pinecone,
    "weaviate": _open_weaviate,
}
_IN_A_FOLDER = {"lancedb", "duckdb", "pgvector"}
"""Stores that need nothing but a folder; the embedded Postgres is one."""
