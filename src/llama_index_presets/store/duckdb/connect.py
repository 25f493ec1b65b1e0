"""Connection to a DuckDB file: the settings of every one, small groups of rows, encryption, a file left half made."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from llama_index_presets.errors import SettingsError, StoreError, StoreWriteError
from llama_index_presets.files.disk_faults import finish, is_full, is_half_made
from llama_index_presets.files.private_files import private_folder
from llama_index_presets.store.duckdb.errors import error_of

__all__ = [
    "ENCRYPTED_CATALOG",
    "MEMORY",
    "ROW_GROUP",
    "check_picklable",
    "connect",
    "count_connections",
    "nothing_to_read",
    "prepare_folder",
    "quote",
    "settable",
    "without_key",
]

MEMORY = ":memory:"

# Floats of an embedding hardly compress (2 %) and cost half of a checkpoint and a third of a scan. Texts that
# hardly repeat compress better by zstd than by a dictionary, in half of the time. And a checkpoint in the middle
# of a load writes everything twice.
_SETTINGS = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET disabled_compression_methods = 'alp,alprd,dict_fsst'",
    "SET zstd_min_string_length = 64",
    "SET checkpoint_threshold = '256MB'",
)
# By default DuckDB keeps a load in memory until 122,880 rows are together, writes them to its log at commit and
# into the file at the checkpoint. Smaller groups go straight into the file while the load is still running.
ROW_GROUP = "ROW_GROUP_SIZE 8192"
_FLUSH_EACH_GROUP = "SET write_buffer_row_group_count = 1"
ENCRYPTED_CATALOG = "encrypted_store"
_ASIDE = "llama_index_presets_aside"
_WEAK = ("1.4.0", "1.4.1")


def quote(identifier: str) -> str:
    """Quote a name for SQL.

    Example:
        >>> quote('my "best" table')
        '"my ""best"" table"'
    """
    return '"' + identifier.replace('"', '""') + '"'


def nothing_to_read(path: Path | str) -> StoreError:
    """Error of a file that is to be read and is not there."""
    return StoreError(f"There is no file '{path}' to read. Check the path, or open it without read_only.")


def connect(where: str, read_only: bool, encryption_key: str | None) -> duckdb.DuckDBPyConnection:
    """Connect to a database with the settings of this package; a file that was cut short in its making is finished.

    Raises:
        SettingsError: DuckDB reads something else in the path.
    """
    _check_path(where)
    try:
        return _connect_once(where, read_only, encryption_key)
    except (duckdb.Error, StoreError) as error:
        # Asked only now: a look into a file that is open in this process would drop DuckDB's lock on it.
        if where == MEMORY or is_full(error) or not _finished(where, read_only, encryption_key):
            raise
    return _connect_once(where, read_only, encryption_key)


def _check_path(where: str) -> None:
    """Refuse what DuckDB reads its own way: it writes its log beside what stands before ``?``."""
    strange = "?" if os.name == "nt" else "?\\"
    if any(sign in where for sign in strange):
        raise SettingsError(
            f"DuckDB keeps no file at '{where}': '?' and '\\' in a path mean something else to it. Rename the folder, "
            "or give another path."
        )


def _finished(where: str, read_only: bool, encryption_key: str | None) -> bool:
    """Finish a file whose making was cut short; give whether it was one."""
    if read_only and is_half_made(where):
        raise nothing_to_read(where)
    try:
        return finish(where, lambda empty: _connect_once(empty, False, encryption_key, shown=where).close())
    except OSError as error:
        raise StoreWriteError(
            f"'{where}' cannot be written: {error.strerror}. Its making was cut short before; it holds nothing yet. "
            "Make room, or choose a folder that this user can write."
        ) from error


def _connect_once(
    where: str, read_only: bool, encryption_key: str | None, *, shown: str = ""
) -> duckdb.DuckDBPyConnection:
    if encryption_key is not None:
        return _connect_encrypted(where, read_only, encryption_key, shown or where)
    # No config here: DuckDB would refuse every other connection of this process that lacks it.
    connection = duckdb.connect(where, read_only=read_only and where != MEMORY)
    for setting in _SETTINGS:
        connection.execute(setting)
    if where != MEMORY and not read_only and count_connections(connection) == 1:
        _regroup(connection, where)
    return connection


def count_connections(connection: duckdb.DuckDBPyConnection) -> int | None:
    """Connections of this process to the database, this one included; None where DuckDB cannot say, as 1.4 cannot."""
    try:
        return int(connection.execute("SELECT * FROM duckdb_connection_count()").fetchall()[0][0])
    except duckdb.CatalogException:
        return None


def _regroup(connection: duckdb.DuckDBPyConnection, where: str) -> None:
    """Attach the database again, with small groups of rows.

    Only ATTACH takes their size; the connection was opened by path all the same, so that other connections of
    this process to the file share it.
    """
    name = quote(connection.execute("SELECT current_database()").fetchall()[0][0])
    try:
        for step in (
            f"ATTACH '{MEMORY}' AS {_ASIDE}",
            f"USE {_ASIDE}",
            f"DETACH {name}",
            f"ATTACH '{where.replace(chr(39), chr(39) * 2)}' AS {name} ({ROW_GROUP})",
            f"USE {name}",
            f"DETACH {_ASIDE}",
        ):
            connection.execute(step)
        _flush_each_group(connection)
    except duckdb.Error:
        connection.close()
        raise


def _flush_each_group(connection: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.CatalogException):  # DuckDB 1.4 does not have it, and writes groups one by one
        connection.execute(_FLUSH_EACH_GROUP)


def _connect_encrypted(
    where: str, read_only: bool, encryption_key: str, shown: str
) -> duckdb.DuckDBPyConnection:
    if where == MEMORY or not encryption_key:
        raise StoreError("encryption_key needs a file and at least one character. Give a path, or no key.")
    connection = duckdb.connect(MEMORY)
    for setting in _SETTINGS:
        connection.execute(setting)
    _flush_each_group(connection)
    options = [
        ROW_GROUP,
        "ENCRYPTION_KEY '" + encryption_key.replace("'", "''") + "'",
        *(["READ_ONLY"] if read_only else []),
    ]
    attach = f"ATTACH '{where.replace(chr(39), chr(39) * 2)}' AS {ENCRYPTED_CATALOG} ({', '.join(options)})"
    if not read_only and duckdb.__version__ in _WEAK:
        warnings.warn(
            f"DuckDB {duckdb.__version__} draws the nonces of its encryption from a generator that is not secure "
            "(CVE-2025-64429). Upgrade to 1.4.2 or later before relying on it.",
            UserWarning,
            stacklevel=2,
        )
    try:
        _attach(connection, attach)
    except duckdb.Error as error:
        connection.close()
        raise without_key(error, encryption_key, shown) from None
    return connection


def _attach(connection: duckdb.DuckDBPyConnection, attach: str) -> None:
    """Attach; where DuckDB wants OpenSSL for it, take it from httpfs if that is installed. Nothing is fetched."""
    try:
        connection.execute(attach)
    except duckdb.Error as error:
        if "httpfs" not in str(error):
            raise
        try:
            connection.execute("LOAD httpfs")
        except duckdb.Error:
            raise error from None
        connection.execute(attach)


def without_key(error: duckdb.Error, encryption_key: str, where: str) -> StoreError:
    """What is wrong with an encrypted file, never with the key, which DuckDB's text may quote with the statement."""
    quoted = encryption_key.replace("'", "''")
    return _encryption_error(type(error)(str(error).replace(quoted, "…")), where)


