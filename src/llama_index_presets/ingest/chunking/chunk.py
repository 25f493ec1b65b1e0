"""Chunking: plain text cut at sentence ends into nodes that fit the embedding model, each with its position."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from pydantic import Field

from llama_index_presets.counting import counted
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk_context import (
    CONTEXT_KEYS,
    LEAD_KEY,
    SENTENCE_KEY,
    TITLE_KEY,
    ChunkContext,
    lead_sentence,
    names_nothing,
    tell_heading,
)
from llama_index_presets.ingest.chunking.long_text import TextInParts
from llama_index_presets.ingest.chunking.token_counts import token_counter
from llama_index_presets.ingest.plain_text import PlainText, Section, is_table_caption
from llama_index_presets.line_boxes import BOXES_KEY, packed_boxes
from llama_index_presets.text.digests import text_digest
from llama_index_presets.text.languages import ENGLISH, detect_language_of_stretches, language_code
from llama_index_presets.text.sentences import split_sentences

__all__ = ["SentenceChunker", "SourceText"]

LANGUAGE_KEY = "language"
"""Metadata of a chunk: ISO 639-1 code of its document's language, where that is known."""

PLACE_KEYS = ("source", "page", "table", "char_start", "char_end", BOXES_KEY)
"""Metadata that says where a chunk stands; never part of the text that is embedded."""

COLUMNS_KEY = "table_columns"
"""Metadata of a later part of a table: its column names, where the rows do not state them."""

