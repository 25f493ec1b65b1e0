"""Provenance of a hit: the rank and score that each stage gave it.

A `RankedNode` is a `NodeWithScore` that carries this beside the node, not in its metadata, so neither the
LLM prompt, nor the text that is embedded, nor the node's hash ever sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from llama_index.core.schema import BaseNode, NodeWithScore
from pydantic import Field

__all__ = [
    "BM25",
    "CROSS_MODAL",
    "FUSION",
    "KEYWORD",
    "RERANK",
    "RETRIEVAL",
    "VECTOR",
    "RankedIds",
    "RankedNode",
    "StageRank",
    "document_id",
    "source_name",
]

# Stage names, the keys of `RankedNode.stages`. They are in traces and in users' code: the texts never change.
VECTOR: Final = "vector"
"""Leg of a vector search; its scores are cosines."""
BM25: Final = "bm25"
"""Keyword leg or stage over a `BM25Index`."""
KEYWORD: Final = "keyword"
"""Leg of any other keyword retriever."""
CROSS_MODAL: Final = "cross_modal"
"""Leg that finds images by text, or text by an image."""
FUSION: Final = "fusion"
"""Fusion of several legs."""
RETRIEVAL: Final = "retrieval"
"""Whatever came before a reranking."""
RERANK: Final = "rerank"
"""Reranking; its scores are probabilities."""


@dataclass(frozen=True, slots=True)
class StageRank:
    """Rank and score that one stage gave a node.

    Attributes:
        rank: 1-based place among the stage's hits; 1 is best.
        score: The stage's own score, higher is better; None where it gave none.
    """

    rank: int
    score: float | None


class RankedNode(NodeWithScore):
    """Hit with its provenance.

    Attributes:
        stages: Stage name (``"vector"``, ``"bm25"``, ``"fusion"``, ``"rerank"``) -> its rank and score, in the
            order in which the stages ran. A stage that did not return the node is absent.
        degraded: Names of the legs that failed, so that this answer was found without them; empty as a rule.
    """

    stages: dict[str, StageRank] = Field(default_factory=dict)
    degraded: tuple[str, ...] = ()

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "RankedNode"


class RankedIds:
    """Result of a stage that gives ids and scores first and nodes when they are wanted; base class.

    Attributes:
        pairs: (node id, score), best first.
    """

    __slots__ = ("pairs",)
    pairs: list[tuple[str, float]]


def document_id(node: BaseNode) -> str:
    """Id of the document that a node is cut from; its own where it is a document by itself."""
    return node.ref_doc_id or node.node_id


def source_name(node: BaseNode) -> Any:
    """Name of a node's source, as an answer shows it: that of its metadata, else the id of its document."""
    return node.metadata.get("source") or document_id(node)
