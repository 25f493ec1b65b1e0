"""Pinecone store: the official adapter with checked ids, exact filters and fingerprints."""

from __future__ import annotations

from llama_index_presets.packages.lazy_names import lazy_names

_PUBLIC = {"PineconeVectorStore": "store"}

__all__ = [*_PUBLIC]
__getattr__ = lazy_names(__name__, _PUBLIC)
