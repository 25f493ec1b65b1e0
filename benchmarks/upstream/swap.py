"""Pytest plugin: puts another class where LlamaIndex's own tests import theirs. Loaded by `run.py` as `-p swap`.

`UPSTREAM_SWAP` names what is put there, `UPSTREAM_POSTGRES` is a server that may be written to. No test is changed.
"""

from __future__ import annotations

import atexit
import importlib
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

DIM = 2
"""Width of the vectors of core's suite; a store that makes its table first must be told."""
numbers = itertools.count()


def replace(modules: str, name: str, new: Any) -> None:
    """Put a class or function into each of these modules; a module that is not installed is made, with nothing else."""
    for path in modules.split():
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError:
            module = sys.modules[path] = ModuleType(path)
            module.__path__ = []
        setattr(module, name, new)


def ours(name: str) -> Any:
    """A public class of this package."""
    return getattr(importlib.import_module("llama_index_presets"), name)


def official(module: str, name: str) -> Any:
    """The class of an official adapter."""
    return getattr(importlib.import_module(f"llama_index.vector_stores.{module}"), name)


def folder() -> str:
    """A folder that goes with the process."""
    made = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def address() -> dict[str, Any]:
    """The server, as `from_params` takes it."""
    from sqlalchemy import make_url

    url = make_url(os.environ["UPSTREAM_POSTGRES"])
    parts = {"host": url.host, "port": str(url.port), "database": url.database, "user": url.username}
    return {**parts, "password": url.password}


class WithoutDownloads:
    """A DuckDB connection that loads no extension: `json` is in DuckDB, and nothing that is tested uses `fts`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def install_extension(self, name: str) -> None:
        """Nothing: the download would end every test of the official class on a machine without a network."""

    load_extension = install_extension

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def official_duckdb() -> Any:
    """The official class, which would download two extensions in its constructor."""
    kind = official("duckdb", "DuckDBVectorStore")
    make = kind._initialize_table.__func__
    if make.__name__ == "_initialize_table":
        kind._initialize_table = classmethod(
            lambda cls, conn, *table, **options: make(cls, WithoutDownloads(conn), *table, **options)
        )
    return kind


def without_lists(kind: Any) -> Any:
    """An official class that refuses any list in metadata, and with it every node of core's suite: it gets no lists."""

    def add(self: Any, nodes: Any, **options: Any) -> Any:
        flat = [
            node.model_copy(
                update={"metadata": {k: v for k, v in node.metadata.items() if not isinstance(v, list)}}
            )
            for node in nodes
        ]
        return kind.add(self, flat, **options)

    return type(kind.__name__, (kind,), {"add": add})


# -- core's suite: `SimpleVectorStore()` is one of these ------------------------------------------------------------

EMPTY_STORES: dict[str, Callable[[], Any]] = {
    "duckdb": lambda: ours("DuckDBVectorStore")(),
    "lancedb": lambda: ours("LanceDBVectorStore")(folder()),
    "postgres": lambda: ours("PostgresVectorStore").from_params(
        **address(), table_name=f"ours{next(numbers)}", embed_dim=DIM
    ),
    "official-duckdb": lambda: without_lists(official_duckdb())(embed_dim=DIM),
    "official-lancedb": lambda: without_lists(official("lancedb", "LanceDBVectorStore"))(uri=folder()),
    "official-postgres": lambda: official("postgres", "PGVectorStore").from_params(
        **address(), table_name=f"official{next(numbers)}", embed_dim=DIM
    ),
}

# -- an adapter's suite: its class is ours ---------------------------------------------------------------------------

CLASSES: dict[str, Callable[[], Any]] = {
    "official-DuckDBVectorStore": official_duckdb,
    "DuckDBVectorStore": lambda: replace(
        "llama_index.vector_stores.duckdb llama_index.vector_stores.duckdb.base",
        "DuckDBVectorStore",
        ours("DuckDBVectorStore"),
    ),
    "LanceDBVectorStore": lambda: replace(
        "llama_index.vector_stores.lancedb llama_index.vector_stores.lancedb.base",
        "LanceDBVectorStore",
        ours("LanceDBVectorStore"),
    ),
    "PGVectorStore": lambda: replace(
        "llama_index.vector_stores.postgres llama_index.vector_stores.postgres.base",
        "PGVectorStore",
        ours("PostgresVectorStore"),
    ),
    "BM25Retriever": lambda: replace(
        "llama_index.retrievers llama_index.retrievers.bm25 llama_index.retrievers.bm25.base",
        "BM25Retriever",
        ours("BM25Index"),
    ),
    "TokenCountingHandler": lambda: replace(
        "llama_index.core.callbacks llama_index.core.callbacks.token_counting",
        "TokenCountingHandler",
        ours("CostTrackingHandler"),
    ),
    "official-SentenceTransformerRerank": lambda: replace(  # the adapter of that name holds the class of core
        "llama_index.postprocessor llama_index.postprocessor.sbert_rerank",
        "SentenceTransformerRerank",
        importlib.import_module("llama_index.core.postprocessor.sbert_rerank").SentenceTransformerRerank,
    ),
    "SentenceTransformerRerank": lambda: replace(
        "llama_index.core.postprocessor llama_index.core.postprocessor.sbert_rerank llama_index.postprocessor "
        "llama_index.postprocessor.sbert_rerank",
        "SentenceTransformerRerank",
        ours("CrossEncoderRerank"),
    ),
}


def pytest_configure() -> None:
    """Before any test is imported."""
    wanted = os.environ.get("UPSTREAM_SWAP", "")
    if wanted in EMPTY_STORES:
        import llama_index.core.storage.storage_context  # noqa: F401  -- keeps the SimpleVectorStore of other code

        modules = "llama_index.core.vector_stores llama_index.core.vector_stores.simple"
        new = EMPTY_STORES[wanted]
        replace(f"{modules} llama_index.core.storage.storage_context", "SimpleVectorStore", new)
    elif wanted:
        CLASSES[wanted]()
