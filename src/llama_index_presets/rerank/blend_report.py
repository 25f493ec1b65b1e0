"""Blend report: nDCG@k of labelled queries without a reranker and at each blend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.ranking.ndcg import ndcg
from llama_index_presets.rerank.scoring import blended, normalized

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

__all__ = ["BLENDS", "JudgedQuery", "ProbabilityScorer", "judge", "ndcg_by_blend"]

BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the retrieval score that are compared; 1 is the retrieval order itself."""


class ProbabilityScorer(Protocol):
    """Protocol of rerankers that `judge` needs; `CrossEncoderRerank` has it."""

    def probabilities(self, query: str, nodes: Sequence[NodeWithScore]) -> list[float]:
        """A score in [0, 1] for each node, higher is better, in the order given."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedQuery:
    """One labelled query with its candidates, in retrieval order.

    Attributes:
        relevance: Id -> grade, > 0 is relevant; an id that is absent is not. Ids that retrieval missed
            belong here too: the ideal ranking has them.
        ids: Ids of the candidates, best first. When an id comes twice (two chunks of a document), its
            first place in a ranking counts.
        retrieval: The retriever's score of each.
        probability: The reranker's score of each, in [0, 1].
    """

    relevance: Mapping[str, float]
    ids: tuple[str, ...]
    retrieval: tuple[float, ...]
    probability: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.retrieval) == len(self.probability):
            raise SettingsError(
                f"A judged query has {counted(len(self.ids), 'id')}, "
                f"{counted(len(self.retrieval), 'retrieval score')} and "
                f"{counted(len(self.probability), 'probability')}; expected one of each for every candidate."
            )


def judge(
    reranker: ProbabilityScorer, query: str, hits: Sequence[NodeWithScore], relevance: Mapping[str, float]
) -> JudgedQuery:
    """Score the candidates of one labelled query, once, for every blend.

    Args:
        reranker: A `CrossEncoderRerank`.
        query: What was asked.
        hits: Candidates as the retriever gave them, best first, each with a score.
        relevance: Node id or document id -> grade.
    """
    ids = tuple(_judged_id(hit, relevance) for hit in hits)
    scores = tuple(math.nan if hit.score is None else hit.score for hit in hits)
    probability = tuple(reranker.probabilities(query, hits))
    return JudgedQuery(relevance=relevance, ids=ids, retrieval=scores, probability=probability)


def ndcg_by_blend(
    judged: Iterable[JudgedQuery], *, blends: Sequence[float] = BLENDS, k: int = 10
) -> dict[float, float]:
    """Mean nDCG@k over the queries for each blend, in [0, 1], higher is better.

    Blend 1 is the retrieval order and blend 0 the reranker alone, exactly as `CrossEncoderRerank` orders.

    Args:
        judged: Labelled queries; one without any relevant id is left out.
        blends: Weights of the retrieval score, each in [0, 1].
        k: Depth of the measure.

    Raises:
        SettingsError: No query has a relevant id, or a blend is out of range.

    Example:
        >>> query = JudgedQuery(
        ...     relevance={"b": 1}, ids=("a", "b"), retrieval=(0.9, 0.8), probability=(0.1, 0.7)
        ... )
        >>> ndcg_by_blend([query], blends=(0.0, 1.0))
        {0.0: 1.0, 1.0: 0.6309297535714575}
    """
    labelled = [query for query in judged if any(grade > 0 for grade in query.relevance.values())]
    if not labelled:
        raise SettingsError("No query has a relevant id. Pass judgments with at least one grade > 0.")
    for blend in blends:
        if not 0 <= blend <= 1:
            raise SettingsError(f"blend is {blend}; expected a number from 0 to 1.")
    return {
        blend: math.fsum(ndcg(_order(query, blend), query.relevance, k) for query in labelled) / len(labelled)
        for blend in blends
    }


def _order(query: JudgedQuery, blend: float) -> list[str]:
    retrieval = normalized(query.retrieval) if blend else [0.0] * len(query.ids)
    final = [blended(p, score, blend) for p, score in zip(query.probability, retrieval, strict=True)]
    return [query.ids[place] for place in sorted(range(len(final)), key=lambda place: -final[place])]


def _judged_id(hit: NodeWithScore, relevance: Mapping[str, float]) -> str:
    node_id = hit.node.node_id
    document = getattr(hit.node, "ref_doc_id", None)
    return node_id if node_id in relevance or not document else str(document)
