"""Rows of a Lance table: nodes to rows, and back."""

from __future__ import annotations

import errno
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from llama_index.core.schema import BaseNode

from llama_index_presets._options import Limits, refuse_values
from llama_index_presets.concurrency.forks import UseGuard
from llama_index_presets.errors import SettingsError, StoreCorruptError, StoreError, StoreWriteError
from llama_index_presets.files.disk_faults import is_full
from llama_index_presets.files.locks import FileLock
from llama_index_presets.files.private_files import private_folder
from llama_index_presets.store.base import FIXED_LIMITS
from llama_index_presets.store.index_terms import labels_of
from llama_index_presets.store.lancedb.filters import fields_of
from llama_index_presets.store.node_codec import Row, to_node, to_row
from llama_index_presets.text.utf8 import check_name

__all__ = [
    "FINGERPRINT_KEY",
    "LANCEDB",
    "LIMITS",
    "LanceColumns",
    "WriteLock",
    "check_names",
    "connect",
    "local_folder",
    "official_fields",
    "open_table",
    "read_nodes",
    "reading",
    "whole_files",
    "writing",
]

# -- connection -----------------------------------------------------------------------------------------------


LANCEDB: Final = UseGuard("LanceDB", StoreError)
"""LanceDB renews its threads in a fork, and says itself that a small chance of a deadlock remains."""

_OFFICIAL_DEFAULTS: dict[str, Any] = {
    "vector_column_name": "vector",
    "nprobes": None,
    "refine_factor": None,
    "text_key": "text",
    "doc_id_key": "doc_id",
    "mode": "create",
    "query_type": "vector",
    "overfetch_factor": 1,
}
"""Options of the official adapter and what they are when not given."""

LIMITS: Limits = {
    **FIXED_LIMITS,
    "api_key": ((None,), "it belongs to LanceDB Cloud, which is not supported. Leave it out."),
    "region": ((None,), "it belongs to LanceDB Cloud, which is not supported. Leave it out."),
    "reranker": ((None,), "fusion and MMR are done here. Put a CrossEncoderRerank behind the retriever."),
    "mode": (("create", "append", "overwrite"), "choose 'create', 'append' or 'overwrite'."),
    "query_type": ((None, "vector", "fts", "hybrid"), "choose 'vector', 'fts' or 'hybrid'."),
}
"""Options of the official adapter that have one value here; any other is refused with its reason."""

# Lance keeps up to 6 GiB and 1 GiB, and what belongs to replaced files of an index, too: each ingest of a few documents
# added 2 MB. 256 MiB hold the index of some million vectors; of a larger one, the parts that are asked for.
_INDEX_CACHE: Final = 256 << 20
_METADATA_CACHE: Final = 128 << 20

_MARK = b"LANC"
"""The last bytes of every whole data file."""

OWN_COLUMNS = frozenset({"id", "metadata", "kind", "node", "fields", "labels"})
"""Columns of a table beside those that the caller names."""

_UNWRITABLE = tuple(f"(os error {number})" for number in (errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM))


def official_fields(given: dict[str, Any]) -> dict[str, Any]:
    """Fields of the official adapter, with this package's defaults for those not passed.

    Raises:
        SettingsError: An option cannot be honoured.
    """
    refuse_values("LanceDBVectorStore", given, LIMITS)
    taken = {name: given.get(name, default) for name, default in _OFFICIAL_DEFAULTS.items()}
    return {**taken, "api_key": None, "region": None}


def connect(uri: str, *, storage_options: dict[str, str] | None, consistency_s: float) -> Any:
    """Connect to a folder or an object store.

    Args:
        uri: A folder, or ``s3://``, ``gs://``, ``az://``; credentials come from the environment.
        storage_options: Further options of the object store.
        consistency_s: How long, in seconds, a handle may answer from the version it knows before it looks for
            a newer one; 0 looks at every call.

    Raises:
        SettingsError: ``db://`` (LanceDB Cloud), which this package does not support.
        StoreWriteError: The folder cannot be made.
        StoreError: The parent of this forked process has used LanceDB.
    """
    LANCEDB.check()
    import lancedb

    if uri.startswith("db://"):
        raise SettingsError(
            f"'{urlsplit(uri).scheme}://' is LanceDB Cloud, which is not supported: its tables lack what the "
            "promises of this store need. Use a folder or s3://, gs://, az://."
        )
    try:
        folder = local_folder(uri)
        if folder is not None:
            private_folder(folder)
        return lancedb.connect(
            uri,
            storage_options=storage_options,
            read_consistency_interval=timedelta(seconds=consistency_s),
            session=lancedb.Session(
                index_cache_size_bytes=_INDEX_CACHE, metadata_cache_size_bytes=_METADATA_CACHE
            ),
        )
    except OSError as error:
        raise _unwritable(uri, error) from error


