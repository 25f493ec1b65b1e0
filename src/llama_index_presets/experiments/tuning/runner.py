"""Runs of configurations: an index for each way of making one, every outcome on disk before the next question."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from llama_index.core.schema import MetadataMode, QueryBundle

from llama_index_presets.counting import counted
from llama_index_presets.errors import PresetsError, SettingsError
from llama_index_presets.evaluate.measures import LOWER_IS_BETTER, MEASURES, measure
from llama_index_presets.evaluate.outcomes import Checkpoint, Outcome, missing_sources, named_sources
from llama_index_presets.evaluate.questions import JudgedQuestion, digests
from llama_index_presets.experiments.evaluation import Evaluation, Variant, corpus_digest, source_names
from llama_index_presets.experiments.tuning.search import Point
from llama_index_presets.experiments.tuning.space import AXES, Configuration, index_of
from llama_index_presets.ingest.progress import Progress
from llama_index_presets.monitor.prices import Pricer, Rates, Tokens
from llama_index_presets.presets.build import build
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.estimates.answer import ANSWER_TOKENS, PROMPT_TOKENS
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.providers.language_models import language_model_rates, read_name

__all__ = ["RETRIEVAL_MEASURES", "Part", "Runner", "answer_rates", "check_measure", "label"]

RETRIEVAL_MEASURES: Final = ("ndcg_at_10", "recall_at_10", "mrr_at_10")
"""Measures of the passages that an answer reads: no answer is asked for, and no language model is paid."""

_STEP: Final = 5
"""Questions are asked in whole steps of so many, so that the folds of a cross-validation share them."""


def check_measure(name: str) -> str:
    """A measure of quality that can be tuned for.

    Raises:
        SettingsError: There is no such measure, or it is none of quality.
    """
    known = [one for one in MEASURES if one not in LOWER_IS_BETTER]
    if name not in known:
        raise SettingsError(
            f"'{name}' is no measure of quality to tune for. Choose one of: {', '.join(known)}."
        )
    return name


def answer_rates(row: Preset, pricer: Pricer) -> Rates | None:
    """Prices of the language model that would read the passages; None when they are unknown.

    Args:
        row: The row, as the settings choose it.
        pricer: Knows the prices.
    """
    return language_model_rates(read_name(row.llm), pricer, local=row.parts()["llm"].local)[1]


@dataclass(slots=True, kw_only=True)
class Part:
    """Part of a search, and how long it took in this run.

    Attributes:
        name: What was done.
        detail: How much of it.
        seconds: Wall time.
        cpu_seconds: Time of all processor cores; where others use the machine, what it would take without them.
    """

    name: str
    detail: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time of a block."""
        began, cpu = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - began
            self.cpu_seconds += time.process_time() - cpu


