"""Snapshot file beside the database: vectors, codes, norms and rows, mapped at opening instead of made again.

    header      4,096 bytes: mark, CRC-32, JSON (which table, which version, sections with their checksums, stamp)
    seqs …      arrays, each at a multiple of 4,096 bytes
    rows        the other columns, as an Arrow stream

It is a copy that can be deleted at any time. It counts only while the database's file is, by size and time, the one
beside which it was written or confirmed: a kill, a restored backup or another program's writing make it stale, and it
is written again. Nothing is kept beside an encrypted database.
"""

from __future__ import annotations

import glob
import hashlib
import json
import mmap
import os
import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from llama_index_presets.files.disk_faults import write_at
from llama_index_presets.files.private_files import private_open
from llama_index_presets.store.duckdb.connect import MEMORY
from llama_index_presets.store.duckdb.database import Database, stamp_of
from llama_index_presets.store.duckdb.table import COLUMNS, State, as_numpy
from llama_index_presets.store.duckdb.vector_matrix import Encoded, Matrix, encode, has_codes

__all__ = ["ROWS_SCHEMA", "KeptSnapshot", "SnapshotFile", "delete_snapshot_files"]

ROWS_SCHEMA = pa.schema([(name, pa.large_string()) for name in COLUMNS])
"""The rows of a snapshot: every column but number and vector."""

_FORMAT = 1
_MAGIC = b"LIPSNAP\n"
_START = struct.Struct("<8sII")
"""Mark, CRC-32 of the JSON, its length."""
_PAGE = 4096
_BATCH_ROWS = 8192
_READ_BYTES = 2**20
_SUFFIX = ".snapshot"


@dataclass(frozen=True, slots=True, eq=False)
class KeptSnapshot:
    """What a snapshot file holds.

    Attributes:
        state: What the table remembered when it was written.
        seqs: Number of each row, ascending, shape (n,).
        matrix: Their vectors.
        rows: Their other columns.
    """

    state: State
    seqs: NDArray[np.int64]
    matrix: Matrix
    rows: pa.Table


class _Unusable(Exception):
    """The file is damaged, or of another table, format or database."""


class SnapshotFile:
    """The snapshot file of one table. Thread safe.

    Args:
        database: Where the table is.
        table: Its name.
    """

    def __init__(self, database: Database, table: str) -> None:
        self._database = database
        self._table = table
        self._lock = threading.Lock()
        self._trusted: State | None = None
        self._looked = False
        name = hashlib.sha256(table.encode()).hexdigest()[:12]
        self.path = Path(f"{database.path}.{name}{_SUFFIX}")

    @property
    def possible(self) -> bool:
        """Whether there may be a file: the database is one, in plain text, and nobody writes past the stores."""
        database = self._database
        return database.path not in ("", MEMORY) and database.encryption_key is None and not database.lent

    def state(self) -> State | None:
        """Version that the file holds; None where there is no file to be trusted."""
        with self._lock:
            return self._state()

    def _state(self) -> State | None:
        if not self._looked:
            self._looked = True
            with suppress(OSError, _Unusable):
                header = _header(self.path, self._table)
                if header["stamp"] == self._database.stamp_at_open and header["stamp"] is not None:
                    self._trusted = State(**header["state"])
        return self._trusted

    def load(self) -> KeptSnapshot | None:
        """Map the file; None where there is none to be trusted.

        Every section is verified by its checksum first, so that damage never becomes an answer.
        """
        with self._lock:
            if not self.possible or self._state() is None:
                return None
            try:
                return _mapped(self.path, self._table)
            except (OSError, _Unusable, pa.ArrowInvalid):
                self._trusted = None
                return None

    def write(self, state: State, reader: Iterator[pa.RecordBatch]) -> bool:
        """Write the file, a few thousand rows at a time, and put it in place of the old one.

        Args:
            state: Of the table in the transaction that `reader` reads in.
            reader: Batches of the table, with ``seq``, the row columns and ``embedding``.

        Returns:
            Whether it was written: False where the disk or the folder does not take it, or the rows come out of order.
        """
        with self._lock:
            draft = self.path.with_name(f"{self.path.name}.{os.getpid()}.draft")
            try:
                self._delete_drafts()
                with private_open(draft, "w+b", buffering=0) as file:
                    _Writer(file, state).write(self._table, reader, self._stamp())
                draft.chmod(Path(self._database.path).stat().st_mode & 0o777)
                draft.replace(self.path)
            except (OSError, _Unusable):
                return False
            finally:
                with suppress(OSError):
                    draft.unlink(missing_ok=True)
            self._trusted, self._looked = state, True
            return True

    def confirm(self) -> None:
        """Note that the database's file, as it is now, is the one that the snapshot file belongs to."""
        with self._lock, suppress(OSError, _Unusable):
            if self._trusted is None or not self.possible:
                return
            header, stamp = _header(self.path, self._table), self._stamp()
            if header["stamp"] != stamp:
                with self.path.open("r+b", buffering=0) as file:
                    write_at(file, 0, _header_page(header | {"stamp": stamp}))

    def delete(self) -> None:
        """Delete the file."""
        with self._lock:
            self._trusted, self._looked = None, True
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _delete_drafts(self) -> None:
        """Delete what a killed process left; where others may read the database, theirs are left alone."""
        if not self._database.read_only:
            for draft in self.path.parent.glob(f"{glob.escape(self.path.name)}.*.draft"):
                draft.unlink(missing_ok=True)

    def _stamp(self) -> list[int] | None:
        return stamp_of(self._database.path)


