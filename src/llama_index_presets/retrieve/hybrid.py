"""Hybrid search: several retrievers queried at once, their hits fused, each with its provenance."""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.vector_store import VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.prompts import PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQueryMode

from llama_index_presets._options import strict
from llama_index_presets.errors import RetrievalError, SettingsError
from llama_index_presets.events import FusionEvent, LegEndEvent
from llama_index_presets.ranking.fusion import FUSIONS, Fused, fuse
from llama_index_presets.ranking.query_fusion import MODES
from llama_index_presets.ranking.tuning import Choice, Tuning, best_choice
from llama_index_presets.retrieve.bm25.index import BM25Index
from llama_index_presets.retrieve.filtered_query import both_filters, filters_of
from llama_index_presets.retrieve.hybrid_options import (
    check_options,
    checked_weights,
    index_behind,
    named_legs,
)
from llama_index_presets.retrieve.legs import (
    Leg,
    LegExecutor,
    LegResult,
    collect_hits,
    fill_in,
    leg_of,
    run_legs_async,
)
from llama_index_presets.retrieve.query_fusion import (
    OFFICIAL,
    QueryGeneration,
    own_options,
    own_top_k,
)

__all__ = ["HybridFusionRetriever", "tune"]

dispatcher = get_dispatcher(__name__)

OnLegError = Literal["raise", "degrade"]

_CANDIDATES = 100
_FILLED = ("auto",)
"""Fusions that are given every leg's score of every candidate."""

_INDEX_TRUST = 2.0
"""Weight of a `BM25Index` in ``"auto"``, beside 1 for a leg of another kind; decision 0145 says how it was chosen."""


_USUAL = {"top_k": 10, "weights": None, "fusion": "auto"}


