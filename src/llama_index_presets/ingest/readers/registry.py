"""Table of readers: file suffix to the function that reads it, imported when the first file needs it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.plain_text import PlainText

__all__ = ["READERS", "Reader", "ReaderEntry", "reader_for"]


class Reader(Protocol):
    """Reads one file."""

    def __call__(self, path: Path, limit: SizeLimit, /) -> tuple[PlainText, dict[str, Any]]:
        """Plain text of a file, and the metadata that it states.

        Raises:
            IngestError: It is damaged, locked, or expands beyond the limit.
            MissingExtraError: A library is missing; the message carries the install line.
        """


@dataclass(frozen=True, slots=True)
class ReaderEntry:
    """Where a reader is.

    Attributes:
        function: ``module:function`` below this package.
        extra: Extra of llama-index-presets that brings its libraries; empty when it needs none.
    """

    function: str
    extra: str = ""

    def load(self) -> Reader:
        """Import the reader."""
        module, _, name = self.function.partition(":")
        return cast(
            Reader, getattr(importlib.import_module(f"llama_index_presets.ingest.readers.{module}"), name)
        )


TEXT: Final = ReaderEntry("text:read_text")
_MARKDOWN: Final = ReaderEntry("markdown:read_markdown", "readers")
_HTML: Final = ReaderEntry("html:read_html", "readers")
_CSV: Final = ReaderEntry("csv:read_csv", "readers")
_LLAMA_INDEX: Final = ReaderEntry("llama_readers:read_by_llama_index", "readers")

READERS: Final[dict[str, ReaderEntry]] = {
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".html": _HTML,
    ".htm": _HTML,
    ".csv": _CSV,
    ".tsv": _CSV,
    ".pdf": ReaderEntry("pdf:read_pdf", "readers"),
    **dict.fromkeys(
        (".docx", ".pptx", ".epub", ".ipynb", ".rtf", ".xlsx", ".xls", ".mbox", ".hwp"), _LLAMA_INDEX
    ),
}
"""Lower-case suffix, with its dot, to the reader; any other is read as plain text."""


def reader_for(path: Path) -> ReaderEntry:
    """The reader of a file, chosen by its suffix.

    Example:
        >>> reader_for(Path("a/Report.PDF")).function, reader_for(Path("notes")).function
        ('pdf:read_pdf', 'text:read_text')
    """
    return READERS.get(path.suffix.lower(), TEXT)
