"""Legs of a hybrid search: a retriever asked for candidates, its score range, and the threads that run it."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.vector_store import VectorIndexRetriever
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQueryMode,
)
from llama_index_instrumentation.dispatcher import active_instrument_tags, instrument_tags

from llama_index_presets.counting import counted
from llama_index_presets.errors import RetrievalError, SettingsError
from llama_index_presets.filters import filterable_metadata, predicate
from llama_index_presets.provenance import FUSION, VECTOR, RankedNode, StageRank
from llama_index_presets.ranking.fusion import Fused
from llama_index_presets.retrieve.bm25.retriever import KeywordHits, KeywordRetriever
from llama_index_presets.retrieve.filtered_query import both_filters
from llama_index_presets.retrieve.node_scores import ScoreIds, query_mode, scorer_of

__all__ = [
    "Candidates",
    "Leg",
    "LegExecutor",
    "LegResult",
    "collect_hits",
    "copied_query",
    "fill_in",
    "leg_of",
    "run_legs_async",
]

_log = logging.getLogger(__name__)

_TOP_KS = ("_similarity_top_k", "similarity_top_k", "top_k", "_sparse_top_k", "sparse_top_k")
_TEXT_MODES = (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
_FILTERS = ("_filters", "filters")


class Candidates(Protocol):
    """Candidates of a leg: ids and scores now, nodes when they are wanted."""

    @property
    def pairs(self) -> list[tuple[str, float]]:
        """(node id, score), best first."""

    def nodes(self, ids: Iterable[str] | None = None) -> dict[str, BaseNode]:
        """Nodes by id; one that is gone is absent."""


class Hits:
    """`Candidates` of a retriever that gives its nodes at once.

    Args:
        hits: Best first; of two hits of one node the first counts.
        scorer: Gives the scores of other nodes; None where they cannot be told.
    """

    def __init__(self, hits: list[NodeWithScore], scorer: ScoreIds | None = None) -> None:
        self._scorer = scorer
        self._by_id: dict[str, NodeWithScore] = {}
        for hit in hits:
            self._by_id.setdefault(hit.node.node_id, hit)
        # A retriever may leave scores out; only the methods that read them will complain.
        self.pairs: list[tuple[str, float]] = [
            (name, hit.score)  # type: ignore[misc]
            for name, hit in self._by_id.items()
        ]

    def nodes(self, ids: Iterable[str] | None = None) -> dict[str, BaseNode]:
        """Nodes by id."""
        names = self._by_id if ids is None else ids
        return {name: self._by_id[name].node for name in names}

    def scores_of(self, ids: Sequence[str]) -> dict[str, float]:
        """Scores of nodes that are not among the hits, by id; those that cannot be told are absent."""
        return self._scorer(ids) if self._scorer is not None else {}

    def history(self, node_id: str) -> dict[str, StageRank]:
        """What stages inside the leg said of a node."""
        hit = self._by_id[node_id]
        return hit.stages if isinstance(hit, RankedNode) else {}


@dataclass(frozen=True, slots=True, eq=False)
class Leg:
    """Leg: a retriever and the meaning of its scores.

    Attributes:
        name: Stage name of its ranks.
        retriever: Gives candidates, best first.
        candidates: How many are taken.
        floor: Score of a node that has nothing of the query, where known.
        ceiling: Score of a perfect match, where known.
    """

    name: str
    retriever: BaseRetriever
    candidates: int
    floor: float | None = None
    ceiling: float | None = None

    @property
    def quick(self) -> bool:
        """Whether the leg answers from memory in less time than a thread takes to start."""
        return isinstance(self.retriever, KeywordRetriever)

    def filtered(self, filters: MetadataFilters | None) -> Leg:
        """The same leg with further filters; the retriever itself is not changed.

        Raises:
            SettingsError: The retriever takes no filters.
        """
        if filters is None:
            return self
        retriever = copy.copy(self.retriever)
        for attribute in _FILTERS:
            if hasattr(retriever, attribute):
                setattr(retriever, attribute, both_filters(getattr(retriever, attribute), filters))
                return replace(self, retriever=retriever)
        raise SettingsError(
            f"Leg '{self.name}' is a {type(retriever).__name__}, which takes no metadata filters. Use a leg with "
            "a `filters` attribute, such as index.as_retriever(...) or BM25Index.as_retriever(...)."
        )

    def run(self, query: QueryBundle) -> Candidates:
        """Ask the retriever, on a copy of the query."""
        own = copied_query(query)
        with self._tagged():
            if isinstance(self.retriever, KeywordRetriever):
                return self.retriever.find(own, self.candidates)
            return Hits(self.retriever.retrieve(own)[: self.candidates], scorer_of(self.retriever, own))

    async def arun(self, query: QueryBundle) -> Candidates:
        """Like `run`, without blocking the event loop."""
        if isinstance(self.retriever, KeywordRetriever) or _blocks(self.retriever):
            return await asyncio.to_thread(self.run, query)
        own = copied_query(query)
        with self._tagged():
            await _embed(self.retriever, own)
            hits = await self.retriever.aretrieve(own)
        return Hits(hits[: self.candidates], scorer_of(self.retriever, own))

    def _tagged(self) -> AbstractContextManager[None]:
        """Tag every span and event inside with the leg's name."""
        return instrument_tags({**active_instrument_tags.get(), "leg": self.name})


