"""Training lists for a reranker: your own judgments, and the mistakes of your own retriever."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_index_presets.errors import SettingsError

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore

__all__ = ["TrainingList", "group_pairs", "mine_hard_negatives"]


@dataclass(frozen=True, slots=True)
class TrainingList:
    """A query with texts and whether each answers it.

    Attributes:
        query: What was asked.
        texts: The candidates.
        labels: 1.0 for a text that answers, 0.0 for one that does not; as many as texts.
    """

    query: str
    texts: tuple[str, ...]
    labels: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise SettingsError(
                f"A training list has {len(self.texts)} texts and {len(self.labels)} labels; expected one "
                "label for each text."
            )


def group_pairs(pairs: Iterable[tuple[str, str, float]]) -> list[TrainingList]:
    """Labelled (query, text, label) pairs as one list for each query, in order of first appearance.

    Example:
        >>> group_pairs([("q", "yes", 1.0), ("q", "no", 0.0)])
        [TrainingList(query='q', texts=('yes', 'no'), labels=(1.0, 0.0))]
    """
    grouped: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for query, text, label in pairs:
        grouped[query].append((text, float(label)))
    return [
        TrainingList(query, tuple(text for text, _ in rows), tuple(label for _, label in rows))
        for query, rows in grouped.items()
    ]


def mine_hard_negatives(
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, float]],
    retriever: BaseRetriever,
    *,
    negatives: int = 4,
    seed: int = 0,
) -> list[TrainingList]:
    """Ask the retriever each judged query, and learn from what it wrongly ranks high.

    The reranker will only ever see what this retriever returns, so relevant texts come from its hits too: a
    query of which no relevant text is retrieved makes no list.

    Args:
        queries: Query id -> text.
        qrels: Query id -> node id or document id -> grade; > 0 is relevant.
        retriever: The one that will feed the reranker; its depth is the depth of the mining, 30 to 100.
        negatives: Texts without a judgment for each relevant one, drawn at random from the hits. Some will
            be relevant and unjudged: use fewer when judgments are sparse.
        seed: Of the draw.
    """
    draw = random.Random(seed)
    lists = (
        _list_of(query, qrels.get(name, {}), retriever.retrieve(query), negatives, draw)
        for name, query in queries.items()
    )
    return [found for found in lists if found is not None]


def _list_of(
    query: str,
    grades: Mapping[str, float],
    hits: Sequence[NodeWithScore],
    negatives: int,
    draw: random.Random,
) -> TrainingList | None:
    relevant = [hit for hit in hits if _grade(hit, grades) > 0]
    wrong = [hit for hit in hits if _grade(hit, grades) <= 0]
    if not relevant or not wrong:
        return None
    drawn = draw.sample(wrong, min(negatives * len(relevant), len(wrong)))
    labels = [1.0] * len(relevant) + [0.0] * len(drawn)
    return TrainingList(query, tuple(_text(hit) for hit in [*relevant, *drawn]), tuple(labels))


def _grade(hit: NodeWithScore, grades: Mapping[str, float]) -> float:
    document = getattr(hit.node, "ref_doc_id", None)
    return max(grades.get(hit.node.node_id, 0.0), grades.get(document, 0.0) if document else 0.0)


def _text(hit: NodeWithScore) -> str:
    from llama_index.core.schema import MetadataMode

    return hit.node.get_content(metadata_mode=MetadataMode.EMBED)
