"""Document table of the keyword index: stored fields of each node, by row."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core import schema
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from numpy.typing import NDArray
from pydantic_core import from_json

from llama_index_presets.counting import counted
from llama_index_presets.errors import NodeRejectedError
from llama_index_presets.filters import filterable_metadata
from llama_index_presets.ranking.bm25 import FIELD_END, Analyzer
from llama_index_presets.retrieve.bm25.languages import (
    AUTO,
    language_analyzer,
    language_marker,
    language_of,
)
from llama_index_presets.retrieve.bm25.write_ahead_log import NodeEntry, damaged
from llama_index_presets.text.utf8 import has_utf8, printable

__all__ = [
    "DocumentEntry",
    "DocumentTable",
    "deserialize",
    "indexed_text",
    "node_tokens",
    "serialize_entry",
    "serialize_payload",
    "write_array",
]

_KEPT_MASKS = 64
_NO_ROWS = np.empty(0, np.bool_)


@dataclass(frozen=True, slots=True)
class DocumentEntry:
    """Stored fields of a node: all that is known without reading its payload.

    Attributes:
        id: The node's id.
        document: Id of its source document, or None.
        digest: Changes when the node's text or metadata change.
        metadata: What filters are evaluated on.
    """

    id: str
    document: str | None
    digest: str
    metadata: dict[str, Any]

    def to_json(self) -> str:
        """Serialize."""
        fields = [self.id, self.document, self.digest, self.metadata]
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> DocumentEntry:
        """Deserialize."""
        return cls(*from_json(text))


class DocumentTable:
    """Append-only table of entries and payloads by row: the first from a snapshot's files, the rest in memory."""

    def __init__(self, heads: _Blobs | None = None, bodies: _Blobs | None = None) -> None:
        self._heads, self._bodies = heads, bodies
        self.place = heads.path if heads else Path()
        self._saved = len(heads) if heads else 0
        self._parsed: list[DocumentEntry | None] = [None] * self._saved
        self._added: list[tuple[str, str | None]] = []
        self._masks: OrderedDict[str, NDArray[np.bool_]] = OrderedDict()

    def __len__(self) -> int:
        return self._saved + len(self._added)

    def extend(self, entries: Iterable[NodeEntry]) -> None:
        """Add the next rows."""
        for entry in entries:
            self._added.append((entry.head, entry.body))
            self._parsed.append(None)

    def head(self, row: int) -> DocumentEntry:
        """Entry of the node of a row."""
        head = self._parsed[row]
        if head is None:
            try:
                head = self._parsed[row] = DocumentEntry.from_json(self._text(row, 0))
            except (ValueError, TypeError) as error:
                raise damaged(self.place, f"what is known of node {row} cannot be read") from error
        return head

    def body(self, row: int) -> str | bytes:
        """Payload of a row: JSON of its node; empty where another store holds the nodes."""
        return self._text(row, 1)

    def node(self, row: int) -> BaseNode:
        """Node of a row, from its payload.

        Raises:
            StoreCorruptError: The payload is not as it was written.
        """
        try:
            return deserialize(self.body(row))
        except (ValueError, TypeError, AttributeError) as error:
            raise damaged(self.place, f"node {row} cannot be read") from error

    def mask(self, key: str, test: Callable[[dict[str, Any]], bool], rows: int) -> NDArray[np.bool_]:
        """Which of the first rows pass a test of their metadata; remembered, so that only new rows are
        tested.

        Args:
            key: Names the test; equal keys mean equal tests.
            test: Metadata -> whether the row passes.
            rows: How many rows.

        Returns:
            One truth value for each row, shape (rows,).
        """
        known = self._masks.pop(key, _NO_ROWS)
        if len(known) < rows:
            fresh = (test(self.head(row).metadata) for row in range(len(known), rows))
            known = np.concatenate([known, np.fromiter(fresh, np.bool_, rows - len(known))])
        self._masks[key] = known
        while len(self._masks) > _KEPT_MASKS:
            self._masks.popitem(last=False)
        return known[:rows]

    def kept(self, rows: Sequence[int]) -> DocumentTable:
        """Table in memory with these rows only, in this order."""
        document_table = DocumentTable()
        for row in rows:
            head, body = self._text(row, 0), self._text(row, 1)
            document_table._added.append((_string(head), _string(body) or None))
            document_table._parsed.append(self._parsed[row])
        return document_table

    def write(self, folder: Path, rows: Iterable[int]) -> None:
        """Write these rows, in this order, as the files that `open` reads."""
        rows = list(rows)
        for name, part in (("heads", 0), ("bodies", 1)):
            _Blobs.write(folder, name, (_bytes(self._text(row, part)) for row in rows))

    @classmethod
    def open(cls, folder: Path, *, checked: bool = True) -> DocumentTable:
        """Map the files that `write` wrote; nothing is read until it is asked for.

        Args:
            folder: Of the snapshot.
            checked: Whether there is a checksum for each text; snapshots of format 1 have none.

        Raises:
            StoreCorruptError: The files do not fit each other.
        """
        heads, bodies = (_Blobs(folder, name, checked=checked) for name in ("heads", "bodies"))
        if len(heads) != len(bodies):
            raise damaged(folder, f"it has {len(heads)} heads and {len(bodies)} bodies")
        return cls(heads, bodies)

    def _text(self, row: int, part: int) -> str | bytes:
        if row >= self._saved:
            return self._added[row - self._saved][part] or ""
        blobs = self._bodies if part else self._heads
        return blobs[row] if blobs else b""