def leg_of(name: str, retriever: BaseRetriever, candidates: int) -> Leg:
    """Make a leg of a copy of a retriever that gives as many candidates as are wanted.

    A retriever without a known top-k setting keeps its own. Cosine has a ceiling of 1, keyword scores a floor
    of 0; nothing is assumed of the scores of other retrievers, but that the leg ``"vector"`` gives cosines, and that
    one with an attribute ``ceiling`` says what a perfect match scores.
    """
    asked = copy.copy(retriever)
    for attribute in _TOP_KS:
        if getattr(asked, attribute, None) is not None:
            setattr(asked, attribute, candidates)
    mode = query_mode(asked)
    by_words = isinstance(asked, KeywordRetriever) or mode in _TEXT_MODES
    cosine = mode == VectorStoreQueryMode.DEFAULT or (mode is None and name == VECTOR)
    ceiling = 1.0 if cosine else getattr(asked, "ceiling", None)
    return Leg(name, asked, candidates, floor=0.0 if by_words else None, ceiling=ceiling)


def copied_query(query: QueryBundle) -> QueryBundle:
    """Copy of a query for one leg: an embedding that the leg writes on it stays there."""
    own = copy.copy(query)
    own.custom_embedding_strs = list(query.custom_embedding_strs) if query.custom_embedding_strs else None
    return own


async def _embed(retriever: BaseRetriever, query: QueryBundle) -> None:
    """Embed a query where the retriever would, and forget the vector afterwards."""
    if not isinstance(retriever, VectorIndexRetriever) or not retriever._needs_embedding():
        return
    if query.embedding is None and query.embedding_strs:
        model = retriever._embed_model
        query.embedding = await model.aget_agg_embedding_from_queries(query.embedding_strs)


def _blocks(retriever: BaseRetriever) -> bool:
    """Whether `aretrieve` would run the search on the event loop itself."""
    if type(retriever)._aretrieve is BaseRetriever._aretrieve:
        return True
    store = retriever._vector_store if isinstance(retriever, VectorIndexRetriever) else None
    return store is not None and type(store).aquery is BasePydanticVectorStore.aquery


# -- running the legs -----------------------------------------------------------------------------------------


_THREADS = 32

_ONE_MORE_WORD = 5.0
"""Inverse document frequency of a word that one node in 150 holds."""


@dataclass(frozen=True, slots=True, eq=False)
class LegResult:
    """Result of a leg: candidates, or an error.

    Attributes:
        leg: The leg.
        found: Its candidates; None when it failed.
        error: How it failed, or None.
        latency_ms: From the start of the search until the leg was over, in milliseconds.
        filled: Scores of nodes that only other legs found, by id; see `fill_in`.
    """

    leg: Leg
    found: Candidates | None
    error: Exception | None
    latency_ms: float
    filled: Mapping[str, float] = field(default_factory=dict)

    @property
    def scores(self) -> list[tuple[str, float]]:
        """(node id, score) of its candidates, best first, then of what was filled in."""
        return [*_pairs(self), *self.filled.items()]

    @property
    def ceiling(self) -> float | None:
        """Score of a perfect match for this query, where known.

        For words that is the score of a node that holds all of them and `_ONE_MORE_WORD`: a few common words are
        easily all held, and say little.
        """
        words = getattr(self.found, "ceiling", None)
        return self.leg.ceiling if words is None else words + _ONE_MORE_WORD


