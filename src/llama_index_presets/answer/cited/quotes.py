"""Words that an answer rests on: where they stand in the cited chunk, in its document, and on its page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore

from llama_index_presets.line_boxes import boxes_within
from llama_index_presets.text.sentences import split_sentences

__all__ = ["Chunk", "Quote", "chunks_of", "cover", "find_words", "sentence_spans"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk that a passage shows.

    Attributes:
        node_id: Its id.
        text: Its text.
        start: Of the text in its document, in characters of the text as it was read; None where the chunk does not
            say, or is shown with other words than its own.
        metadata: Of the chunk.
    """

    node_id: str
    text: str
    start: int | None
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Quote:
    """A stretch of a chunk.

    Attributes:
        chunk: The chunk.
        start: Of the stretch in the chunk's text, in characters.
        end: Behind its last character.
    """

    chunk: Chunk
    start: int
    end: int

    @property
    def text(self) -> str:
        """The exact words."""
        return self.chunk.text[self.start : self.end]

    @property
    def span(self) -> tuple[int, int] | None:
        """Start and end in the source document's text as read; None where they are not known."""
        first = self.chunk.start
        return None if first is None else (first + self.start, first + self.end)

    @property
    def boxes(self) -> list[dict[str, Any]]:
        """Rectangles on the pages of a PDF, in points from the upper left corner: page, x0, y0, x1, y1."""
        if self.chunk.start is None:
            return []
        return [
            dict(
                zip(
                    ("page", "x0", "y0", "x1", "y1"),
                    (one.page, *(round(edge, 1) for edge in one.box)),
                    strict=True,
                )
            )
            for one in boxes_within(self.chunk.metadata, self.start, self.end)
        ]


def chunks_of(hits: Sequence[NodeWithScore]) -> list[Chunk]:
    """Chunks of a passage, in the order of its hits; an image has no words."""
    return [_chunk(hit) for hit in hits if not isinstance(hit.node, ImageNode)]


def _chunk(hit: NodeWithScore) -> Chunk:
    text, metadata = hit.node.get_content(MetadataMode.NONE), hit.node.metadata
    start, end = _whole(metadata.get("char_start")), _whole(metadata.get("char_end"))
    own = start is not None and end is not None and end - start == len(text)
    return Chunk(hit.node.node_id, text, start if own else None, metadata)


def _whole(value: Any) -> int | None:
    """An offset; some stores give numbers back as floats."""
    return int(value) if isinstance(value, int | float) and value == int(value) else None


def find_words(words: str, chunks: Sequence[Chunk]) -> Quote | None:
    """Where words stand in the first chunk that has them, whatever the white space between them.

    Example:
        >>> found = find_words("Cats purr.", [Chunk("n", "So cats do.\\nCats  purr. Yes.", 100, {})])
        >>> found.text, found.span
        ('Cats  purr.', (112, 123))
    """
    parts = words.split()
    if not parts:
        return None
    pattern = re.compile(r"\s+".join(map(re.escape, parts)))
    for chunk in chunks:
        if found := pattern.search(chunk.text):
            return Quote(chunk, found.start(), found.end())
    return None


def sentence_spans(chunk: Chunk) -> Iterator[Quote]:
    """Sentences and lines of a chunk, without the white space around them."""
    place = 0
    for sentence in split_sentences(chunk.text):
        inner = place
        for line in sentence.splitlines(keepends=True) if "\n" in sentence.strip() else [sentence]:
            start = inner + len(line) - len(line.lstrip())
            end = inner + len(line.rstrip())
            if start < end:
                yield Quote(chunk, start, end)
            inner += len(line)
        place += len(sentence)


def cover(quotes: Sequence[Quote]) -> Quote | None:
    """The stretch from the first to the last of the quotes that are in the same chunk as the first one given."""
    if not quotes:
        return None
    same = [quote for quote in quotes if quote.chunk.node_id == quotes[0].chunk.node_id]
    return Quote(quotes[0].chunk, min(quote.start for quote in same), max(quote.end for quote in same))
