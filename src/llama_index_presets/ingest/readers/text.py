"""Plain text, and every ending that no reader knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.long_text import TextInParts, is_long, long_text
from llama_index_presets.ingest.metadata.document_metadata import about_head_lines
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file, utf8_start

__all__ = ["read_text"]

_TOP: Final = 100_000  # bytes; more than the lines that say something of a document may have


def read_text(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a file as it is, and the ``Title: …`` lines at its top; a long file is read part by part."""
    limit.check_file(path)
    if is_long(path) and (found := _long_text(path)):
        return found
    decoded = read_text_file(path, limit)
    return decoded.of(plain_from_text(decoded.text)), about_head_lines(decoded.text)


def _long_text(path: Path) -> tuple[TextInParts, dict[str, Any]] | None:
    """A long file in UTF-8 that declares no other encoding; None for any other, which is decoded as a whole."""
    start = utf8_start(path)
    if start is None:
        return None
    with path.open("rb") as file:
        file.seek(start[0])
        top = file.read(_TOP)
    plain = long_text(path, *start)
    return (plain, about_head_lines(top.decode("utf-8", "ignore"))) if plain else None