_BYLINE = 40  # tokens
_SENTENCE_END = re.compile(r"\w[.!?](?:\s|$)|[。！？।]")
_LONGEST_BYLINE = 4_000  # characters
_BLOCK = 16_384  # characters of a long section that are cut at a time
_LONG_REST = 1 << 20  # characters behind a long line that are cut at once
_LONGEST_TOKEN = 16  # characters
_SPECIAL = 2  # the two special tokens that encoder models add to every text
_SENTENCE = 80  # tokens, at most, of a model's sentence with its key
_SLACK = 4  # joining metadata and text may make a token or two more than the parts have


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceText:
    """One document, ready to be cut.

    Attributes:
        doc_id: Stable id; chunks carry it as ``ref_doc_id``.
        plain: Its text.
        metadata: Given by the user or the reader; copied to every chunk.
        hidden_from_embedding: Metadata keys left out of the embedded text.
        hidden_from_llm: Metadata keys left out of LLM prompts.
        content_hash: Of the raw input; equal hash means nothing to do.
        left_out: Warnings about metadata that could not be kept as it was given.
        title: Of the document, for chunks that do not say it; see `chunk_context`.
        lead: Its lead sentence, for chunks that name nothing; `SentenceChunker` sets it.
    """

    doc_id: str
    plain: PlainText
    metadata: Mapping[str, Any] = field(default_factory=dict)
    hidden_from_embedding: Sequence[str] = ()
    hidden_from_llm: Sequence[str] = ()
    content_hash: str = ""
    left_out: Sequence[str] = ()
    title: str = ""
    lead: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceChunker:
    """Sentence-aware chunks, measured with the embedding model's own tokenizer.

    A chunk with its embedded metadata never exceeds ``max_tokens``; a sentence is cut only where it alone is longer.

    Attributes:
        tokenize: Text to tokens, without special tokens.
        max_tokens: Upper bound for a chunk with its embedded metadata and special tokens.
        language: ISO 639-1 code, for the ends of sentences; `chunks` and `stream` take that of each document.
        context: What is embedded and indexed with a chunk that does not say what its document is about.

    Example:
        >>> chunker = SentenceChunker(tokenize=str.split, max_tokens=12)
        >>> source = SourceText(doc_id="d", plain=PlainText("One two three. Four five six seven. Eight."))
        >>> [chunk.text for chunk in chunker.chunks(source)]
        ['One two three.', 'Four five six seven. Eight.']
    """

    tokenize: Callable[[str], Sequence[Any]]
    max_tokens: int
    language: str = ENGLISH
    context: ChunkContext = "none"

    @property
    def name(self) -> str:
        """Name and size, for the fingerprint of an index."""
        return f"sentence-{self.max_tokens}"

    def chunks(self, source: SourceText) -> list[TextNode]:
        """Cut one document.

        Raises:
            IngestError: Its embedded metadata alone fills more than three quarters of a chunk.
        """
        nodes = list(self.stream(source))
        for place, node in enumerate(nodes):
            node.id_ = _chunk_id(source.doc_id, place, node.text)
        _link(nodes)
        return nodes

    def stream(self, source: SourceText) -> Iterator[TextNode]:
        """Chunks one after the other, without stable ids and without links, so that a large document can be counted.

        Raises:
            IngestError: As `chunks`, when the section in question is reached.
        """
        source, language = with_language(source)
        chunker = replace(self, language=language)
        source = chunker._with_context(source)
        if isinstance(source.plain, TextInParts):
            for section, parts in chunker._long_sections(source.plain):
                yield from chunker._section(source, section, parts)
            return
        for section in self._without_bylines(source.plain):
            yield from chunker._section(source, section, [section.text])

    def length(self, node: TextNode) -> int:
        """Tokens of what is embedded for a node, special tokens included."""
        return self.count(node.get_content(MetadataMode.EMBED))

    def count(self, text: str) -> int:
        """Tokens of a text, special tokens included."""
        return self._tokens(text) + _SPECIAL

    @property
    def counts_by_words(self) -> bool:
        """Whether counting is fast: see `token_counts`."""
        return token_counter(self.tokenize).by_words

    def _tokens(self, text: str) -> int:
        return token_counter(self.tokenize).count(text)

    def _without_bylines(self, plain: PlainText) -> list[Section]:
        """Sections, where a line or two under a title (a byline, a date, a link) joins the first section below it.

        Alone, such a line with its title would be the nearest neighbour of every question about the title. Below a
        heading of the document, a sentence is what that section says, however short, and stays by itself.
        """
        sections: list[Section] = []
        for section in plain.sections():
            above = sections[-1] if sections else None
            if above and self._joins(above, section):
                text = plain.text[above.start : section.start + len(section.text)]
                sections[-1] = Section(section.heading, above.start, text, section.start)
            else:
                sections.append(section)
        return sections

    def _long_sections(self, plain: TextInParts) -> Iterator[tuple[Section, Iterable[str]]]:
        """The same of a text that is read part by part: what is known of a section, and the parts of its text."""
        waiting: Section | None = None  # short enough to be a byline
        for heading, runs in plain.sections_in_parts():
            first = next(runs)
            start, texts, own_start = first.start, [first.text], None
            if waiting and self._joins(waiting, Section(heading, start, "")):
                start, texts, own_start = waiting.start, [waiting.text, first.text], start
            elif waiting:
                yield waiting, [waiting.text]
            waiting = None
            while sum(map(len, texts)) <= _LONGEST_BYLINE and (run := next(runs, None)):
                texts.append(run.text)
            section = Section(heading, start, "".join(texts), own_start)
            if len(section.text) > _LONGEST_BYLINE:
                yield section, itertools.chain([section.text], (run.text for run in runs))
            else:
                waiting = section
        if waiting:
            yield waiting, [waiting.text]

    def _joins(self, above: Section, section: Section) -> bool:
        """A table stays alone, so that what stands above it is not cited as the table."""
        below = section.heading.startswith(f"{above.heading} > ")
        says = " > " in above.heading and _SENTENCE_END.search(above.text)
        return (
            below
            and not says
            and self._is_byline(above.text)
            and not is_table_caption(section.heading.split(" > ")[-1])
        )

    def _is_byline(self, text: str) -> bool:
        if len(text) > _LONGEST_BYLINE:  # a log of megabytes need not be counted
            return False
        return self._tokens(text) <= min(_BYLINE, self.max_tokens // 4)

    def _section(self, source: SourceText, section: Section, parts: Iterable[str]) -> Iterator[TextNode]:
        """Chunks of a section, whose text comes in parts that end at line ends."""
        heading = self._short_heading(section.heading)
        template = self._node(source, section, heading, "", 0)
        overhead = self.length(template) + _SLACK + self._columns_length(source, section)
        overhead += self._size_beside(LEAD_KEY, source.lead) + self._sentence_room
        if overhead > self.max_tokens * 3 // 4:
            raise IngestError(
                f"The metadata of '{source.doc_id}' takes {overhead} of the {counted(self.max_tokens, 'token')} that "
                "the embedding model reads. Name long keys in the document's excluded_embed_metadata_keys."
            )
        start = section.start
        for block in _blocks(parts):
            yield from self._block(
                source, replace(section, start=start, text=block), heading, self.max_tokens - overhead
            )
            start += len(block)

    def _block(self, source: SourceText, section: Section, heading: str, budget: int) -> list[TextNode]:
        """Chunks of a stretch of a section that is short enough to be cut at once."""
        place, nodes = 0, list[TextNode]()
        for text in self.pieces(section.text, budget):
            place = section.text.index(text, place)
            nodes.append(self._node(source, section, heading, text, place))
            if section.own_start is not None and heading == section.heading:
                tell_heading(nodes[-1], section.own_start)
            self._add_columns(nodes[-1], source)
            if source.lead and source.lead not in text and names_nothing(text, source.title):
                nodes[-1].metadata[LEAD_KEY] = source.lead
            place += len(text)
        self.annotate(nodes, section, budget)
        return nodes

    def _columns_length(self, source: SourceText, section: Section) -> int:
        """Tokens to keep free for the column names of a table that is cut in a section."""
        end = section.start + len(section.text)
        headers = (one.header for one in source.plain.tables_in(section.start, end) if one.header)
        return max((size for size in map(self._columns_size, headers) if size), default=0)

    def _columns_size(self, header: str) -> int:
        """Tokens of a table's column names beside a chunk; 0 where they would take more than a quarter of it."""
        size = self._size_beside(COLUMNS_KEY, header)
        return size if size <= self.max_tokens // 4 else 0

    def _size_beside(self, key: str, value: str) -> int:
        """Tokens of a value that is embedded beside a chunk; 0 for an empty one."""
        return self._tokens(f"{key}: {value}\n") if value else 0

    @property
    def _sentence_room(self) -> int:
        """Tokens to keep free for a model's sentence; 0 where none is added."""
        return min(_SENTENCE, self.max_tokens // 5) if self.context == "llm" else 0

    def add_sentence(self, node: TextNode, sentence: str) -> None:
        """Put a language model's sentence beside a chunk, cut to the room kept for it; an empty one is dropped."""
        said = self._fitting(" ".join(sentence.split())[: self._sentence_room * _LONGEST_TOKEN])
        if said:
            node.metadata[SENTENCE_KEY] = said

    def _fitting(self, sentence: str) -> str:
        """As much of a sentence as there is room for: whole words, and characters of a script without spaces."""
        ends = range(1, len(sentence) + 1)
        fits = bisect_right(
            ends, self._sentence_room, key=lambda end: self._size_beside(SENTENCE_KEY, sentence[:end])
        )
        if fits == len(sentence) or sentence[fits] == " ":
            return sentence[:fits]
        words, space, rest = sentence[:fits].rpartition(" ")
        return words if space and len(rest) <= _LONGEST_TOKEN else sentence[:fits]

    def _with_context(self, source: SourceText) -> SourceText:
        """The document with what its chunks are given, cut or left out where it would take too much of a chunk."""
        title = "" if self.context == "none" else self._short_heading(source.title)
        lead = lead_sentence(source.plain, self.language) if self.context == "lead" else ""
        if self._size_beside(LEAD_KEY, lead) > self.max_tokens // 6:
            lead = ""
        return replace(source, title=title, lead=lead)

    def _add_columns(self, node: TextNode, source: SourceText) -> None:
        """Repeat a table's column names beside a chunk that begins inside the table and does not name them itself."""
        if not source.plain.tables:
            return
        start = node.start_char_idx or 0
        for table in source.plain.tables_in(start, start + 1):
            names = [name.strip() for name in table.header.split(";") if name.strip()]
            said = all(name in node.text for name in names)
            if start > table.start and names and not said and self._columns_size(table.header):
                node.metadata[COLUMNS_KEY] = table.header

    def annotate(self, nodes: Sequence[TextNode], section: Section, tokens: int) -> None:
        """Add data that a strategy keeps beside the text; none here. Arguments as of `pieces`, with the nodes made."""

    def weigh(self, text: str) -> Sequence[Any]:
        """Tokens, or more where the text is longer than so few tokens can be: base64 is one unknown word to BERT."""
        return range(_weight(self._tokens, self.max_tokens, text))

    def pieces(self, text: str, tokens: int) -> list[str]:
        """Cut a text into pieces of so many tokens, verbatim and in order."""
        counter = token_counter(self.tokenize)
        splitter = _Splitter(
            tokens, partial(self._sentences, tokens=tokens), partial(_weight, counter.count, self.max_tokens)
        )
        return [
            part
            for chunk in splitter.chunks(text)
            # Merged sentences can, rarely, have more tokens together than apart: cut such a chunk again.
            for part in (
                [chunk]
                if counter.adds_up(chunk) or counter.count(chunk) <= tokens + _SLACK
                else SentenceChunker.pieces(self, chunk, tokens - _SLACK)
            )
        ]

    def _sentences(self, text: str, tokens: int) -> list[str]:
        """Sentences; of one that does not fit, its lines, since a log has no full stops."""
        return [
            part
            for sentence in split_sentences(text, self.language)
            for part in (
                sentence.splitlines(keepends=True)
                if "\n" in sentence.rstrip() and len(self.weigh(sentence)) > tokens
                else [sentence]
            )
        ]

    def _short_heading(self, heading: str) -> str:
        """The end of the path that fits a quarter of a chunk."""
        parts = heading.split(" > ")
        while len(parts) > 1 and self._tokens(" > ".join(parts)) > self.max_tokens // 4:
            parts = parts[1:]
        words = " > ".join(parts).split(" ")
        while self._tokens(" ".join(words)) > self.max_tokens // 4:
            words = words[: len(words) * 3 // 4]
        return " ".join(words)

    def _node(self, source: SourceText, section: Section, heading: str, text: str, place: int) -> TextNode:
        start, plain = section.start + place, source.plain
        tables = plain.tables_in(start, start + max(len(text), 1)) if plain.tables else ()
        named = not source.title or section.heading.startswith(source.title)
        own = {
            TITLE_KEY: None if named else source.title,
            "heading": heading or None,
            "page": plain.page(start),
            "table": next((one.name for one in tables if one.name), None),
            BOXES_KEY: _boxes(plain, start, start + len(text)) if plain.lines else None,
            "char_start": start,
            "char_end": start + len(text),
        }
        metadata = {**source.metadata, **{key: value for key, value in own.items() if value is not None}}
        return TextNode(
            id_=f"{source.doc_id}:{start}",  # `chunks` gives a stable one; drawing one takes as long as all else
            text=text,
            metadata=metadata,
            excluded_embed_metadata_keys=[*source.hidden_from_embedding, *PLACE_KEYS],
            excluded_llm_metadata_keys=[
                *source.hidden_from_llm,
                "char_start",
                "char_end",
                BOXES_KEY,
                *CONTEXT_KEYS,
            ],
            start_char_idx=start,
            end_char_idx=start + len(text),
            relationships={NodeRelationship.SOURCE: _related(source.doc_id, source.content_hash)},
        )


class _Splitter(SentenceSplitter):
    """LlamaIndex's splitter, which asks for the size of each line of a log.

    Here it asks without pydantic's search for a private attribute, which takes longer than a count.
    """

    weight: Callable[[str], int] = Field(default=len, exclude=True)

    def __init__(
        self, tokens: int, sentences: Callable[[str], list[str]], weight: Callable[[str], int]
    ) -> None:
        super().__init__(
            chunk_size=tokens,
            chunk_overlap=0,
            tokenizer=lambda text: range(weight(text)),
            paragraph_separator="\n\n",
            chunking_tokenizer_fn=sentences,
        )
        self.weight = weight

    def chunks(self, text: str) -> list[str]:
        """As `split_text`, without a span and an event for each stretch of a long document."""
        return self._merge(self._split(text, self.chunk_size), self.chunk_size) if text else [text]

    def _token_size(self, text: str) -> int:
        return self.weight(text)


def _weight(count: Callable[[str], int], most: int, text: str) -> int:
    """See `SentenceChunker.weigh`."""
    least = len(text) // _LONGEST_TOKEN
    return least if least > most else max(count(text), least)


def with_language(source: SourceText) -> tuple[SourceText, str]:
    """A document and its language: as its metadata states it, else as its text shows, and then noted in the metadata.

    What is noted is neither embedded nor shown to the language model. A text that does not tell is taken for English.
    """
    stated = source.metadata.get(LANGUAGE_KEY)
    if stated:
        return source, (language_code(stated) if isinstance(stated, str) else None) or ENGLISH
    code = detect_language_of_stretches(source.plain.length, source.plain.stretch)
    if code is None:
        return source, ENGLISH
    noted = replace(
        source,
        metadata={**source.metadata, LANGUAGE_KEY: code},
        hidden_from_embedding=(*source.hidden_from_embedding, LANGUAGE_KEY),
        hidden_from_llm=(*source.hidden_from_llm, LANGUAGE_KEY),
    )
    return noted, code


def language_of_nodes(nodes: Sequence[TextNode]) -> str:
    """Language that the first node of a document states, or empty."""
    stated = nodes[0].metadata.get(LANGUAGE_KEY) if nodes else None
    return (language_code(stated) or "") if isinstance(stated, str) else ""


def _blocks(parts: Iterable[str]) -> Iterator[str]:
    """A long text cut at the ends of paragraphs or lines, since the splitter counts what it is given several times.

    Behind a line that is longer than a block nothing is cut before the end of a line a megabyte further on.
    """
    text, parts = "", iter(parts)
    for part in parts:
        text, start = text + part, 0
        while len(text) - start > 2 * _BLOCK:
            end = text.rfind("\n\n", start + _BLOCK // 2, start + _BLOCK) + 2
            end = end if end > 1 else text.rfind("\n", start + _BLOCK // 2, start + _BLOCK) + 1
            if end <= start:
                text, start = _with_more(text[start:], parts), 0
                end = _line_end(text, _LONG_REST) if len(text) > _LONG_REST else 0
                if not end:
                    break
            yield text[start:end]
            start = end
        text = text[start:]
    yield text


def _with_more(text: str, parts: Iterator[str]) -> str:
    """A text with as many more parts as make it longer than what is cut at once, and one line end behind it."""
    texts, length = [text], len(text)
    for part in parts:
        texts.append(part)
        length += len(part)
        if length > _LONG_REST + len(part) and "\n" in part:
            break
    return "".join(texts)


def _line_end(text: str, start: int) -> int:
    """Place behind the first line end from a place on; 0 where there is none."""
    return text.find("\n", start) + 1


def _boxes(plain: PlainText, start: int, end: int) -> str | None:
    """Rectangles of a chunk's lines, with offsets in its text; None for formats without pages."""
    lines = plain.lines_in(start, end)
    rows = ((max(one.start, start) - start, min(one.end, end) - start, one.page, one.box) for one in lines)
    return packed_boxes(rows) if lines else None


@lru_cache(maxsize=1)
def _related(doc_id: str, content_hash: str) -> RelatedNodeInfo:
    """A document as its chunks name it: one value for them all, as LlamaIndex's own splitters have it."""
    return RelatedNodeInfo(node_id=doc_id, hash=content_hash or None)


def _chunk_id(doc_id: str, place: int, text: str) -> str:
    """Stable: the same place and text of the same document gives the same id."""
    return text_digest(f"{doc_id}\0{place}\0{text}")[:32]


def _link(nodes: Sequence[TextNode]) -> None:
    for before, after in itertools.pairwise(nodes):
        before.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id=after.node_id)
        after.relationships[NodeRelationship.PREVIOUS] = RelatedNodeInfo(node_id=before.node_id)
