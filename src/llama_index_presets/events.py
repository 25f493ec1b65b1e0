"""Instrumentation events of this package: stages dispatch them, `monitor` listens, neither imports the other.

All are plain LlamaIndex `BaseEvent`s, so any event handler on the root dispatcher sees them. None carries
text of a query, a document or an answer.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from llama_index.core.instrumentation.events import BaseEvent
from pydantic import Field

__all__ = [
    "AttemptFailedEvent",
    "DocumentEndEvent",
    "EmbeddingUsageEvent",
    "FusionEvent",
    "LegEndEvent",
    "LoadPurpose",
    "ModelLoadEvent",
    "ModelLoadStartEvent",
    "RerankUsageEvent",
    "RunEndEvent",
    "RunStartEvent",
    "UsageSource",
]

LoadPurpose = Literal["embedding", "rerank", "llm"]
"""What a model is loaded for."""

UsageSource = Literal["reported", "counted", "estimated"]
"""Who counted the tokens: the provider, the model's own tokenizer, or another tokenizer."""


class EmbeddingUsageEvent(BaseEvent):
    """Usage of one embedding call; dispatched inside its span, before the span ends.

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
    """Usage of one reranking; dispatched inside its span, before the span ends.

    Attributes:
        provider: ``"local"`` or the name of the service.
        model: Model name.
        pairs: Query-text pairs scored.
        prompt_tokens: Tokens of all pairs after truncation.
        truncated: Pairs that were longer than the model reads.
        cut: Whether a deadline ended the scoring early.
        latency_ms: Time spent scoring, in milliseconds.
        searches: Searches that a hosted reranker bills.
        usage_source: Who counted; None where a hosted one says nothing of what it used.
    """

    provider: str
    model: str
    pairs: int
    prompt_tokens: int
    truncated: int = 0
    cut: bool = False
    latency_ms: float
    searches: int = 0
    usage_source: UsageSource | None = "counted"

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "RerankUsageEvent"


class AttemptFailedEvent(BaseEvent):
    """Failed attempt that is followed by another; dispatched inside the span of the call, before the wait.

    The last attempt needs none: its exception ends the call.

    Attributes:
        attempt: 1-based number of the attempt that failed.
        error_type: Class name of its exception.
        latency_ms: How long the attempt took, in milliseconds.
        wait_s: How long until the next one, in seconds; nothing is under way then.
        sent: Whether the request went out and its answer was lost: the provider bills it.
    """

    attempt: int
    error_type: str
    latency_ms: float
    wait_s: float = 0.0
    sent: bool = False

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "AttemptFailedEvent"


class LegEndEvent(BaseEvent):
    """End of one leg of a hybrid search; dispatched inside the span of the whole search.

    Attributes:
        leg: Name of the leg, as in `provenance.RankedNode.stages`.
        retriever: Class of its retriever.
        hits: How many candidates it gave; 0 when it failed.
        latency_ms: From the start of the search to the leg's answer, in milliseconds.
        error: Class of the exception that ended it, or None. Never its message, which may hold the query.
    """

    leg: str
    retriever: str
    hits: int
    latency_ms: float
    error: str | None = None

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "LegEndEvent"


class FusionEvent(BaseEvent):
    """Fusion of legs into one ranking.

    Attributes:
        fusion: Name of the method.
        legs: Names of the legs that answered, in order.
        degraded: Names of the legs that failed and were left out; empty when the answer is whole.
        candidates: Distinct nodes that the legs gave.
        hits: How many of them were returned.
        latency_ms: How long the fusion took, in milliseconds.
    """

    fusion: str
    legs: list[str]
    degraded: list[str] = Field(default_factory=list)
    candidates: int
    hits: int
    latency_ms: float = 0.0

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "FusionEvent"


class RunStartEvent(BaseEvent):
    """Start of an engine's question or ingest; dispatched where the work is attributed to `run_id`.

    Attributes:
        run_id: The query_id of the ledger, of the audit log and of the trace.
        kind: What begins.
    """

    run_id: str
    kind: Literal["query", "ingest"]

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "RunStartEvent"


class RunEndEvent(BaseEvent):
    """End of the run that a `RunStartEvent` announced.

    Attributes:
        run_id: As at the start.
        known: Whether a question was answered; None where none was asked or the run failed.
        citations: Passages that the answer cites.
        cost_usd: What the run cost; None when a price is unknown.
        error: Class of the exception that ended it, or None. Never its message.
        abandoned: Whether it is a stream that was not read to its end.
        cached: Whether the answer cache gave the answer.
        counts: Of an ingest: ``documents``, ``unchanged``, ``removed``, ``failed``, ``chunks``, ``tokens``.
    """

    run_id: str
    known: bool | None = None
    citations: int = 0
    cost_usd: Decimal | None = None
    error: str | None = None
    abandoned: bool = False
    cached: bool = False
    counts: dict[str, int] = Field(default_factory=dict)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "RunEndEvent"


class DocumentEndEvent(BaseEvent):
    """End of one document of an ingest: read and cut, or failed.

    Attributes:
        document: Its id; of a file, its path.
        chunks: Chunks it was cut into; 0 when it failed.
        latency_ms: Time spent reading and cutting it, in milliseconds.
        error: Class of the exception that kept it out, or None. Never its message.
    """

    document: str
    chunks: int
    latency_ms: float
    error: str | None = None

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "DocumentEndEvent"


class ModelLoadEvent(BaseEvent):
    """A model was loaded, or a thread waited until another one had; dispatched inside the span that waited.

    Attributes:
        model: Model name.
        purpose: What it is for.
        latency_ms: How long it took, in milliseconds.
        waited: Whether another thread loaded it meanwhile.
        error: Class of the exception that ended it, or None. Never its message.
    """

    model: str
    purpose: LoadPurpose
    latency_ms: float
    waited: bool = False
    error: str | None = None

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "ModelLoadEvent"


class ModelLoadStartEvent(BaseEvent):
    """A model begins to be loaded; a `ModelLoadEvent` follows.

    Attributes:
        model: Model name.
        purpose: What it is for.
    """

    model: str
    purpose: LoadPurpose

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "ModelLoadStartEvent"
