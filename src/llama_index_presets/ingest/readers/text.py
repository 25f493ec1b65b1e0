"""Plain text, and every ending that no reader knows."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any, Final

from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.long_text import TextInParts, long_text
from llama_index_presets.ingest.metadata.document_metadata import about_head_lines
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import may_be_utf8, read_text_file

__all__ = ["read_text"]

_LONG: Final = 2_000_000  # bytes of a file that is read part by part
_TOP: Final = 100_000  # bytes; more than the lines that say something of a document may have


def read_text(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a file as it is, and the ``Title: …`` lines at its top; a long file is read part by part."""
    limit.check_file(path)
    if path.stat().st_size >= _LONG and (found := _long_text(path)):
        return found
    decoded = read_text_file(path, limit)
    return decoded.of(plain_from_text(decoded.text)), about_head_lines(decoded.text)


def _long_text(path: Path) -> tuple[TextInParts, dict[str, Any]] | None:
    """A long file in UTF-8 that declares no other encoding; None for any other, which is decoded as a whole."""
    with path.open("rb") as file:
        top = file.read(_TOP)
    begin = len(codecs.BOM_UTF8) if top.startswith(codecs.BOM_UTF8) else 0
    if not may_be_utf8(top[begin:]):
        return None
    plain = long_text(path, begin, "utf-8-sig" if begin else "utf-8")
    return (plain, about_head_lines(top[begin:].decode("utf-8", "ignore"))) if plain else None
