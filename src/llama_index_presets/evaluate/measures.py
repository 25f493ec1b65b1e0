"""Evaluation measures: ranking by ir-measures, citations, honesty, time and money."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llama_index_presets.errors import SettingsError
from llama_index_presets.evaluate.outcomes import Outcome
from llama_index_presets.evaluate.questions import JudgedQuestion
from llama_index_presets.packages.extras import require

__all__ = ["LOWER_IS_BETTER", "MEASURES", "Scores", "measure"]

_RANKING = {"ndcg_at_10": "nDCG", "recall_at_10": "R", "mrr_at_10": "RR"}
"""Ours at 10 -> the name of a measure in ir-measures."""

MEASURES = {
    "ndcg_at_10": "whether the right sources were found, and how far up (nDCG@10)",
    "recall_at_10": "share of the right sources among the first ten",
    "mrr_at_10": "one over the place of the first right source, 0 below ten",
    "citation_precision": "share of the cited sources that are right",
    "citation_recall": "share of the right sources that are cited",
    "answer_recall": "share of the expected answer's words that the answer has",
    "exact_match": "share of answers that are the expected one, word for word",
    "answer_f1": "words that the answer and the expected answer share (F1)",
    "dont_know_right": 'share of unanswerable questions that got "I don\'t know"',
    "dont_know_wrong": 'share of answerable questions that got "I don\'t know"',
    "faithfulness": "share of answers that the judge finds supported by the passages",
    "relevancy": "share of answers that the judge finds to fit the question",
    "correctness": "how well the judge finds the answer to agree with the expected one",
    "latency_ms": "from question to answer",
    "cost_usd": "US dollars a question",
}
"""Name -> what it says. All are in [0, 1] and higher is better, but for `LOWER_IS_BETTER`."""

LOWER_IS_BETTER = frozenset({"dont_know_wrong", "latency_ms", "cost_usd"})


@dataclass(frozen=True, slots=True)
class Scores:
    """Measures of a run.

    Attributes:
        by_question: Measure -> question id -> value; a question that a measure says nothing about is absent.
    """

    by_question: Mapping[str, Mapping[str, float]]

    def means(self) -> dict[str, float]:
        """Mean of each measure over the questions that it applies to."""
        return {
            name: math.fsum(values.values()) / len(values)
            for name, values in self.by_question.items()
            if values
        }

    def latency(self, percent: float) -> float | None:
        """Percentile of the latency, in milliseconds; None where nothing was asked.

        Args:
            percent: 0 to 100.
        """
        import numpy as np

        values = list(self.by_question.get("latency_ms", {}).values())
        return float(np.percentile(values, percent)) if values else None


def measure(questions: Sequence[JudgedQuestion], outcomes: Mapping[str, Outcome]) -> Scores:
    """Measure the outcomes of the questions.

    Args:
        questions: What was asked.
        outcomes: By question id; questions without one are left out.

    Raises:
        MissingExtraError: ir-measures is not installed.
        SettingsError: No question has an outcome.

    Example:
        >>> asked = [JudgedQuestion("q", {"a": 1.0}, "1")]
        >>> found = measure(asked, {"1": Outcome(question="1", ranking=("b", "a"), cited=("a",), known=True)})
        >>> found.means()["mrr_at_10"], found.means()["citation_precision"]
        (0.5, 1.0)
    """
    pairs = [(one, outcomes[one.id]) for one in questions if one.id in outcomes]
    if not pairs:
        raise SettingsError("No question has an outcome; there is nothing to measure.")
    found: dict[str, dict[str, float]] = dict(_ranking(pairs))
    for name, value_of in _ANSWER.items():
        values = {one.id: value_of(one, outcome) for one, outcome in pairs}
        found[name] = {key: value for key, value in values.items() if value is not None}
    return Scores({name: found[name] for name in MEASURES if found.get(name)})


_Pair = tuple[JudgedQuestion, Outcome]


def _ranking(pairs: Sequence[_Pair]) -> dict[str, dict[str, float]]:
    judged = [(one, outcome) for one, outcome in pairs if one.relevant]
    if not judged:
        return {}
    measures = require("ir_measures", extra="evaluate")
    # Not by parse_measure: in ir-measures 0.4.3 it reads `ast.Num`, which Python 3.14 no longer has.
    wanted = {getattr(measures, theirs) @ 10: ours for ours, theirs in _RANKING.items()}
    # trec_eval takes whole grades; half ones are kept apart by counting in hundredths.
    whole = all(float(grade).is_integer() for one, _ in judged for grade in one.relevance.values())
    grades = {
        one.id: {name: int(grade if whole else round(grade * 100)) for name, grade in one.relevance.items()}
        for one, _ in judged
    }
    run = {
        outcome.question: {name: 1.0 / place for place, name in enumerate(outcome.ranking, start=1)}
        for _, outcome in judged
    }
    found: dict[str, dict[str, float]] = {name: dict.fromkeys(grades, 0.0) for name in _RANKING}
    for metric in measures.iter_calc(list(wanted), grades, run):
        found[wanted[metric.measure]][metric.query_id] = float(metric.value)
    return found


def _citation_precision(one: JudgedQuestion, outcome: Outcome) -> float | None:
    if not one.relevant or not outcome.known or not outcome.cited:
        return None
    return len(one.relevant.intersection(outcome.cited)) / len(outcome.cited)


def _citation_recall(one: JudgedQuestion, outcome: Outcome) -> float | None:
    if not one.relevant or outcome.known is None:
        return None
    return len(one.relevant.intersection(outcome.cited)) / len(one.relevant)


def _dont_know(wanted: bool) -> Callable[[JudgedQuestion, Outcome], float | None]:
    def value(one: JudgedQuestion, outcome: Outcome) -> float | None:
        if one.answerable is not wanted or outcome.known is None:
            return None
        return float(not outcome.known)

    return value


_ANSWER: dict[str, Callable[[JudgedQuestion, Outcome], float | None]] = {
    "citation_precision": _citation_precision,
    "citation_recall": _citation_recall,
    "answer_recall": lambda _, outcome: outcome.answer_recall,
    "dont_know_right": _dont_know(False),
    "dont_know_wrong": _dont_know(True),
    "exact_match": lambda _, outcome: outcome.exact_match,
    "answer_f1": lambda _, outcome: outcome.answer_f1,
    "faithfulness": lambda _, outcome: outcome.faithfulness,
    "relevancy": lambda _, outcome: outcome.relevancy,
    "correctness": lambda _, outcome: outcome.correctness,
    "latency_ms": lambda _, outcome: outcome.latency_ms,
    "cost_usd": lambda _, outcome: outcome.cost_usd,
}
