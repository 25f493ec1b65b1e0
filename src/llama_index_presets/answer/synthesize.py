"""Response synthesis: hits to a cited answer, or to an honest "I don't know"."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    StreamingResponse,
)
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.indices.prompt_helper import ChatPromptHelper, PromptHelper
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.synthesis import SynthesizeEndEvent, SynthesizeStartEvent
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import ImageNode, NodeWithScore, QueryType, TextNode
from llama_index.core.types import RESPONSE_TEXT_TYPE
from llama_index.core.utils import get_tokenizer

from llama_index_presets._options import refuse_unknown, strict
from llama_index_presets._sync_async import Core, Step, StreamCore, aiterate, arun, iterate, run
from llama_index_presets.answer.calibration import Calibration
from llama_index_presets.answer.citations import MarkerFilter
from llama_index_presets.answer.context import (
    DONT_KNOW,
    QUESTION_PROMPT,
    SYSTEM_PROMPT,
    Block,
    check_template,
    closest,
    fit,
    image_facts,
    number_blocks,
    render_context,
    render_prompt,
)
from llama_index_presets.answer.extractive import CONFIDENCE, ExtractiveLLM
from llama_index_presets.answer.finish import finish_reason, no_answer
from llama_index_presets.answer.floor import EvidenceFloor, cosine_of
from llama_index_presets.answer.response import CitedResponse
from llama_index_presets.answer.thinking import ThinkingFilter, without_thinking
from llama_index_presets.answer.verify_numbers import VERBATIM_PROMPT, NumberVerifier
from llama_index_presets.provenance import RankedNode
from llama_index_presets.sentences import split_sentences

__all__ = ["CitedAnswer", "CitedSynthesizer"]

dispatcher = get_dispatcher(__name__)
_log = logging.getLogger(__name__)

_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "system_prompt": (),
    "text_qa_template": ("context_str", "query_str"),
}
"""Prompts of a `CitedSynthesizer`, and the variables that each must use."""

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
        thinking: What keeps the thinking of a reasoning model out of the text.
    """

    text: str = ""
    blocks: list[Block] = field(default_factory=list)
    markers: MarkerFilter = field(default_factory=lambda: MarkerFilter(0))
    numbers: NumberVerifier | None = None
    degraded: dict[str, str] | None = None
    finish_reason: str | None = None
    confidence: float | None = None
    thinking: ThinkingFilter = field(default_factory=ThinkingFilter, repr=False)

    def hear(self, piece: ChatResponse) -> str:
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

    def citations(self) -> list[dict[str, Any]]:
        """Cited passages in order of first mention; invented numbers last, with ``valid`` False."""
        cited = [_citation(self.blocks[number - 1]) for number in self.markers.cited]
        return cited + [{"n": number, "valid": False} for number in self.markers.invented]

    def metadata(self) -> dict[str, Any]:
        """What a response says of its answer."""
        without = {leg for hit in self.source_nodes if isinstance(hit, RankedNode) for leg in hit.degraded}
        numbers = {} if self.numbers is None else {"numbers": self.numbers.report()}
        degraded = {} if self.degraded is None else {"degraded": self.degraded}
        own = {
            "citations": self.citations(),
            "known": self.known,
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "finish_reason": self.finish_reason,
        }
        return {**own, "failed_legs": sorted(without), **numbers, **degraded}