class _Blobs:
    """Byte strings in one mapped file, by number."""

    def __init__(self, folder: Path, name: str, *, checked: bool) -> None:
        self.path = folder / f"{name}.bin"
        self._ends: NDArray[np.int64] = np.load(folder / f"{name}.npy")
        self._sums: NDArray[np.uint32] | None = np.load(folder / f"{name}.sums.npy") if checked else None
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if (
                self._ends.ndim != 1
                or self._ends[0] != 0
                or self._ends[-1] != size
                or (np.diff(self._ends) < 0).any()
            ):
                raise damaged(self.path, f"its {counted(size, 'byte', 'do')} not fit {name}.npy")
            # An empty file cannot be mapped.
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> bytes:
        blob = self._data[self._ends[number] : self._ends[number + 1]]
        if self._sums is not None and zlib.crc32(blob) != self._sums[number]:
            raise damaged(self.path, f"text {number} does not match its checksum")
        return blob

    @staticmethod
    def write(folder: Path, name: str, blobs: Iterable[bytes]) -> None:
        ends, sums = [0], []
        with (folder / f"{name}.bin").open("wb") as file:
            for blob in blobs:
                file.write(blob)
                ends.append(ends[-1] + len(blob))
                sums.append(zlib.crc32(blob))
        write_array(folder / f"{name}.npy", np.array(ends, np.int64))
        write_array(folder / f"{name}.sums.npy", np.array(sums, np.uint32))


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as a .npy file, and raise when the disk does not take it.

    numpy hands a real file to C's stdio, where what fails while the file is closed is not reported; to anything else
    that has a `write` it gives the bytes.

    Raises:
        OSError: The file cannot be written.
    """
    with path.open("wb") as file:
        np.save(_Sink(file.write), array)


class _Sink:
    """File-like writer that numpy does not treat as a file."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self.write = write


