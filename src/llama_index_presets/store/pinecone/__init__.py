"""Pinecone store: the official adapter with checked ids, exact filters and fingerprints."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {"PineconeVectorStore": "store"}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
