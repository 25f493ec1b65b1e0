"""Instrumentation events of our own: stages dispatch them, `monitor` listens, neither knows the other.

All are plain LlamaIndex `BaseEvent`s, so any event handler on the root dispatcher sees them. None carries
text of a query, a document or an answer.
"""

from __future__ import annotations

from typing import Literal

from llama_index.core.instrumentation.events import BaseEvent

__all__ = ["AttemptFailedEvent", "EmbeddingUsageEvent", "RerankUsageEvent", "UsageSource"]

UsageSource = Literal["reported", "counted", "estimated"]
"""Who counted the tokens: the provider, the model's own tokenizer, or another tokenizer."""


class EmbeddingUsageEvent(BaseEvent):
    """What one embedding call used; dispatched inside its span, before the span ends.

    Attributes:
        provider: ``"local"`` or the name of the service, as `genai-prices` spells it.
        model: Model name.
        texts: Texts that the caller asked for.
        cached_texts: How many of them came from a cache and were not computed.
        prompt_tokens: Tokens of the texts that were computed.
        usage_source: Who counted them.
        attempt: 1-based number of the attempt that this is.
    """

    provider: str
    model: str
    texts: int
    cached_texts: int = 0
    prompt_tokens: int
    usage_source: UsageSource
    attempt: int = 1

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "EmbeddingUsageEvent"


class RerankUsageEvent(BaseEvent):
    """What one reranking used; dispatched inside its span, before the span ends.

    Attributes:
        provider: ``"local"`` or the name of the service.
        model: Model name.
        pairs: Query-text pairs scored.
        prompt_tokens: Tokens of all pairs after truncation.
        truncated: Pairs that were longer than the model reads.
        cut: Whether a deadline ended the scoring early.
        latency_ms: Time spent scoring, in milliseconds.
    """

    provider: str
    model: str
    pairs: int
    prompt_tokens: int
    truncated: int = 0
    cut: bool = False
    latency_ms: float

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "RerankUsageEvent"


class AttemptFailedEvent(BaseEvent):
    """An attempt failed and another one follows; dispatched inside the span of the call, before the wait.

    The last attempt needs none: its exception ends the call.

    Attributes:
        attempt: 1-based number of the attempt that failed.
        error_type: Class name of its exception.
        latency_ms: How long the attempt took, in milliseconds.
    """

    attempt: int
    error_type: str
    latency_ms: float

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "AttemptFailedEvent"
