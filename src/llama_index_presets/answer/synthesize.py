"""Response synthesis: hits to a cited answer, or to an honest "I don't know"."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.llms.llm import LLM
from llama_index.core.schema import ImageNode, NodeWithScore

from llama_index_presets.answer.citations import MarkerFilter
from llama_index_presets.answer.context import (
    DONT_KNOW,
    SYSTEM_PROMPT,
    Block,
    closest,
    fit,
    image_facts,
    number_blocks,
    render_prompt,
)
from llama_index_presets.answer.finish import finish_reason, no_answer
from llama_index_presets.answer.verify_numbers import VERBATIM_PROMPT, NumberVerifier
from llama_index_presets.provenance import RankedNode
from llama_index_presets.sentences import split_sentences

__all__ = ["CitedAnswer", "CitedSynthesizer"]

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
    """

    text: str = ""
    blocks: list[Block] = field(default_factory=list)
    markers: MarkerFilter = field(default_factory=lambda: MarkerFilter(0))
    numbers: NumberVerifier | None = None
    degraded: dict[str, str] | None = None
    finish_reason: str | None = None

    def hear(self, piece: ChatResponse) -> str:
        """`take` a piece of the model's stream, and why it stopped where the piece says so."""
        self.finish_reason = finish_reason(piece) or self.finish_reason
        return self.take(piece.delta or "")

    def take(self, raw: str, *, last: bool = False) -> str:
        """Take what the model said next; give, and add to ``text``, what is certain of it by now.

        An answer that ends without any text becomes an "I don't know" that says why.

        Args:
            raw: The piece.
            last: Whether it is the last one.
        """
        if self.numbers is not None:
            raw = self.numbers.feed(raw) + (self.numbers.end() if last else "")
        certain = self.markers.feed(raw) + (self.markers.end() if last else "")
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
        """The hits that the model was shown, most relevant first."""
        return [block.hit for block in self.blocks]

    def citations(self) -> list[dict[str, Any]]:
        """Cited passages in order of first mention; invented numbers last, with ``valid`` False."""
        cited = [_citation(self.blocks[number - 1]) for number in self.markers.cited]
        return cited + [{"n": number, "valid": False} for number in self.markers.invented]


