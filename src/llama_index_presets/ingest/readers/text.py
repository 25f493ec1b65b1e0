"""Plain text, and every ending that no reader knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import about_head_lines
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file

__all__ = ["read_text"]


def read_text(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a file as it is, and the ``Title: …`` lines at its top."""
    decoded = read_text_file(path, limit)
    return decoded.of(plain_from_text(decoded.text)), about_head_lines(decoded.text)
