"""Cited answer: what a model says, as it comes, with everything that is checked about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore

from llama_index_presets.answer.citations import MarkerFilter
from llama_index_presets.answer.cited.quotes import Quote, chunks_of, cover
from llama_index_presets.answer.cited.support import Sentence, Similarities, check_sentences
from llama_index_presets.answer.cited.verify_numbers import NumberVerifier
from llama_index_presets.answer.context import DONT_KNOW, Block, heading_of, image_facts
from llama_index_presets.answer.extractive import CONFIDENCE
from llama_index_presets.answer.finish import finish_reason, no_answer
from llama_index_presets.answer.injections.detector import find_instructions
from llama_index_presets.answer.injections.links import LinkFilter
from llama_index_presets.answer.thinking import ThinkingFilter
from llama_index_presets.provenance import RankedNode, source_name

__all__ = ["CitedAnswer", "link_filter", "suspicious_passages"]

_TABLE = re.compile(r"(Table|TABLE|Exhibit|Schedule)\s+[\dA-Z]")


@dataclass(slots=True)
class CitedAnswer:
    """Cited answer, every marker of which resolves to a passage.

    Attributes:
        text: The answer.
        blocks: The passages that the model was shown, numbered from 1.
        markers: Which of them it cited, and which numbers it invented.
        numbers: What checks its figures, or None.
        degraded: Which ``stage`` was down and the class of its ``error``; None when all services answered.
        finish_reason: Why the model stopped, see `finish.finish_reason`: ``"length"`` for an answer that is cut off;
            None when it did not say, or was not asked.
        confidence: Probability that the passages hold the answer, 0 to 1, calibrated where the embedding model has a
            calibration; of `ExtractiveLLM` that of the sentence that it quotes. None where none was computed.
        margin: How far the best hit stood out among all that were found, for `ExtractiveLLM`.
        links: What keeps out links that are not the cited passages' own, or None for all of them.
        suspicious: Passages with instructions to the model, see `suspicious_passages`.
        sentences: The sentences of the answer, checked by `check`.
        similarities: Compares meanings for `check`; None goes by words.
        thinking: What keeps the thinking of a reasoning model out of the text.
        find_closest: Gives the passages that are shown where there is no answer, see `closest.closest_passages`; None
            shows none.
    """

    text: str = ""
    blocks: list[Block] = field(default_factory=list)
    markers: MarkerFilter = field(default_factory=lambda: MarkerFilter(0))
    numbers: NumberVerifier | None = None
    degraded: dict[str, str] | None = None
    finish_reason: str | None = None
    confidence: float | None = None
    margin: float | None = field(default=None, repr=False)
    links: LinkFilter | None = None
    suspicious: list[dict[str, Any]] = field(default_factory=list)
    sentences: list[Sentence] | None = None
    similarities: Similarities | None = field(default=None, repr=False)
    thinking: ThinkingFilter = field(default_factory=ThinkingFilter, repr=False)
    find_closest: Callable[[], list[dict[str, Any]]] | None = field(default=None, repr=False)

    def take_chunk(self, piece: ChatResponse) -> str:
        """`take` a piece of the model's stream, and why it stopped where the piece says so."""
        self.finish_reason = finish_reason(piece) or self.finish_reason
        self.confidence = piece.additional_kwargs.get(CONFIDENCE, self.confidence)
        return self.take(piece.delta or "")

    def take(self, raw: str, *, last: bool = False) -> str:
        """Take what the model said next; give, and add to ``text``, what is certain of it by now.

        Thinking between tags is left out. An answer that ends without any text becomes an "I don't know" that says why.

        Args:
            raw: The piece.
            last: Whether it is the last one.
        """
        raw = self.thinking.feed(raw) + (self.thinking.end() if last else "")
        if self.numbers is not None:
            raw = self.numbers.feed(raw) + (self.numbers.end() if last else "")
        certain = self.markers.feed(raw) + (self.markers.end() if last else "")
        if self.links is not None:  # last, since a marker that is taken out may leave a link behind
            certain = self.links.feed(certain) + (self.links.end() if last else "")
        if last and not (self.text + certain).strip():
            only_markers = bool(self.markers.invented)
            certain = f"{DONT_KNOW} {no_answer(self.finish_reason, only_markers=only_markers)}"
        self.text += certain
        return certain

    @property
    def known(self) -> bool:
        """Whether this is an answer, not an "I don't know" or an apology."""
        return (
            self.degraded is None
            and bool(self.text.strip())
            and not self.text.strip().lower().startswith("i don't know")
        )

    @property
    def source_nodes(self) -> list[NodeWithScore]:
        """The hits that the model was shown, most relevant first; those that were merged stand together."""
        return [hit for block in self.blocks for hit in (block.hit, *block.merged)]

    def check(self) -> list[Sentence]:
        """Check each sentence against what it cites, once; an answer that is none has no sentences."""
        if self.sentences is None:
            passages = [chunks_of((block.hit, *block.merged)) for block in self.blocks]
            headings = [block.heading for block in self.blocks]
            self.sentences = (
                check_sentences(self.text, passages, headings=headings, similarities=self.similarities)
                if self.known
                else []
            )
        return self.sentences

    def citations(self) -> list[dict[str, Any]]:
        """Cited passages in order of first mention; invented numbers last, with ``valid`` False."""
        cited = [
            _under_its_heading({**_citation(block := self.blocks[n - 1]), **self._words(n)}, block)
            for n in self.markers.cited
        ]
        return cited + [{"n": number, "valid": False} for number in self.markers.invented]

    def _words(self, number: int) -> dict[str, Any]:
        """Where the words stand that the answer takes from a passage; the whole chunk where no stretch is closest."""
        block = self.blocks[number - 1]
        chunks = chunks_of((block.hit, *block.merged))
        quotes = [one.quotes[number] for one in self.check() if number in one.quotes]
        quotes = list({(quote.chunk.node_id, quote.start): quote for quote in quotes}.values())
        if not quotes and chunks:
            quotes = [Quote(chunks[0], 0, len(chunks[0].text))]
        whole = cover(quotes)
        if whole is None:
            return {"span": None, "quote": None, "boxes": [], "spans": []}
        return {
            "span": list(whole.span) if whole.span else None,
            "quote": whole.text,
            "boxes": [box for quote in quotes for box in quote.boxes],
            "spans": [
                {"node_id": quote.chunk.node_id, "start": quote.start, "end": quote.end} for quote in quotes
            ],
        }

    def metadata(self) -> dict[str, Any]:
        """What a response says of its answer."""
        without = {leg for hit in self.source_nodes if isinstance(hit, RankedNode) for leg in hit.degraded}
        numbers = {} if self.numbers is None else {"numbers": self._numbers(self.numbers.report())}
        degraded = {} if self.degraded is None else {"degraded": self.degraded}
        own = {
            "citations": self.citations(),
            "known": self.known,
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "finish_reason": self.finish_reason,
        }
        own["sentences"] = [sentence.to_dict() for sentence in self.check()]
        own["suspicious"] = list(self.suspicious)
        own["links_removed"] = self.links.removed if self.links is not None else 0
        if self.find_closest is not None and not self.known and self.degraded is None:
            own["closest"] = self.find_closest()
        return {**own, "failed_legs": sorted(without), **numbers, **degraded}

    def _numbers(self, report: dict[str, Any]) -> dict[str, Any]:
        """The report on figures; what it quotes of the model has no address but the passages' own."""
        passages = self.links.passages if self.links is not None else []
        shown = [
            {**one, "statement": _without_links(one["statement"], passages)} for one in report["unsupported"]
        ]
        return {**report, "unsupported": shown}