@dataclass(frozen=True, slots=True, kw_only=True)
class CitedSynthesizer:
    """Response synthesizer: shows numbered passages to an LLM and checks its citations.

    Attributes:
        llm: Any LlamaIndex LLM.
        floor: Retrieval score (cosine) below which a hit is no evidence; None keeps every hit. Without any
            evidence the answer is "I don't know." and the LLM is not called.
        cross_floor: The same for a hit of the other kind than the question, an image for a text.
        context_tokens: Token budget of the passages.
        count_tokens: Tokens of a text, for the budget.
        verify_numbers: Whether a statement whose figures do not stand in what it cites is marked or removed.
        system_prompt: What the LLM is told.
    """

    llm: LLM
    floor: float | None
    context_tokens: int
    count_tokens: Callable[[str], int]
    verify_numbers: Literal["off", "mark", "remove"] = "off"
    system_prompt: str = SYSTEM_PROMPT
    cross_floor: float | None = None

    def answer(self, question: str, hits: Sequence[NodeWithScore]) -> CitedAnswer:
        """Answer from the hits, best first."""
        answer, messages = self._prepare(question, hits)
        if messages:
            self._settle(answer, self.llm.chat(messages))
        return answer

    async def aanswer(self, question: str, hits: Sequence[NodeWithScore]) -> CitedAnswer:
        """Answer from the hits, asynchronously."""
        answer, messages = self._prepare(question, hits)
        if messages:
            self._settle(answer, await self.llm.achat(messages))
        return answer

    def stream(self, question: str, hits: Sequence[NodeWithScore]) -> tuple[CitedAnswer, Iterator[str]]:
        """Answer piece by piece; the `CitedAnswer` is complete when the pieces are used up."""
        answer, messages = self._prepare(question, hits)
        return answer, self._pieces(answer, messages) if messages else iter([answer.text])

    async def astream(
        self, question: str, hits: Sequence[NodeWithScore]
    ) -> tuple[CitedAnswer, AsyncIterator[str]]:
        """Answer piece by piece, asynchronously."""
        answer, messages = self._prepare(question, hits)
        return answer, self._apieces(answer, messages)

    def blocks(self, hits: Sequence[NodeWithScore]) -> list[Block]:
        """Passages of these hits that the LLM is shown; none when no hit is evidence."""
        evidence = [hit for hit in hits if self._counts(hit)]
        return self._fitting(number_blocks(evidence)) if evidence else []

    def _prepare(self, question: str, hits: Sequence[NodeWithScore]) -> tuple[CitedAnswer, list[ChatMessage]]:
        blocks = self.blocks(hits)
        if not blocks:
            return CitedAnswer(DONT_KNOW), []
        if not question.strip():  # asked with an image alone: what is like it is said, not written about
            everything = MarkerFilter(len(blocks), cited=[block.number for block in blocks])
            return CitedAnswer(closest(blocks), blocks, everything), []
        verbatim = f" {VERBATIM_PROMPT}" if self.verify_numbers != "off" else ""
        messages = [
            ChatMessage(role=MessageRole.SYSTEM, content=self.system_prompt + verbatim),
            ChatMessage(role=MessageRole.USER, content=render_prompt(blocks, question)),
        ]
        return CitedAnswer(
            blocks=blocks, markers=MarkerFilter(len(blocks)), numbers=self._number_gate(blocks)
        ), messages

    def _number_gate(self, blocks: Sequence[Block]) -> NumberVerifier | None:
        if self.verify_numbers == "off":
            return None
        return NumberVerifier([f"{block.heading}\n{block.text}" for block in blocks], self.verify_numbers)

    def _counts(self, hit: NodeWithScore) -> bool:
        across = isinstance(hit, RankedNode) and "cross_modal" in hit.stages
        floor = self.cross_floor if across else self.floor
        return floor is None or _evidence(hit) >= floor

    def _fitting(self, blocks: list[Block]) -> list[Block]:
        budget = min(self.context_tokens, self.llm.metadata.context_window - self.llm.metadata.num_output)
        texts = fit(
            [block.render() for block in blocks], budget, count=self.count_tokens, sentences=split_sentences
        )
        if len(texts) == 1:  # perhaps shortened: the prompt must show just that
            block = blocks[0]
            return [Block(1, block.hit, texts[0].split("\n", 1)[-1], block.heading)]
        return blocks[: len(texts)]

    def _settle(self, answer: CitedAnswer, response: ChatResponse) -> None:
        answer.finish_reason = finish_reason(response)
        answer.take(str(response.message.content or ""), last=True)
        answer.text = answer.text.strip()

    def _pieces(self, answer: CitedAnswer, messages: list[ChatMessage]) -> Iterator[str]:
        for response in self.llm.stream_chat(messages):
            if piece := answer.hear(response):
                yield piece
        if rest := answer.take("", last=True):
            yield rest

    async def _apieces(self, answer: CitedAnswer, messages: list[ChatMessage]) -> AsyncIterator[str]:
        if not messages:
            yield answer.text
            return
        async for response in await self.llm.astream_chat(messages):
            if piece := answer.hear(response):
                yield piece
        if rest := answer.take("", last=True):
            yield rest


def _evidence(hit: NodeWithScore) -> float:
    """Cosine of a hit: from its vector leg, else from retrieval before a reranking, else its own score.

    A hit that only the keyword leg of a hybrid search found has no cosine; that its words match is evidence. So is the
    best hit of that leg, whatever its cosine: a code or a name says little to an embedding model.
    """
    if not isinstance(hit, RankedNode) or not hit.stages:
        return float("-inf") if hit.score is None else hit.score
    keyword = hit.stages.get("bm25")
    if keyword is not None and keyword.rank == 1:
        return float("inf")
    if "fusion" in hit.stages and "vector" not in hit.stages:
        return float("inf")
    cosine = hit.stages.get("vector") or hit.stages.get("retrieval")
    score = hit.score if cosine is None else cosine.score
    return float("-inf") if score is None else score


def _citation(block: Block) -> dict[str, Any]:
    metadata, node = block.hit.node.metadata, block.hit.node
    image = {"image": image_facts(node)} if isinstance(node, ImageNode) else {}
    return {
        "n": block.number,
        "valid": True,
        "source": metadata.get("source") or block.hit.node.ref_doc_id or block.hit.node.node_id,
        "page": metadata.get("page"),
        "heading": None if image else block.heading or None,
        "score": block.hit.score,
        "text": block.text,
        "node_id": block.hit.node.node_id,
        **image,
        **_work(block),
    }


def _work(block: Block) -> dict[str, Any]:
    """Title, authors, year and table of a cited work, as far as they are known."""
    metadata, last = block.hit.node.metadata, block.heading.split(" > ")[-1]
    known = {key: metadata[key] for key in ("title", "authors", "year") if metadata.get(key)}
    if "title" not in known and ("authors" in known or "year" in known) and block.heading:
        known["title"] = block.heading.split(" > ")[0]
    return {**known, "table": last} if _TABLE.match(last) else known