def _string(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


# -- entries of nodes -----------------------------------------------------------------------------------------


def serialize_entry(node: BaseNode, text: str) -> DocumentEntry:
    """Entry of a node, serialized.

    Args:
        node: Any node.
        text: Its text as it is indexed.

    Raises:
        NodeRejectedError: A metadata value has no JSON form, or an id or the text is not valid Unicode.
    """
    try:
        for part in (node.node_id, node.ref_doc_id or "", text):
            part.encode()  # half a surrogate pair cannot be written
        metadata = filterable_metadata(node)
    except ValueError as error:
        raise NodeRejectedError(
            f"Node '{printable(node.node_id)}' cannot be stored ({error}); nothing was written. Metadata must be plain "
            "JSON values, ids and text valid Unicode.",
            [node.node_id],
        ) from error
    return DocumentEntry(node.node_id, node.ref_doc_id, _digest(text, metadata), metadata)


_BLANK = {name: value for name, value in TextNode(id_="").to_dict().items() if name not in ("id_", "text")}
"""What needs not be written down, and read back at every search."""


def serialize_payload(node: BaseNode) -> str:
    """Payload of a node: a line of JSON, without its embedding.

    The text of a text node stands behind the line as it is: most of a node is text, and every hit of every
    search would otherwise pay for reading it as JSON.

    Raises:
        NodeRejectedError: The node's class is none of LlamaIndex's own, or a field is not valid Unicode.
    """
    bare = node if node.embedding is None else node.model_copy(update={"embedding": None})
    if type(node).__module__ != BaseNode.__module__:
        raise NodeRejectedError(
            f"Node '{node.node_id}' is a {type(node).__name__}, which LlamaIndex cannot read back; nothing "
            "was written. Keep such nodes in a store, and pass it as BM25Index(nodes=...).",
            [node.node_id],
        )
    fields = {name: value for name, value in bare.to_dict().items() if value != _BLANK.get(name)}
    text = fields.pop("text", "") if type(node) is TextNode else None
    line = json.dumps([type(node).__name__, fields], ensure_ascii=False, separators=(",", ":"))
    if not has_utf8(line):
        raise NodeRejectedError(
            f"Node '{printable(node.node_id)}' has a lone surrogate in a field, such as an id in its relationships, "
            "which has no UTF-8 form; nothing was written. Repair the text.",
            [node.node_id],
        )
    return line if text is None else f"{line}\n{text}"


def deserialize(body: str | bytes) -> BaseNode:
    """Node from the payload that `serialize_payload` wrote; the first releases left the text among the fields."""
    if isinstance(body, bytes):
        body = body.decode()
    line, _, text = body.partition("\n")
    name, fields = from_json(line)
    if name == "TextNode":
        return TextNode(**{"text": text, **fields})
    node_class: type[BaseNode] = getattr(schema, name)
    return node_class.from_dict(fields)


def indexed_text(node: BaseNode, mode: str) -> str:
    """The text of a node that its digest covers: ``"embed"`` as it is embedded, ``"none"`` without metadata."""
    return node.get_content(metadata_mode=MetadataMode(mode))


def node_tokens(node: BaseNode, settings: Mapping[str, Any], analyzer: Analyzer) -> list[str]:
    """Tokens of a node, in an index of these settings."""
    fields = _indexed_fields(node, settings["text"], settings["fields"])
    if settings["language"] != AUTO:
        return _field_tokens(fields, analyzer)
    code = language_of(node.metadata, node.get_content(metadata_mode=MetadataMode.NONE))
    return _field_tokens(fields, language_analyzer(code, analyzer)) + language_marker(code)


def _indexed_fields(node: BaseNode, mode: str, weights: Mapping[str, int]) -> list[tuple[str, int]]:
    """Fields of a node that are indexed, and how often the words of each count.

    Args:
        node: Any node.
        mode: ``"embed"`` for the text and the metadata embedded with it, ``"none"`` for the text alone.
        weights: Metadata key, or ``"text"``, -> weight; what is not named counts once.

    Returns:
        (text, weight) of each field with a weight above 0: metadata that is embedded or named, then the text.
    """
    hidden = set(node.excluded_embed_metadata_keys) if mode == "embed" else set(node.metadata)
    fields = [
        (str(value), weights.get(key, 1))
        for key, value in node.metadata.items()
        if value is not None and (key in weights or key not in hidden)
    ]
    fields.append((node.get_content(metadata_mode=MetadataMode.NONE), weights.get("text", 1)))
    return [(text, weight) for text, weight in fields if weight]


def _field_tokens(fields: Sequence[tuple[str, int]], analyzer: Analyzer) -> list[str]:
    """Tokens of fields one after the other, each field as often as its weight says, with `FIELD_END` between."""
    tokens: list[str] = []
    for text, weight in fields:
        for _ in range(weight):
            if tokens:
                tokens.append(FIELD_END)
            tokens += analyzer.tokens(text)
    return tokens


def _digest(text: str, metadata: dict[str, Any]) -> str:
    known = json.dumps([text, metadata], ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(known.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
