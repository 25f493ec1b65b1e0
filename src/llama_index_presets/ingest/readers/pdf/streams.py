"""Size of a PDF's streams, unpacked block by block before pdfium unpacks a gigabyte of each and holds it twice."""

from __future__ import annotations

import base64
import binascii
import mmap
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from llama_index_presets.ingest.limits import SizeLimit

__all__ = ["check_streams"]

_NUMBER: Final = re.compile(rb"(?<!\d)(\d{1,10})\s+\d{1,5}\s+\Z")
_LONGEST_DICTIONARY: Final = 4_000  # bytes
_LONGEST_NUMBER: Final = 40  # bytes, with the generation behind it
_CONTENTS: Final = re.compile(rb"/Contents\s*(?:\[([\d\sR]+)\]|(\d+\s+\d+\s+R))")
_REFERENCE: Final = re.compile(rb"(?<!\d)(\d{1,10})\s+\d{1,5}\s+R")
_NO_TEXT: Final = re.compile(rb"/Subtype\s*/Image|/EmbeddedFile")
_BLOCK: Final = 1 << 16  # bytes
_PART: Final = 1 << 20
_MOST_LAYERS: Final = 4


def check_streams(path: Path, limit: SizeLimit) -> None:
    """Refuse a PDF of which a stream, or all that one page lists as its content, expands to more than `limit`.

    Images and attached files are not unpacked, and may be larger. Streams of an encrypted file, and those packed by
    LZW, are not looked at.

    Raises:
        IngestError: One expands further.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        pages = [
            [int(number) for number in _REFERENCE.findall(listed[1] or listed[2])]
            for listed in _CONTENTS.finditer(data)
        ]
        contents = {number for page in pages for number in page}
        sizes: dict[int, int] = {}
        for number, dictionary, start, end in _streams(data):
            if number in contents or not _NO_TEXT.search(dictionary):
                sizes[number] = _unpacked(_blocks(data, dictionary, start, end), limit.units)
                limit.check_unpacked(sizes[number])
        for page in pages:
            limit.check_unpacked(sum(sizes.get(number, 0) for number in page))


def _streams(data: mmap.mmap) -> Iterator[tuple[int, bytes, int, int]]:
    """Number, dictionary, first byte and end of each stream; -1 where no number is found.

    What stands inside a stream or a string may look like the beginning of one, and is given, too: passing over it could
    pass over a true one.
    """
    end = 0
    at = data.find(b"stream")
    while at >= 0:
        start = at + len("stream")
        if data[start : start + 1] in (b"\r", b"\n") and data[max(0, at - 3) : at] != b"end":
            if end < start:
                end = data.find(b"endstream", start)
                end = end if end >= 0 else len(data)
            begun = data.rfind(b"obj", max(0, at - _LONGEST_DICTIONARY), at)
            number = _NUMBER.search(data[max(0, begun - _LONGEST_NUMBER) : begun]) if begun >= 0 else None
            dictionary = data[begun + len("obj") if begun >= 0 else max(0, at - _LONGEST_DICTIONARY) : at]
            first = start + (2 if data[start : start + 2] == b"\r\n" else 1)
            yield int(number[1]) if number else -1, dictionary, first, end
        at = data.find(b"stream", start)


def _blocks(data: mmap.mmap, dictionary: bytes, start: int, end: int) -> Iterator[bytes]:
    """Bytes of a stream, without the letters that a binary one may be written in."""
    try:
        if b"ASCII85" in dictionary:
            yield base64.a85decode(data[start:end].split(b"~>")[0])
        elif b"ASCIIHex" in dictionary:
            digits = b"".join(data[start:end].split(b">")[0].split())
            yield binascii.unhexlify(digits + b"0" * (len(digits) % 2))  # the last may be left out
        else:
            yield from (data[at : min(at + _BLOCK, end)] for at in range(start, end, _BLOCK))
    except (ValueError, binascii.Error):
        return


def _unpacked(blocks: Iterator[bytes], most: int, layers: int = _MOST_LAYERS) -> int:
    """Bytes that a stream, and what is packed inside it, comes to; counting ends beyond `most`."""
    first = next(blocks, b"")
    if not layers or len(first) < 2 or first[0] & 15 != zlib.DEFLATED or int.from_bytes(first[:2]) % 31:
        return len(first)
    counted = 0

    def inflated() -> Iterator[bytes]:
        nonlocal counted
        inflate, block = zlib.decompressobj(), first
        while block and not inflate.eof and counted <= most:
            part = inflate.decompress(block, _PART)
            counted += len(part)
            yield part
            block = inflate.unconsumed_tail or next(blocks, b"")

    try:
        parts = inflated()
        inner = _unpacked(parts, most, layers - 1)
        for _ in parts:
            pass
    except zlib.error:  # damaged, or no such stream: pdfium takes what came before
        inner = 0
    return max(counted, inner)