@strict(also=OFFICIAL)
class HybridFusionRetriever(BaseRetriever):
    """Hybrid retriever: asks a vector and a keyword retriever at once, and fuses their hits into one ranking.

    Hits are `RankedNode`s: `stages` holds each leg's rank and score and those of the fusion, beside the node,
    so that neither prompt nor hash sees them. Retrievers, queries and nodes that are given are never changed:
    each leg works on a copy of the retriever and of the query. Nodes are the same when their ids are.

    Scores are those of the fusion, higher is better: in [0, 1] for all but ``"rrf"``.

    Thread safe.

    Args:
        vector: A retriever by meaning, such as ``index.as_retriever()``; its scores are taken for cosines. Or a list of
            retrievers of any kind, as `QueryFusionRetriever` takes; each then gives as many hits as it is made for,
            unless `candidates` says otherwise.
        keyword: A `BM25Index`, or a retriever by words.
        more: Further legs by name.
        fusion: ``"auto"``, which asks how far each node is from a perfect match on each leg; or another name in
            `ranking.fusion.FUSIONS`, or a mode of `QueryFusionRetriever`, with its numbers (`ranking.query_fusion`).
        weights: One number >= 0 for each leg in order; None means 1 each. With ``"auto"`` a `BM25Index` counts twice
            as much, see `explain`.
        top_k: How many hits are returned, >= 1.
        candidates: How many hits each leg is asked for, >= 1; None means 100.
        filters: What hits must satisfy, on every leg; a `FilteredQuery` or `with_filters` can narrow them
            further.
        on_leg_error: ``"raise"``, or ``"degrade"`` to answer with the legs that work; then
            `RankedNode.degraded` and `FusionEvent.degraded` name those that failed.
        timeout_s: Seconds that each leg has, None for no limit.
        hyde: Whether ``llm`` writes a passage that would answer the question, whose vector is averaged with the
            question's.
        question_filters: Whether conditions such as "in 2023" and "by Smith" in a question become filters, where the
            nodes of the `BM25Index` have such metadata; see `retrieve.question_filters`.
        **options: What `BaseRetriever` takes, such as `callback_manager`, and the names of `QueryFusionRetriever`:
            ``retrievers`` is the list, ``similarity_top_k`` `top_k`, ``retriever_weights`` are `weights`, ``mode`` is
            `fusion`. ``num_queries`` above 1 has ``llm`` write further queries, by ``query_gen_prompt``; it is 1 by
            default, so that no model is asked unseen. ``use_async`` changes nothing: legs are always asked at once.

    Raises:
        SettingsError: A setting is out of range or is given twice with two values, or a leg takes no filters.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> nodes = [TextNode(id_="a", text="red fish"), TextNode(id_="b", text="blue fish")]
        >>> words = BM25Index.from_nodes(nodes)
        >>> hybrid = HybridFusionRetriever(words.as_retriever(), words)
        >>> hit = hybrid.retrieve("red")[0]
        >>> hit.node.node_id, hit.stages["bm25"].rank
        ('a', 1)
    """

    def __init__(
        self,
        vector: BaseRetriever | Sequence[BaseRetriever] | None = None,
        keyword: BaseRetriever | BM25Index | None = None,
        *,
        more: Mapping[str, BaseRetriever] | None = None,
        fusion: str = "auto",
        weights: Sequence[float] | None = None,
        top_k: int = 10,
        candidates: int | None = None,
        filters: MetadataFilters | None = None,
        on_leg_error: OnLegError = "raise",
        timeout_s: float | None = None,
        hyde: bool = False,
        question_filters: bool = False,
        **options: Any,
    ) -> None:
        official = {name: options.pop(name, None) for name in OFFICIAL}
        own = own_options({"top_k": top_k, "weights": weights, "fusion": fusion}, official, _USUAL)
        super().__init__(**options)
        check_options(own["fusion"], own["top_k"], candidates, on_leg_error, timeout_s)
        self.fusion: str = own["fusion"]
        self.top_k: int = own["top_k"]
        self.on_leg_error = on_leg_error
        self.timeout_s = timeout_s
        self.filters = filters
        self.generation = QueryGeneration.of(official, options.get("callback_manager"), hyde=hyde)
        named = named_legs(vector, keyword, official["retrievers"])
        listed = keyword is None
        self.candidates = max(candidates or _CANDIDATES, self.top_k)
        self.legs = [
            leg_of(name, leg, own_top_k(leg) if listed and candidates is None else self.candidates)
            for name, leg in {**named, **(more or {})}.items()
        ]
        behind = map(index_behind, named.values())
        self.keyword_index = next((index for index in behind if index is not None), None)
        if question_filters and self.keyword_index is None:
            raise SettingsError("question_filters reads the metadata of a BM25Index; give one as keyword=.")
        self.question_filters = question_filters
        self.weights = checked_weights(own["weights"], self.legs)
        self._pool = LegExecutor()
        for leg in self.legs:
            leg.filtered(filters)  # Better to fail here than at the first query.

    @classmethod
    def from_index(
        cls,
        index: VectorStoreIndex,
        *,
        keyword: BaseRetriever | BM25Index | Literal["bm25", "store"] = "bm25",
        **settings: Any,
    ) -> HybridFusionRetriever:
        """Wire a hybrid search to an index on any store.

        Args:
            index: Gives the vector leg.
            keyword: ``"bm25"`` reads all nodes of the index into a `BM25Index` in memory, now: keep it, as
                `keyword_index`, in step with later changes (`BM25Index.transaction`, `check_consistency`), or build
                one yourself, on disk, and pass it. ``"store"`` uses the store's own text search.
            **settings: What the constructor takes.

        Raises:
            RetrievalError: The store cannot list its nodes.
            SettingsError: `keyword` is another string, or `index` is no index.
        """
        if not callable(getattr(index, "as_retriever", None)):
            raise SettingsError(
                f"from_index takes an index, not a {type(index).__name__}. Over a store give "
                "VectorStoreIndex.from_vector_store(store), and two retrievers to HybridFusionRetriever itself."
            )
        vector = index.as_retriever()
        if keyword == "bm25":
            return cls(vector, BM25Index.from_source(index), **settings)
        if keyword == "store":
            mode = VectorStoreQueryMode.TEXT_SEARCH
            return cls(vector, index.as_retriever(vector_store_query_mode=mode, sparse_top_k=1), **settings)
        if isinstance(keyword, str):
            raise SettingsError(f"keyword is '{keyword}'; choose 'bm25' or 'store', or pass a BM25Index.")
        return cls(vector, keyword, **settings)

    def with_filters(self, filters: MetadataFilters | None) -> HybridFusionRetriever:
        """The same search with further filters, on every leg; cheap enough to call for each query.

        Raises:
            SettingsError: A leg takes no filters.
        """
        narrowed = copy.copy(self)
        narrowed.filters = both_filters(self.filters, filters)
        for leg in self.legs:
            leg.filtered(narrowed.filters)
        return narrowed

    def tuned_to(self, fusion: str, weights: Sequence[float] | None = None) -> HybridFusionRetriever:
        """The same search with another fusion.

        Raises:
            SettingsError: No such fusion, or the weights do not fit the legs.
        """
        check_options(fusion, self.top_k, self.candidates, self.on_leg_error, self.timeout_s)
        tuned = copy.copy(self)
        tuned.fusion, tuned.weights = fusion, checked_weights(weights, self.legs)
        return tuned

    # -- what QueryFusionRetriever has by other names -------------------------------------------------------

    @property
    def similarity_top_k(self) -> int:
        """The official name of `top_k`."""
        return self.top_k

    @similarity_top_k.setter
    def similarity_top_k(self, value: int) -> None:
        self.top_k, self.candidates = value, max(self.candidates, value)

    @property
    def mode(self) -> str:
        """The official name of `fusion`."""
        return self.fusion

    @property
    def num_queries(self) -> int:
        """How many queries are asked, the caller's own included."""
        return self.generation.num_queries

    @property
    def use_async(self) -> bool:
        """True: legs are always asked at once."""
        return True

    @property
    def query_gen_prompt(self) -> str:
        """Template by which further queries are written."""
        return self.generation.template

    def _get_prompts(self) -> PromptDictType:
        return {"query_gen_prompt": PromptTemplate(self.query_gen_prompt)} if self.num_queries > 1 else {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if "query_gen_prompt" in prompts:
            self.generation = replace(
                self.generation, prompt=prompts["query_gen_prompt"].get_template(llm=self.generation.llm)
            )

    # -- one query ----------------------------------------------------------------------------------------

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        filters = self._filters_for(query_bundle)
        legs = self._legs(filters)
        queries = self.generation.queries(query_bundle)
        outcomes = [one for query in queries for one in self._pool.run(legs, query, self.timeout_s)]
        return self._fused(outcomes, self._filled(outcomes), filters)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        filters = await asyncio.to_thread(self._filters_for, query_bundle)
        legs = self._legs(filters)
        queries = await self.generation.aqueries(query_bundle)
        asked = await asyncio.gather(*(run_legs_async(legs, query, self.timeout_s) for query in queries))
        outcomes = [one for answers in asked for one in answers]
        filled = await asyncio.to_thread(self._filled, outcomes)
        return self._fused(outcomes, filled, filters)

    def ask_legs(self, query: QueryBundle) -> list[LegResult]:
        """Answers of each leg before fusion, for tuning and debugging.

        Raises:
            RetrievalError: A leg failed, and `on_leg_error` is ``"raise"``, or all failed.
        """
        filters = self._filters_for(query)
        return fill_in(self._answered(self._pool.run(self._legs(filters), query, self.timeout_s)))

    def _filters_for(self, query: QueryBundle) -> MetadataFilters | None:
        """Filters of the retriever and of the query, and what the question itself says."""
        given = both_filters(self.filters, filters_of(query))
        if not self.question_filters or self.keyword_index is None:
            return given
        return both_filters(given, self.keyword_index.filters_in(query.query_str, given))

    def _legs(self, filters: MetadataFilters | None) -> list[Leg]:
        return [leg.filtered(filters) for leg in self.legs]

    def _filled(self, outcomes: Sequence[LegResult]) -> list[LegResult]:
        """Legs that answered, with the scores that the fusion needs."""
        for outcome in outcomes:
            dispatcher.event(_leg_event(outcome))
        answered = self._answered(outcomes)
        return fill_in(answered) if self.fusion in _FILLED and len(answered) > 1 else answered

    def _fused(
        self,
        outcomes: Sequence[LegResult],
        answered: Sequence[LegResult],
        filters: MetadataFilters | None,
    ) -> list[NodeWithScore]:
        failed = tuple(dict.fromkeys(outcome.leg.name for outcome in outcomes if outcome.found is None))
        began = time.perf_counter()
        ranking = self.rank(answered)
        hits = collect_hits(ranking, answered, self.top_k, filters, failed)
        dispatcher.event(
            FusionEvent(
                fusion=self.fusion,
                legs=list(dict.fromkeys(outcome.leg.name for outcome in answered)),
                degraded=list(failed),
                candidates=len(ranking),
                hits=len(hits),
                latency_ms=(time.perf_counter() - began) * 1000,
            )
        )
        return hits

    def _answered(self, outcomes: Sequence[LegResult]) -> list[LegResult]:
        """Legs that answered; raises where all must, or none did."""
        answered = [outcome for outcome in outcomes if outcome.found is not None]
        broken = next((outcome for outcome in outcomes if outcome.error is not None), None)
        if broken is not None and (self.on_leg_error == "raise" or not answered):
            hint = "All legs failed." if not answered else "Pass on_leg_error='degrade' to do without it."
            raise RetrievalError(
                f"Leg '{broken.leg.name}' ({type(broken.leg.retriever).__name__}) failed: "
                f"{type(broken.error).__name__}: {broken.error} {hint}"
            ) from broken.error
        return answered

    @dispatcher.span
    def rank(self, answered: Sequence[LegResult]) -> Fused:
        """Fuse the rankings of the legs that answered."""
        legs = [outcome.leg for outcome in answered]
        rankings = [
            outcome.scores if self.fusion in _FILLED else outcome.found.pairs
            for outcome in answered
            if outcome.found is not None
        ]
        if self.fusion in MODES:
            given = {leg.name: weight for leg, weight in zip(self.legs, self.weights, strict=True)}
            return MODES[self.fusion](rankings, weights=[given[leg.name] for leg in legs])
        shares = self.shares()
        parameters: dict[str, Any] = {}
        if self.fusion in ("auto", "confidence", "convex"):
            parameters["floors"] = [leg.floor for leg in legs]
        if self.fusion == "auto":
            parameters["ceilings"] = [outcome.ceiling for outcome in answered]
        if self.fusion == "confidence":
            parameters |= {"ceilings": [leg.ceiling for leg in legs], "depth": self.candidates}
        return fuse(self.fusion, rankings, weights=[shares[leg.name] for leg in legs], **parameters)

    def shares(self) -> dict[str, float]:
        """Leg name -> share of the fused score that it decides, in [0, 1]; they sum up to 1."""
        by_words = {leg.name for leg in self.legs if index_behind(leg.retriever) is not None}
        known = {
            leg.name: weight * (_INDEX_TRUST if self.fusion == "auto" and leg.name in by_words else 1)
            for leg, weight in zip(self.legs, self.weights, strict=True)
        }
        total = math.fsum(known.values())
        return {name: weight / total for name, weight in known.items()}

    def explain(self) -> dict[str, Any]:
        """How hits are fused, as JSON values: method, legs with their shares, candidates of each."""
        return {
            "method": self.fusion,
            "function": {**FUSIONS, **MODES}[self.fusion].__name__,
            "shares": {name: round(share, 4) for name, share in self.shares().items()},
            "candidates": self.candidates,
            "missing_scores": "asked for" if self.fusion in _FILLED else "0",
            "queries": self.num_queries,
            "hyde": self.generation.hyde,
            "question_filters": self.question_filters,
        }


def _leg_event(outcome: LegResult) -> LegEndEvent:
    return LegEndEvent(
        leg=outcome.leg.name,
        retriever=type(outcome.leg.retriever).__name__,
        hits=len(outcome.found.pairs) if outcome.found is not None else 0,
        latency_ms=outcome.latency_ms,
        error=type(outcome.error).__name__ if outcome.error is not None else None,
    )


_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)


