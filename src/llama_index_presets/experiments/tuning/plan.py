"""Plan of a search: what would be tried on which questions, what it would cost, and its execution."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

from llama_index_presets.counting import counted
from llama_index_presets.embed.catalogue import catalogue
from llama_index_presets.errors import SettingsError, StoreWriteError
from llama_index_presets.evaluate.outcomes import NO_DOCUMENT
from llama_index_presets.evaluate.questions import JudgedQuestion
from llama_index_presets.experiments.evaluation import Variant
from llama_index_presets.experiments.tuning.report import TuneReport
from llama_index_presets.experiments.tuning.runner import (
    RETRIEVAL_MEASURES,
    Part,
    Runner,
    answer_rates,
    check_measure,
    label,
)
from llama_index_presets.experiments.tuning.search import FEWEST, asks, tune
from llama_index_presets.experiments.tuning.space import Configuration, configurations, index_of, parse_axes
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.ingest.progress import progress_bar
from llama_index_presets.monitor.prices import Pricer
from llama_index_presets.packages.extras import require
from llama_index_presets.presets.checks.local_weights import find_reranker
from llama_index_presets.presets.checks.offline import go_offline
from llama_index_presets.presets.estimates.answer import estimate_answer, passage_tokens
from llama_index_presets.presets.estimates.estimate import Estimate
from llama_index_presets.presets.estimates.ingestion import estimate_preset
from llama_index_presets.presets.estimates.reranking import estimate_reranking
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.project.settings_sources import load_settings
from llama_index_presets.presets.settings import Settings
from llama_index_presets.providers.rerankers import DEFAULT_RERANKER

__all__ = ["Plan", "make_plan", "run_plan"]

_SEED: Final = 1
_LONGEST: Final = 512
_LOCAL_STORES: Final = ("lancedb", "duckdb")
_SAMPLE: Final = 50
"""Documents that are read to estimate how long an index takes, where it costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a search would do.

    Attributes:
        variant: Preset and settings as they are.
        row: The preset's row, as it is built.
        questions: Those with sources, by id.
        documents: What is searched.
        folder: Takes indexes, runs and results.
        measure: Of quality.
        options: Configurations; the first is today's.
        store: Vector store of the indexes.
        offline: As for `build`.
        cost_usd: Estimate in US dollars; None when a price is unknown.
        minutes: Estimate of embedding the documents for all indexes; None when nothing is known about a model's speed.
        left_out: Ways of making an index that `max_minutes` has no time for.
    """

    variant: Variant
    row: Preset
    questions: Mapping[str, JudgedQuestion]
    documents: Sequence[str]
    folder: Path
    measure: str
    options: Sequence[Configuration]
    store: str
    offline: bool
    cost_usd: Decimal | None
    minutes: float | None
    left_out: Sequence[Mapping[str, Any]] = ()

    @property
    def indexes(self) -> list[dict[str, Any]]:
        """The ways of making an index that are tried."""
        found = {label(index_of(one)): index_of(one) for one in self.options}
        return list(found.values())

    def summary(self) -> dict[str, str]:
        """For a person."""
        cost = "unknown: a model has no known price" if self.cost_usd is None else f"${self.cost_usd:.4f}"
        time = "unknown" if self.minutes is None else f"about {self.minutes:.1f} minutes, and the questions"
        left_out = {"left out": "; ".join(map(label, self.left_out))} if self.left_out else {}
        return {
            "questions": f"{len(self.questions)} with sources",
            "configurations": f"{len(self.options)}, the first of them today's settings",
            "indexes": "; ".join(label(one) for one in self.indexes),
            **left_out,
            "quality": self.measure,
            "cost": cost,
            "time to embed": time,
            "results": str(self.folder),
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "questions": len(self.questions),
            "configurations": [dict(one) for one in self.options],
            "indexes": self.indexes,
            "measure": self.measure,
            "cost_usd": None if self.cost_usd is None else float(self.cost_usd),
            "minutes": None if self.minutes is None else round(self.minutes, 2),
            "left_out": [dict(one) for one in self.left_out],
            "folder": str(self.folder),
        }


def make_plan(
    variant: Variant,
    questions: Sequence[JudgedQuestion],
    documents: Sequence[str],
    *,
    folder: Path,
    measure: str = "ndcg_at_10",
    tried: Sequence[str] = (),
    count: int = 40,
    max_minutes: float | None = None,
    offline: bool = False,
) -> Plan:
    """Plan a search; nothing is sent and nothing is written. A local embedding model embeds a few chunks, to be timed.

    Args:
        variant: Preset and settings as they are.
        questions: Labelled; those without sources are left out.
        documents: Files, folders and URLs to search.
        folder: Takes indexes, runs and results.
        measure: Name of a measure of quality, see `measures.MEASURES`.
        tried: ``AXIS=A,B`` pairs, see `space.parse_axes`.
        count: How many configurations at most.
        max_minutes: Of the ways of making an index only as many are tried as can be embedded in so many minutes, about:
            the first ones, today's always. None tries all.
        offline: As for `build`.

    Raises:
        SettingsError: There are fewer than 30 questions with sources, or a setting, measure or axis is wrong.
        MissingExtraError: The extra ``evaluate`` or ``report`` is not installed.
    """
    for module, extra in (("ir_measures", "evaluate"), ("scipy.stats", "evaluate"), ("matplotlib", "report")):
        require(module, extra=extra)
    answers = check_measure(measure) not in RETRIEVAL_MEASURES
    judged = {one.id: one for one in questions if one.relevant and (one.answer is not None or not answers)}
    if len(judged) < FEWEST:
        kind = "sources and an expected answer" if answers else "sources"
        raise SettingsError(
            f"{len(judged)} of {counted(len(questions), 'question', 'have')} {kind}; tuning needs {FEWEST}. With "
            "fewer, the best of many configurations is mostly the luckiest one."
        )
    values, _ = load_settings(variant.given(), variant.preset)
    row = find_preset(variant.preset).with_settings(values)
    if offline:
        row = go_offline(row, str(folder), values, ()).row
    known = catalogue().get(row.embedding)
    draw = partial(
        configurations, values, row.pattern, given=parse_axes(tried),
        reranker=find_reranker(DEFAULT_RERANKER) is not None, images=known is not None and known.modality == "image",
        longest=min(known.max_tokens, _LONGEST) if known else None, count=count,
    )  # fmt: skip
    plan = Plan(
        variant=variant, row=row, questions=judged, documents=documents, folder=folder, measure=measure,
        options=draw(), store=row.store if row.store in _LOCAL_STORES else "duckdb", offline=offline,
        cost_usd=None, minutes=None,
    )  # fmt: skip
    estimates = [(index, _estimate(plan, index)) for index in plan.indexes]
    kept = _within(estimates, max_minutes)
    if len(kept) < len(estimates):
        left_out = [index for index, _ in estimates[len(kept) :]]
        plan = replace(plan, options=draw(indexes=[index for index, _ in kept]), left_out=left_out)
    minutes = [one.minutes for _, one in kept]
    return replace(
        plan,
        cost_usd=_cost(plan, values, [one for _, one in kept]),
        minutes=None if None in minutes else math.fsum(one for one in minutes if one is not None),
    )


def _estimate(plan: Plan, index: Mapping[str, Any]) -> Estimate:
    """What embedding the documents for an index takes: counted exactly where it costs money, else extrapolated."""
    given = {**plan.variant.values(), **{name: one for name, one in index.items() if one is not None}}
    row = find_preset(plan.variant.preset).with_settings(load_settings(given, plan.variant.preset)[0])
    free = plan.offline or row.parts()["embedding"].local
    return estimate_preset(
        plan.variant.preset, list(plan.documents), offline=plan.offline, settings=given,
        sample=_SAMPLE if free else None, show_progress=False,
    )  # fmt: skip


def _within(
    estimates: Sequence[tuple[Mapping[str, Any], Estimate]], max_minutes: float | None
) -> Sequence[tuple[Mapping[str, Any], Estimate]]:
    """The first indexes that take so long together; the first one whatever it takes."""
    if max_minutes is None:
        return estimates
    total = itertools.accumulate(one.minutes or 0.0 for _, one in estimates)
    return estimates[: max(1, sum(minutes <= max_minutes for minutes in total))]


def _cost(plan: Plan, values: Settings, estimates: Sequence[Estimate]) -> Decimal | None:
    """Dollars for embedding the documents once for each index, for re-ranking, and for answers that are measured."""
    costs = [one.cost_usd for one in estimates]
    if None in costs:
        return None
    total = sum((one for one in costs if one is not None), Decimal(0))
    pricer = Pricer(values.prices)
    answer: Decimal | None = Decimal(0)
    if plan.measure not in RETRIEVAL_MEASURES:
        answer = estimate_answer(plan.row.with_cells({"pattern": "simple"}), values, pricer).usd
    each = [_reranking_usd(plan.variant, pricer, one) for one in plan.options]
    if answer is None or None in each:
        return None
    mean = answer + sum((usd for usd in each if usd is not None), Decimal(0)) / len(each)
    return total + mean * asks(len(plan.options), len(plan.questions))


def _reranking_usd(variant: Variant, pricer: Pricer, one: Configuration) -> Decimal | None:
    """Dollars of re-ranking for one question in a configuration; None when the price is unknown."""
    if one["pattern"] != "advanced":
        return Decimal(0)
    given = {**variant.values(), **{name: value for name, value in one.items() if value is not None}}
    values, _ = load_settings(given, variant.preset)
    row = find_preset(variant.preset).with_settings(values)
    return estimate_reranking(values, pricer, passage_tokens=passage_tokens(row, values)).usd


def run_plan(
    plan: Plan, warn: Callable[[str, str], None], *, show_progress: bool | None = None
) -> TuneReport:
    """Search; after an interruption it goes on where it was.

    Args:
        plan: See `make_plan`.
        warn: Told of what was left out, and why.
        show_progress: Whether to draw a bar; None draws one where standard error is a terminal.

    Raises:
        StoreLockedError: Another process tunes in the same folder.
        StoreWriteError: The folder cannot be made or written.
        PresetsError: Today's settings cannot be built, or a question failed.
    """
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreWriteError(
            f"'{plan.folder}' cannot be made ({error.strerror}). Give another folder with --out."
        ) from error
    # Both would make the same indexes, and the first that ends removes them.
    with ingest_lock(plan.folder / "tune.lock", wait=False, doing="tunes in"):
        return _search(plan, warn, show_progress)


def _search(plan: Plan, warn: Callable[[str, str], None], show_progress: bool | None) -> TuneReport:
    whole = Part(name="all")
    order = sorted(plan.questions)
    pricer = Pricer(load_settings(plan.variant.given(), plan.variant.preset)[0].prices)
    random.Random(_SEED).shuffle(order)  # nosec B311  # an order without meaning, the same in every run
    with whole.timed(), progress_bar(show_progress, doing="Asking", things="questions") as progress:
        runner = Runner(
            variant=plan.variant, documents=plan.documents, questions=plan.questions, order=order, folder=plan.folder,
            options=list(plan.options), store=plan.store, rates=answer_rates(plan.row, pricer), quality=plan.measure,
            reranking_usd=partial(_reranking_usd, plan.variant, pricer), offline=plan.offline, progress=progress,
        )  # fmt: skip
        dropped = runner.prepare()
        for source, error in {**runner.failed, **dropped}.items():
            warn(source, error)
        progress.start(asks(len(runner.options), len(order)))
        tuned = tune(len(runner.options), order, runner.ask)
        for source in runner.missing_sources():
            warn(source, NO_DOCUMENT)
        runner.remove_indexes()
    return TuneReport(
        preset=plan.variant.preset,
        given=plan.variant.values(),
        measure=plan.measure,
        options=runner.options,
        tuned=tuned,
        priced=runner.priced,
        seconds=whole.seconds,
        parts=_parts(runner, whole),
    )


def _parts(runner: Runner, whole: Part) -> list[Part]:
    """How long each part of a search took; the rest is opening indexes and the choice with its intervals."""
    asking = replace(
        runner.asking, detail=f"{runner.outcomes:,} outcomes of {len(runner.options)} configurations"
    )
    parts = [*runner.parts, asking]
    rest = Part(
        name="everything else",
        seconds=max(0.0, whole.seconds - math.fsum(part.seconds for part in parts)),
        cpu_seconds=max(0.0, whole.cpu_seconds - math.fsum(part.cpu_seconds for part in parts)),
    )
    return [*parts, rest, replace(whole, detail="this run alone, where one before it was stopped")]
