"""Search among configurations: successive halving inside a cross-validation, without a winner's curse."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.evaluate.compare import paired_p_value

__all__ = [
    "FEWEST",
    "Ask",
    "FrontPoint",
    "Interval",
    "Point",
    "Tuned",
    "asks",
    "choose",
    "front",
    "halve",
    "tune",
]

FEWEST: Final = 30
"""Questions below which the best of many configurations is mostly the luckiest one."""

_FOLDS: Final = 5
_RUNGS: Final = (1 / 3, 2 / 3, 1.0)
_LEAST: Final = 6
"""Configurations that reach the last rung at least."""
_OTHERS: Final = 1.3
"""How many configurations survive in some fold, for each that survives in one, about."""
_LATENCY: Final = 1.1
"""Step in which latencies count: they are measured on a machine that does other things too."""
_RESAMPLES: Final = 9_999
_SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Point:
    """What one configuration does, for one question or on average.

    Attributes:
        quality: 0 to 1, higher is better.
        latency_ms: Milliseconds.
        usd: US dollars a question.
    """

    quality: float
    latency_ms: float
    usd: float


Ask = Callable[[int, Sequence[str]], Mapping[str, Point]]
"""Number of a configuration, and ids of questions -> what it does with each. Asked again, it answers alike."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Mean of questions with its 95 % bootstrap interval.

    Attributes:
        mean: Mean.
        low: Lower end.
        high: Upper end.
        questions: How many questions it is from.
    """

    mean: float
    low: float
    high: float
    questions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """Configuration that no other one beats in quality, latency and dollars at once.

    Attributes:
        number: Of the configuration.
        quality: On questions of folds in which it was chosen without them.
        latency_ms: Median.
        usd: Mean, US dollars a question.
    """

    number: int
    quality: Interval
    latency_ms: float
    usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Outcome of a search.

    Attributes:
        winner: Number of the configuration to take, chosen on all questions.
        quality: What that choice is worth: each question by the configuration that was chosen without its fold.
        current: Quality of configuration 0, the settings as they are, on the same questions.
        change: `quality` less `current`, question by question.
        p_value: How often chance alone would give a change as large; None where no question changed.
        front: The front, best quality first.
        today_is_near: Whether the settings as they are are within one standard error of the best, so that another
            winner is one for being cheaper or faster.
        winners: Number of the configuration that each fold chose; how often it is `winner` says how sure the choice is.
    """

    winner: int
    quality: Interval
    current: Interval
    change: Interval
    p_value: float | None
    front: Sequence[FrontPoint]
    today_is_near: bool
    winners: Sequence[int]


def tune(configurations: int, questions: Sequence[str], ask: Ask) -> Tuned:
    """Find the front and a winner.

    The whole choice, halving and all, is made once on all questions, and once for each of five folds on the questions
    outside it. A figure that is reported for a chosen configuration comes from questions that did not choose it.

    Args:
        configurations: How many there are; number 0 is what is used today.
        questions: Their ids, in an order that has nothing to do with their difficulty.
        ask: See `Ask`.

    Raises:
        SettingsError: There are fewer than 30 questions, or no configuration.

    Source: Varma and Simon, BMC Bioinformatics 2006, doi:10.1186/1471-2105-7-91; Jamieson and Talwalkar, AISTATS 2016
    """
    if len(questions) < FEWEST:
        raise SettingsError(
            f"There are {counted(len(questions), 'question')} with sources; tuning needs {FEWEST}. With fewer, the "
            "best of many configurations is mostly the luckiest one. 'llama-presets questions draft' proposes more."
        )
    if configurations < 1:
        raise SettingsError("There is no configuration to try.")
    numbers = list(range(configurations))
    held_out: dict[str, tuple[int, Point]] = {}
    of_front: dict[int, dict[str, Point]] = {}
    winners = []
    for fold in range(_FOLDS):
        inner = [one for place, one in enumerate(questions) if place % _FOLDS != fold]
        outer = list(questions[fold::_FOLDS])
        kept = halve(numbers, inner, ask)
        shown = front(kept, {number: ask(number, inner) for number in kept})
        best = choose(shown, {number: ask(number, inner) for number in kept})
        winners.append(best)
        for number in shown:
            of_front.setdefault(number, {}).update(ask(number, outer))
        held_out |= {one: (best, point) for one, point in ask(best, outer).items()}
    kept = halve(numbers, questions, ask)
    found = {number: ask(number, questions) for number in kept}
    shown = front(kept, found)
    winner = choose(shown, found)
    chosen = np.array([held_out[one][1].quality for one in questions])
    today = ask(0, questions)
    current = np.array([today[one].quality for one in questions])
    return Tuned(
        winner=winner,
        quality=interval(chosen),
        current=interval(current),
        change=interval(chosen - current),
        p_value=paired_p_value(chosen - current),
        front=_front_points(shown, found, of_front),
        today_is_near=_is_near(found[_best_of(shown, found)], found[0]),
        winners=winners,
    )


def _front_points(
    shown: Sequence[int],
    found: Mapping[int, Mapping[str, Point]],
    of_front: Mapping[int, Mapping[str, Point]],
) -> list[FrontPoint]:
    """Points of the front that were on it in some fold too: others have no figure that is free of their own choice."""
    points = []
    for number in shown:
        if number in of_front:
            mean = average(found[number])
            quality = interval(np.array([point.quality for point in of_front[number].values()]))
            points.append(
                FrontPoint(number=number, quality=quality, latency_ms=mean.latency_ms, usd=mean.usd)
            )
    return sorted(points, key=lambda point: (-point.quality.mean, point.usd, point.latency_ms))