@strict()
class CitedSynthesizer(BaseSynthesizer):
    """Response synthesizer that shows numbered passages to an LLM and checks what it cites.

    A synthesizer of LlamaIndex: usable in a `RetrieverQueryEngine`, and its prompts can be read and replaced with
    ``get_prompts`` and ``update_prompts``. Whatever a prompt says, the checks stay: a marker that refers to no passage
    is removed, figures are verified where `verify_numbers` says so, and without evidence the answer is "I don't know."
    and the LLM is not called.

    Prompts:
        system_prompt: The rules, as the system message; no variables. An own system message of `text_qa_template`
            follows it in the same message.
        text_qa_template: The question, with ``{context_str}`` (the numbered passages) and ``{query_str}``.

    `ExtractiveLLM` follows no instruction: it is asked with the built-in prompts, and a warning in the log says so.

    Args:
        llm: Any LlamaIndex LLM; None takes that of LlamaIndex's `Settings`.
        floor: Retrieval score (cosine) below which a hit is no evidence; None keeps every hit. A hit that was found by
            its words is judged by them: see `floor.EvidenceFloor`.
        cross_floor: The same for a hit of the other kind than the question, an image for a text.
        calibration: Turns cosine, words, names and agreement into the probability that the passages hold the answer;
            below its floor the answer is "I don't know." None goes by `floor`.
        context_tokens: Token budget of the passages.
        count_tokens: Tokens of a text, for the budget; None takes LlamaIndex's tokenizer.
        verify_numbers: Whether a statement whose figures do not stand in what it cites is marked or removed.
        system_prompt: The rules that the LLM is told.
        text_qa_template: How passages and question are shown.
        streaming: Whether `synthesize` and `asynthesize` answer piece by piece.

    Raises:
        SettingsError: A prompt is no template, or lacks a variable.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> hits = [NodeWithScore(node=TextNode(text="Cats purr. Dogs bark."), score=0.8)]
        >>> response = CitedSynthesizer(llm=ExtractiveLLM()).synthesize("What do cats do?", hits)
        >>> str(response), [citation["n"] for citation in response.metadata["citations"]]
        ('Cats purr. [1]', [1])
    """

    def __init__(
        self,
        *,
        llm: LLM | None = None,
        floor: float | None = None,
        context_tokens: int = 3_000,
        count_tokens: Callable[[str], int] | None = None,
        verify_numbers: Literal["off", "mark", "remove"] = "off",
        system_prompt: str | BasePromptTemplate = SYSTEM_PROMPT,
        text_qa_template: BasePromptTemplate | None = None,
        cross_floor: float | None = None,
        calibration: Calibration | None = None,
        streaming: bool = False,
    ) -> None:
        # The base's helpers, which nothing here uses, would load a tokenizer for every synthesizer.
        super().__init__(
            llm=llm,
            streaming=streaming,
            prompt_helper=PromptHelper(tokenizer=_tokens),
            chat_prompt_helper=ChatPromptHelper(tokenizer=_tokens),
            empty_response=DONT_KNOW,
        )
        self.evidence = EvidenceFloor(floor=floor, cross_floor=cross_floor, calibration=calibration)
        self.context_tokens = context_tokens
        self.count_tokens = count_tokens or _count_tokens
        self.verify_numbers = verify_numbers
        self._prompts: dict[str, BasePromptTemplate] = {
            "system_prompt": PromptTemplate(SYSTEM_PROMPT),
            "text_qa_template": PromptTemplate(QUESTION_PROMPT),
        }
        own: dict[str, Any] = {}
        if system_prompt != SYSTEM_PROMPT:
            own["system_prompt"] = (
                PromptTemplate(system_prompt) if isinstance(system_prompt, str) else system_prompt
            )
        if text_qa_template is not None:
            own["text_qa_template"] = text_qa_template
        self._set_prompts(own)

    @property
    def llm(self) -> LLM:
        """The LLM that writes the answers."""
        return self._llm

    @property
    def floor(self) -> float | None:
        """Cosine below which a hit is no evidence."""
        return self.evidence.floor

    @property
    def cross_floor(self) -> float | None:
        """The same between an image and a text."""
        return self.evidence.cross_floor

    # -- LlamaIndex's interface ------------------------------------------------------------------------------------

    def synthesize(
        self,
        query: QueryType,
        nodes: Sequence[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Answer from the hits, best first.

        Args:
            query: The question.
            nodes: The hits.
            additional_source_nodes: Added to the ``source_nodes`` of the response; the LLM is not shown them.
            **response_kwargs: Further variables of `text_qa_template`.

        Returns:
            A `Response`, or a `StreamingResponse` where `streaming` is set: the text, ``source_nodes`` (what the LLM
            was shown), and ``metadata`` with ``citations``, ``known``, ``finish_reason`` and ``failed_legs``, and
            ``numbers`` where figures are verified. That of a stream is complete when the pieces are used up.
        """
        more = additional_source_nodes or ()
        return run(self._synthesize(query, nodes, more, response_kwargs, _streaming_response))

    async def asynthesize(
        self,
        query: QueryType,
        nodes: Sequence[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """`synthesize`, without blocking the event loop; a stream is an `AsyncStreamingResponse`."""
        more = additional_source_nodes or ()
        return await arun(self._synthesize(query, nodes, more, response_kwargs, _async_streaming_response))

    def get_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """Answer from bare texts, best first; each is taken for evidence, since it has no score."""
        answer, messages = self._prepare(query_str, _hits_of(text_chunks), response_kwargs)
        if self._streaming:
            return iterate(self._pieces(answer, messages))  # type: ignore[return-value]
        return run(self._complete(answer, messages)).text

    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """`get_response`, without blocking the event loop."""
        answer, messages = self._prepare(query_str, _hits_of(text_chunks), response_kwargs)
        if self._streaming:
            return aiterate(self._pieces(answer, messages))  # type: ignore[return-value]
        return (await arun(self._complete(answer, messages))).text

    def _get_prompts(self) -> dict[str, BasePromptTemplate]:
        return dict(self._prompts)

    def _update_prompts(self, prompts_dict: Mapping[str, BasePromptTemplate]) -> None:
        self._set_prompts(prompts_dict)

    # -- answers ---------------------------------------------------------------------------------------------------

    def answer(self, question: str, hits: Sequence[NodeWithScore]) -> CitedAnswer:
        """Answer from the hits, best first."""
        return run(self.respond(question, hits))

    async def aanswer(self, question: str, hits: Sequence[NodeWithScore]) -> CitedAnswer:
        """Answer from the hits, asynchronously."""
        return await arun(self.respond(question, hits))

    def stream(self, question: str, hits: Sequence[NodeWithScore]) -> tuple[CitedAnswer, Iterator[str]]:
        """Answer piece by piece; the `CitedAnswer` is complete when the pieces are used up."""
        answer, messages = self._prepare(question, hits)
        return answer, iterate(self._pieces(answer, messages))

    async def astream(
        self, question: str, hits: Sequence[NodeWithScore]
    ) -> tuple[CitedAnswer, AsyncIterator[str]]:
        """Answer piece by piece, asynchronously."""
        answer, messages = self._prepare(question, hits)
        return answer, aiterate(self._pieces(answer, messages))

    def respond(self, question: str, hits: Sequence[NodeWithScore]) -> Core[CitedAnswer]:
        """The core of `answer` and `aanswer`; see `_sync_async`."""
        answer, messages = self._prepare(question, hits)
        return self._complete(answer, messages)

    def blocks(self, question: str, hits: Sequence[NodeWithScore]) -> list[Block]:
        """Passages of these hits that the LLM is shown; none when no hit is evidence."""
        return self._fitting(self.evidence.judge(question, hits).hits)

    # -- cores -----------------------------------------------------------------------------------------------------

    def _synthesize(
        self,
        query: QueryType,
        hits: Sequence[NodeWithScore],
        more: Sequence[NodeWithScore],
        variables: Mapping[str, Any],
        streaming_response: Callable[..., RESPONSE_TYPE],
    ) -> Core[RESPONSE_TYPE]:
        dispatcher.event(SynthesizeStartEvent(query=query))
        question = query if isinstance(query, str) else query.query_str
        payload: dict[str, Any] = {EventPayload.QUERY_STR: question}
        with self._callback_manager.event(CBEventType.SYNTHESIZE, payload=payload) as event:
            answer, messages = self._prepare(question, hits, variables)
            sources = [*answer.source_nodes, *more]
            response: RESPONSE_TYPE
            if self._streaming:
                metadata: dict[str, Any] = {}
                response = streaming_response(self._pieces(answer, messages, metadata), sources, metadata)
            else:
                yield from self._complete(answer, messages)
                response = CitedResponse(answer.text, sources, answer.metadata())
            event.on_end(payload={EventPayload.RESPONSE: response})
        dispatcher.event(SynthesizeEndEvent(query=query, response=response))
        return response

    def _complete(self, answer: CitedAnswer, messages: list[ChatMessage]) -> Core[CitedAnswer]:
        """The whole answer, with one call of the LLM, or none where nothing is left to say."""
        if messages:
            scores = self._scores(answer.blocks)
            response: ChatResponse = yield Step(
                lambda: self._llm.chat(messages, **scores), lambda: self._llm.achat(messages, **scores)
            )
            answer.finish_reason = finish_reason(response)
            answer.confidence = response.additional_kwargs.get(CONFIDENCE, answer.confidence)
            answer.take(without_thinking(str(response.message.content or "")), last=True)
            answer.text = answer.text.strip()
        return answer

    def _pieces(
        self, answer: CitedAnswer, messages: list[ChatMessage], metadata: dict[str, Any] | None = None
    ) -> StreamCore[str]:
        """The answer piece by piece; `metadata` is completed in the end."""
        if not messages:
            yield answer.text
        else:
            scores = self._scores(answer.blocks)
            chunks = yield Step(
                lambda: iter(self._llm.stream_chat(messages, **scores)),
                lambda: self._astream_chat(messages, scores),
            )
            following = Step(lambda: next(chunks, None), lambda: anext(chunks, None))
            while (chunk := (yield following)) is not None:
                if piece := answer.hear(chunk):
                    yield piece
            if rest := answer.take("", last=True):
                yield rest
        if metadata is not None:
            metadata.update(answer.metadata())

    async def _astream_chat(
        self, messages: list[ChatMessage], scores: dict[str, Any]
    ) -> AsyncIterator[ChatResponse]:
        return aiter(await self._llm.astream_chat(messages, **scores))

    def _scores(self, blocks: Sequence[Block]) -> dict[str, Any]:
        """What retrieval knows of the passages, as numbers, for `ExtractiveLLM`; nothing for other models."""
        if not isinstance(self._llm, ExtractiveLLM):
            return {}
        documents = list(
            dict.fromkeys(block.hit.node.ref_doc_id or block.hit.node.node_id for block in blocks)
        )
        named = [documents.index(block.hit.node.ref_doc_id or block.hit.node.node_id) + 1 for block in blocks]
        return {"cosines": [cosine_of(block.hit) for block in blocks], "documents": named}

    # -- what the LLM is shown -------------------------------------------------------------------------------------

    def _prepare(
        self, question: str, hits: Sequence[NodeWithScore], variables: Mapping[str, Any] | None = None
    ) -> tuple[CitedAnswer, list[ChatMessage]]:
        """The answer to be filled, and the messages for the LLM: none where the answer is complete without it."""
        judged = self.evidence.judge(question, hits)
        blocks = self._fitting(judged.hits)
        if not blocks:
            return CitedAnswer(DONT_KNOW, confidence=judged.confidence), []
        if not question.strip():  # asked with an image alone: what is like it is said, not written about
            everything = MarkerFilter(len(blocks), cited=[block.number for block in blocks])
            return CitedAnswer(closest(blocks), blocks, everything), []
        answer = CitedAnswer(
            blocks=blocks,
            markers=MarkerFilter(len(blocks)),
            numbers=self._number_verifier(blocks),
            confidence=judged.confidence,
        )
        return answer, self._messages(blocks, question, variables or {})

    def _messages(
        self, blocks: Sequence[Block], question: str, variables: Mapping[str, Any]
    ) -> list[ChatMessage]:
        """The rules as the system message, then the question over its passages."""
        if isinstance(self._llm, ExtractiveLLM):
            rules, messages = SYSTEM_PROMPT, [_message(MessageRole.USER, render_prompt(blocks, question))]
        else:
            rules = self._prompts["system_prompt"].format(llm=self._llm)
            messages = self._prompts["text_qa_template"].format_messages(
                llm=self._llm, **{**variables, "context_str": render_context(blocks), "query_str": question}
            )
        if self.verify_numbers != "off":
            rules = f"{rules} {VERBATIM_PROMPT}".lstrip()
        if messages and messages[0].role == MessageRole.SYSTEM:
            rules, messages = f"{rules}\n\n{messages[0].content}".lstrip(), messages[1:]
        return [_message(MessageRole.SYSTEM, rules), *messages] if rules else messages

    def _set_prompts(self, prompts: Mapping[str, BasePromptTemplate]) -> None:
        """Replace prompts: all of them, or none where one is refused."""
        refuse_unknown("CitedSynthesizer.update_prompts", prompts, _VARIABLES)
        checked = {name: check_template(name, prompt, _VARIABLES[name]) for name, prompt in prompts.items()}
        self._prompts = self._prompts | checked
        if checked and isinstance(self._llm, ExtractiveLLM):
            _log.warning(
                "ExtractiveLLM quotes passages and follows no instruction: the prompt %s is kept, and not used.",
                " and ".join(checked),
            )

    def _number_verifier(self, blocks: Sequence[Block]) -> NumberVerifier | None:
        if self.verify_numbers == "off":
            return None
        return NumberVerifier([f"{block.heading}\n{block.text}" for block in blocks], self.verify_numbers)

    def _fitting(self, hits: Sequence[NodeWithScore]) -> list[Block]:
        """Blocks of these hits within the token budget; neighbours of one section are one block."""
        if not hits:
            return []
        blocks = number_blocks(hits)
        budget = min(self.context_tokens, self._llm.metadata.context_window - self._llm.metadata.num_output)
        texts = fit(
            [block.render() for block in blocks], budget, count=self.count_tokens, sentences=split_sentences
        )
        if len(texts) == 1:  # perhaps shortened: the prompt must show just that
            block = blocks[0]
            return [replace(block, text=texts[0].split("\n", 1)[-1])]
        return blocks[: len(texts)]


def _tokens(text: str) -> list[Any]:
    return list(get_tokenizer()(text))


def _count_tokens(text: str) -> int:
    return len(get_tokenizer()(text))


def _message(role: MessageRole, text: str) -> ChatMessage:
    return ChatMessage(role=role, content=text)


def _hits_of(texts: Sequence[str]) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=math.inf) for text in texts]


def _streaming_response(
    pieces: StreamCore[str], sources: list[NodeWithScore], metadata: dict[str, Any]
) -> RESPONSE_TYPE:
    return StreamingResponse(iterate(pieces), sources, metadata)  # type: ignore[arg-type]


def _async_streaming_response(
    pieces: StreamCore[str], sources: list[NodeWithScore], metadata: dict[str, Any]
) -> RESPONSE_TYPE:
    return AsyncStreamingResponse(aiterate(pieces), sources, metadata)  # type: ignore[arg-type]


def _citation(block: Block) -> dict[str, Any]:
    metadata, node = block.hit.node.metadata, block.hit.node
    image = {"image": image_facts(node)} if isinstance(node, ImageNode) else {}
    return {
        "n": block.number,
        "valid": True,
        "source": metadata.get("source") or block.hit.node.ref_doc_id or block.hit.node.node_id,
        "page": metadata.get("page"),
        "heading": None if image else metadata.get("heading") or None,
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
    table = last if _TABLE.match(last) else metadata.get("table")
    return {**known, "table": table} if table else known
