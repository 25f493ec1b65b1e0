"""Argument checks and advice of the DuckDB store."""

from __future__ import annotations

import warnings
from typing import Any

from llama_index_presets._utf8 import check_name
from llama_index_presets.errors import FingerprintError, SettingsError, StoreError
from llama_index_presets.store.duckdb.database import MEMORY
from llama_index_presets.store.duckdb.table import REGISTER, State

__all__ = ["check_identity", "check_picklable", "check_settings", "warn_of_many"]


def check_settings(table: str, dim: int | None, cache_mb: int) -> None:
    """Refuse meaningless settings.

    Raises:
        SettingsError: The table has no name, or a number is out of range.
    """
    check_name("The table name", table)
    if table == REGISTER:
        raise SettingsError(
            f"The table '{table}' is where the stores remember their tables. Give another name."
        )
    if dim is not None and dim < 1:
        raise SettingsError(f"dim is {dim}; a vector has at least 1 number.")
    if cache_mb < 0:
        raise SettingsError(f"cache_mb is {cache_mb}; give 0 (scan with DuckDB) or more.")


def check_identity(table: str, state: State, dim: int | None, fingerprint: str | None) -> None:
    """Refuse a table whose vectors another model made.

    Raises:
        FingerprintError: Length or fingerprint are known on both sides and differ.
    """
    if dim is not None and dim != state.dim:
        raise FingerprintError(
            f"Table '{table}' keeps vectors of {state.dim} numbers, the caller wants {dim}. "
            "Use the original model, or index into another table.",
            stored=f"dim={state.dim}",
            given=f"dim={dim}",
        )
    if fingerprint is not None and state.fingerprint not in (None, fingerprint):
        raise FingerprintError(
            f"Table '{table}' was made with '{state.fingerprint}', the caller uses '{fingerprint}'. "
            "Use the original model, or index into another table.",
            stored=str(state.fingerprint),
            given=fingerprint,
        )


def check_picklable(path: str, connection: Any, encryption_key: str | None) -> None:
    """Refuse to pickle a store that would lose rows or expose a key.

    Raises:
        StoreError: The store is in memory, on a given connection, or encrypted.
    """
    if path == MEMORY or connection is not None:
        raise StoreError(
            "A store in memory or on a given connection cannot be pickled: its rows would stay behind. "
            "Give it a file, and pickle that store."
        )
    if encryption_key is not None:
        raise StoreError(
            "An encrypted store cannot be pickled: the key would be written in clear. Pickle its path, "
            "and open it with the key where it is used."
        )


def warn_of_many(table: str, path: str, count: int, many: int) -> None:
    """Warn when a table outgrows exact search, and name the store to move to."""
    warnings.warn(
        f"Table '{table}' has {count:,} vectors. Every query looks at all of them; beyond {many:,} an index "
        "pays off. LanceDBVectorStore and PostgresVectorStore have one: "
        f"llama-presets move {path} DESTINATION copies the nodes there.",
        UserWarning,
        stacklevel=3,
    )
