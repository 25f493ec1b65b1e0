"""Preview of an ingest: what would be read of each file, before anything is embedded or paid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llama_index_presets.ingest.chunking.chunk import SentenceChunker, SourceText
from llama_index_presets.ingest.images import Picture
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.pipeline import failed_source
from llama_index_presets.ingest.sources.source import Source, sources
from llama_index_presets.text.tiktoken_files import carried_encoding

__all__ = ["ChunkPreview", "FilePreview", "TablePreview", "preview"]

_ENCODING = "cl100k_base"
_CHUNK_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePreview:
    """A table that was found: its name, the page that it begins on, and the line of its column names."""

    name: str
    page: str | None
    columns: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPreview:
    """A chunk: its text and where it stands.

    Attributes:
        text: Its text.
        tokens: Tokens of what would be embedded.
        heading: Path of headings, or None.
        page: Page that it begins on, or None.
        start: Offset in the document's text, in characters.
        end: Offset behind it.
    """

    text: str
    tokens: int
    heading: str | None
    page: str | None
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePreview:
    """What was read of one document.

    Attributes:
        source: Its id.
        error: Why it would be left out; None for one that was read.
        language: ISO 639-1 code; None where the text does not tell.
        encoding: Of its bytes, or None where its format fixes it.
        characters: Length of its text.
        pages: Labels of its pages; empty for a format without.
        headings: Paths of its headings, in order.
        tables: Its tables, in order.
        chunks: Its chunks, in order.
        metadata: What the document says of itself.
        warnings: What its reader was unsure of.
        text: The text.
    """

    source: str
    error: str | None = None
    language: str | None = None
    encoding: str | None = None
    characters: int = 0
    pages: Sequence[str] = ()
    headings: Sequence[str] = ()
    tables: Sequence[TablePreview] = ()
    chunks: Sequence[ChunkPreview] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; the text is that of the chunks."""
        values = asdict(self)
        del values["text"]
        return values


def preview(
    paths: Sequence[str | Path],
    *,
    chunk_tokens: int = _CHUNK_TOKENS,
    limit: SizeLimit = DEFAULT_LIMIT,
    each: Callable[[FilePreview], None] | None = None,
) -> list[FilePreview]:
    """Read files as `ingest` would, and keep nothing.

    Args:
        paths: Files, folders and URLs.
        chunk_tokens: Longest chunk, in tokens of OpenAI's cl100k_base; local models count a little otherwise.
        limit: What a file may expand to.
        each: Called with each document as soon as it was read.

    Raises:
        IngestError: A path is missing, or there is no file.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "pump.txt").write_text("The pump is inspected every month. It must be dry.")
        >>> [(found.language, found.encoding, len(found.chunks)) for found in preview([folder])]
        [('en', 'utf-8', 1)]
    """
    encoding = carried_encoding(_ENCODING)
    chunker = SentenceChunker(tokenize=encoding.encode_ordinary, max_tokens=chunk_tokens)
    found = []
    for source in sources(list(paths), limit=limit):
        one = _of_source(source, chunker)
        if each is not None:
            each(one)
        found.append(one)
    return found


def _of_source(source: Source, chunker: SentenceChunker) -> FilePreview:
    if source.refusal:
        return FilePreview(source=source.doc_id, error=source.refusal)
    try:
        read = source.read()
        if isinstance(read, Picture):
            return FilePreview(source=source.doc_id, error="It is an image without text.")
        if not isinstance(read, SourceText):
            return FilePreview(source=source.doc_id, error="Ready nodes are stored as they are.")
        return _of_text(source.doc_id, read, chunker)
    except Exception as error:  # a reader may fail in any way on a damaged or hostile file
        return FilePreview(source=source.doc_id, error=failed_source(source, error).error)


def _of_text(doc_id: str, read: SourceText, chunker: SentenceChunker) -> FilePreview:
    plain, nodes = read.plain, chunker.chunks(read)
    language = nodes[0].metadata.get("language") if nodes else None
    return FilePreview(
        source=doc_id,
        language=language if isinstance(language, str) else None,
        encoding=plain.encoding or None,
        characters=len(plain.text),
        pages=[label for _, label in plain.pages],
        headings=list(dict.fromkeys(path for _, path in plain.headings if path)),
        tables=[
            TablePreview(name=table.name, page=plain.page(table.start), columns=table.header)
            for table in plain.tables
        ],
        chunks=[
            ChunkPreview(
                text=node.text,
                tokens=chunker.length(node),
                heading=node.metadata.get("heading"),
                page=node.metadata.get("page"),
                start=node.start_char_idx or 0,
                end=node.end_char_idx or 0,
            )
            for node in nodes
        ],
        metadata={key: value for key, value in read.metadata.items() if key not in ("source", "file_name")},
        warnings=[*plain.warnings, *read.left_out],
        text=plain.text,
    )
