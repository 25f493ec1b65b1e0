"""What a reranking returns: the hits, and a report of what was done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from llama_index.core.schema import NodeWithScore

from llama_index_presets.provenance import RankedNode, StageRank

__all__ = ["RerankReport", "RerankedNodes", "place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankReport:
    """What one reranking did.

    Attributes:
        model: Model name or folder.
        query_sha256: First 16 hex digits of the query's SHA-256: the same query has the same.
        candidates: Hits that came in.
        returned: Hits that went out.
        pairs: Query-text pairs that the model scored; a long text may make several.
        cached: Texts whose score came from the cache.
        duplicates: Hits whose text another hit has too; each text is scored once.
        truncated: Pairs that were longer than the model reads, and were cut.
        cut: Whether the deadline ended the scoring early.
        unscored: Candidates that the deadline left without a score.
        prompt_tokens: Tokens of all pairs, as the model read them.
        latency_ms: Time spent scoring, in milliseconds, without loading the model.
    """

    model: str
    query_sha256: str
    candidates: int
    returned: int
    pairs: int
    cached: int
    duplicates: int
    truncated: int
    cut: bool
    unscored: int
    prompt_tokens: int
    latency_ms: float

    def as_tags(self) -> dict[str, object]:
        """The report as span or event tags: ``rerank.model``, ``rerank.pairs``, …"""
        return {f"rerank.{name}": value for name, value in asdict(self).items()}


class RerankedNodes(list[NodeWithScore]):
    """The hits, best first, with the report of how they came about.

    A plain list to everyone who does not know it.

    Attributes:
        report: What was done; ``report.cut`` says whether a deadline ended the scoring.
    """

    def __init__(self, hits: Iterable[NodeWithScore], report: RerankReport) -> None:
        super().__init__(hits)
        self.report = report


def place(hit: NodeWithScore, *, before: int, after: int, score: float | None, p: float | None) -> RankedNode:
    """Copy a hit with its final score and the history of both stages; the hit itself is left as it was.

    Args:
        hit: A hit as the retriever gave it. An earlier ``"retrieval"`` entry of its history is kept.
        before: Its 1-based place among the candidates.
        after: Its 1-based place in the result.
        score: Its final score in [0, 1]; None when a deadline left it unscored.
        p: The model's own probability; None when unscored, and then there is no ``"rerank"`` entry.
    """
    history = dict(hit.stages) if isinstance(hit, RankedNode) else {}
    history.setdefault("retrieval", StageRank(before, hit.score))
    history.pop("rerank", None)
    if p is not None:
        history["rerank"] = StageRank(after, p)
    return RankedNode(node=hit.node, score=score, stages=history)
