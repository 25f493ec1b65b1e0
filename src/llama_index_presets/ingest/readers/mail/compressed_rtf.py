"""Compressed rich text of Outlook messages (MS-OXRTFCP): a dictionary of 4 KB that begins with common words of RTF."""

from __future__ import annotations

import struct
from typing import Final

from llama_index_presets.ingest.limits import SizeLimit

__all__ = ["decompressed_rtf"]

_HEADER: Final = struct.Struct("<IIII")  # sizes of what follows and of the text, kind, checksum
_COMPRESSED, _STORED = 0x75465A4C, 0x414C454D
_WINDOW: Final = 4096
_BEGIN: Final = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript "
    b"\\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par "
    b"\\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)


def decompressed_rtf(packed: bytes, limit: SizeLimit) -> bytes:
    """Rich text of a body as Outlook stores it.

    Args:
        packed: Value of the property ``PidTagRtfCompressed``.
        limit: What it may come to.

    Raises:
        ValueError: It is damaged, or of another kind.
        IngestError: It is longer than `limit`.
    """
    if len(packed) < _HEADER.size:
        raise ValueError("it is cut off")
    _, size, kind, _ = _HEADER.unpack_from(packed)
    limit.check_text(size)
    data = packed[_HEADER.size :]
    if kind == _STORED:
        return data[:size]
    if kind != _COMPRESSED:
        raise ValueError(f"its compression {kind:#x} is not known")
    return bytes(_expanded(data, size))


def _expanded(data: bytes, size: int) -> bytearray:
    out, place = bytearray(_BEGIN), 0
    end = len(_BEGIN) + size
    while place < len(data) and len(out) < end:
        control = data[place]
        place += 1
        for bit in range(8):
            if place >= len(data) or len(out) >= end:
                break
            if not control >> bit & 1:
                out.append(data[place])
                place += 1
                continue
            token = int.from_bytes(data[place : place + 2], "big")
            place += 2
            at = len(out) % _WINDOW
            back = (at - (token >> 4)) % _WINDOW
            if back == 0:  # where the writer would write next: the end
                return out[len(_BEGIN) : end]
            _copy(out, len(out) - back, (token & 15) + 2)
    return out[len(_BEGIN) : end]


def _copy(out: bytearray, start: int, count: int) -> None:
    """Repeat earlier bytes, which may reach into what is being written; what was never written is a space."""
    for at in range(start, start + count):
        out.append(out[at] if at >= 0 else 0x20)
