"""Reranking experiment: quality on a user's own questions without a reranker and at each blend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llama_index_presets.errors import SettingsError
from llama_index_presets.evaluate.questions import JudgedQuestion
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.rerank.blend_report import judge, ndcg_by_blend
from llama_index_presets.rerank.cross_encoder import CrossEncoderRerank

__all__ = ["RerankingReport", "reranking_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankingReport:
    """nDCG@10 of the retrieval order, of the re-ranker, and of every mixture.

    Attributes:
        questions: How many were asked.
        ndcg_at_10: Blend -> mean nDCG@10; 1 is the retrieval order, 0 the re-ranker alone.
    """

    questions: int
    ndcg_at_10: dict[float, float]

    @property
    def best_blend(self) -> float:
        """The blend with the highest nDCG@10; of equal ones the one nearest to the retrieval order."""
        return max(self.ndcg_at_10, key=lambda blend: (self.ndcg_at_10[blend], blend))

    @property
    def pays(self) -> bool:
        """Whether some mixture beats the retrieval order."""
        return self.best_blend < 1


def reranking_report(engine: PresetEngine, questions: Iterable[JudgedQuestion]) -> RerankingReport:
    """Ask every question once, and measure each blend on the same hits.

    The blend is chosen on the same questions that measure it: keep some aside, or distrust small differences.

    Args:
        engine: Of the advanced pattern.
        questions: With the ids of their relevant documents, as they were ingested.

    Raises:
        SettingsError: The engine has no cross-encoder.
    """
    found = [part for part in engine.postprocessors if isinstance(part, CrossEncoderRerank)]
    if not found:
        raise SettingsError(
            'The engine has no cross-encoder. Build it with settings={"pattern": "advanced"}.'
        )
    asked = list(questions)
    judged = [
        judge(found[0], question.text, engine.retriever.retrieve(question.text), question.relevance)
        for question in asked
    ]
    return RerankingReport(questions=len(asked), ndcg_at_10=ndcg_by_blend(judged))
