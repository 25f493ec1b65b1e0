"""The official Postgres adapter's options: which have a meaning here, and which are refused."""

from __future__ import annotations

from typing import Any

from llama_index_presets.errors import SettingsError
from llama_index_presets.store.postgres_table import IndexOptions

__all__ = ["IGNORED", "index_options", "refuse_unknown"]

IGNORED: dict[str, Any] = {
    "hybrid_search": False,
    "cache_ok": False,
    "perform_setup": True,
    "debug": False,
    "use_jsonb": True,
    "initialization_fail_on_error": True,
    "indexed_metadata_keys": None,
}
"""Options of the official adapter that have one meaning here: every mode works, every key is indexed."""

_SERIALISED = {
    "stores_text",
    "is_embedding_query",
    "flat_metadata",
    "async_connection_string",
    "async_engine",
}


def refuse_unknown(given: dict[str, Any]) -> None:
    """Refuse options that the official adapter does not have.

    Raises:
        SettingsError: Names them.
    """
    unknown = sorted(given.keys() - IGNORED.keys() - _SERIALISED)
    if unknown:
        raise SettingsError(f"PostgresVectorStore does not know {', '.join(unknown)}. See its docstring.")


def index_options(choice: str, hnsw: dict[str, Any]) -> IndexOptions:
    """Read `index` and the official ``hnsw_kwargs``.

    Raises:
        SettingsError: One is unknown, or out of range.
    """
    known = {"hnsw_m": "m", "hnsw_ef_construction": "ef_construction", "hnsw_ef_search": "ef_search"}
    unknown = sorted(hnsw.keys() - known.keys() - {"hnsw_dist_method"})
    if unknown or "cosine" not in hnsw.get("hnsw_dist_method", "cosine"):
        raise SettingsError(f"hnsw_kwargs takes {', '.join(known)}, always for cosine; not {hnsw}.")
    return IndexOptions(
        choice=choice, **{known[name]: int(value) for name, value in hnsw.items() if name in known}
    )
