"""Tuning of fusion and weights on labelled queries: the choice, and an estimate on queries it did not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llama_index_presets.counting import counted
from llama_index_presets.errors import RankingError
from llama_index_presets.ranking.fusion import Fused
from llama_index_presets.ranking.ndcg import ndcg

__all__ = ["Choice", "Trial", "Tuning", "best_choice"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Fusion method with weights.

    Attributes:
        fusion: A key of `FUSIONS`.
        weights: One number for each leg, in the order of the legs.
    """

    fusion: str
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """Choice and its measured quality.

    Attributes:
        choice: What was tried.
        mean: Mean nDCG over all queries, in [0, 1].
        held_out: How many folds chose it without having seen their own queries.
    """

    choice: Choice
    mean: float
    held_out: int


@dataclass(frozen=True, slots=True)
class Tuning:
    """Result of tuning.

    Attributes:
        best: The choice to use; the default unless choosing paid off on queries that were not seen.
        default: What it was compared with.
        default_mean: nDCG of the default, mean over all queries.
        cross_validated: nDCG of choosing by the other folds, mean over all queries: what to expect of `best`
            on new queries.
        trials: Everything that was tried, best first.
    """

    best: Choice
    default: Choice
    default_mean: float
    cross_validated: float
    trials: tuple[Trial, ...]

    def table(self) -> str:
        """The trials as a Markdown table."""
        rows = ["| fusion | weights | nDCG | folds |", "|---|---|---|---|"]
        for trial in self.trials:
            weights = " : ".join(f"{weight:g}" for weight in trial.choice.weights)
            rows.append(f"| {trial.choice.fusion} | {weights} | {trial.mean:.4f} | {trial.held_out} |")
        return "\n".join(rows)


def best_choice(
    choices: Sequence[Choice],
    default: Choice,
    fuse_with: Callable[[Choice, str], Fused],
    qrels: Mapping[str, Mapping[str, float]],
    *,
    k: int = 10,
    folds: int = 5,
) -> Tuning:
    """Try every choice on every labelled query, and choose by cross-validation.

    Args:
        choices: What to try.
        default: What to keep unless choosing pays off; tried as well.
        fuse_with: (choice, query id) -> fused ranking.
        qrels: query id -> (document id -> grade).
        k: nDCG looks at the first k.
        folds: In how many parts the queries are divided, >= 2.

    Raises:
        RankingError: There are fewer queries with relevant documents than folds.
    """
    queries = sorted(name for name, grades in qrels.items() if any(grade > 0 for grade in grades.values()))
    if folds < 2 or len(queries) < folds:
        raise RankingError(
            f"{counted(len(queries), 'query', 'have')} relevant documents, and {folds} folds were asked for; give at "
            "least one query for each fold, and at least 2 folds."
        )
    every = list(dict.fromkeys([default, *choices]))
    scores = {
        choice: [ndcg([name for name, _ in fuse_with(choice, query)], qrels[query], k) for query in queries]
        for choice in every
    }
    seen, chosen = _cross_validate(scores, folds)
    means = {choice: math.fsum(values) / len(values) for choice, values in scores.items()}
    trials = sorted((Trial(c, means[c], chosen.count(c)) for c in every), key=lambda trial: -trial.mean)
    best = trials[0].choice if seen > means[default] else default
    return Tuning(best, default, means[default], seen, tuple(trials))


def _cross_validate(scores: Mapping[Choice, Sequence[float]], folds: int) -> tuple[float, list[Choice]]:
    """Mean score of choosing by the other folds, and what each fold chose."""
    count = len(next(iter(scores.values())))
    chosen, held_out = [], []
    for fold in range(folds):
        inside = range(fold, count, folds)
        totals = {
            choice: math.fsum(values) - math.fsum(values[i] for i in inside)
            for choice, values in scores.items()
        }
        winner = max(totals, key=lambda choice: totals[choice])
        chosen.append(winner)
        held_out += [scores[winner][i] for i in inside]
    return math.fsum(held_out) / count, chosen
