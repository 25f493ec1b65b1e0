"""Chunking strategies by name; each stays within the embedding model's limit and keeps the source's words.

| name | a chunk is | what the answer is shown |
|---|---|---|
| sentence | as many whole sentences as fit | the chunk |
| token | as many words as fit | the chunk |
| semantic | sentences up to a jump in meaning | the chunk |
| hierarchical | a quarter of a chunk | the whole one, where more than half of its quarters were found |
| sentence-window | one sentence | the sentence with three on either side |

The splitters are LlamaIndex's own; a chunk never crosses a heading or a page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.node_parser import (
    SemanticSplitterNodeParser,
    SentenceWindowNodeParser,
    TokenTextSplitter,
)
from llama_index.core.schema import MetadataMode, TextNode

from llama_index_presets.ingest.chunking.chunk import SentenceChunker
from llama_index_presets.ingest.plain_text import Section
from llama_index_presets.text.sentences import split_sentences
from llama_index_presets.values import PARENT_KEYS, WINDOW_KEY

__all__ = [
    "CHUNKERS",
    "HierarchicalChunker",
    "SemanticChunker",
    "SentenceWindowChunker",
    "TokenChunker",
]

_SMALLEST = 16  # tokens; a shorter leaf says too little to be found
_LEAVES = 4
_WINDOW = 3
_PERCENTILE = 95


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChunker(SentenceChunker):
    """As many words as fit, wherever a sentence ends: `TokenTextSplitter`."""

    @property
    def name(self) -> str:
        """Name and size, for the fingerprint of an index."""
        return f"token-{self.max_tokens}"

    def pieces(self, text: str, tokens: int) -> list[str]:
        """Cut a section at white space."""
        return _words(self, text, tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticChunker(SentenceChunker):
    """Sentences up to a jump in meaning: `SemanticSplitterNodeParser`, which embeds every three sentences to find it.

    A piece that is longer than the model reads is cut at sentence ends.

    Attributes:
        embed_model: Embeds the sentences; what that costs is billed as any embedding.
    """

    embed_model: BaseEmbedding

    @property
    def name(self) -> str:
        """Name and size, for the fingerprint of an index."""
        return f"semantic-{self.max_tokens}"

    def pieces(self, text: str, tokens: int) -> list[str]:
        """Cut a section where its meaning jumps."""
        splitter = SemanticSplitterNodeParser.from_defaults(
            embed_model=self.embed_model,
            breakpoint_percentile_threshold=_PERCENTILE,
            # Three of them are embedded together, and the model must read them whole.
            sentence_splitter=lambda whole: _short_sentences(self, whole, max(tokens // 3, 1)),
        )
        found = splitter.build_semantic_nodes_from_documents([Document(text=text)])
        texts = (node.get_content(MetadataMode.NONE) for node in found)
        return [part for piece in texts for part in SentenceChunker.pieces(self, piece, tokens)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceWindowChunker(SentenceChunker):
    """One sentence a chunk, shown with its neighbours: `SentenceWindowNodeParser`."""

    @property
    def name(self) -> str:
        """Name and size, for the fingerprint of an index."""
        return f"sentence-window-{_WINDOW}-{self.max_tokens}"

    def pieces(self, text: str, tokens: int) -> list[str]:
        """Cut a section into its sentences; one that is too long is cut further."""
        parser = SentenceWindowNodeParser.from_defaults(
            sentence_splitter=lambda whole: [
                part
                for sentence in split_sentences(whole, self.language)
                if sentence.strip()
                for part in SentenceChunker.pieces(self, sentence, tokens)
            ],
            window_size=_WINDOW,
        )
        found = parser.build_window_nodes_from_documents([Document(text=text)])
        return [node.get_content(MetadataMode.NONE) for node in found]

    def annotate(self, nodes: Sequence[TextNode], section: Section, tokens: int) -> None:
        """Give each sentence its window, as in the source."""
        for place, node in enumerate(nodes):
            first = nodes[max(place - _WINDOW, 0)].start_char_idx or 0
            last = nodes[min(place + _WINDOW, len(nodes) - 1)].end_char_idx or 0
            window = section.text[first - section.start : last - section.start]
            _hide(node, {WINDOW_KEY: window})


@dataclass(frozen=True, slots=True, kw_only=True)
class HierarchicalChunker(SentenceChunker):
    """Quarters of a chunk, which are merged into it where most of them are found: two levels of `SentenceSplitter`."""

    @property
    def name(self) -> str:
        """Name and size, for the fingerprint of an index."""
        return f"hierarchical-{_LEAVES}-{self.max_tokens}"

    def pieces(self, text: str, tokens: int) -> list[str]:
        """Cut a section into chunks, and these into quarters."""
        leaf = max(tokens // _LEAVES, min(_SMALLEST, tokens))
        parents = SentenceChunker.pieces(self, text, tokens)
        return [part for parent in parents for part in SentenceChunker.pieces(self, parent, leaf)]

    def annotate(self, nodes: Sequence[TextNode], section: Section, tokens: int) -> None:
        """Give each quarter the chunk that it belongs to."""
        place = 0
        for parent in SentenceChunker.pieces(self, section.text, tokens):
            place = section.text.index(parent, place)
            start, end = section.start + place, section.start + place + len(parent)
            leaves = [node for node in nodes if start <= (node.start_char_idx or 0) < end]
            for node in leaves:
                values = (f"{node.ref_doc_id}:{start}", parent, len(leaves))
                _hide(node, dict(zip(PARENT_KEYS, values, strict=True)))
            place += len(parent)


CHUNKERS: dict[str, Callable[..., SentenceChunker]] = {
    "sentence": SentenceChunker,
    "token": TokenChunker,
    "semantic": SemanticChunker,
    "hierarchical": HierarchicalChunker,
    "sentence-window": SentenceWindowChunker,
}
"""Name -> chunker; `SemanticChunker` alone wants an ``embed_model``."""


def _words(chunker: SentenceChunker, text: str, tokens: int, *, keep_whitespaces: bool = False) -> list[str]:
    splitter = TokenTextSplitter(
        chunk_size=tokens, chunk_overlap=0, tokenizer=chunker.weigh, keep_whitespaces=keep_whitespaces
    )
    return splitter.split_text(text)


def _short_sentences(chunker: SentenceChunker, text: str, tokens: int) -> list[str]:
    """Sentences that, joined, are the text; one that is too long comes in parts."""
    return [
        part
        for sentence in split_sentences(text, chunker.language)
        for part in (
            [sentence]
            if len(chunker.weigh(sentence)) <= tokens
            else _words(chunker, sentence, tokens, keep_whitespaces=True)
        )
    ]


def _hide(node: TextNode, metadata: dict[str, Any]) -> None:
    """Add metadata that is neither embedded nor shown."""
    node.metadata |= metadata
    node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, *metadata]
    node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, *metadata]