@dataclass(slots=True, kw_only=True)
class Runner:
    """Asks questions of configurations, each question once; what was asked is kept for the next run.

    Attributes:
        variant: Preset and settings as they are.
        documents: What to search.
        questions: By id.
        order: Ids of the questions in the order in which they are asked.
        folder: Takes the indexes, the embeddings and what was asked.
        options: Configurations; `prepare` drops those that cannot be built.
        store: Vector store of the indexes: one on this machine.
        rates: Prices of the language model; None when they are unknown.
        reranking_usd: Price of re-ranking for one question, by configuration; None where it is unknown.
        quality: Name of the measure.
        offline: As for `build`.
        progress: Told of each question.
        failed: Documents that could not be read, and why.
        parts: How long each index took.
        asking: How long the questions took.
        outcomes: How many outcomes were added in this run.
    """

    variant: Variant
    documents: Sequence[str]
    questions: Mapping[str, JudgedQuestion]
    order: Sequence[str]
    folder: Path
    options: list[Configuration]
    store: str
    rates: Rates | None
    reranking_usd: Callable[[Configuration], Decimal | None]
    quality: str
    offline: bool
    progress: Progress
    failed: dict[str, str] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    asking: Part = field(default_factory=lambda: Part(name="questions"))
    outcomes: int = 0
    _asked: dict[int, dict[str, Outcome]] = field(default_factory=dict)
    _points: dict[int, dict[str, Point]] = field(default_factory=dict)
    _corpora: dict[str, str] = field(default_factory=dict)
    _documents: set[str] = field(default_factory=set)

    def prepare(self) -> dict[str, str]:
        """Make the indexes; each text is embedded once by each model.

        Returns:
            What was dropped, and why: index or pattern -> error.

        Raises:
            PresetsError: The index or the engine of today's settings cannot be made.
        """
        dropped: dict[str, str] = {}
        groups: dict[str, list[Configuration]] = {}
        for one in self.options:
            groups.setdefault(_hash(index_of(one)), []).append(one)
        good: set[str] = set()
        for key, group in groups.items():
            # A keyword index is made by the ingest of a hybrid pattern, and passed over by the others.
            for one in sorted(group, key=lambda found: found["pattern"] != "hybrid"):
                if _kind(one) in good or label(one) in dropped:
                    continue
                try:
                    self._make_index(key, one)
                    good.add(_kind(one))
                except PresetsError as error:
                    if _kind(one) == _kind(self.options[0]):
                        raise
                    dropped[label(one)] = str(error)
        self.options = [one for one in self.options if _kind(one) in good]
        return dropped

    def _make_index(self, key: str, one: Configuration) -> None:
        part = Part(name=f"index {label(index_of(one))}")
        with part.timed(), self._open(one) as engine:
            if key in self._corpora:
                return
            report = engine.ingest(list(self.documents), sync=True)  # a run before may have had more
            self.failed |= {failure.source: failure.error for failure in report.failed}
            self._corpora[key] = corpus_digest(engine)
            self._documents.update(engine._parts.manifest.hashes())
            chunks = engine.explain()["chunks"]
        part.detail = f"{counted(chunks, 'chunk')}, {report.embedded:,} of them embedded in this run"
        self.parts.append(part)

    @property
    def priced(self) -> bool:
        """Whether all prices are known; else dollars count as 0 for all, as one without a price is not the cheapest."""
        return self.rates is not None and all(self.reranking_usd(one) is not None for one in self.options)

    def remove_indexes(self) -> None:
        """Remove what the search has made but for its outcomes and its vectors, with which another run embeds nothing.

        Raises:
            OSError: A file cannot be removed.
        """
        folder = self.folder / "indexes"
        if folder.exists():
            shutil.rmtree(folder)

    def _open(self, one: Configuration) -> PresetEngine:
        place = self._index(one)
        changes = {**(self.variant.changes or {}), **one, "store": self.store}
        changes |= {"embedding_cache": str(self.folder / "embeddings")}
        given = replace(self.variant, storage=str(place), changes=changes).given()
        return build(self.variant.preset, storage=place, offline=self.offline, settings=given)

    def _index(self, one: Configuration) -> Path:
        """Folder of an index: another one for other documents, and for other settings, which may make it otherwise."""
        documents = sorted({_document(name) for name in self.documents})
        others = {name: value for name, value in self.variant.values().items() if name not in (*AXES, "llm")}
        about = [self.variant.preset, self.offline, self.store, others, documents, index_of(one)]
        return self.folder / "indexes" / _hash(about)

    # -- questions --------------------------------------------------------------------------------------------------

    def ask(self, number: int, questions: Sequence[str]) -> dict[str, Point]:
        """What configuration `number` does with questions; see `search.Ask`."""
        points = self._points.setdefault(number, {})
        if not all(one in points for one in questions):
            places = {one: place for place, one in enumerate(self.order)}
            last = max(places[one] for one in questions) + 1
            self._ask(number, self.order[: -(-last // _STEP) * _STEP])
            points.update(self._measured(number))
        return {one: points[one] for one in questions}

    def missing_sources(self) -> list[str]:
        """Sources of the questions that no document has as its name; see `outcomes.missing_sources`."""
        outcomes = [one for asked in self._asked.values() for one in asked.values()]
        return missing_sources(self.questions.values(), outcomes, self._documents)

    def _ask(self, number: int, questions: Sequence[str]) -> None:
        one = self.options[number]
        with Checkpoint(self._journal(one)) as journal:
            left = [name for name in questions if name not in journal.outcomes]
            self.progress.advance(len(questions) - len(left) - len(self._asked.get(number, {})))
            if left:
                reranking_usd = self.reranking_usd(one)
                with self.asking.timed(), self._open(one) as engine:
                    engine.retrieve(QueryBundle(self.questions[left[0]].text))  # models load at first use
                    for name in left:
                        journal.add(self._outcome(engine, self.questions[name], reranking_usd))
                        self.outcomes += 1
                        self.progress.advance()
            self._asked[number] = dict(journal.outcomes)

    def _outcome(self, engine: PresetEngine, one: JudgedQuestion, reranking_usd: Decimal | None) -> Outcome:
        if self.quality not in RETRIEVAL_MEASURES:
            return Evaluation(engine=engine, questions=[one]).outcome(one)
        started = time.perf_counter()
        hits = engine.retrieve(QueryBundle(one.text))
        latency_ms = (time.perf_counter() - started) * 1000
        texts = [hit.node.get_content(MetadataMode.NONE) for hit in hits]
        count = engine._parts.chunker.count
        read = PROMPT_TOKENS + min(sum(map(count, texts)), engine.settings.context_tokens)
        usd = None if self.rates is None else self.rates.cost(Tokens(read, ANSWER_TOKENS))
        usd = None if usd is None or reranking_usd is None else usd + reranking_usd
        ranking = tuple(named_sources([source_names(hit) for hit in hits], one.relevance))
        return Outcome(
            question=one.id,
            ranking=ranking,
            latency_ms=latency_ms,
            cost_usd=None if usd is None else float(usd),
        )

    def _measured(self, number: int) -> dict[str, Point]:
        outcomes = {name: found for name, found in self._asked[number].items() if name in self.questions}
        scores = measure([self.questions[name] for name in outcomes], outcomes)
        quality, priced = scores.by_question.get(self.quality, {}), self.priced
        return {
            name: Point(quality.get(name, 0.0), found.latency_ms, (found.cost_usd or 0.0) if priced else 0.0)
            for name, found in outcomes.items()
        }

    def _journal(self, one: Configuration) -> Path:
        """File of what was asked; another one when settings, documents, questions or prices are others."""
        asked = sorted(digests([self.questions[name] for name in self.order]).items())
        paid: Any = self.quality
        if paid in RETRIEVAL_MEASURES:  # with dollars by these prices; those of an answer are what was paid
            paid = ["retrieval", self.rates, self.reranking_usd(one)]
        about = [
            self.variant.preset,
            self.offline,
            self.variant.values(),
            one,
            asked,
            self._corpora[_hash(index_of(one))],
            paid,
        ]
        return self.folder / "runs" / f"{_hash(about)}.jsonl"


def _document(name: str) -> str:
    place = Path(name)
    return str(place.resolve()) if place.exists() else name


def label(one: Configuration) -> str:
    """A configuration in a few words."""
    return " ".join(f"{name}={value}" for name, value in one.items() if value is not None)


def _kind(one: Configuration) -> str:
    """What decides whether an engine can be built: equal kinds are built alike."""
    return _hash({**index_of(one), "pattern": one["pattern"], "reranker": one.get("reranker")})


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
