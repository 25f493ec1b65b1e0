"""The official Postgres adapter's options: which have one meaning here, and which choose the index."""

from __future__ import annotations

from typing import Any

from llama_index_presets._options import refuse_unknown
from llama_index_presets.errors import SettingsError
from llama_index_presets.store.postgres_table import IndexOptions

__all__ = ["IGNORED", "index_options"]

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


def index_options(choice: str, hnsw: dict[str, Any]) -> IndexOptions:
    """Read `index` and the official ``hnsw_kwargs``.

    Raises:
        SettingsError: One is unknown, or out of range.
    """
    known = {"hnsw_m": "m", "hnsw_ef_construction": "ef_construction", "hnsw_ef_search": "ef_search"}
    refuse_unknown("hnsw_kwargs", hnsw, [*known, "hnsw_dist_method"])
    if "cosine" not in hnsw.get("hnsw_dist_method", "cosine"):
        raise SettingsError(
            f"hnsw_dist_method is '{hnsw['hnsw_dist_method']}'; the index is always for cosine. Leave it out."
        )
    return IndexOptions(
        choice=choice, **{known[name]: int(value) for name, value in hnsw.items() if name in known}
    )