def _encryption_error(error: duckdb.Error, where: str) -> StoreError:
    text = str(error)
    if "httpfs" in text:
        return StoreError(
            f"DuckDB {duckdb.__version__} writes encrypted files only with OpenSSL, which its httpfs extension "
            f"brings and which is not installed; '{where}' was not opened. Run INSTALL httpfs in duckdb once, "
            "while online; or open an existing file with read_only=True; or encrypt the disk instead."
        )
    if "Wrong encryption key" in text:
        return StoreError(f"The encryption_key does not open '{where}'. Give the key it was made with.")
    if "not encrypted" in text or "unencrypted" in text.lower():
        return StoreError(f"'{where}' is not encrypted. Open it without encryption_key.")
    return error_of(error, where)


def check_picklable(connection: Any, encryption_key: str | None) -> None:
    """Refuse to pickle what would lose a connection or show a key."""
    if connection is not None:
        raise StoreError(
            "A store on a given connection cannot be pickled: the connection would stay behind. Give it a file, and "
            "pickle that store."
        )
    if encryption_key is not None:
        raise StoreError(
            "An encrypted store cannot be pickled: the key would be written in clear. Pickle its path, "
            "and open it with the key where it is used."
        )


def settable(memory_limit: str) -> str:
    """DuckDB's memory limit in words that it reads again as the same one.

    DuckDB shows one digit after the point and drops the rest: set and read again a few hundred times, its own words
    would fall to nothing, so this is the middle of what the limit may be. No limit at all it shows in a unit that it
    does not read.
    """
    number, unit = memory_limit.split()
    return "-1" if unit == "PiB" else f"{float(number) + 0.05:.2f} {unit}"


def prepare_folder(path: Path, read_only: bool) -> None:
    """Make the folder of a database; of one to read, see that there is one.

    Raises:
        StoreError: There is nothing to read, or the folder cannot be made.
    """
    if read_only:
        if not path.is_file():
            raise nothing_to_read(path)
        return
    try:
        private_folder(path.parent)
    except OSError as error:
        raise StoreWriteError(
            f"The folder '{path.parent}' cannot be made: {error.strerror}. Choose one that this user can write."
        ) from error
