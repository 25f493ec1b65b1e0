"""A file of records that a crash can only shorten: each is whole on disk, or is not there."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_index_presets.errors import StoreCorruptError, StoreWriteError

__all__ = ["Entry", "Record", "append_record", "decode_record", "encode_record", "read_records"]

_FRAME = struct.Struct("<II")
"""Length of the payload in bytes and its CRC-32, before each payload."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One node as the keyword index keeps it.

    Attributes:
        head: JSON of the node's id, source document, digest and filterable metadata.
        tokens: Its tokens, in order.
        body: JSON of the node itself; None where another store holds the nodes.
    """

    head: str
    tokens: list[str]
    body: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One change, applied whole: what goes is removed before what comes is put.

    Attributes:
        drop: Ids of nodes that go.
        put: Nodes that come or are replaced.
        begin: Source documents whose change has begun, in this index and in a vector store beside it.
        end: Source documents whose change is over.
    """

    drop: Sequence[str] = ()
    put: Sequence[Entry] = ()
    begin: Sequence[str] = ()
    end: Sequence[str] = ()


def encode_record(record: Record) -> bytes:
    """Write a record as the bytes of one frame."""
    put = [[entry.head, " ".join(entry.tokens), entry.body] for entry in record.put]
    fields = {"drop": list(record.drop), "put": put, "begin": list(record.begin), "end": list(record.end)}
    payload = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def decode_record(payload: bytes) -> Record:
    """Read a record back from the payload of a frame."""
    fields = json.loads(payload)
    put = [Entry(head, tokens.split(" ") if tokens else [], body) for head, tokens, body in fields["put"]]
    return Record(drop=fields["drop"], put=put, begin=fields["begin"], end=fields["end"])


def append_record(path: Path, record: Record, *, end: int) -> int:
    """Append a record after the last whole one, and wait until it is on disk.

    Whatever lies beyond `end` is what a crash left of an unfinished record, and is cut off.

    Args:
        path: The journal.
        record: What to append.
        end: Where the last whole record ends, in bytes.

    Returns:
        Where the new record ends, in bytes.

    Raises:
        StoreWriteError: The disk is full or the file cannot be written; the journal is as it was.
    """
    frame = encode_record(record)
    try:
        with path.open("r+b") as file:
            try:
                file.truncate(end)
                file.seek(end)
                file.write(frame)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise StoreWriteError(
            f"{path} cannot be written ({error}); nothing of this change was kept. Free space or fix the "
            "permissions, then run it again."
        ) from error
    return end + len(frame)


def read_records(path: Path, start: int = 0) -> Iterator[tuple[Record, int]]:
    """Read the whole records from a place on, each with the place where it ends.

    Stops before a record that a crash cut short.

    Raises:
        StoreCorruptError: A record that is not the last does not match its checksum.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(start)
        while len(frame := file.read(_FRAME.size)) == _FRAME.size:
            length, checksum = _FRAME.unpack(frame)
            payload = file.read(length)
            end = start + _FRAME.size + length
            if len(payload) < length:
                return
            if zlib.crc32(payload) != checksum:
                if end >= size:
                    return
                raise StoreCorruptError(
                    f"{path} is damaged at byte {start}: the checksum does not match. Nothing was touched. "
                    "Restore the folder from a backup, or build the index again."
                )
            yield decode_record(payload), end
            start = end
