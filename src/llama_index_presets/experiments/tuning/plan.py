"""Plan of a search: what would be tried on which questions, what it would cost, and its execution."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from llama_index_presets.embed.catalogue import catalogue
from llama_index_presets.errors import SettingsError
from llama_index_presets.evaluate.questions import JudgedQuestion
from llama_index_presets.experiments.evaluation import Variant
from llama_index_presets.experiments.tuning.report import TuneReport
from llama_index_presets.experiments.tuning.runner import (
    RETRIEVAL_MEASURES,
    Runner,
    answer_rates,
    check_measure,
    label,
)
from llama_index_presets.experiments.tuning.search import FEWEST, tune
from llama_index_presets.experiments.tuning.space import Configuration, configurations, index_of, parse_axes
from llama_index_presets.ingest.progress import progress_bar
from llama_index_presets.packages.extras import require
from llama_index_presets.presets.checks.local_weights import find_reranker
from llama_index_presets.presets.checks.offline import go_offline
from llama_index_presets.presets.estimates.answer import estimate_answer
from llama_index_presets.presets.estimates.ingestion import estimate_preset
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.settings import Settings
from llama_index_presets.presets.settings_sources import load_settings
from llama_index_presets.providers.rerankers import DEFAULT_RERANKER

__all__ = ["Plan", "make_plan", "run_plan"]

_SEED: Final = 1
_LONGEST: Final = 512
_LOCAL_STORES: Final = ("lancedb", "duckdb")
_ASKED: Final = 0.6
"""Share of all pairs of configuration and question that successive halving asks, about."""


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

    @property
    def indexes(self) -> list[dict[str, Any]]:
        """The ways of making an index that are tried."""
        found = {label(index_of(one)): index_of(one) for one in self.options}
        return list(found.values())

    def summary(self) -> dict[str, str]:
        """For a person."""
        cost = "unknown: a model has no known price" if self.cost_usd is None else f"${self.cost_usd:.4f}"
        return {
            "questions": f"{len(self.questions)} with sources",
            "configurations": f"{len(self.options)}, the first of them today's settings",
            "indexes": "; ".join(label(one) for one in self.indexes),
            "quality": self.measure,
            "cost": cost,
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
    offline: bool = False,
) -> Plan:
    """Plan a search; nothing is sent and nothing is written.

    Args:
        variant: Preset and settings as they are.
        questions: Labelled; those without sources are left out.
        documents: Files, folders and URLs to search.
        folder: Takes indexes, runs and results.
        measure: Name of a measure of quality, see `measures.MEASURES`.
        tried: ``AXIS=A,B`` pairs, see `space.parse_axes`.
        count: How many configurations at most.
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
            f"{len(judged)} of {len(questions)} questions have {kind}; tuning needs {FEWEST}. With fewer, the best "
            "of many configurations is mostly the luckiest one."
        )
    values, _ = load_settings(variant.given(), variant.preset)
    row = find_preset(variant.preset).with_settings(values)
    if offline:
        row = go_offline(row, str(folder), values, ()).row
    known = catalogue().get(row.embedding)
    options = configurations(
        values, row.pattern, given=parse_axes(tried), reranker=find_reranker(DEFAULT_RERANKER) is not None,
        images=known is not None and known.modality == "image",
        longest=min(known.max_tokens, _LONGEST) if known else None, count=count,
    )  # fmt: skip
    plan = Plan(
        variant=variant, row=row, questions=judged, documents=documents, folder=folder, measure=measure,
        options=options, store=row.store if row.store in _LOCAL_STORES else "duckdb", offline=offline, cost_usd=None,
    )  # fmt: skip
    return replace(plan, cost_usd=_cost(plan, values))


def _cost(plan: Plan, values: Settings) -> Decimal | None:
    """Dollars for embedding the documents once for each index, and for the answers where the measure reads them."""
    total = Decimal(0)
    for index in plan.indexes:
        given = {**plan.variant.values(), **{name: one for name, one in index.items() if one is not None}}
        row = find_preset(plan.variant.preset).with_settings(load_settings(given, plan.variant.preset)[0])
        if plan.offline or row.parts()["embedding"].local:
            continue
        cost = estimate_preset(
            plan.variant.preset,
            list(plan.documents),
            offline=plan.offline,
            settings=given,
            show_progress=False,
        ).cost_usd
        if cost is None:
            return None
        total += cost
    if plan.measure in RETRIEVAL_MEASURES or plan.row.parts()["llm"].local:
        return total
    usd = estimate_answer(plan.row, values).usd
    return None if usd is None else total + usd * math.ceil(len(plan.options) * len(plan.questions) * _ASKED)


def run_plan(
    plan: Plan, warn: Callable[[str, str], None], *, show_progress: bool | None = None
) -> TuneReport:
    """Search; after an interruption it goes on where it was.

    Args:
        plan: See `make_plan`.
        warn: Told of what was left out, and why.
        show_progress: Whether to draw a bar; None draws one where standard error is a terminal.

    Raises:
        PresetsError: Today's settings cannot be built, or a question failed.
    """
    started = time.monotonic()
    order = sorted(plan.questions)
    random.Random(_SEED).shuffle(order)  # nosec B311  # an order without meaning, the same in every run
    with progress_bar(show_progress, doing="Asking", things="questions") as progress:
        runner = Runner(
            variant=plan.variant, documents=plan.documents, questions=plan.questions, order=order, folder=plan.folder,
            options=list(plan.options), store=plan.store, rates=answer_rates(plan.row), quality=plan.measure,
            offline=plan.offline, progress=progress,
        )  # fmt: skip
        dropped = runner.prepare()
        for source, error in {**runner.failed, **dropped}.items():
            warn(source, error)
        progress.start(math.ceil(len(runner.options) * len(order) * _ASKED))
        tuned = tune(len(runner.options), order, runner.ask)
    return TuneReport(
        preset=plan.variant.preset,
        given=plan.variant.values(),
        measure=plan.measure,
        options=runner.options,
        tuned=tuned,
        priced=runner.rates is not None,
        seconds=time.monotonic() - started,
    )