def delete_snapshot_files(path: str) -> None:
    """Delete the snapshot files, and drafts of such, of every table of a database.

    Raises:
        OSError: One cannot be deleted.
    """
    where = Path(path)
    for file in [*where.parent.iterdir()]:
        parts = file.name.removeprefix(f"{where.name}.").split(".")
        if file.name.startswith(f"{where.name}.") and f".{'.'.join(parts[1:2])}" == _SUFFIX:
            file.unlink(missing_ok=True)


# ---- writing ------------------------------------------------------------------------------------------------


class _Section:
    """A part of the file that is written from its start to its end."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        self._file, self.start = file, start
        self.size = self.checksum = 0
        self.closed = False

    def write(self, content: Any) -> int:
        """Append bytes."""
        view = memoryview(content).cast("B")
        write_at(self._file, self.start + self.size, view)
        self.size, self.checksum = self.size + len(view), zlib.crc32(view, self.checksum)
        return len(view)

    def flush(self) -> None:
        """Arrow asks for it."""

    def close(self) -> None:
        """Arrow asks for it."""
        self.closed = True


class _Writer:
    """Writes the sections side by side, as the rows come."""

    def __init__(self, file: IO[bytes], state: State) -> None:
        self._file, self._state = file, state
        self._coded = has_codes()
        count, dim = state.count, state.dim
        self._sizes = {
            "seqs": 8 * count,
            "inverse_norms": 4 * count,
            "steps": 4 * count if self._coded else 0,
            "codes": count * dim if self._coded else 0,
            "vectors": 4 * count * dim,
        }
        self._sections: dict[str, _Section] = {}
        place = _PAGE
        for name, size in [*self._sizes.items(), ("rows", 0)]:
            self._sections[name] = _Section(file, place)
            place += -(-size // _PAGE) * _PAGE
        self._spread, self._last = 0.0, -1

    def write(self, table: str, reader: Iterator[pa.RecordBatch], stamp: list[int] | None) -> None:
        rows = self._sections["rows"]
        with pa.ipc.new_stream(pa.PythonFile(rows, mode="w"), ROWS_SCHEMA) as stream:
            for batches in _grouped(reader):
                for batch in batches:
                    self._write_numbers(batch)
                columns = pa.Table.from_batches([batch.select([*COLUMNS]) for batch in batches])
                for batch in columns.cast(ROWS_SCHEMA).combine_chunks().to_batches():
                    stream.write_batch(batch)
        if any(self._sections[name].size != size for name, size in self._sizes.items()):
            raise _Unusable("the table has not as many rows as it says")
        sections = {name: [part.start, part.size, part.checksum] for name, part in self._sections.items()}
        header = {
            "format": _FORMAT,
            "byteorder": sys.byteorder,
            "table": table,
            "state": asdict(self._state),
            "spread": self._spread,
            "sections": sections,
            "stamp": stamp,
        }
        write_at(self._file, 0, _header_page(header))

    def _write_numbers(self, batch: pa.RecordBatch) -> None:
        seqs = as_numpy(batch.column("seq"))
        if len(seqs) and (seqs[0] <= self._last or bool((seqs[1:] <= seqs[:-1]).any())):
            raise _Unusable("rows came out of order")
        self._last = int(seqs[-1]) if len(seqs) else self._last
        vectors = as_numpy(batch.column("embedding").flatten()).reshape(-1, self._state.dim)
        encoded = encode(vectors, coded=self._coded)
        self._spread = max(self._spread, encoded.spread)
        self._sections["seqs"].write(np.ascontiguousarray(seqs))
        self._sections["vectors"].write(np.ascontiguousarray(vectors))
        for name in ("inverse_norms", "steps", "codes"):
            self._sections[name].write(np.ascontiguousarray(getattr(encoded, name)).reshape(-1))


def _grouped(reader: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches put together until they have some thousand rows: few pieces, and few at a time in memory."""
    group: list[pa.RecordBatch] = []
    for batch in reader:
        group.append(batch)
        if sum(map(len, group)) >= _BATCH_ROWS:
            yield group
            group = []
    if group:
        yield group


