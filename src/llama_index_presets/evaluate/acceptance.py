"""Acceptance of a run in continuous integration: bounds of measures, and a paired test against a saved run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llama_index_presets._options import did_you_mean
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.evaluate.compare import Difference, compare, family_p_values
from llama_index_presets.evaluate.measures import LOWER_IS_BETTER, MEASURES, Scores
from llama_index_presets.evaluate.results import Result

__all__ = [
    "LEVEL",
    "Bound",
    "Check",
    "Comparison",
    "check_bounds",
    "check_corpus",
    "common_questions",
    "compare_with",
    "parse_bounds",
]

LEVEL: Final = 0.025
"""Probability of an alarm when nothing but chance changed, over all measures together."""

_FEWEST: Final = math.floor(-math.log2(LEVEL)) + 1
"""Questions with which a loss can be told from chance: of fewer, all may lose and chance does that as often."""

_NEVER_A_LOSS: Final = frozenset({"latency_ms", "cost_usd"})
"""Compared, but never an alarm: they move with the machine and the price list. `--fail-over` bounds them."""

_NAMES: Final = tuple(
    dict.fromkeys(
        [
            *(name for name in MEASURES if name != "latency_ms"),
            "latency_p50_ms",
            "latency_p95_ms",
            "judge_usd",
        ]
    )
)
_LOWER: Final = LOWER_IS_BETTER | {"latency_p50_ms", "latency_p95_ms", "judge_usd"}
_NEEDS: Final = {
    **dict.fromkeys(("faithfulness", "relevancy", "correctness", "judge_usd"), "a judge, --judge"),
    **dict.fromkeys(("answer_recall", "exact_match", "answer_f1"), "questions with an 'answer'"),
    "dont_know_right": "questions that the documents do not answer",
    "cost_usd": "answers of a model with a known price",
}


@dataclass(frozen=True, slots=True)
class Bound:
    """Bound of a measure's mean.

    Attributes:
        measure: Its name.
        value: The least mean that passes; of a measure whose lower values are better, the most.
    """

    measure: str
    value: float

    @property
    def text(self) -> str:
        """As ``ndcg_at_10 >= 0.7``."""
        return f"{self.measure} {'<=' if self.measure in _LOWER else '>='} {self.value:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was asked for, such as ``ndcg_at_10 >= 0.7``.
        passed: Whether it holds.
        message: What was found, with values.
    """

    name: str
    passed: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A run beside its baseline.

    Attributes:
        differences: Of every measure that both have, over the questions that both have; the baseline is first.
        checks: One for each measure that can fail the run.
        warnings: What differs between the two beside the scores, or limits what they show.
        questions: How many questions both have.
    """

    differences: Sequence[Difference]
    checks: Sequence[Check]
    warnings: Sequence[str]
    questions: int


def parse_bounds(least: Iterable[str], most: Iterable[str] = ()) -> list[Bound]:
    """Read ``MEASURE=VALUE`` pairs.

    Args:
        least: Least means, of measures whose higher values are better.
        most: Most means, of measures whose lower values are better: latency, dollars, ``dont_know_wrong``.

    Raises:
        SettingsError: A measure is unknown or of the other direction, or a value is no number.

    Example:
        >>> [bound.text for bound in parse_bounds(["ndcg_at_10=0.70"], ["latency_p95_ms=800"])]
        ['ndcg_at_10 >= 0.7', 'latency_p95_ms <= 800']
    """
    return [
        *(_bound(pair, "--fail-under", False) for pair in least),
        *(_bound(pair, "--fail-over", True) for pair in most),
    ]


def _bound(pair: str, option: str, lower: bool) -> Bound:
    name, equals, text = (part.strip() for part in pair.partition("="))
    if not equals:
        raise SettingsError(f"{option} is '{pair}'; expected MEASURE=VALUE, such as {_example(option)}.")
    if name not in _NAMES:
        hint = did_you_mean(name, _NAMES, listed="Choose one of", cutoff=0.5)
        raise SettingsError(f"{option} names '{name}', which is no measure. {hint}")
    if (name in _LOWER) is not lower:
        other, why = ("--fail-over", "lower") if name in _LOWER else ("--fail-under", "higher")
        raise SettingsError(
            f"{option} cannot bound '{name}': {why} is better there. Use {other} {name}={text}."
        )
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingsError(f"{option} {name} is '{text}'; expected a number, such as {_example(option)}.")
    if value < 0 or (value > 1 and not name.endswith(("_ms", "_usd"))):
        raise SettingsError(
            f"{option} {name} is {text}; expected a value from 0 on, and of a share at most 1."
        )
    return Bound(name, value)


def _example(option: str) -> str:
    return "ndcg_at_10=0.70" if option == "--fail-under" else "latency_p95_ms=800"


def check_bounds(bounds: Iterable[Bound], summary: Mapping[str, float | None]) -> list[Check]:
    """Hold the means of a run against bounds; what was not measured does not pass.

    Args:
        bounds: See `parse_bounds`.
        summary: See `Result.summary`.

    Example:
        >>> check_bounds([Bound("ndcg_at_10", 0.7)], {"ndcg_at_10": 0.65})[0].message
        'ndcg_at_10 is 0.65, below 0.7.'
    """
    return [_checked(bound, summary) for bound in bounds]


def _checked(bound: Bound, summary: Mapping[str, float | None]) -> Check:
    found, name = summary.get(bound.measure), bound.measure
    if found is None:
        wants = _NEEDS.get(name, "answers, so not --retrieval-only, and questions with sources")
        message = f"{name} was not measured; it needs {wants}."
        return Check(name=bound.text, passed=False, message=message)
    lower = name in _LOWER
    passed = found <= bound.value if lower else found >= bound.value
    side = "not above" if lower and passed else "above" if lower else "not below" if passed else "below"
    return Check(name=bound.text, passed=passed, message=f"{name} is {found:.6g}, {side} {bound.value:g}.")


# -- baseline ---------------------------------------------------------------------------------------------------------


def compare_with(baseline: Result, result: Result, *, other_corpus: bool = False) -> Comparison:
    """Test a run against a saved one, question by question.

    A measure fails when its loss is larger than chance explains (`compare.family_p_values`): of runs that differ by
    chance alone at most `LEVEL` alarm, however many measures there are. Latency and dollars are shown and never fail.

    Args:
        baseline: The saved run.
        result: The run to judge.
        other_corpus: Whether runs over different documents are compared, with a warning, rather than refused.

    Raises:
        SettingsError: The two have no question in common, or searched different documents.
        MissingExtraError: scipy is not installed.
    """
    common, warnings = common_questions(baseline, result.questions, result.question_digests)
    warnings += check_corpus(baseline, result.engine, accept=other_corpus)
    warnings += _settings(baseline.engine, result.engine)
    first, second = (_only(one.scores, common) for one in (baseline, result))
    judged = {name: first.by_question[name] for name in first.by_question if name not in _NEVER_A_LOSS}
    chances = family_p_values(Scores(judged), second)
    differences = compare(first, second)
    lost = sorted(set(judged) - set(second.by_question))
    checks = [_loss(one, chances[one.measure]) for one in differences if one.measure in chances]
    if lost:
        warnings.append(f"Only the baseline has {', '.join(lost)}.")
    if len(common) < _FEWEST:
        warnings.append(
            f"Of {counted(len(common), 'question')} no loss can be told from chance, so the baseline passes whatever "
            f"they lose; it takes {_FEWEST}. Bound the means with --fail-under."
        )
    return Comparison(differences=differences, checks=checks, warnings=warnings, questions=len(common))


def _loss(one: Difference, chance: float) -> Check:
    worse = one.change > 0 if one.measure in LOWER_IS_BETTER else one.change < 0
    passed = not (worse and chance < LEVEL)
    verdict = "a loss that chance does not explain" if not passed else "no significant loss"
    return Check(
        name=f"{one.measure} against the baseline",
        passed=passed,
        message=f"{one.measure}: {one.first:.4g} -> {one.second:.4g} ({one.change:+.4g}), {verdict} "
        f"(p = {chance:.4f} over all measures, {counted(one.questions, 'question')}).",
    )


def common_questions(
    baseline: Result, questions: str, digests: Mapping[str, str]
) -> tuple[frozenset[str], list[str]]:
    """Ids of the questions that a baseline has in the same words and with the same sources, and a warning if not all.

    Args:
        baseline: The saved run.
        questions: `questions.digest` of the questions.
        digests: `questions.digests` of them.

    Raises:
        SettingsError: There is none.
    """
    before = baseline.question_digests
    if baseline.questions == questions:
        return frozenset(digests), []
    same = frozenset(name for name, digest in digests.items() if before.get(name) == digest)
    if not same:
        raise SettingsError(
            f"The baseline of {baseline.made} has no question in common with these (hash {baseline.questions}, now "
            f"{questions}). Make a new one with --save."
        )
    return same, [
        f"Compared on {counted(len(same), 'question')}: {len(digests) - len(same)} are new or changed, "
        f"{len(set(before) - set(digests))} of the baseline are gone."
    ]


def check_corpus(baseline: Result, engine: Mapping[str, Any], *, accept: bool) -> list[str]:
    """Refuse a baseline over other documents; with `accept`, or where it does not say, give a warning.

    Args:
        baseline: The saved run.
        engine: What the engine is made of and searches; see `Result.engine`.
        accept: Whether other documents are accepted.

    Raises:
        SettingsError: The documents are others.
    """
    before, now = baseline.engine.get("documents"), engine.get("documents")
    if baseline.corpus == engine.get("corpus"):
        return []
    if baseline.corpus is None and before == now:
        return ["The baseline does not say which documents it searched; they were as many as now."]
    warning = (
        f"The baseline searched other documents: {before} of them ({baseline.corpus or 'no fingerprint'}), now {now} "
        f"({engine.get('corpus')})"
    )
    if not accept:
        raise SettingsError(
            f"{warning}, so a difference says nothing about the engine. Make a new baseline with --save, or compare "
            "all the same with --accept-other-corpus."
        )
    return [f"{warning}."]


def _settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Where the parts of the engines differ. Comparisons are made for that, so it is a warning and no refusal."""
    changes = []
    for part in ("cells", "settings"):
        old, new = before.get(part) or {}, after.get(part) or {}
        changes += [
            f"{name}: {old.get(name)!r} -> {new.get(name)!r}"
            for name in sorted(set(old) | set(new))
            if old.get(name) != new.get(name)
        ]
    for name in ("preset", "fingerprint", "judge", "retrieval_only"):
        if before.get(name) != after.get(name):
            changes.append(f"{name}: {before.get(name)} -> {after.get(name)}")
    return [f"Changed since the baseline: {'; '.join(changes)}."] if changes else []


def _only(scores: Scores, questions: frozenset[str]) -> Scores:
    kept = {
        name: {key: value for key, value in values.items() if key in questions}
        for name, values in scores.by_question.items()
    }
    return Scores({name: values for name, values in kept.items() if values})
