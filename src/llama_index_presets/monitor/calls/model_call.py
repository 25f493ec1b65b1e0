"""Model call: what is known while it is open, how it ended, and its listeners; `call_tree` decides when."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from llama_index_presets.events import (
    AttemptFailedEvent,
    EmbeddingUsageEvent,
    ModelLoadEvent,
    RerankUsageEvent,
)
from llama_index_presets.monitor.attribution import attempt_number, attribution
from llama_index_presets.monitor.calls.usage import (
    Usage,
    count_embedding,
    estimate_chat,
    estimate_text,
    merged,
    reported_usage,
)
from llama_index_presets.monitor.ledger.row import covered_s
from llama_index_presets.monitor.prices import FREE_PROVIDER, Pricer, Tokens, free_here

__all__ = [
    "NO_USAGE",
    "CallEnded",
    "CallSink",
    "OpenCall",
    "answer_was_lost",
    "prompt_texts",
    "response_text",
    "who_bills",
]

NO_USAGE: Final = Usage()
Report = EmbeddingUsageEvent | RerankUsageEvent | ModelLoadEvent


class OpenCall:
    """A call that has begun. Plain mutable fields with class defaults: one is made for each call, so few are set.

    Attributes:
        kind: As in the ledger: ``"llm"``, ``"embedding"``, ``"rerank"``, ``"retrieval"``, ``"query"`` or ``"load"``.
        span_id: The dispatcher's span that it is open in; None for what is over when it is heard of.
        parent: The nearest call that is open around it.
        serves: Of the calls around it, the nearest of the same kind: its wrapper.
        wraps: Whether it leaves counting to calls inside it.
        asks: Whether a reranking has calls of models inside, which are billed by themselves.
        nested: Ends of embedding calls inside.
        texts: What an embedding call is to embed.
        resumes: When its next attempt begins, on the performance counter; nothing is under way before.
        shown: What a sink keeps of it.
    """

    provider = ""
    model = ""
    prompt_sha256 = ""
    instance: Any = None
    parent: OpenCall | None = None
    serves: OpenCall | None = None
    prompt: Any = None
    texts: list[str] | None = None
    resumes = 0.0
    reservation: Any = None
    chunk: Any = None
    pieces: list[str] | None = None
    stream_usage: Usage | None = None
    wraps = False
    asks = False
    nested: list[CallEnded] | None = None
    done = False
    loads: list[tuple[float, float]] | None = None  # beginnings and ends, on the performance counter
    shown: Any = None

    def __init__(self, kind: str, span_id: str | None, call_id: str) -> None:
        self.kind = kind
        self.span_id = span_id
        self.call_id = call_id
        self.who = who = attribution()
        self.query_id = who.query_id
        self.attempt = attempt_number.get()
        self.started = time.perf_counter()

    def loaded(self, latency_ms: float) -> None:
        """Note that a model was loaded inside this call until now."""
        now = time.perf_counter()
        self.loads = [*(self.loads or ()), (now - latency_ms / 1000, now)]

    @property
    def elapsed_ms(self) -> float:
        """How long it has taken so far, in milliseconds, without the loading of models."""
        now = time.perf_counter()
        waited_s = covered_s(self.loads, self.started) if self.loads else 0.0
        return (now - self.started - waited_s) * 1000

    @property
    def sent(self) -> list[str]:
        """The texts that an embedding model was sent; a wrapper, such as a cache, sends none itself."""
        wraps = hasattr(getattr(self.instance, "inner", None), "get_text_embedding_batch")
        return [] if wraps else self.texts or []

    def said(self, response: Any) -> str:
        """The text of its last response, or of the pieces of a stream whose responses have only what is new."""
        return response_text(response if response is not None else self.chunk) or "".join(self.pieces or ())


class CallEnded(NamedTuple):
    """End of a call: usage, status, times; frozen.

    Attributes:
        call: The call.
        status: As in the ledger.
        latency_ms: How long it took, in milliseconds, without the loading of models.
        ended_us: When it ended, in microseconds since 1970.
        counts: Whether it is a call of its own; False for one that passed the call on to calls inside it.
        error_type: Class name of the exception that ended it.
        attempt: 1-based.
        cache_hit: Whether a cache answered.
        usage: Tokens, where they were reported or there are none; None leaves it to `measure`.
        source: Who counted `usage`.
        response: Last response of a language model, or texts that were embedded or sent: what `measure` reads.
        report: The event that said it, where one did.
    """

    call: OpenCall
    status: str
    latency_ms: float
    ended_us: int
    counts: bool = True
    error_type: str = ""
    attempt: int = 1
    cache_hit: bool = False
    usage: Usage | None = NO_USAGE
    source: str = ""
    response: Any = None
    report: Report | None = None

    def measure(self) -> tuple[Usage, str]:
        """Read or count what was used, and say who counted; may take milliseconds, so a sink may do it later."""
        call = self.call
        if self.usage is not None:
            return self.usage, self.source
        if call.kind == "embedding":
            texts = [text for text in self.response or () if isinstance(text, str)]
            tokens, source = count_embedding(call.provider, call.model, texts)
            return Usage(tokens), source
        usage = reported_usage(self.response)
        if call.stream_usage is not None:
            usage = merged(call.stream_usage, usage)
        if usage is not None:
            return usage, "reported"
        prompt = estimate_chat(call.provider, call.model, prompt_texts(call.prompt))
        said = estimate_text(call.provider, call.model, [call.said(self.response)])
        return Usage(prompt, said), "estimated"

    def asks_models(self) -> bool:
        """Whether it is a reranking that asked models, which have rows of their own, and costs nothing itself."""
        return self.call.kind == "rerank" and self.call.asks

    def tokens(self, usage: Usage) -> Tokens:
        """What is to be priced: its usage, and the searches that a reranker reported."""
        return replace(usage.tokens(), searches=getattr(self.report, "searches", 0))


_ADDRESSES: Final = {"llm": "api_base", "embedding": "api_base", "rerank": "base_url"}
"""Kind of a call -> the attribute of its model that has the address of a server."""


def who_bills(call: OpenCall, pricer: Pricer, known: dict[tuple[str, str], bool]) -> str:
    """Provider of a call: a model of a server on this machine is free unless a price is known, as a gateway bills on.

    Args:
        call: A call of a model whose class may speak to anybody's server.
        pricer: Knows the prices.
        known: Address and model -> whether it is free here; what is found out is kept in it.
    """
    if call.kind not in _ADDRESSES or call.provider == FREE_PROVIDER:
        return call.provider
    if call.provider and not getattr(call.instance, "serves_any_vendor", False):
        return call.provider
    address = str(getattr(call.instance, _ADDRESSES[call.kind], None) or "")
    if not address:
        return call.provider
    asked = (address, call.model)
    if asked not in known:
        known[asked] = free_here(pricer, call.model, address)
    if known[asked]:
        return FREE_PROVIDER
    # not that of a reranker's class, which speaks the protocol of its vendor only
    return "" if call.kind == "rerank" else call.provider


class CallSink(Protocol):
    """Takes what a `CallTree` decides. Called by the thread that makes the call, so it should be quick."""

    def started(self, call: OpenCall) -> None:
        """A call begins; not called for calls that are over when they are heard of."""

    def first_chunk(self, call: OpenCall) -> None:
        """A stream gave its first piece; the rest is in its end."""

    def attempt_failed(self, call: OpenCall, event: AttemptFailedEvent) -> None:
        """An attempt failed inside a call that goes on."""

    def ended(self, end: CallEnded) -> None:
        """A call is over; said once of each."""


# Names, so that no SDK need be installed: what httpx, httpcore, urllib3, aiohttp and Python call a lost answer.
_LOST: Final = frozenset(
    {
        "ReadTimeout", "ReadTimeoutError", "ReadError", "RemoteProtocolError", "RemoteDisconnected", "IncompleteRead",
        "IncompleteReadError", "ProtocolError", "ServerDisconnectedError", "ClientPayloadError",
        "ResponseStreamingError",
    }
)  # fmt: skip


def answer_was_lost(error: BaseException) -> bool:
    """Whether a request went out and its answer did not come: the provider has worked, and bills.

    Not so where no connection was made, or where the provider refused.

    Example:
        >>> import http.client
        >>> answer_was_lost(http.client.RemoteDisconnected()), answer_was_lost(ConnectionRefusedError())
        (True, False)
    """
    inner: BaseException | None = error
    for _ in range(8):  # an SDK's error is raised from that of its HTTP client
        if inner is None:
            return False
        if type(inner).__name__ in _LOST:
            return True
        inner = inner.__cause__ or inner.__context__
    return False


def prompt_texts(prompt: Any) -> list[str]:
    """Give the texts of a prompt, which is a text, chat messages (with their roles), or None."""
    if isinstance(prompt, str):
        return [prompt]
    return [
        f"{getattr(message.role, 'value', message.role)}: {message.content or ''}" for message in prompt or ()
    ]


def response_text(response: Any) -> str:
    """Give the text of a chat or completion response, so far; empty where there is none."""
    if response is None:
        return ""
    own = getattr(response, "__dict__", ())  # asking a pydantic model for what it lacks takes microseconds
    if "text" in own and "message" not in own:
        return response.text or ""
    message = getattr(response, "message", None)
    text = getattr(response, "text", None) if message is None else message.content
    return text or ""
