"""Extractive answers without a language model: the best-matching sentences of the passages, verbatim."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM
from pydantic import Field, PrivateAttr

from llama_index_presets._options import strict
from llama_index_presets.answer.context import DONT_KNOW, IMAGE, closest_images, parse_prompt
from llama_index_presets.ranking.bm25 import Analyzer
from llama_index_presets.sentences import split_sentences

__all__ = ["ExtractiveLLM"]


@strict()
class ExtractiveLLM(LLM):
    """Extractive model: quotes sentences, never writes a word of its own. Deterministic, local, free.

    It reads the numbered passages out of the prompt (ours, or LlamaIndex's own question-answering prompt), scores
    each sentence by the share of the question's words that it and its heading hold, weighted by how rare they are
    among the passages, and returns the best ones with their ``[n]``. When no sentence reaches ``min_coverage``, or
    the prompt is of another kind, it says "I don't know." Images among the passages are named, since they cannot be
    quoted: "Closest images: red-circle.png [1]."

    Args:
        max_sentences: How many sentences an answer may have.
        min_coverage: Share of the question's weighted words that the best sentence must hold, 0 to 1.
        language: For stemming and stop words; see `Analyzer`.

    Example:
        >>> prompt = "Context:\\n\\n[1]\\nCats purr. Dogs bark.\\n\\nQuestion: What do cats do?\\nAnswer:"
        >>> str(ExtractiveLLM().complete(prompt))
        'Cats purr. [1]'
    """

    max_sentences: int = Field(default=3, gt=0)
    min_coverage: float = Field(default=0.5, ge=0, le=1)
    language: str = "english"
    _analyzer: Analyzer = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Check the language."""
        super().model_post_init(context)
        self._analyzer = Analyzer(language=self.language)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "ExtractiveLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """Model metadata: any context length, model name ``extractive``."""
        return LLMMetadata(
            context_window=1_000_000, num_output=2_000, model_name="extractive", is_chat_model=True
        )

    def answer(self, prompt: str) -> str:
        """Answer a prompt that holds passages and a question."""
        passages, question = parse_prompt(prompt)
        images = [(number, heading) for number, heading, _ in passages if heading.startswith(IMAGE)]
        parts = [self._quotes(passages, question), closest_images(images)]
        return " ".join(part for part in parts if part) or DONT_KNOW

    def _quotes(self, passages: Sequence[tuple[int, str, str]], question: str) -> str:
        """Sentences that hold the answer, or none."""
        ranked = _rank(passages, question, self._analyzer)
        if not ranked or ranked[0].coverage < self.min_coverage:
            return ""
        chosen = [found for found in ranked if found.score >= 0.8 * ranked[0].score][: self.max_sentences]
        return " ".join(
            f"{found.text} [{found.number}]" for found in sorted(chosen, key=lambda found: found.place)
        )

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer the last message."""
        return _chat_response(self.answer(_last(messages)))

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt."""
        return CompletionResponse(text=self.answer(prompt))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer the last message, word by word."""
        answer = self.answer(_last(messages))
        return (_chat_response(text, delta) for text, delta in _growing(answer))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt, word by word."""
        answer = self.answer(prompt)
        return (CompletionResponse(text=text, delta=delta) for text, delta in _growing(answer))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer the last message; takes milliseconds, so it does not leave the loop."""
        return _chat_response(self.answer(_last(messages)))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt."""
        return CompletionResponse(text=self.answer(prompt))

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer the last message, word by word."""
        answer = self.answer(_last(messages))

        async def pieces() -> ChatResponseAsyncGen:
            for text, delta in _growing(answer):
                yield _chat_response(text, delta)

        return pieces()

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer a prompt, word by word."""
        answer = self.answer(prompt)

        async def pieces() -> CompletionResponseAsyncGen:
            for text, delta in _growing(answer):
                yield CompletionResponse(text=text, delta=delta)

        return pieces()


@dataclass(frozen=True, slots=True)
class _Found:
    """A sentence: its passage, its place in reading order, its share of the question's weight."""

    number: int
    place: tuple[int, int]
    text: str
    coverage: float

    @property
    def score(self) -> float:
        """Coverage, less for what is hardly a sentence (a title, a menu) and for what was retrieved later."""
        words = len(self.text.split())
        shape = (1.0 if self.text[-1] in '.!?"”)]' else 0.8) * (1.0 if 5 <= words <= 60 else 0.6)
        return self.coverage * shape * (1 - 0.04 * self.place[0])


def _rank(passages: Sequence[tuple[int, str, str]], question: str, analyzer: Analyzer) -> list[_Found]:
    """Sentences by score, best first; equal ones keep the passages' order."""
    wanted = set(analyzer.tokens(question))
    sentences = [
        (number, (order, place), " ".join(text.split()), set(analyzer.tokens(heading)))
        for order, (number, heading, passage) in enumerate(passages)
        for place, text in enumerate(split_sentences(passage))
        if text.strip()
    ]
    own = [set(analyzer.tokens(text)) for _, _, text, _ in sentences]
    counts = Counter(token for tokens in own for token in tokens & wanted)
    weights = {token: math.log(1 + (len(own) + 1) / (counts[token] + 0.5)) for token in wanted}
    found: dict[str, _Found] = {}
    for (number, place, text, heading), tokens in zip(sentences, own, strict=True):
        found.setdefault(text, _Found(number, place, text, _coverage(tokens, heading, weights)))
    return sorted(found.values(), key=lambda sentence: (-sentence.score, sentence.place))


def _coverage(tokens: set[str], heading: set[str], weights: dict[str, float]) -> float:
    """Weighted share of the question; a word that only the heading holds counts three quarters."""
    total = sum(weights.values())
    if not total:
        return 0.0
    return (
        sum(
            weight * (1.0 if token in tokens else 0.75 if token in heading else 0.0)
            for token, weight in weights.items()
        )
        / total
    )


def _last(messages: Sequence[ChatMessage]) -> str:
    users = [message for message in messages if message.role == MessageRole.USER]
    return str(users[-1].content or "") if users else ""


def _chat_response(text: str, delta: str | None = None) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta=delta)


def _growing(text: str) -> list[tuple[str, str]]:
    """A text as it grows by words: (so far, what came)."""
    pieces, so_far = [], ""
    for place, word in enumerate(text.split(" ")):
        delta = word if place == 0 else " " + word
        so_far += delta
        pieces.append((so_far, delta))
    return pieces
