"""Documents read and cut into chunks: what an ingest stores and an estimate counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from llama_index.core.schema import ImageNode, TextNode

from llama_index_presets.counting import counted
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import SentenceChunker, SourceText
from llama_index_presets.ingest.images import Picture
from llama_index_presets.ingest.limits import warn_of_many_chunks
from llama_index_presets.ingest.metadata.storable import storable
from llama_index_presets.ingest.sources.source import Source

__all__ = ["Contextualiser", "cut", "cut_stream"]

_LONG = 10_000_000  # characters; fewer make no chunks for which memory is short


class Contextualiser(Protocol):
    """Gives the chunks of a document what a language model says of them."""

    def add(self, source: SourceText, nodes: Sequence[TextNode], chunker: SentenceChunker, /) -> list[str]:
        """Add it to the chunks' metadata; gives warnings."""

    def expect(
        self, source: SourceText, nodes: Iterable[TextNode], chunker: SentenceChunker, /
    ) -> Iterator[TextNode]:
        """Count what `add` would do, and give the chunks back about as long as they would be."""


def cut(
    source: Source,
    chunker: SentenceChunker,
    warnings: dict[str, list[str]] | None = None,
    contextualiser: Contextualiser | None = None,
) -> list[TextNode]:
    """Read a document and give its chunks.

    Args:
        source: The document.
        chunker: Cuts it.
        warnings: Where its reader's warnings are added, under the document's id.
        contextualiser: Adds to the chunks what a language model says of them; ready nodes stay as they are.

    Raises:
        IngestError: It is refused, it cannot be read, or a ready node is longer than the model reads.
    """
    found = _opened(source, warnings)
    if not isinstance(found, SourceText):
        return _ready(found, chunker)
    if found.plain.length >= _LONG:
        warn_of_many_chunks(source.doc_id, found.plain.length, chunker.stream(found))
    nodes = chunker.chunks(found)
    doubts = contextualiser.add(found, nodes, chunker) if contextualiser is not None else []
    if doubts and warnings is not None:
        warnings[source.doc_id] = [*warnings.get(source.doc_id, ()), *doubts]
    return nodes


def cut_stream(
    source: Source, chunker: SentenceChunker, contextualiser: Contextualiser | None = None
) -> Iterator[TextNode]:
    """The chunks of a document one after the other, to be counted: see `SentenceChunker.stream`.

    Raises:
        IngestError: As `cut`.
    """
    found = _opened(source, None)
    if not isinstance(found, SourceText):
        return iter(_ready(found, chunker))
    nodes = chunker.stream(found)
    return nodes if contextualiser is None else contextualiser.expect(found, nodes, chunker)


def _opened(source: Source, warnings: dict[str, list[str]] | None) -> SourceText | Picture | list[TextNode]:
    if source.refusal:
        raise IngestError(source.refusal)
    found, said = storable(source.read())
    said = [*((*found.plain.warnings, *found.left_out) if isinstance(found, SourceText) else ()), *said]
    if said and warnings is not None:
        warnings[source.doc_id] = said
    return found


def _ready(found: Picture | list[TextNode], chunker: SentenceChunker) -> list[TextNode]:
    """Nodes that need no cutting, none longer than the model reads."""
    if isinstance(found, Picture):
        return [found.node, *(chunker.chunks(found.caption) if found.caption else [])]
    for node in found:
        if isinstance(node, ImageNode):  # its pixels are embedded, not its text
            continue
        tokens = chunker.length(node)
        if tokens > chunker.max_tokens:
            raise IngestError(
                f"Node '{node.node_id}' has {counted(tokens, 'token')}; the model reads {chunker.max_tokens:,}. "
                "Split it, or give the Document and let it be split."
            )
    return found