def suspicious_passages(hits: Sequence[NodeWithScore]) -> list[dict[str, Any]]:
    """Hits that speak to a language model in their text, title or headings; of an image, in its name.

    Each with ``node_id``, ``source``, ``families`` and the ``text`` of the first such sentence.
    """
    found = []
    for hit in hits:
        image = isinstance(hit.node, ImageNode)
        shown = [heading_of(hit), "" if image else hit.node.get_content(MetadataMode.NONE)]
        sentences = [
            (one.family, text[one.start : one.end].strip())
            for text in shown
            for one in find_instructions(text)
        ]
        if sentences:
            found.append(
                {
                    "node_id": hit.node.node_id,
                    "source": source_name(hit.node),
                    "families": sorted({family for family, _ in sentences}),
                    "text": sentences[0][1],
                }
            )
    return found


def link_filter(blocks: Sequence[Block], suspicious: Sequence[Mapping[str, Any]]) -> LinkFilter:
    """The filter of an answer's links: a passage that speaks to a language model vouches for no address."""
    ids = {one["node_id"] for one in suspicious}
    vouched = (not any(hit.node.node_id in ids for hit in (block.hit, *block.merged)) for block in blocks)
    return LinkFilter(
        [f"{block.heading}\n{block.text}" if ok else "" for block, ok in zip(blocks, vouched, strict=True)]
    )


def _without_links(statement: str, passages: Sequence[str]) -> str:
    """A statement whose markers are gone, so that each passage may have been cited."""
    links = LinkFilter(passages, _cited=list(range(1, len(passages) + 1)))
    return links.feed(statement) + links.end()


def _citation(block: Block) -> dict[str, Any]:
    metadata, node = block.hit.node.metadata, block.hit.node
    image = {"image": image_facts(node)} if isinstance(node, ImageNode) else {}
    return {
        "n": block.number,
        "valid": True,
        "source": source_name(node),
        "page": metadata.get("page"),
        "heading": None if image else metadata.get("heading") or None,
        "score": block.hit.score,
        "text": block.text,
        "node_id": node.node_id,
        **image,
        **_work(block),
    }


def _under_its_heading(citation: dict[str, Any], block: Block) -> dict[str, Any]:
    """The citation; of words that stand above the heading of their chunk, with the title that they stand under."""
    below, span = block.hit.node.metadata.get("heading_start"), citation["span"]
    if isinstance(below, int) and span and span[1] <= below and citation["heading"]:
        citation["heading"] = citation["heading"].split(" > ")[0]
    return citation


def _work(block: Block) -> dict[str, Any]:
    """Title, authors, year and table of a cited work, as far as they are known."""
    metadata, last = block.hit.node.metadata, block.heading.split(" > ")[-1]
    known = {key: metadata[key] for key in ("title", "authors", "year") if metadata.get(key)}
    if "title" not in known and ("authors" in known or "year" in known) and block.heading:
        known["title"] = block.heading.split(" > ")[0]
    table = last if _TABLE.match(last) else metadata.get("table")
    return {**known, "table": table} if table else known
