"""LlamaIndex's own readers, for the kinds that have none of ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_index_presets._extras import require
from llama_index_presets.errors import MissingExtraError
from llama_index_presets.ingest.clean import plain_from_pages
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText

__all__ = ["read_by_llama_index"]


def read_by_llama_index(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a file as `SimpleDirectoryReader` reads it, a document a page."""
    limit.check_archive(path)
    return plain_from_pages(_pages(path), limit), {}


def _pages(path: Path) -> Iterator[tuple[str, str]]:
    _import_readers()
    from llama_index.core import SimpleDirectoryReader

    try:
        documents = SimpleDirectoryReader.load_file(path, lambda _: {}, {}, raise_on_error=True)
    except ImportError as error:
        raise MissingExtraError(
            f"The reader for {path.suffix} files ({str(error).splitlines()[0][:200]})", "readers"
        ) from error
    for number, document in enumerate(documents, start=1):
        yield str(document.metadata.get("page_label", number)), document.text


def _import_readers() -> None:
    """Import the readers; one of them configures logging when it is imported, which is the application's to do."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    require("llama_index.readers.file", extra="readers")
    root.handlers[:] = handlers
    root.setLevel(level)
