"""From a fused ranking of ids to hits with nodes and history."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core.schema import BaseNode, NodeWithScore
from llama_index.core.vector_stores.types import MetadataFilters

from llama_index_presets.filters import filterable_metadata, predicate
from llama_index_presets.provenance import RankedNode, StageRank
from llama_index_presets.ranking.fusion import Fused
from llama_index_presets.retrieve.legs import Hits
from llama_index_presets.retrieve.running import Outcome

__all__ = ["assemble"]


def assemble(
    ranking: Fused,
    outcomes: Sequence[Outcome],
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
                stages["fusion"] = StageRank(len(hits) + 1, score)
                hits.append(RankedNode(node=node, score=score, stages=stages, degraded=degraded))
        start += top_k
    return hits[:top_k]


def _pairs(outcome: Outcome) -> list[tuple[str, float]]:
    return outcome.found.pairs if outcome.found is not None else []


def _nodes(
    names: Sequence[str], outcomes: Sequence[Outcome], places: Sequence[dict[str, int]]
) -> dict[str, BaseNode]:
    """Nodes by id, from the first leg that holds each; legs that gave their nodes at once are asked first."""
    found: dict[str, BaseNode] = {}
    given = [(outcome.found, own) for outcome, own in zip(outcomes, places, strict=True) if outcome.found]
    for candidates, own in sorted(given, key=lambda pair: not isinstance(pair[0], Hits)):
        missing = [name for name in names if name not in found and name in own]
        if missing:
            found.update(candidates.nodes(missing))
    return found


def _stages(name: str, outcomes: Sequence[Outcome], places: Sequence[dict[str, int]]) -> dict[str, StageRank]:
    """What each leg, and the stages inside it, said of a node."""
    stages: dict[str, StageRank] = {}
    for outcome, own in zip(outcomes, places, strict=True):
        if name in own:
            if isinstance(outcome.found, Hits):
                stages.update(outcome.found.history(name))
            place = own[name]
            stages[outcome.leg.name] = StageRank(place + 1, _pairs(outcome)[place][1])
    return stages
