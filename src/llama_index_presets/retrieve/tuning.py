"""Tune a hybrid retriever on queries whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llama_index.core.schema import QueryBundle

from llama_index_presets.ranking.fusion import FUSIONS, Fused
from llama_index_presets.ranking.tuning import Choice, Tuning, best_choice

if TYPE_CHECKING:
    from llama_index_presets.retrieve.hybrid import HybridFusionRetriever
    from llama_index_presets.retrieve.running import Outcome

__all__ = ["tune"]

_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)


def tune(
    hybrid: HybridFusionRetriever,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, float]],
    *,
    k: int = 10,
    folds: int = 5,
) -> Tuning:
    """See `HybridFusionRetriever.tune`."""
    answers: dict[str, Sequence[Outcome]] = {
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
