"""Response synthesis: hits to a cited answer, or to an honest "I don't know"."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
from llama_index.core.schema import NodeWithScore, QueryType, TextNode
from llama_index.core.types import RESPONSE_TEXT_TYPE
from llama_index.core.utils import get_tokenizer

from llama_index_presets._options import refuse_unknown, strict
from llama_index_presets.answer.citations import MarkerFilter
from llama_index_presets.answer.cited.support import Similarities
from llama_index_presets.answer.cited.verify_numbers import VERBATIM_PROMPT, NumberVerifier
from llama_index_presets.answer.cited_answer import CitedAnswer, link_filter, suspicious_passages
from llama_index_presets.answer.closest import closest_passages
from llama_index_presets.answer.confidence.calibration import Calibration
from llama_index_presets.answer.confidence.floor import ALONGSIDE, EvidenceFloor, cosine_of
from llama_index_presets.answer.context import (
    DONT_KNOW,
    QUESTION_PROMPT,
    SYSTEM_PROMPT,
    Block,
    check_template,
    closest,
    fit,
    number_blocks,
    render_context,
    render_prompt,
)
from llama_index_presets.answer.extractive import CONFIDENCE, ExtractiveLLM
from llama_index_presets.answer.finish import finish_reason
from llama_index_presets.answer.response import CitedResponse
from llama_index_presets.answer.thinking import without_thinking
from llama_index_presets.concurrency.sync_async import Core, Step, StreamCore, aiterate, arun, iterate, run
from llama_index_presets.provenance import document_id
from llama_index_presets.text.sentences import split_sentences

__all__ = ["CitedSynthesizer"]

dispatcher = get_dispatcher(__name__)
_log = logging.getLogger(__name__)

_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "system_prompt": (),
    "text_qa_template": ("context_str", "query_str"),
}
"""Prompts of a `CitedSynthesizer`, and the variables that each must use."""


REFUSED: Final = (
    f"{DONT_KNOW} (A passage holds instructions to the language model, so the question was not answered.)"
)
"""Answer where ``on_injection="refuse"``."""


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
            below its floor the answer is "I don't know." None goes by `floor`. An `ExtractiveLLM` is shown all hits
            where one is evidence: it tells by them which words are rare.
        context_tokens: Token budget of the passages.
        count_tokens: Tokens of a text, for the budget; None takes LlamaIndex's tokenizer.
        verify_numbers: Whether a statement whose figures do not stand in what it cites is marked or removed.
        system_prompt: The rules that the LLM is told.
        text_qa_template: How passages and question are shown.
        on_injection: What becomes of a passage that speaks to a language model (`injection`): it is shown, and named in
            ``metadata["suspicious"]``; dropped; or the question is not answered.
        similarities: Compares the meaning of a sentence with what it cites; None goes by words.
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
        on_injection: Literal["flag", "drop", "refuse"] = "flag",
        similarities: Similarities | None = None,
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
        self.evidence = EvidenceFloor(
            floor=floor,
            cross_floor=cross_floor,
            calibration=calibration,
            alongside=0.0 if isinstance(self._llm, ExtractiveLLM) else ALONGSIDE,
        )
        self.context_tokens = context_tokens
        self.count_tokens = count_tokens or _count_tokens
        self.verify_numbers = verify_numbers
        self.on_injection = on_injection
        self.similarities = similarities
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

        def stream(pieces: StreamCore[str], *rest: Any) -> RESPONSE_TYPE:
            return StreamingResponse(iterate(pieces), *rest)  # type: ignore[arg-type]

        return run(self._synthesize(query, nodes, additional_source_nodes or (), response_kwargs, stream))

    async def asynthesize(
        self,
        query: QueryType,
        nodes: Sequence[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """`synthesize`, without blocking the event loop; a stream is an `AsyncStreamingResponse`."""

        def stream(pieces: StreamCore[str], *rest: Any) -> RESPONSE_TYPE:
            return AsyncStreamingResponse(aiterate(pieces), *rest)  # type: ignore[arg-type]

        more = additional_source_nodes or ()
        return await arun(self._synthesize(query, nodes, more, response_kwargs, stream))

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
        """The core of `answer` and `aanswer`; see `concurrency.sync_async`."""
        answer, messages = self._prepare(question, hits)
        return self._complete(answer, messages)

    def blocks(self, question: str, hits: Sequence[NodeWithScore]) -> list[Block]:
        """Passages of these hits that the LLM is shown; none when no hit is evidence."""
        judged = self.evidence.judge(question, hits).hits
        if self.on_injection != "flag":
            judged = _without(judged, suspicious_passages(judged))
        return self._fitting(judged)

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
            scores = self._scores(answer.blocks, answer.margin)
            response: ChatResponse = yield Step(
                lambda: self._llm.chat(messages, **scores), lambda: self._llm.achat(messages, **scores)
            )
            answer.finish_reason = finish_reason(response)
            answer.confidence = response.additional_kwargs.get(CONFIDENCE, answer.confidence)
            answer.take(without_thinking(str(response.message.content or "")), last=True)
            answer.text = answer.text.strip()
        yield Step(answer.check, lambda: asyncio.to_thread(answer.check))
        return answer

    def _pieces(
        self, answer: CitedAnswer, messages: list[ChatMessage], metadata: dict[str, Any] | None = None
    ) -> StreamCore[str]:
        """The answer piece by piece; `metadata` is completed in the end."""
        if not messages:
            yield answer.text
        else:
            scores = self._scores(answer.blocks, answer.margin)
            chunks = yield Step(
                lambda: iter(self._llm.stream_chat(messages, **scores)),
                lambda: self._astream_chat(messages, scores),
            )
            following = Step(lambda: next(chunks, None), lambda: anext(chunks, None))
            while (chunk := (yield following)) is not None:
                if piece := answer.take_chunk(chunk):
                    yield piece
            if rest := answer.take("", last=True):
                yield rest
        yield Step(answer.check, lambda: asyncio.to_thread(answer.check))
        if metadata is not None:
            metadata.update(answer.metadata())

    async def _astream_chat(
        self, messages: list[ChatMessage], scores: dict[str, Any]
    ) -> AsyncIterator[ChatResponse]:
        return aiter(await self._llm.astream_chat(messages, **scores))

    def _scores(self, blocks: Sequence[Block], margin: float | None) -> dict[str, Any]:
        """What retrieval knows of the passages, as numbers, for `ExtractiveLLM`; nothing for other models."""
        if not isinstance(self._llm, ExtractiveLLM):
            return {}
        ids = [document_id(block.hit.node) for block in blocks]
        documents = list(dict.fromkeys(ids))
        named = [documents.index(one) + 1 for one in ids]
        cosines = [cosine_of(block.hit) for block in blocks]
        return {"cosines": cosines, "documents": named, "margin": margin}

    # -- what the LLM is shown -------------------------------------------------------------------------------------

    def _prepare(
        self, question: str, hits: Sequence[NodeWithScore], variables: Mapping[str, Any] | None = None
    ) -> tuple[CitedAnswer, list[ChatMessage]]:
        """The answer to be filled, and the messages for the LLM: none where the answer is complete without it."""
        judged = self.evidence.judge(question, hits)
        suspicious, kept = suspicious_passages(judged.hits), judged.hits
        if suspicious and self.on_injection == "refuse":
            return CitedAnswer(REFUSED, confidence=judged.confidence, suspicious=suspicious), []
        if suspicious and self.on_injection == "drop":
            kept = _without(kept, suspicious)
        find_closest = functools.partial(self._closest, question, hits)
        blocks = self._fitting(kept)
        if not blocks:
            return CitedAnswer(
                DONT_KNOW, confidence=judged.confidence, suspicious=suspicious, find_closest=find_closest
            ), []
        if not question.strip():  # asked with an image alone: what is like it is said, not written about
            everything = MarkerFilter(len(blocks), cited=[block.number for block in blocks])
            return CitedAnswer(closest(blocks), blocks, everything), []
        answer = CitedAnswer(
            blocks=blocks,
            markers=MarkerFilter(len(blocks)),
            numbers=self._number_verifier(blocks),
            confidence=judged.confidence,
            margin=judged.margin,
            links=link_filter(blocks, suspicious),
            suspicious=suspicious,
            similarities=self.similarities,
            find_closest=find_closest,
        )
        return answer, self._messages(blocks, question, variables or {})

    def _closest(self, question: str, hits: Sequence[NodeWithScore]) -> list[dict[str, Any]]:
        """What a reader is shown beside an "I don't know"; nothing that speaks to a language model."""
        without = {one["node_id"] for one in suspicious_passages(hits)}
        evidence = self.evidence
        return closest_passages(
            question, hits, floor=evidence.floor, without=without, analyzer=evidence.analyzer
        )

    def _messages(
        self, blocks: Sequence[Block], question: str, variables: Mapping[str, Any]
    ) -> list[ChatMessage]:
        """The rules as the system message, then the question over its passages."""
        if isinstance(self._llm, ExtractiveLLM):
            rules, messages = (
                SYSTEM_PROMPT,
                [ChatMessage(role=MessageRole.USER, content=render_prompt(blocks, question))],
            )
        else:
            rules = self._prompts["system_prompt"].format(llm=self._llm)
            messages = self._prompts["text_qa_template"].format_messages(
                llm=self._llm, **{**variables, "context_str": render_context(blocks), "query_str": question}
            )
        if self.verify_numbers != "off":
            rules = f"{rules} {VERBATIM_PROMPT}".lstrip()
        if messages and messages[0].role == MessageRole.SYSTEM:
            rules, messages = f"{rules}\n\n{messages[0].content}".lstrip(), messages[1:]
        return [ChatMessage(role=MessageRole.SYSTEM, content=rules), *messages] if rules else messages

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


def _without(hits: Sequence[NodeWithScore], suspicious: Sequence[Mapping[str, Any]]) -> list[NodeWithScore]:
    """Hits that are not suspicious."""
    ids = {one["node_id"] for one in suspicious}
    return [hit for hit in hits if hit.node.node_id not in ids]


def _tokens(text: str) -> list[Any]:
    return list(get_tokenizer()(text))


def _count_tokens(text: str) -> int:
    return len(get_tokenizer()(text))


def _hits_of(texts: Sequence[str]) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=math.inf) for text in texts]
