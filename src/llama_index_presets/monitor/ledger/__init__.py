"""Ledger of model calls: journals written by many processes, one DuckDB table, queries and reports."""

from __future__ import annotations

from llama_index_presets.packages.lazy_names import lazy_names

_PUBLIC = {"Ledger": "ledger"}

__all__ = [*_PUBLIC]
__getattr__ = lazy_names(__name__, _PUBLIC)
