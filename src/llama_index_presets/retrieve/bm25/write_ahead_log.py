"""Write-ahead log of records: a crash can only shorten it; a record is whole on disk or absent."""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llama_index_presets.errors import StoreCorruptError, StoreWriteError
from llama_index_presets.files.disk_faults import write_at

__all__ = ["Journal", "LogRecord", "NodeEntry", "damaged"]

_FRAME = struct.Struct("<II")
"""Length of the payload in bytes and its CRC-32, before each payload."""

_MAGIC = b"BM25"
_HEADER = struct.Struct("<4sQI")
"""Mark, end of the last durable record in bytes, CRC-32 of both."""

_LOOKS = 5
"""How often a reader looks at a header that a writer may be replacing at this moment."""


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """Node in a log record.

    Attributes:
        head: JSON of the node's id, source document, digest and filterable metadata.
        tokens: Its tokens, in order.
        body: JSON of the node itself; None where another store holds the nodes.
    """

    head: str
    tokens: list[str]
    body: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """Log record: one change, applied whole; removals before additions.

    Attributes:
        drop: Ids of nodes that go.
        put: Nodes that come or are replaced.
        begin: Source documents whose change has begun, in this index and in a vector store beside it.
        end: Source documents whose change is over.
    """

    drop: Sequence[str] = ()
    put: Sequence[NodeEntry] = ()
    begin: Sequence[str] = ()
    end: Sequence[str] = ()


def _encode_record(record: LogRecord) -> bytes:
    """Write a record as the bytes of one frame."""
    put = [[entry.head, " ".join(entry.tokens), entry.body] for entry in record.put]
    fields = {"drop": list(record.drop), "put": put, "begin": list(record.begin), "end": list(record.end)}
    payload = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _decode_record(payload: bytes) -> LogRecord:
    """Read a record back from the payload of a frame."""
    fields = json.loads(payload)
    put = [NodeEntry(head, tokens.split(" ") if tokens else [], body) for head, tokens, body in fields["put"]]
    return LogRecord(drop=fields["drop"], put=put, begin=fields["begin"], end=fields["end"])


@dataclass(frozen=True, slots=True)
class Journal:
    """Log file: a header, then one frame for each record.

    The header says up to where records are durable, so that a file cut at the edge of a record is not taken for a
    shorter one. It is written after its record is on disk, in place and without waiting: it may lag behind, and never
    runs ahead.

    Attributes:
        path: The file.
        headed: Whether it has the header; those of folder format 1 have none, and are only read.
    """

    path: Path
    headed: bool = True

    @property
    def start(self) -> int:
        """Offset of the first record, in bytes."""
        return _HEADER.size if self.headed else 0

    @property
    def size(self) -> int:
        """Length of the file in bytes, 0 where there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def create(self) -> None:
        """Write an empty journal."""
        self.path.write_bytes(_header(_HEADER.size))

    def append(self, record: LogRecord, *, end: int) -> int:
        """Append a record after the last whole one, and wait until it is on disk.

        Whatever lies beyond `end` is what a crash left of an unfinished record, and is cut off.

        Args:
            record: What to append.
            end: Where the last whole record ends, in bytes.

        Returns:
            Where the new record ends, in bytes.

        Raises:
            StoreCorruptError: The file is shorter than what was durable.
            StoreWriteError: The disk is full or the file cannot be written; the journal is as it was.
        """
        frame = _encode_record(record)
        try:
            # Without a buffer: one that could not be written would be written again when the file is closed.
            with self.path.open("r+b", buffering=0) as file:
                if os.fstat(file.fileno()).st_size < end:
                    raise damaged(self.path, f"it ends before byte {end}")
                try:
                    file.truncate(end)
                    write_at(file, end, frame)
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
                with suppress(OSError):  # the record is durable; a header that lags behind only says less
                    write_at(file, 0, _header(end + len(frame)))
        except OSError as error:
            raise StoreWriteError(
                f"{self.path} cannot be written ({error}); nothing of this change was kept. Free space or fix the "
                "permissions, then run it again."
            ) from error
        return end + len(frame)

    def records(self, start: int) -> Iterator[tuple[LogRecord, int]]:
        """Read the whole records from a place on, each with the place where it ends.

        Stops before a record that a crash cut short.

        Raises:
            StoreCorruptError: A durable record is missing or does not match its checksum.
        """
        with self.path.open("rb") as file:
            durable = _durable_end(self.path, file) if self.headed else 0
            size = os.fstat(file.fileno()).st_size
            file.seek(start)
            while len(frame := file.read(_FRAME.size)) == _FRAME.size:
                length, checksum = _FRAME.unpack(frame)
                end = start + _FRAME.size + length
                if end > size:
                    break
                payload = file.read(length)
                if not payload or zlib.crc32(payload) != checksum:
                    if end < size and payload:
                        raise damaged(self.path, f"at byte {start} the checksum does not match")
                    break
                yield _decode_record(payload), end
                start = end
            if start < durable:
                raise damaged(self.path, f"the record at byte {start} is damaged or missing")


def damaged(path: Path, fact: str) -> StoreCorruptError:
    """Error for a damaged file of a keyword index."""
    return StoreCorruptError(
        f"{path} is damaged: {fact}. Nothing was touched. The index can be rebuilt from the store that holds the "
        "nodes: 'llama-presets doctor PRESET --storage STORAGE --repair', or delete the folder and call "
        "BM25Index.from_source(store, folder)."
    )


def _header(end: int) -> bytes:
    return _HEADER.pack(_MAGIC, end, zlib.crc32(_MAGIC + end.to_bytes(8, "little")))


def _durable_end(path: Path, file: IO[bytes]) -> int:
    for attempt in range(_LOOKS):
        time.sleep(0.002 * attempt)
        header = os.pread(file.fileno(), _HEADER.size, 0) if hasattr(os, "pread") else _read_at_start(file)
        if len(header) == _HEADER.size and header == _header(end := _HEADER.unpack(header)[1]):
            return int(end)
    raise damaged(path, "its header does not match its checksum")


def _read_at_start(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_HEADER.size)
