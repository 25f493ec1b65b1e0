"""Limits of one document, checked while it is read: a small file can expand to a very large one."""

from __future__ import annotations

import itertools
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from llama_index_presets.counting import counted
from llama_index_presets.errors import IngestError

if TYPE_CHECKING:
    from llama_index.core.schema import TextNode

__all__ = ["DEFAULT_LIMIT", "SizeLimit", "warn_of_many_chunks"]

_BLOCK: Final = 1 << 16  # bytes
_SAMPLE: Final = 1_000  # chunks
_MANY: Final = 50_000  # chunks, some 2 GB
_CHUNK_BYTES: Final = 41_000  # with its vector of 384 numbers, until it is stored
_LOCAL_HEADER: Final = struct.Struct("<26xHH")
"""Header of a zip member; its last two fields are the lengths of the name and of the extra field behind it."""


@dataclass(frozen=True, slots=True)
class SizeLimit:
    """The settings ``max_document_mb`` and ``ocr``, applied: how far the reading of one document goes.

    Attributes:
        megabytes: Most of one document, in millions: bytes of a text file, bytes that the members of an archive (docx,
            pptx, xlsx, epub) take beyond the file itself, characters of text, pixels of an image.
        ocr: Languages that tesseract reads scans in, such as ``"eng+deu"``; empty leaves scans out.

    Example:
        >>> SizeLimit(1).check_text(1_000_001)
        Traceback (most recent call last):
        ...
        llama_index_presets.errors.IngestError: The document comes to more than 1 MB of text. Split it, or raise \
max_document_mb (1).
    """

    megabytes: int = 100
    ocr: str = ""

    @property
    def units(self) -> int:
        """The limit in bytes, characters or pixels."""
        return self.megabytes * 1_000_000

    def check_file(self, path: Path) -> None:
        """Refuse a file that is read as text and is larger, before it is read.

        Raises:
            IngestError: It is larger.
        """
        size = path.stat().st_size
        if size > self.units:
            raise self._error(f"The file has {size / 1e6:,.1f} MB")

    def check_text(self, characters: int) -> None:
        """Refuse a longer text.

        Raises:
            IngestError: It is longer.
        """
        if characters > self.units:
            raise self._error(f"The document comes to more than {self.megabytes:,} MB of text")

    def texts(self, parts: Iterable[str]) -> Iterator[str]:
        """The same parts, until they are too long together.

        Raises:
            IngestError: They are.
        """
        characters = 0
        for part in parts:
            characters += len(part)
            self.check_text(characters)
            yield part

    def check_archive(self, path: Path) -> None:
        """Unpack a zip archive block by block, keeping nothing, and stop as soon as it is too large.

        The size that a member declares is not trusted: zipfile unpacks up to 2 GB before it looks at it. Something that
        is no zip archive is left to its reader.

        Raises:
            IngestError: The archive expands too far, or is packed in another way than by deflate.
        """
        if not zipfile.is_zipfile(path):
            return
        most = self.units + path.stat().st_size
        left = most
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for member in archive.infolist():
                left -= max(member.file_size, _unpacked_size(file, member, left))
                self.check_unpacked(most - left, most)

    def check_unpacked(self, size: int, most: int | None = None) -> None:
        """Refuse what a packed part of a file comes to, in bytes; `most` replaces the limit.

        Raises:
            IngestError: It is more.
        """
        if size > (self.units if most is None else most):
            raise self._error(f"The file expands to more than {self.megabytes:,} MB")

    def _error(self, fact: str) -> IngestError:
        return IngestError(f"{fact}. Split it, or raise max_document_mb ({self.megabytes:,}).")


DEFAULT_LIMIT: Final = SizeLimit()


def warn_of_many_chunks(doc_id: str, length: int, chunks: Iterator[TextNode]) -> None:
    """Warn of the memory that a document will take, before it is cut and embedded: its chunks are stored together.

    Args:
        doc_id: The document.
        length: Its characters.
        chunks: Its chunks; the first thousand are taken, to tell how many there will be.
    """
    first = list(itertools.islice(chunks, _SAMPLE))
    if not first:
        return
    count = round(len(first) * length / max(first[-1].end_char_idx or length, 1) / 1_000) * 1_000
    if count >= _MANY:
        warnings.warn(
            f"'{doc_id}' makes some {counted(count, 'chunk')}, which are held until they are stored together: about "
            f"{count * _CHUNK_BYTES / 1e9:,.0f} GB of memory with vectors of 384 numbers, more with longer ones. Split "
            "the file to hold less.",
            stacklevel=2,
        )


def _unpacked_size(file: BinaryIO, member: zipfile.ZipInfo, stop: int) -> int:
    """Bytes of a member as they come out of the decompressor; counting ends beyond `stop`."""
    if member.compress_type == zipfile.ZIP_STORED:
        return member.compress_size
    if member.compress_type != zipfile.ZIP_DEFLATED:
        raise IngestError(
            f"The file is packed in a way that documents are not (method {member.compress_type}). Save it again."
        )
    file.seek(member.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    file.seek(name + extra, 1)
    inflate, size, packed_left = zlib.decompressobj(-zlib.MAX_WBITS), 0, member.compress_size
    while packed_left > 0 and not inflate.eof and size <= stop:
        block = file.read(min(_BLOCK, packed_left))
        if not block:
            break
        packed_left -= len(block)
        while block and size <= stop:
            size += len(inflate.decompress(block, _BLOCK))
            block = inflate.unconsumed_tail
    return size
