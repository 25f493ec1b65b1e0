"""PostgreSQL store with pgvector: the official adapter with bound filters and bulk loads."""

from __future__ import annotations

from llama_index_presets.packages.lazy_names import lazy_names

_PUBLIC = {"PostgresVectorStore": "store", "IndexOptions": "table", "embedded_postgres": "embedded"}

__all__ = [*_PUBLIC]
__getattr__ = lazy_names(__name__, _PUBLIC)