class LegExecutor:
    """Threads for the legs of one retriever; started when first needed, thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def __deepcopy__(self, memo: dict[int, object]) -> LegExecutor:
        return LegExecutor()

    def __reduce__(self) -> tuple[type[LegExecutor], tuple[()]]:
        return LegExecutor, ()

    def run(self, legs: Sequence[Leg], query: QueryBundle, timeout_s: float | None) -> list[LegResult]:
        """Run all legs at once, quick ones and one more in the calling thread.

        Quick legs go first: two threads that both compute in Python would wait for each other's turns, of 5
        ms each, and take far longer than one after the other.

        Args:
            legs: At least one.
            query: Each leg gets a copy.
            timeout_s: Seconds that each leg has, None for no limit. A leg that is late goes on in its thread,
                and its answer is thrown away.

        Returns:
            One outcome for each leg, in their order.
        """
        started = time.perf_counter()
        done = {leg.name: _outcome(leg, query, started) for leg in legs if leg.quick}
        slow = [leg for leg in legs if not leg.quick]
        here = slow[-1:] if timeout_s is None else []
        away = [(leg, self._submit(leg, query, started)) for leg in slow[: len(slow) - len(here)]]
        done |= {leg.name: _outcome(leg, query, started) for leg in here}
        done |= {leg.name: _awaited(leg, future, started, timeout_s) for leg, future in away}
        return [done[leg.name] for leg in legs]

    def _submit(self, leg: Leg, query: QueryBundle, started: float) -> Future[LegResult]:
        if self._process != os.getpid():  # the threads stayed with the parent, and maybe one held the lock
            self.__init__()  # type: ignore[misc]
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="hybrid-leg")
        # Spans and tags of the caller live in the context.
        return self._pool.submit(contextvars.copy_context().run, _outcome, leg, query, started)


async def run_legs_async(legs: Sequence[Leg], query: QueryBundle, timeout_s: float | None) -> list[LegResult]:
    """Run all legs at once on the event loop, quick ones first (see `LegExecutor.run`); a late one is cancelled."""
    started = time.perf_counter()
    done: dict[str, LegResult] = {}
    for group in ([leg for leg in legs if leg.quick], [leg for leg in legs if not leg.quick]):
        outcomes = await asyncio.gather(*(_outcome_async(leg, query, started, timeout_s) for leg in group))
        done |= {outcome.leg.name: outcome for outcome in outcomes}
    return [done[leg.name] for leg in legs]


def _outcome(leg: Leg, query: QueryBundle, started: float) -> LegResult:
    try:
        found = leg.run(query)
    except Exception as error:
        return LegResult(leg, None, error, _since(started))
    return LegResult(leg, found, None, _since(started))


def _awaited(leg: Leg, future: Future[LegResult], started: float, timeout_s: float | None) -> LegResult:
    left = None if timeout_s is None else max(0.0, timeout_s - (time.perf_counter() - started))
    try:
        return future.result(left)
    except TimeoutError:
        future.cancel()
        return LegResult(leg, None, _late(leg, timeout_s), _since(started))


async def _outcome_async(leg: Leg, query: QueryBundle, started: float, timeout_s: float | None) -> LegResult:
    try:
        found = await asyncio.wait_for(leg.arun(query), timeout_s)
    except Exception as error:
        late = isinstance(error, TimeoutError) and timeout_s is not None
        return LegResult(leg, None, _late(leg, timeout_s) if late else error, _since(started))
    return LegResult(leg, found, None, _since(started))


def _late(leg: Leg, timeout_s: float | None) -> RetrievalError:
    return RetrievalError(
        f"Leg '{leg.name}' did not answer within {timeout_s} s. Raise timeout_s, or pass on_leg_error='degrade'."
    )


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


# -- scores of nodes that only other legs found ---------------------------------------------------------------


def fill_in(outcomes: Sequence[LegResult]) -> list[LegResult]:
    """The same results, each with the scores of the nodes that only other legs found, where the leg can tell them.

    A keyword index has them in memory; a vector store is asked once, for these ids. A leg that cannot tell leaves them
    out; one whose store refuses is logged.

    Args:
        outcomes: Of the legs that answered.
    """
    union = dict.fromkeys(name for outcome in outcomes for name, _ in _pairs(outcome))
    return [replace(outcome, filled=_scores_of(outcome, union)) for outcome in outcomes]


def _scores_of(outcome: LegResult, names: Iterable[str]) -> Mapping[str, float]:
    own = {name for name, _ in _pairs(outcome)}
    missing = [name for name in names if name not in own]
    if not missing or not isinstance(outcome.found, KeywordHits | Hits):
        return {}
    try:
        return outcome.found.scores_of(missing)
    except Exception as error:
        _log.warning(
            "Leg '%s' could not score %s of other legs (%s: %s); they count as not found by it.",
            outcome.leg.name,
            counted(len(missing), "node"),
            type(error).__name__,
            error,
        )
        return {}


# -- hits -----------------------------------------------------------------------------------------------------


def collect_hits(
    ranking: Fused,
    outcomes: Sequence[LegResult],
    top_k: int,
    filters: MetadataFilters | None,
    degraded: tuple[str, ...],
) -> list[NodeWithScore]:
    """The best `top_k` of a ranking as hits.

    Nodes are read only for hits that are returned. One that no leg can give any more, or that does not
    satisfy the filters although its leg let it pass, makes room for the next.

    Args:
        ranking: (id, score) pairs, best first.
        outcomes: The legs that answered.
        top_k: How many hits at most.
        filters: What hits must satisfy.
        degraded: Names of the legs that failed.
    """
    places = [{name: place for place, (name, _) in enumerate(_pairs(outcome))} for outcome in outcomes]
    test = None if filters is None else predicate(filters)
    hits: list[NodeWithScore] = []
    start = 0
    while len(hits) < top_k and start < len(ranking):
        wanted = ranking[start : start + top_k]
        nodes = _nodes([name for name, _ in wanted], outcomes, places)
        for name, score in wanted:
            node = nodes.get(name)
            if node is not None and (test is None or test(filterable_metadata(node))):
                stages = _stages(name, outcomes, places)
                stages[FUSION] = StageRank(len(hits) + 1, score)
                hits.append(RankedNode(node=node, score=score, stages=stages, degraded=degraded))
        start += top_k
    return hits[:top_k]


def _pairs(outcome: LegResult) -> list[tuple[str, float]]:
    return outcome.found.pairs if outcome.found is not None else []


def _nodes(
    names: Sequence[str], outcomes: Sequence[LegResult], places: Sequence[dict[str, int]]
) -> dict[str, BaseNode]:
    """Nodes by id, from the first leg that holds each; legs that gave their nodes at once are asked first."""
    found: dict[str, BaseNode] = {}
    given = [(outcome.found, own) for outcome, own in zip(outcomes, places, strict=True) if outcome.found]
    for candidates, own in sorted(given, key=lambda pair: not isinstance(pair[0], Hits)):
        missing = [name for name in names if name not in found and name in own]
        if missing:
            found.update(candidates.nodes(missing))
    return found


def _stages(
    name: str, outcomes: Sequence[LegResult], places: Sequence[dict[str, int]]
) -> dict[str, StageRank]:
    """What each leg, and the stages inside it, said of a node."""
    stages: dict[str, StageRank] = {}
    seen: set[str] = set()
    for outcome, own in zip(outcomes, places, strict=True):
        if name in own and outcome.leg.name not in seen:  # of several queries, the caller's own comes first
            seen.add(outcome.leg.name)
            if isinstance(outcome.found, Hits):
                stages.update(outcome.found.history(name))
            place = own[name]
            stages[outcome.leg.name] = StageRank(place + 1, _pairs(outcome)[place][1])
    return stages