def open_table(connection: Any, name: str) -> Any | None:
    """Open a table; None where there is none."""
    try:
        return connection.open_table(name)
    except (ValueError, FileNotFoundError) as error:
        if "not found" in str(error):
            return None
        raise


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Translate Lance's read errors into an error that names the place.

    Raises:
        StoreCorruptError: The table's files are damaged or cannot be reached.
    """
    try:
        yield
    except StoreError:
        raise
    except BaseException as error:  # a panic of Lance on a damaged file is no Exception
        if not _is_lances(error):
            raise
        cause = _cause(error)
        raise StoreCorruptError(
            f"The table in '{uri}' cannot be read ({cause}). Nothing was changed: restore it from a backup, or "
            "ingest into a new place."
        ) from error


@contextmanager
def writing(uri: str) -> Iterator[None]:
    """Translate Lance's full-disk and permission errors into an error that says what to do.

    Lance commits a change by its last file, so what fails before it has changed nothing.

    Raises:
        StoreWriteError: The disk is full or failed, or the folder may not be written.
        StoreError: Lance refuses the change for another reason, such as a damaged file.
    """
    try:
        yield
    except StoreError:
        raise
    except (RuntimeError, OSError) as error:
        if not _is_lances(error):
            raise
        kept = f"({_cause(error)}). Each change is in the table whole or not at all."
        if is_full(error):
            raise StoreWriteError(
                f"'{uri}' cannot be written {kept} Make room on its disk and try again."
            ) from error
        if any(number in str(error) for number in _UNWRITABLE):
            raise StoreWriteError(
                f"'{uri}' cannot be written {kept} Check the disk and the rights of the folder."
            ) from error
        raise StoreError(
            f"Lance cannot change the table in '{uri}' {kept} Try again; if it stays so, restore a backup or ingest "
            "into a new place."
        ) from error


@contextmanager
def whole_files(uri: str, name: str, opened: Callable[[], Any | None]) -> Iterator[None]:
    """Undo what a block committed where the disk did not take a data file whole.

    LanceDB writes a data file, does not report that its last bytes found no room, and commits a version that cannot be
    read. Every whole file ends with Lance's mark. The version before the block is made current again; hold the lock.

    Args:
        uri: Of the database; nothing is done on an object store, which takes objects whole.
        name: Of the table.
        opened: Gives the table, or None where there is none yet.

    Raises:
        StoreWriteError: A file was cut; the table is as it was.
    """
    folder = local_folder(uri)
    if folder is None:
        yield
        return
    data = folder / f"{name}.lance" / "data"
    table, before = opened(), set(data.glob("*.lance"))
    if table is not None:
        table.checkout_latest()
    version = 1 if table is None else table.version
    try:
        yield
    finally:
        cut = [path for path in data.glob("*.lance") if path not in before and not _is_whole(path)]
        if cut and (table := opened()) is not None:
            for path in cut:
                path.unlink()  # makes room; no earlier version has it
            table.checkout_latest()
            if table.version != version:
                table.restore(version)
            raise StoreWriteError(
                f"'{uri}' cannot be written: the disk did not take '{cut[0].name}' whole. The table is as it was "
                "before this change. Make room on its disk, then run it again."
            )


_PANICS: Final = ("RustPanic", "PanicException")


def _is_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - len(_MARK), 0))
        return file.read() == _MARK


def _is_lances(error: BaseException) -> bool:
    """Whether an error is of Lance's files: it says "lance error", or "LanceError" in the middle of a stream."""
    if type(error).__name__ in _PANICS:
        return True
    lances = "lance error" in str(error) or "LanceError(" in str(error)
    return lances and isinstance(error, (RuntimeError, OSError))


def _cause(error: BaseException) -> str:
    """Lance's message without the position in its own source code, and without what may be a value of a row."""
    if type(error).__name__ in _PANICS:
        return "Lance does not understand what is in a file"
    text = str(error).splitlines()[0].split(", /")[0]
    return re.sub(r"'[^'/]*'|\"[^\"/]*\"", "'…'", text)  # what is quoted and no path


def check_names(uri: str, table: str, columns: Sequence[str]) -> None:
    """Refuse names that Lance would refuse later, or take for another column.

    Args:
        uri: Where the database is.
        table: Name of the table.
        columns: Those that the caller may name.

    Raises:
        SettingsError: Says which name, and what it may be.
    """
    check_name("uri", uri)
    check_name("table_name", table)
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,249}", table) or table in (".", ".."):
        raise SettingsError(
            f"table_name is '{table}'. LanceDB takes 1 to 249 letters, digits, _, - and . of ASCII, and neither '.' "
            "nor '..'."
        )
    for column in columns:
        check_name("The name of a column", column)
    taken = sorted(set(columns) & OWN_COLUMNS)
    if taken or len(set(columns)) < len(columns):
        raise SettingsError(
            f"vector_column_name, text_key and doc_id_key are {', '.join(columns)}; each needs a name of its own, and "
            f"{', '.join(sorted(OWN_COLUMNS))} are taken."
        )


