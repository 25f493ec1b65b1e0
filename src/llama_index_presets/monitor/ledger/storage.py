"""Ledger storage: journals and the DuckDB file read as one relation; compaction of journals into the file.

Readers share a lock, compaction takes it alone, and neither holds it longer than one statement. A
journal's name goes into the table `folded` in the same transaction as its rows, so a crash between commit and
unlink counts nothing twice.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb

from llama_index_presets.errors import MonitorError, SettingsError
from llama_index_presets.files.disk_faults import finish, is_full, is_half_made
from llama_index_presets.files.private_files import tighten
from llama_index_presets.monitor.ledger.journal import (
    IN_MEMORY,
    JUMP_S,
    delete_old_drafts,
    is_orphan,
    journal_folder,
    journals,
    locked,
)
from llama_index_presets.monitor.ledger.row import ADDED_LATER, COLUMNS

__all__ = ["copy_to", "fold", "query", "query_rows"]

_log = logging.getLogger(__name__)
_READER_PATIENCE_S = 30.0
_FULL: Final = "The rows are safe in the journals beside it: make room, and the next close folds them in."
_MANY: Final = 8
_WAIT_S: Final = 5.0  # of a fold, for readers and for others that fold
_SMALL_BYTES: Final = 2**20
# In the journal, times are microseconds and dollars are text.
_STORED = {
    name: {"timestamp": "BIGINT", "cost_usd": "VARCHAR", "saved_usd": "VARCHAR"}.get(name, kind)
    for name, kind in COLUMNS.items()
}
_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_DEFINITIONS = ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())
# What a journal leaves out is empty, zero or false; only an unknown cost is NULL.
_EMPTY = {"VARCHAR": "''", "VARCHAR[]": "[]", "BOOLEAN": "false"}
_SELECTED = ", ".join(
    {
        "timestamp": 'make_timestamp("timestamp") AS "timestamp"',
        "cost_usd": f'"cost_usd"::{COLUMNS["cost_usd"]} AS "cost_usd"',
        "saved_usd": f'coalesce("saved_usd", \'0\')::{COLUMNS["saved_usd"]} AS "saved_usd"',
    }.get(name, f'coalesce("{name}", {_EMPTY.get(kind, "0")})::{kind} AS "{name}"')
    for name, kind in COLUMNS.items()
)
# A spreadsheet runs a cell that begins so as a formula, and users name tenants, sessions and models; an apostrophe in
# front makes it text (OWASP, "CSV injection"). Numbers are no texts and stay as they are.
_FORMULA = r"^\s*[=+\-@\t\r\n\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}]"
_AS_CELLS = ", ".join(
    f'if(regexp_matches("{name}", \'{_FORMULA}\'), chr(39) || "{name}", "{name}") AS "{name}"'
    if kind == "VARCHAR"
    else f'"{name}"'
    for name, kind in COLUMNS.items()
)
_SCHEMA = "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in _STORED.items()) + "}"


def query(
    ledger: Path, statement: str, parameters: Sequence[Any] | dict[str, Any] = ()
) -> duckdb.DuckDBPyConnection:
    """Run SQL over everything that has been flushed; the view is called `llm_calls`.

    The result is complete when this returns: nothing is held open, writers go on.

    Raises:
        MonitorError: The SQL is wrong, the file is no ledger, or a process outside holds it.
    """
    connection = duckdb.connect(":memory:")
    folder = journal_folder(ledger)
    try:
        with _explained(ledger), _reading(folder):
            folded = _attach(connection, ledger)
            with _few([path for path in journals(folder) if path.name not in (folded or ())]) as files:
                _create_view(connection, attached=folded is not None, files=files)
                connection.execute(statement, parameters)
    except BaseException:
        connection.close()  # the error may be kept, and the file must not stay open with it
        raise
    return connection


def query_rows(
    rows: Sequence[bytes], statement: str, parameters: Sequence[Any] | dict[str, Any] = ()
) -> duckdb.DuckDBPyConnection:
    """`query` over rows of a journal in memory.

    Raises:
        MonitorError: The SQL is wrong.
    """
    connection = duckdb.connect(":memory:")
    try:
        with _explained(Path(IN_MEMORY)), tempfile.TemporaryFile() as together:
            together.writelines(rows)
            together.flush()
            files = [f"/dev/fd/{together.fileno()}"] if rows else []
            _create_view(connection, attached=False, files=files)
            connection.execute(statement, parameters)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    if not folder.exists():
        yield
        return
    with contextlib.ExitStack() as held:
        try:
            taken = held.enter_context(locked(folder / "lock", exclusive=False, timeout_s=_READER_PATIENCE_S))
        except PermissionError:  # a reader without write permission: read without the lock
            taken = True
        if not taken:
            raise MonitorError(
                f"The ledger's lock '{folder / 'lock'}' was held for {_READER_PATIENCE_S:.0f} s. "
                "Expected a fold to end in seconds; look for a process that hangs with it open."
            )
        yield


@contextlib.contextmanager
def _explained(ledger: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, OSError) as error:
        if is_full(error):
            raise MonitorError(
                f"The ledger '{ledger}' cannot be written: its disk is full. {_FULL}"
            ) from error
        raise MonitorError(f"Ledger '{ledger}': {error}.") from error


def _attach(connection: duckdb.DuckDBPyConnection, ledger: Path) -> set[str] | None:
    """Attach the file beside the journals; returns the names of journals folded into it, or None without it."""
    if not ledger.exists():
        return None
    try:
        connection.execute(f"ATTACH {_quoted(str(ledger))} AS ledger (READ_ONLY)")
    except duckdb.Error:
        if is_half_made(ledger):  # a fold died while it made the file; the rows are still in the journals
            return None
        raise
    if not _holds_ledger(connection, ledger):  # a fold died between making the file and its first commit
        return None
    return {row[0] for row in connection.execute("SELECT journal FROM ledger.folded").fetchall()}


def _holds_ledger(connection: duckdb.DuckDBPyConnection, ledger: Path) -> bool:
    """Whether the attached file holds a ledger; False where it holds nothing yet.

    Raises:
        MonitorError: It holds something else, such as a vector store.
    """
    tables = {row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if tables and not {"llm_calls", "folded"} <= tables:
        raise MonitorError(
            f"'{ledger}' is a DuckDB file without the tables of a ledger (found: {sorted(tables)}). "
            "Expected a ledger or a path where no file is; choose another path."
        )
    return bool(tables)


def _create_view(connection: duckdb.DuckDBPyConnection, *, attached: bool, files: list[str]) -> None:
    legs = [f"SELECT {_stored_names(connection)} FROM ledger.llm_calls"] if attached else []  # noqa: S608 (constants)
    if files:
        legs.append(_journal_rows(files))
    if not legs:
        connection.execute(f"CREATE TABLE llm_calls ({_DEFINITIONS})")
        return
    connection.execute("CREATE VIEW llm_calls AS " + " UNION ALL ".join(legs))


def _stored_names(connection: duckdb.DuckDBPyConnection) -> str:
    """The columns of an attached table; those that an earlier release did not write are zero."""
    there = _columns(connection)
    return ", ".join(
        f'"{name}"' if name in there or name not in ADDED_LATER else f'0::{kind} AS "{name}"'
        for name, kind in COLUMNS.items()
    )


def _columns(connection: duckdb.DuckDBPyConnection) -> set[str]:
    statement = "SELECT column_name FROM duckdb_columns() WHERE table_name = 'llm_calls'"
    return {row[0] for row in connection.execute(statement).fetchall()}


def _journal_rows(files: list[str]) -> str:
    listed = ", ".join(_quoted(name) for name in files)
    # A line torn by a kill parses to nulls; a row always has an id.
    source = f"read_json([{listed}], format = 'newline_delimited', columns = {_SCHEMA}, ignore_errors = true)"
    return f"SELECT {_SELECTED} FROM {source} WHERE call_id IS NOT NULL"  # noqa: S608 (quoted above)


@contextlib.contextmanager
def _few(files: Sequence[Path]) -> Iterator[list[str]]:
    """Give the same rows in few files: DuckDB takes milliseconds to open each, and thousands may wait.

    Small journals are copied into one file without a name, which no kill leaves behind.
    """
    small = [path for path in files if path.stat().st_size < _SMALL_BYTES]
    if len(small) <= _MANY:
        yield [str(path) for path in files]
        return
    with tempfile.TemporaryFile() as together:
        for path in small:
            # a line torn by a kill must not swallow the next journal's first
            together.write(path.read_bytes() + b"\n")
        together.flush()
        copied = set(small)
        yield [f"/dev/fd/{together.fileno()}", *(str(path) for path in files if path not in copied)]


def copy_to(target: Path, run: Callable[[str], object]) -> Path:
    """Write all rows to a Parquet or CSV file with a function that runs SQL; see `Ledger.export`."""
    formats = {".parquet": "FORMAT parquet", ".csv": "FORMAT csv, HEADER"}
    if target.suffix not in formats:
        raise SettingsError(f"'{target}' has the ending '{target.suffix}'. Expected .parquet or .csv.")
    columns = _NAMES if target.suffix == ".parquet" else _AS_CELLS
    rows = f"(SELECT {columns} FROM llm_calls ORDER BY timestamp)"  # noqa: S608 (constants)
    run(f"COPY {rows} TO {_quoted(str(target))} ({formats[target.suffix]})")
    return target


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def fold(ledger: Path, *, keep_days: float | None = None) -> int:
    """Move the rows of journals without a writer into the DuckDB file, and drop old rows.

    Args:
        ledger: Path of the DuckDB file; made when missing.
        keep_days: Rows older than this many days are deleted, unless the clock is more than a year after the rows; None
            keeps all.

    Returns:
        How many journals were folded; 0 when the lock could not be had in time, which loses nothing.
    """
    folder = journal_folder(ledger)
    if not folder.exists():
        return 0
    with _explained(ledger), locked(folder / "lock", exclusive=True, timeout_s=_WAIT_S) as taken:
        if not taken:
            _log.info(
                "Ledger '%s' was not folded: its lock was held for %.1f s. The next close will.",
                ledger,
                _WAIT_S,
            )
            return 0
        delete_old_drafts(folder)
        orphans = [path for path in sorted(folder.glob("*.jsonl")) if is_orphan(path)]
        return _fold_locked(ledger, orphans, keep_days)


def _fold_locked(ledger: Path, orphans: list[Path], keep_days: float | None) -> int:
    if not orphans and keep_days is None:
        return 0
    connection = duckdb.connect(":memory:")
    try:
        _fold_into(connection, ledger, orphans, keep_days)
    finally:
        connection.close()
    for path in orphans:
        path.unlink(missing_ok=True)
    return len(orphans)


def _attach_to_write(connection: duckdb.DuckDBPyConnection, ledger: Path) -> None:
    statement = f"ATTACH {_quoted(str(ledger))} AS ledger"
    try:
        connection.execute(statement)
    except duckdb.Error as error:
        if is_full(error) or not finish(ledger, lambda empty: duckdb.connect(empty).close()):
            raise
        connection.execute(statement)


def _fold_into(
    connection: duckdb.DuckDBPyConnection, ledger: Path, orphans: list[Path], keep_days: float | None
) -> None:
    new = not ledger.exists()
    _attach_to_write(connection, ledger)
    if new:
        tighten(ledger)
    _holds_ledger(connection, ledger)  # else the tables would go into somebody else's database
    connection.execute("BEGIN")
    connection.execute(f"CREATE TABLE IF NOT EXISTS ledger.llm_calls ({_DEFINITIONS})")
    for name in sorted(set(ADDED_LATER) - _columns(connection)):
        connection.execute(f"ALTER TABLE ledger.llm_calls ADD COLUMN {name} {COLUMNS[name]} DEFAULT 0")
    connection.execute("CREATE TABLE IF NOT EXISTS ledger.folded (journal VARCHAR PRIMARY KEY)")
    done = {row[0] for row in connection.execute("SELECT journal FROM ledger.folded").fetchall()}
    fresh = [path for path in orphans if path.name not in done and path.stat().st_size]
    if fresh:
        with _few(fresh) as files:
            connection.execute(f"INSERT INTO ledger.llm_calls ({_NAMES}) {_journal_rows(files)}")
    # Names of journals that are about to be unlinked; those unlinked earlier need no memory.
    connection.execute("DELETE FROM ledger.folded")
    connection.execute(
        "INSERT INTO ledger.folded SELECT unnest(?::VARCHAR[])", [[path.name for path in orphans]]
    )
    if keep_days is not None:
        _drop_old_rows(connection, ledger, keep_days)
    connection.execute("COMMIT")
    connection.execute("DETACH ledger")


def _drop_old_rows(connection: duckdb.DuckDBPyConnection, ledger: Path, keep_days: float) -> None:
    """Delete the rows older than `keep_days`, unless the clock is in doubt: a machine that starts in a year far ahead
    would delete everything. The rows are asked: the last day but one of them, so that calls of one day with a wrong
    clock do not confirm it."""
    now = time.time()
    days = connection.execute(
        "SELECT DISTINCT epoch(date_trunc('day', timestamp)) AS day FROM ledger.llm_calls ORDER BY day DESC LIMIT 2"
    ).fetchall()
    if days and now - days[-1][0] > JUMP_S:
        _log.warning(
            "Ledger '%s': the clock says %s, more than a year after its rows, so none was dropped for its age. Check "
            "the clock; where it is right, they are dropped once calls of two days are recorded.",
            ledger,
            time.strftime("%Y-%m-%d", time.gmtime(now)),
        )
        return
    oldest = int((now - keep_days * 86_400) * 1e6)
    connection.execute("DELETE FROM ledger.llm_calls WHERE timestamp < make_timestamp(?)", [oldest])