def _header_page(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    if len(text) > _PAGE - _START.size:
        raise _Unusable("the table's name is too long for the header")
    return (_START.pack(_MAGIC, zlib.crc32(text), len(text)) + text).ljust(_PAGE, b"\0")


# ---- reading ------------------------------------------------------------------------------------------------


def _header(path: Path, table: str) -> dict[str, Any]:
    with path.open("rb") as file:
        page = file.read(_PAGE)
    if len(page) < _PAGE:
        raise _Unusable("it ends in its header")
    magic, checksum, length = _START.unpack_from(page)
    text = page[_START.size : _START.size + length]
    if magic != _MAGIC or zlib.crc32(text) != checksum:
        raise _Unusable("its header is damaged")
    header: dict[str, Any] = json.loads(text)
    if (header["format"], header["byteorder"], header["table"]) != (_FORMAT, sys.byteorder, table):
        raise _Unusable("it is of another format or table")
    return header


def _mapped(path: Path, table: str) -> KeptSnapshot:
    header = _header(path, table)
    sections, state = header["sections"], State(**header["state"])
    with path.open("rb") as file:
        _verify(file, sections)
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def numbers(name: str, dtype: Any, *shape: int) -> NDArray[Any]:
        start, size, _ = sections[name]
        found = np.frombuffer(content, dtype, size // np.dtype(dtype).itemsize, start if size else 0)
        return found.reshape(*shape) if shape else found

    encoded = Encoded(
        inverse_norms=numbers("inverse_norms", np.float32),
        codes=numbers("codes", np.int8, -1, state.dim),
        steps=numbers("steps", np.float32),
        spread=header["spread"],
    )
    vectors = numbers("vectors", np.float32, -1, state.dim)
    start, size, _ = sections["rows"]
    with pa.ipc.open_stream(pa.py_buffer(memoryview(content)[start : start + size])) as stream:
        rows = stream.read_all()
    seqs = numbers("seqs", np.int64)
    if not len(seqs) == len(vectors) == len(rows) == state.count:
        raise _Unusable("its parts differ in length")
    return KeptSnapshot(state, seqs, Matrix.kept(vectors, encoded), rows)


def _verify(file: IO[bytes], sections: dict[str, list[int]]) -> None:
    """Compare every section with its checksum; by reading, since pages of a mapping would count as memory of ours."""
    descriptor = file.fileno()
    end = os.fstat(descriptor).st_size
    if any(start + size > end for start, size, _ in sections.values()):
        raise _Unusable("it is cut short")

    def sound(section: list[int]) -> bool:
        start, size, checksum = section
        found = 0
        for place in range(start, start + size, _READ_BYTES):
            found = zlib.crc32(_read_at(file, place, min(_READ_BYTES, start + size - place)), found)
        return found == checksum

    # Reading and summing leave the interpreter's lock, so two threads use two cores.
    with ThreadPoolExecutor(2, thread_name_prefix="snapshot-file") as threads:
        if not all(threads.map(sound, sorted(sections.values(), key=lambda section: -section[1]))):
            raise _Unusable("a checksum does not match")


_seeking = threading.Lock()


def _read_at(file: IO[bytes], place: int, size: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), size, place)
    with _seeking:  # Windows
        file.seek(place)
        return file.read(size)