def tune(
    hybrid: HybridFusionRetriever,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, float]],
    *,
    k: int = 10,
    folds: int = 5,
) -> Tuning:
    """Find the best fusion and weights on labelled queries, by cross-validation.

    Each query is asked once; the retriever itself is not changed: use ``hybrid.tuned_to(result.best.fusion,
    result.best.weights)``.

    Args:
        hybrid: The retriever.
        queries: query id -> text.
        qrels: query id -> (node id -> grade, > 0 where it is relevant).
        k: nDCG looks at the first k hits.
        folds: In how many parts the queries are divided.

    Raises:
        RankingError: There are fewer labelled queries than folds.
    """
    answers: dict[str, Sequence[LegResult]] = {
        name: hybrid.ask_legs(QueryBundle(text)) for name, text in queries.items() if name in qrels
    }

    def fuse_with(choice: Choice, query: str) -> Fused:
        return hybrid.tuned_to(choice.fusion, choice.weights).rank(answers[query])

    wanted = {name: qrels[name] for name in answers}
    default = Choice(hybrid.fusion, tuple(hybrid.weights))
    return best_choice(_choices(len(hybrid.legs)), default, fuse_with, wanted, k=k, folds=folds)


def _choices(legs: int) -> list[Choice]:
    """Every fusion with equal weights, and with the first leg's share varied."""
    shares = (
        [((share, *[(1 - share) / (legs - 1)] * (legs - 1))) for share in _SHARES] if legs > 1 else [(1.0,)]
    )
    return [Choice(fusion, tuple(weights)) for fusion in FUSIONS for weights in shares]