# -- choice -----------------------------------------------------------------------------------------------------------


def halve(numbers: Sequence[int], questions: Sequence[str], ask: Ask) -> list[int]:
    """Configurations that survive: half of them after a third of the questions, a quarter after two thirds.

    Whole fronts survive before the next one does, so that what is cheap is not lost to what is good. The first
    configuration, today's, always stays.

    Args:
        numbers: Configurations.
        questions: Ids, in the order in which they are used.
        ask: See `Ask`.
    """
    kept = list(numbers)
    for rung in _RUNGS:
        asked = questions[: math.ceil(rung * len(questions))]
        found = {number: ask(number, asked) for number in kept}
        if rung < 1:
            left = max(math.ceil(len(kept) / 2), min(_LEAST, len(kept)))
            kept = sorted(set(_best(kept, found, left)) | {numbers[0]})
    return kept


def asks(configurations: int, questions: int) -> int:
    """About how many pairs of configuration and question a search asks, rather too many.

    The folds begin with other questions and keep other configurations, so that together they ask more than each.

    Example:
        >>> asks(6, 45), asks(40, 45)
        (270, 1335)
    """
    kept, share, before = configurations, 0.0, 0.0
    for rung in _RUNGS:
        reached = min(1.0, rung * _FOLDS / (_FOLDS - 1))
        share += (reached - before) * min(
            1.0, kept * (1 if kept == configurations else _OTHERS) / configurations
        )
        before, kept = reached, max(math.ceil(kept / 2), min(_LEAST, kept))
    return math.ceil(configurations * questions * share)


def _best(numbers: Sequence[int], found: Mapping[int, Mapping[str, Point]], count: int) -> list[int]:
    """The first `count` configurations, front after front; of the last front those of the highest quality."""
    left: list[int] = list(numbers)
    chosen: list[int] = []
    while left and len(chosen) < count:
        layer = front(left, found)
        layer.sort(key=lambda number: -average(found[number]).quality)
        chosen += layer
        left = [number for number in left if number not in layer]
    return chosen[:count]


def front(numbers: Sequence[int], found: Mapping[int, Mapping[str, Point]]) -> list[int]:
    """Configurations that no other one beats: at least as good in all three, and better in one.

    Latencies count in steps of a tenth above the fastest, and of two that are alike in everything the first stays.

    Example:
        >>> points = {0: Point(0.8, 10.0, 0.0), 1: Point(0.8, 30.0, 0.0), 2: Point(0.9, 30.0, 0.0)}
        >>> front([0, 1, 2], {number: {"q": point} for number, point in points.items()})
        [0, 2]
    """
    means = {number: average(found[number]) for number in numbers}
    fastest = min((mean.latency_ms for mean in means.values()), default=0.0)
    ranks = {
        number: (-mean.quality, mean.usd, _steps(mean.latency_ms, fastest, _LATENCY))
        for number, mean in means.items()
    }
    return [
        number
        for number in numbers
        if not any(
            _beats(ranks[other], ranks[number], other < number) for other in numbers if other != number
        )
    ]


def _beats(one: tuple[float, float, int], other: tuple[float, float, int], first: bool) -> bool:
    """Whether one is as good in everything, and better in something or, of two alike, the first: a strict order."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and (one != other or first)


def _steps(latency_ms: float, fastest_ms: float, factor: float) -> int:
    """How many times a latency is `factor` times the fastest one. Steps, since "within a tenth" is not transitive."""
    return int(math.log(max(latency_ms, 1e-3) / max(fastest_ms, 1e-3), factor))


def choose(numbers: Sequence[int], found: Mapping[int, Mapping[str, Point]]) -> int:
    """The cheapest, then fastest, of the configurations whose quality is within one standard error of the best.

    The standard error is that of the difference to the best one, question by question. Configuration 0, today's, is a
    candidate wherever it stands, and goes before others that are as cheap and as fast: a change needs a reason.

    Args:
        numbers: Configurations to choose from.
        found: What each does with the same questions.
    """
    best = _best_of(numbers, found)
    candidates = [*numbers, *([0] if 0 in found and 0 not in numbers else [])]
    near = [number for number in candidates if _is_near(found[best], found[number])]
    fastest = min(average(found[number]).latency_ms for number in near)

    def rank(number: int) -> tuple[float, int, bool, float]:
        mean = average(found[number])
        steps = _steps(mean.latency_ms, fastest, 2)  # only half the latency is a reason
        return mean.usd, steps, number != 0, -mean.quality

    return min(near, key=rank)


def _best_of(numbers: Sequence[int], found: Mapping[int, Mapping[str, Point]]) -> int:
    """The configuration of the highest quality."""
    return max(numbers, key=lambda number: average(found[number]).quality)


def _is_near(best: Mapping[str, Point], other: Mapping[str, Point]) -> bool:
    lost = [best[one].quality - other[one].quality for one in best]
    error = statistics.stdev(lost) / math.sqrt(len(lost)) if len(lost) > 1 else 0.0
    return statistics.fmean(lost) <= error


def average(points: Mapping[str, Point]) -> Point:
    """Mean quality and dollars, and median latency."""
    values = list(points.values())
    return Point(
        statistics.fmean(point.quality for point in values),
        statistics.median(point.latency_ms for point in values),
        statistics.fmean(point.usd for point in values),
    )


def interval(values: np.ndarray) -> Interval:
    """Mean with its 95 % percentile bootstrap interval.

    Args:
        values: One a question, shape (n,).
    """
    random = np.random.default_rng(_SEED)
    means = values[random.integers(len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(values.mean()), float(low), float(high), len(values))