def local_folder(uri: str) -> Path | None:
    """Folder of a local database; None for an object store."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(parts.path)
    return Path(uri) if len(parts.scheme) <= 1 else None


class WriteLock:
    """One writer at a time: among threads, and on a local folder among processes too.

    Lance commits optimistically, and two processes that insert the same new id at the same moment could both
    succeed; the lock file makes them take turns. The system drops it when a process dies. On an object store
    only threads are kept apart.

    Args:
        folder: Folder of the database; None for an object store.
        name: Name of the table.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = folder / f".{name}.lock" if folder else None
        self._threads = threading.RLock()
        self._depth = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for a `with` block; a thread that holds it may take it again.

        Raises:
            StoreWriteError: The folder cannot be written.
        """
        LANCEDB.check()  # before the lock, which another thread of the parent may have held during a fork
        with self._threads:
            if self._path is None or self._depth:
                yield
                return
            self._depth += 1
            try:
                with _locked(self._path):
                    yield
            finally:
                self._depth -= 1


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        private_folder(path.parent)
        lock = FileLock(path)
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    with lock:
        lock.acquire()
        yield


def _unwritable(place: Path | str, error: OSError) -> StoreWriteError:
    return StoreWriteError(
        f"'{place}' cannot be written ({error.strerror or error}). Give the store a folder that this user may write."
    )


FINGERPRINT_KEY = "llama_index_presets.fingerprint"
"""Where the vector column keeps the fingerprint of the model that made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanceColumns:
    """Columns of a table; the caller may name three of them.

    ``metadata`` is the metadata as it was written, ``fields`` its strings and numbers as Lance JSON and
    ``labels`` all of it as index terms, for filters; ``kind`` and ``node`` are the rest of the node.

    Attributes:
        vector: float32 vector, as the caller gave it.
        text: Text of the node, indexed for text search.
        doc_id: Id of the source document; NULL where there is none.
    """

    vector: str = "vector"
    text: str = "text"
    doc_id: str = "doc_id"

    @property
    def of_nodes(self) -> list[str]:
        """Columns that `read_nodes` needs, without the vector."""
        return ["id", self.doc_id, self.text, "metadata", "kind", "node"]

    def schema(self, dim: int, fingerprint: str | None) -> pa.Schema:
        """Schema of a new table."""
        return pa.schema(
            [
                pa.field("id", pa.string(), nullable=False),
                pa.field(self.doc_id, pa.string()),
                pa.field(self.text, pa.string()),
                pa.field("metadata", pa.string()),
                pa.field("kind", pa.string()),
                pa.field("node", pa.string()),
                pa.field("fields", pa.json_(pa.utf8())),
                pa.field("labels", pa.list_(pa.string())),
                pa.field(
                    self.vector,
                    pa.list_(pa.float32(), dim),
                    metadata={FINGERPRINT_KEY: fingerprint} if fingerprint else None,
                ),
            ]
        )

    def fingerprint(self, schema: pa.Schema) -> str | None:
        """Read the fingerprint of a table's vectors; None where none is stored."""
        stored = (schema.field(self.vector).metadata or {}).get(FINGERPRINT_KEY.encode())
        return stored.decode() if stored else None

    def check(self, schema: pa.Schema, table_name: str) -> None:
        """Refuse a table that this class did not make.

        Raises:
            StoreError: Names the columns that are missing.
        """
        missing = [
            name for name in [*self.of_nodes, "fields", "labels", self.vector] if name not in schema.names
        ]
        if missing:
            raise StoreError(
                f"Table '{table_name}' has no column {', '.join(missing)}: it was made by another program, "
                "such as the official adapter. Load its nodes into a table of another name."
            )

    def dim(self, schema: pa.Schema) -> int:
        """Length of the vectors of a table."""
        return int(schema.field(self.vector).type.list_size)

    def table(
        self, nodes: Sequence[BaseNode], vectors: npt.NDArray[np.float32], schema: pa.Schema
    ) -> pa.Table:
        """Make rows of nodes.

        Args:
            nodes: Unique by id.
            vectors: Their embeddings, (n, dim) float32.
            schema: From `schema`.

        Raises:
            NodeRejectedError: A node has no JSON form.
        """
        rows = [to_row(node) for node in nodes]
        metadata = [row.filterable() for row in rows]
        storage = pa.array([json.dumps(fields_of(one), ensure_ascii=False) for one in metadata], pa.string())
        arrays = [
            *(pa.array([getattr(row, name) for row in rows], pa.string()) for name in Row._fields),
            pa.ExtensionArray.from_storage(pa.json_(pa.utf8()), storage),
            pa.array([labels_of(one) for one in metadata], pa.list_(pa.string())),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        ]
        return pa.Table.from_arrays(arrays, schema=schema)


def read_nodes(rows: pa.Table, columns: LanceColumns) -> list[BaseNode]:
    """Put nodes together from rows; with their embeddings where the vector column is there."""
    stored = map(Row, *(rows[name].to_pylist() for name in columns.of_nodes))
    if columns.vector not in rows.column_names:
        return [to_node(row) for row in stored]
    return [
        to_node(row, vector) for row, vector in zip(stored, rows[columns.vector].to_pylist(), strict=True)
    ]
