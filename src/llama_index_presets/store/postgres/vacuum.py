"""Remains of deleted rows in Postgres: dead tuples, statistics samples, its write-ahead log."""

# ruff: noqa: S608 -- statements are made of quoted identifiers and counted numbers.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["vacuum"]


def vacuum(execute: Callable[[str], Any], table: str, *, own_server: bool) -> None:
    """Rewrite a table and its indexes, and clean all other remains of its rows on a server of one's own.

    Args:
        execute: Runs one statement, each in a transaction of its own.
        table: Quoted name.
        own_server: Whether statistics and write-ahead log may be cleaned; needs a superuser.
    """
    execute("SET statement_timeout = 0")
    if own_server:
        # ANALYZE keeps the samples of a table that has become empty.
        literal = table.replace("'", "''")
        execute(f"DELETE FROM pg_catalog.pg_statistic WHERE starelid = '{literal}'::regclass")
    execute(f"VACUUM (FULL, ANALYZE) {table}")
    if own_server:
        execute("VACUUM FULL pg_catalog.pg_statistic")
        _clean_log(execute)


def _clean_log(execute: Callable[[str], Any]) -> None:
    """Delete the segments of the write-ahead log instead of renaming them for later, which keeps their content.

    Those that were renamed earlier are used up first: what is left of a segment is filled with zeros at a switch.
    """
    execute("ALTER SYSTEM SET wal_recycle = off")
    try:
        execute("SELECT pg_reload_conf()")
        segments = execute("SELECT count(*) FROM pg_ls_waldir()").scalar()
        for _ in range(segments + 1):
            execute("SELECT pg_logical_emit_message(false, 'llama-index-presets', 'compact')")
            execute("SELECT pg_switch_wal()")
        execute("CHECKPOINT")
    finally:
        execute("ALTER SYSTEM RESET wal_recycle")
        execute("SELECT pg_reload_conf()")
