"""Event sequences, and the model calls that each of them is: for whatever listens to LlamaIndex's instrumentation.

A listener is asked for its calls by `run`; `tests/contracts/test_call_tree.py` has the ledger and the traces answer.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from llama_index.core import MockEmbedding, PromptTemplate, VectorStoreIndex
from llama_index.core.base.llms.types import (
    ChatResponse,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import ChatMessage, CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from tests.fakes import WordEmbedding

from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.embed.cached import CachedEmbedding
from llama_index_presets.errors import BudgetExceededError
from llama_index_presets.events import EmbeddingUsageEvent, RerankUsageEvent
from llama_index_presets.inference.loading import LoadOnce, loading
from llama_index_presets.monitor.retry import RetryPolicy, retrying

__all__ = ["SEQUENCES", "Expected", "Sequence"]

dispatcher = get_dispatcher(__name__)


class Expected(NamedTuple):
    """One model call or stage.

    Attributes:
        kind: As in the ledger.
        below: Kind of the call around it; empty at the top. What only passes a call on does not count.
        status: As in the ledger.
        tokens: Input and output tokens; None for what has none.
        source: Who counted them.
        attempt: 1-based.
    """

    kind: str
    below: str = ""
    status: str = "success"
    tokens: tuple[int, int] | None = None
    source: str = ""
    attempt: int = 1


@dataclass(frozen=True)
class Sequence:
    """Something that an application does.

    Attributes:
        run: Does it; the argument is a folder.
        calls: What it is, in any order.
        rows: What the ledger says where ADR 0110 has it say more than a trace; None where both say the same.
        budget_usd: What all calls may cost together.
    """

    run: Callable[[Any], object]
    calls: list[Expected]
    rows: list[Expected] | None = None
    budget_usd: str | None = None


# -- models ------------------------------------------------------------------------------------------------------------


class Speaking(CustomLLM):
    """Says "one two three", and with the last piece that it read 10 tokens and wrote 5."""

    fails: int = 0
    name: str = "speaking"
    report: bool = True

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.name)

    def _fail(self) -> None:
        if self.fails:
            self.fails -= 1
            raise ConnectionError("no route")

    def _usage(self) -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 10, "completion_tokens": 5}} if self.report else {}

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._fail()
        return CompletionResponse(text="one two three", raw=self._usage())

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def pieces() -> CompletionResponseGen:
            self._fail()
            yield CompletionResponse(text="", delta="one ")
            yield CompletionResponse(text="", delta="two ")
            yield CompletionResponse(text="", delta="three", raw=self._usage())

        return pieces()


class Breaking(Speaking):
    """Loses its connection after the first piece."""

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def pieces() -> CompletionResponseGen:
            yield CompletionResponse(text="", delta="one ")
            raise ConnectionError("gone")

        return pieces()


class Routing(Speaking):
    """Has another model answer, or a query engine."""

    inner: Any = None

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        if hasattr(self.inner, "query"):
            return CompletionResponse(text=str(self.inner.query(prompt)))
        return self.inner.complete(prompt)  # type: ignore[no-any-return]

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        return self.inner.stream_complete(prompt)  # type: ignore[no-any-return]


class Counted(WordEmbedding):
    """Says itself what it used: 7 tokens a text."""

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        dispatcher.event(
            EmbeddingUsageEvent(
                provider="local",
                model="counted",
                texts=len(texts),
                prompt_tokens=7 * len(texts),
                usage_source="counted",
            )
        )
        return [self._vector(text) for text in texts]


class Behind(WordEmbedding):
    """Has another model embed."""

    inner: Any = None

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.inner.get_query_embedding(query)  # type: ignore[no-any-return]


class Failing(WordEmbedding):
    """Fails as often as told."""

    fails: int = 1

    def _get_query_embedding(self, query: str) -> list[float]:
        if self.fails:
            self.fails -= 1
            raise ConnectionError("no route")
        return super()._get_query_embedding(query)


class Loading(WordEmbedding):
    """Loads its weights first."""

    def _get_query_embedding(self, query: str) -> list[float]:
        with loading("weights", "embedding"):
            LoadOnce(lambda: object())()
        return super()._get_query_embedding(query)


class Judge(BaseNodePostprocessor):
    """A reranker that says what it used: 11 tokens."""

    counts: bool = True

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=1, model_name="judge"))
        if self.counts:
            usage = {"provider": "local", "model": "judge", "pairs": len(nodes), "prompt_tokens": 11}
            dispatcher.event(RerankUsageEvent(**usage, latency_ms=1.0))
        dispatcher.event(ReRankEndEvent(nodes=nodes))
        return nodes


NODES = [TextNode(id_=name * 32, text=f"{word} fish") for name, word in (("a", "red"), ("b", "blue"))]
INDEX = VectorStoreIndex(NODES, embed_model=WordEmbedding())
MESSAGES = [ChatMessage("hi")]


def engine(llm: Any, embed_model: Any = None, **options: Any) -> RetrieverQueryEngine:
    retriever = INDEX.as_retriever(embed_model=embed_model or WordEmbedding())
    return RetrieverQueryEngine.from_args(retriever, llm=llm, **options)


# -- what an application does ------------------------------------------------------------------------------------------


async def _read(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


async def _astream(llm: Any, way: str) -> None:
    asked: Any = MESSAGES if way.endswith("chat") else "hi"
    await _read(await getattr(llm, way)(asked))


def _interleaved(_: Any) -> None:
    llm = Speaking()
    streams: list[Iterator[Any]] = [iter(llm.stream_complete("hi")), iter(llm.stream_complete("hello"))]
    while streams:
        streams = [stream for stream in reversed(streams) if next(stream, None) is not None]


async def _ainterleaved() -> None:
    llm = Speaking()
    streams: list[Any] = [await llm.astream_chat(MESSAGES), await llm.astream_chat(MESSAGES)]
    while streams:
        streams = [stream for stream in reversed(streams) if await anext(stream, None) is not None]


def _abandon(llm: Any, pieces: int) -> None:
    stream = llm.stream_complete("hi")
    for _ in range(pieces):
        next(stream)
    del stream
    gc.collect()


def _asked_meanwhile(_: Any) -> None:
    llm = Speaking()
    for number, _piece in enumerate(llm.stream_complete("hi")):
        if number == 0:
            llm.complete("hi")


class Slow(Speaking):
    """Answers when the test is over."""

    begun: Any = None

    async def _never(self) -> None:
        self.begun.set()
        await asyncio.sleep(60)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        await self._never()
        return CompletionResponse(text="never")

    @llm_chat_callback()
    async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        await self._never()
        return ChatResponse(message=ChatMessage("never"))

    @llm_chat_callback()
    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        async def pieces() -> AsyncIterator[ChatResponse]:
            await self._never()
            yield ChatResponse(message=ChatMessage("never"))

        return pieces()


def _cancel(way: str, around: Callable[[Any], Any] = lambda model: model) -> None:
    """Ask, and cancel the question while the model works."""

    async def ask() -> None:
        begun = asyncio.Event()
        asked = around(Slow(begun=begun))
        if way == "astream_chat":
            work = _astream(asked, way)
        else:
            work = getattr(asked, way)("red" if way == "aquery" else MESSAGES)
        task = asyncio.ensure_future(work)
        await asyncio.wait_for(begun.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(ask())


def _fail(work: Callable[[], object], error: type[BaseException] = ConnectionError) -> None:
    with pytest.raises(error, match=r"no route|gone|Budget|price"):
        work()


def _cached(folder: Any, *asked: str) -> None:
    model = CachedEmbedding(MockEmbedding(embed_dim=2), EmbeddingCache(folder / "cache"))
    for text in asked:
        model.get_text_embedding_batch([text])


def _ask(engine: Any) -> None:
    assert str(engine.query("red"))


def _rerank(counts: bool) -> None:
    Judge(counts=counts).postprocess_nodes(
        [NodeWithScore(node=node, score=1.0) for node in NODES], query_bundle=QueryBundle("red")
    )


RETRY = RetryPolicy(first_wait_s=0.0, longest_wait_s=0.0)
# "hi" is a token, a message 4 more, a prompt 3 more; "one two three" has 13 characters, 4 make a token.
SAID = Expected("llm", tokens=(10, 5), source="reported")
GUESSED = Expected("llm", tokens=(1 + 4 + 3, 4), source="estimated")
BROKEN = Expected("llm", status="error")
ONE_PIECE = (1 + 4 + 3, 1)
GIVEN_UP = Expected("llm", status="abandoned", tokens=(2 + 4 + 3, 0), source="estimated")  # "user: hi"
EMBEDDED = Expected("embedding", tokens=(1, 0), source="estimated")
ASKED = [
    Expected("query"),
    Expected("retrieval", "query"),
    Expected("embedding", "retrieval", tokens=(1, 0), source="estimated"),
    Expected("llm", "query", tokens=(10, 5), source="reported"),
]

SEQUENCES: dict[str, Sequence] = {
    # -- one call
    "complete": Sequence(lambda _: Speaking().complete("hi"), [SAID]),
    "complete, usage unknown": Sequence(lambda _: Speaking(report=False).complete("hi"), [GUESSED]),
    "acomplete": Sequence(lambda _: asyncio.run(Speaking().acomplete("hi")), [SAID]),
    "chat over complete": Sequence(lambda _: Speaking().chat(MESSAGES), [SAID]),
    "achat over chat over complete": Sequence(lambda _: asyncio.run(Speaking().achat(MESSAGES)), [SAID]),
    "a call that fails": Sequence(lambda _: _fail(lambda: Speaking(fails=1).complete("hi")), [BROKEN]),
    "a chat that fails below": Sequence(lambda _: _fail(lambda: Speaking(fails=1).chat(MESSAGES)), [BROKEN]),
    # -- streams
    "stream": Sequence(lambda _: list(Speaking().stream_complete("hi")), [SAID]),
    "chat stream over stream": Sequence(lambda _: list(Speaking().stream_chat(MESSAGES)), [SAID]),
    "stream, usage unknown": Sequence(
        lambda _: list(Speaking(report=False).stream_complete("hi")), [GUESSED]
    ),
    "async stream over a sync generator": Sequence(
        lambda _: asyncio.run(_astream(Speaking(), "astream_complete")), [SAID]
    ),
    "async chat stream over a sync generator": Sequence(
        lambda _: asyncio.run(_astream(Speaking(), "astream_chat")), [SAID]
    ),
    "two streams read in turns": Sequence(_interleaved, [SAID, SAID]),
    "two async streams read in turns": Sequence(lambda _: asyncio.run(_ainterleaved()), [SAID, SAID]),
    "a call while a stream is read": Sequence(_asked_meanwhile, [SAID, SAID]),
    "a stream that breaks": Sequence(
        lambda _: _fail(lambda: list(Breaking().stream_complete("hi"))),
        [Expected("llm", status="error", tokens=ONE_PIECE, source="estimated")],
    ),
    "a stream left after a piece": Sequence(
        lambda _: _abandon(Speaking(), 1),
        [Expected("llm", status="abandoned", tokens=ONE_PIECE, source="estimated")],
    ),
    "a stream that is never read": Sequence(
        lambda _: _abandon(Speaking(), 0),
        [Expected("llm", status="abandoned", tokens=(1 + 4 + 3, 0), source="estimated")],
    ),
    # -- calls that are cancelled while the model works
    "a chat that is cancelled": Sequence(lambda _: _cancel("achat"), [GIVEN_UP]),
    "a chat stream that is cancelled": Sequence(lambda _: _cancel("astream_chat"), [GIVEN_UP]),
    "a retried chat that is cancelled": Sequence(
        lambda _: _cancel("achat", lambda model: retrying(model, RETRY)), [GIVEN_UP]
    ),
    "a question that is cancelled": Sequence(
        lambda _: _cancel("aquery", lambda model: engine(model, text_qa_template=PromptTemplate("hi"))),
        [
            Expected("query", status="error"),
            Expected("retrieval", "query"),
            Expected("embedding", "retrieval", tokens=(1, 0), source="estimated"),
            GIVEN_UP._replace(below="query", tokens=(1 + 4 + 3, 0)),
        ],
    ),
    # -- models around models
    "router": Sequence(lambda _: Routing(inner=Speaking()).complete("hi"), [SAID]),
    "router, chat": Sequence(lambda _: Routing(inner=Speaking()).chat(MESSAGES), [SAID]),
    "router, stream": Sequence(lambda _: list(Routing(inner=Speaking()).stream_complete("hi")), [SAID]),
    "router, async chat stream": Sequence(
        lambda _: asyncio.run(_astream(Routing(inner=Speaking()), "astream_chat")), [SAID]
    ),
    "router whose model fails": Sequence(
        lambda _: _fail(lambda: Routing(inner=Speaking(fails=1)).complete("hi")), [BROKEN]
    ),
    "router over a query engine": Sequence(lambda _: Routing(inner=engine(Speaking())).complete("hi"), ASKED),
    # -- retries
    "retry of a model": Sequence(
        lambda _: retrying(Speaking(fails=1), RETRY).complete("hi"), [BROKEN, SAID._replace(attempt=2)]
    ),
    "retry of a stream": Sequence(
        lambda _: list(retrying(Speaking(fails=1), RETRY).stream_complete("hi")),
        [BROKEN, SAID._replace(attempt=2)],
    ),
    "retry of an embedding": Sequence(
        lambda _: retrying(Failing(), RETRY).get_query_embedding("hi"),
        [EMBEDDED],
        rows=[Expected("embedding", status="error"), EMBEDDED._replace(attempt=2)],
    ),
    # -- embeddings
    "a question is embedded": Sequence(lambda _: WordEmbedding().get_query_embedding("hi"), [EMBEDDED]),
    "an embedding that fails": Sequence(
        lambda _: _fail(lambda: Failing().get_query_embedding("hi")), [Expected("embedding", status="error")]
    ),
    "a batch of embeddings": Sequence(
        lambda _: WordEmbedding(embed_batch_size=2).get_text_embedding_batch(["hi"] * 5),
        [EMBEDDED._replace(tokens=(5, 0))],
        rows=[EMBEDDED._replace(tokens=(texts, 0)) for texts in (2, 2, 1)],
    ),
    "a batch that its model counts": Sequence(
        lambda _: Counted(embed_batch_size=2).get_text_embedding_batch(["hi"] * 3),
        [Expected("embedding", tokens=(21, 0), source="counted")],
        rows=[Expected("embedding", tokens=(7 * texts, 0), source="counted") for texts in (2, 1)],
    ),
    "nested embedding": Sequence(
        lambda _: Behind(inner=WordEmbedding()).get_query_embedding("hi"), [EMBEDDED]
    ),
    "nested embedding that fails": Sequence(
        lambda _: _fail(lambda: Behind(inner=Failing()).get_query_embedding("hi")),
        [Expected("embedding", status="error")],
    ),
    "nested embedding in a query": Sequence(
        lambda _: _ask(engine(Speaking(), embed_model=Behind(inner=WordEmbedding()))), ASKED
    ),
    "cache in front, new": Sequence(lambda folder: _cached(folder, "hi"), [EMBEDDED]),
    "cache in front, known": Sequence(
        lambda folder: _cached(folder, "hi", "hi"),
        [EMBEDDED],
        rows=[EMBEDDED, Expected("embedding", tokens=(0, 0), source="counted")],
    ),
    "model loads in a call": Sequence(
        lambda _: Loading().get_query_embedding("hi"), [EMBEDDED, Expected("load", "embedding")]
    ),
    # -- stages
    "rerank": Sequence(lambda _: _rerank(True), [Expected("rerank", tokens=(11, 0), source="counted")]),
    "rerank that says nothing": Sequence(lambda _: _rerank(False), [Expected("rerank")]),
    "query with retrieval": Sequence(lambda _: _ask(engine(Speaking())), ASKED),
    "async query": Sequence(lambda _: asyncio.run(engine(Speaking()).aquery("red")), ASKED),
    # LlamaIndex's synthesizer asks the model when the answer is read, which is after the query.
    "streamed query": Sequence(
        lambda _: _ask(engine(Speaking(), streaming=True)), [*ASKED[:3], ASKED[3]._replace(below="")]
    ),
    "query whose model fails": Sequence(
        lambda _: _fail(lambda: engine(Speaking(fails=1)).query("red")),
        [
            Expected("query", status="error"),
            *ASKED[1:3],
            Expected("llm", "query", status="error"),
        ],
    ),
    # -- budgets
    "a call that a budget refuses": Sequence(
        lambda _: _fail(lambda: Speaking(name="gpt-4o").complete("hi"), BudgetExceededError),
        [Expected("llm", status="refused")],
        budget_usd="0.0000001",
    ),
    "a query whose call a budget refuses": Sequence(
        lambda _: _fail(lambda: engine(Speaking(name="gpt-4o")).query("red"), BudgetExceededError),
        [Expected("query", status="error"), *ASKED[1:3], Expected("llm", "query", status="refused")],
        budget_usd="0.0000001",
    ),
}
