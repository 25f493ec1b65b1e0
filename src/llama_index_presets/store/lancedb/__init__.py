"""LanceDB store, on disk or in an object store: the official adapter with correct filters and indexes."""

from __future__ import annotations

from llama_index_presets.packages.lazy_names import lazy_names

_PUBLIC = {"LanceDBVectorStore": "store"}

__all__ = [*_PUBLIC]
__getattr__ = lazy_names(__name__, _PUBLIC)
