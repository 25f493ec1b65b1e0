"""DuckDB store: exact search in memory over a durable table."""

from __future__ import annotations

from llama_index_presets.packages.lazy_names import lazy_names

_PUBLIC = {"DuckDBVectorStore": "store"}

__all__ = [*_PUBLIC]
__getattr__ = lazy_names(__name__, _PUBLIC)
