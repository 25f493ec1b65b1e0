"""Evaluation of an engine: every question of a set asked, every outcome saved."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from llama_index.core.indices.vector_store import VectorIndexRetriever
from llama_index.core.llms.llm import LLM
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from llama_index_presets.errors import SettingsError
from llama_index_presets.evaluate.agreement import answer_f1, exact_match
from llama_index_presets.evaluate.outcomes import Checkpoint, Outcome, missing_sources, named_sources
from llama_index_presets.evaluate.questions import JudgedQuestion, digest
from llama_index_presets.evaluate.results import Result, make_result
from llama_index_presets.ingest.progress import progress_bar
from llama_index_presets.monitor.attribution import attributed
from llama_index_presets.presets.checks.offline import is_local
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.engine_parts import cost_of
from llama_index_presets.presets.index.storage import resolve_storage
from llama_index_presets.presets.project.settings_sources import read_settings_file
from llama_index_presets.ranking.bm25 import Analyzer
from llama_index_presets.rerank.cross_encoder import CrossEncoderRerank
from llama_index_presets.retrieve.hybrid import HybridFusionRetriever
from llama_index_presets.retrieve.multi_modal import MultiModalRetriever

__all__ = ["Evaluation", "Variant", "corpus_digest", "judged", "parse_settings", "source_names"]

# -- LlamaIndex's evaluators, which are asynchronous ----------------------------------------------------------


def judged(
    judge: LLM, question: str, answer: str, passages: Sequence[str], expected: str | None = None
) -> tuple[float | None, float | None, float | None]:
    """Judge an answer.

    Returns:
        Its faithfulness to the passages and its relevancy to the question, 1 for yes and 0 for no; and its agreement
        with the expected answer, 0 to 1, None where none is expected.
    """
    found = _asked(judge, question, answer, passages, expected)
    return asyncio.run_coroutine_threadsafe(found, _loop()).result()


async def _asked(
    judge: LLM, question: str, answer: str, passages: Sequence[str], expected: str | None
) -> tuple[float | None, float | None, float | None]:
    from llama_index.core.evaluation import CorrectnessEvaluator, FaithfulnessEvaluator, RelevancyEvaluator

    faithful = await FaithfulnessEvaluator(llm=judge).aevaluate(
        query=question, response=answer, contexts=passages
    )
    relevant = await RelevancyEvaluator(llm=judge).aevaluate(
        query=question, response=answer, contexts=passages
    )
    correct = None
    if expected is not None:
        score = (
            await CorrectnessEvaluator(llm=judge, parser_function=_read_score).aevaluate(
                query=question, response=answer, reference=expected
            )
        ).score
        correct = None if score is None else min(max((score - 1) / 4, 0.0), 1.0)  # it gives 1 to 5
    return faithful.score, relevant.score, correct


def _read_score(text: str) -> tuple[float | None, str]:
    """Score of a verdict, 1 to 5; None where it names none: that is no verdict, and the other measures hold."""
    number = re.search(r"(?<![\d.])[1-5](?:\.\d+)?(?![\d.]*\d)", text)
    return (float(number.group()) if number else None), text


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One event loop for all: a client keeps connections, which belong to the loop in which they were opened."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="judging").start()
    return loop


# -- the second engine of a comparison ------------------------------------------------------------------------


_MAKES_THE_INDEX = frozenset(
    {
        "embedding", "dimensions", "store", "pattern", "chunking", "chunk_tokens", "chunk_context", "context_llm",
        "encryption", "searchable_metadata", "pii",
    }
)  # fmt: skip
"""Settings that an index is made with: another value needs another index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Variant of an engine to measure, not built yet.

    Attributes:
        preset: Its name.
        storage: Where its index lies.
        settings: Path of a TOML file, or None.
        changes: Settings on top of the file.
    """

    preset: str
    storage: str
    settings: Path | None = None
    changes: Mapping[str, Any] | None = None

    @property
    def label(self) -> str:
        """Preset and changes, in a few words."""
        return " ".join([self.preset, *(f"{name}={value}" for name, value in (self.changes or {}).items())])

    def other(self, preset: str | None, changes: Mapping[str, Any], storage: str | None) -> Variant:
        """Variant to compare with.

        Args:
            preset: Another preset, or None for this one.
            changes: Settings on top of this one's.
            storage: Where its index lies; None takes this one's where both can share it, else a folder below.
        """
        both = replace(self, preset=preset or self.preset, changes={**(self.changes or {}), **changes})
        own = {name: value for name, value in changes.items() if name in _MAKES_THE_INDEX}
        if storage is None and both.preset == self.preset and not own:
            return both
        name = "-".join([both.preset, *(f"{key}-{value}" for key, value in sorted(own.items()))])
        return replace(both, storage=storage or str(resolve_storage(self.storage).folder / "variants" / name))

    def given(self) -> Mapping[str, Any] | Path | None:
        """Settings that are passed to `build`.

        Raises:
            SettingsError: The file cannot be read.
        """
        return self.values() if self.changes else self.settings

    def values(self) -> dict[str, Any]:
        """Settings by name: those of the file, and the changes on top.

        Raises:
            SettingsError: The file cannot be read.
        """
        file = read_settings_file(self.settings, self.preset) if self.settings else {}
        return {**file, **(self.changes or {})}


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs; a value that is JSON is taken as such.

    Raises:
        SettingsError: A pair has no ``=``.

    Example:
        >>> parse_settings(["top_k=8", "chunking=semantic"])
        {'top_k': 8, 'chunking': 'semantic'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise SettingsError(f"'{pair}' is no setting; expected KEY=VALUE, such as top_k=8.")
        try:
            found[name.strip()] = json.loads(text)
        except ValueError:
            found[name.strip()] = text
    return found


_DEPTH = 50
"""Passages that are ranked for the measures at ten sources: several may come from one source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How to evaluate an engine.

    Attributes:
        engine: What is asked. Its own retrieval, re-ranking and answers are measured, each question by itself.
        questions: What is asked of it.
        judge: Judges faithfulness and relevancy; None leaves them out.
        retrieval_only: Whether no answer is asked for: nothing is paid to an LLM.
        keep_answers: Whether the answers' text is kept in the result, in clear.
    """

    engine: PresetEngine
    questions: Sequence[JudgedQuestion]
    judge: LLM | None = None
    retrieval_only: bool = False
    keep_answers: bool = False

    def run(
        self, label: str, folder: Path, *, fresh: bool = False, show_progress: bool | None = None
    ) -> Result:
        """Ask every question.

        Each outcome is on disk before the next question is asked; a run that was stopped goes on where it was, as
        long as questions, engine and index are the same. A question that fails is named in the result, costs no
        other question, and is asked again by the next run.

        Args:
            label: What the result is called.
            folder: Takes the file of an unfinished run.
            fresh: Whether an unfinished run is started anew.
            show_progress: Whether to draw a bar; None draws one where standard error is a terminal.

        Raises:
            SettingsError: There is no question, or the judge would send text away from a local preset.
            StoreWriteError: An outcome could not be kept; the run goes on from there when it is started again.
        """
        self._check()
        place = folder / f"unfinished-{self._name()}.jsonl"
        if fresh:
            place.unlink(missing_ok=True)
        failed: dict[str, str] = {}
        with (
            Checkpoint(place) as kept,
            progress_bar(show_progress, doing="Asking", things="questions") as bar,
        ):
            bar.start(len(self.questions))
            left = [one for one in self.questions if one.id not in kept.outcomes]
            bar.advance(len(self.questions) - len(left))
            if left:
                with suppress(Exception):  # it is asked again below, and named where it fails
                    self._rank(left[0])  # models load at first use: that is no question's latency
            for one in left:
                try:
                    outcome = self.outcome(one)
                except Exception as error:  # a client may raise anything; the other questions go on
                    failed[one.id] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                else:
                    kept.add(outcome)  # on a full disk the run ends: no other answer is paid and lost
                bar.advance()
            if len(failed) == len(self.questions):
                raise SettingsError(f"Every question failed; the first with {next(iter(failed.values()))}")
            result = make_result(label, self.described(), self.questions, kept.outcomes, failed)
        if not failed:
            kept.discard()
        return result

    def missing_sources(self, result: Result) -> list[str]:
        """Sources of the questions that no document has as its name; see `outcomes.missing_sources`."""
        return missing_sources(self.questions, result.outcomes, self.engine._parts.manifest.hashes())

    # -- one question -----------------------------------------------------------------------------------------------

    def outcome(self, one: JudgedQuestion) -> Outcome:
        """Ask one question."""
        if self.retrieval_only:
            started = time.perf_counter()
            ranking = self._rank(one)
            return Outcome(
                question=one.id, ranking=ranking, latency_ms=(time.perf_counter() - started) * 1000
            )
        response = _without_answer_cache(self.engine).query(one.text)
        metadata: dict[str, Any] = response.metadata or {}
        text, known = str(response), bool(metadata["known"])
        names = {hit.node.node_id: source_names(hit) for hit in response.source_nodes}
        cited = [
            names.get(citation["node_id"], [str(citation["source"])])
            for citation in metadata["citations"]
            if citation["valid"]
        ]
        passages = [hit.node.get_content(MetadataMode.NONE) for hit in response.source_nodes]
        return Outcome(
            question=one.id,
            ranking=self._rank(one),
            cited=tuple(named_sources(cited, one.relevance)),
            known=known,
            latency_ms=metadata["latency_ms"],
            cost_usd=metadata["cost_usd"],
            answer_recall=_answer_recall(one.answer, text),
            exact_match=None if one.answer is None else exact_match(one.answer, text),
            answer_f1=None if one.answer is None else answer_f1(one.answer, text),
            answer=text if self.keep_answers else None,
            **(self._judged(one, text, passages) if known else {}),
        )

    def _rank(self, one: JudgedQuestion) -> tuple[str, ...]:
        """Sources in the engine's order, further down than an answer reads."""
        query = QueryBundle(one.text)
        with attributed(ledger=self.engine.ledger, tags=["evaluate"], query_id=uuid.uuid4().hex):
            hits = _deeper(self.engine.retriever).retrieve(query)
            for part in self.engine.postprocessors:
                if isinstance(part, CrossEncoderRerank):
                    part = part.model_copy(update={"top_n": max(part.top_n, _DEPTH)})
                hits = part.postprocess_nodes(hits, query_bundle=query)
        return tuple(named_sources([source_names(hit) for hit in hits], one.relevance))

    def _judged(self, one: JudgedQuestion, answer: str, passages: Sequence[str]) -> dict[str, float | None]:
        if self.judge is None:
            return {}
        judging = uuid.uuid4().hex
        with attributed(ledger=self.engine.ledger, tags=["evaluate", "judge"], query_id=judging):
            faithful, relevant, correct = judged(self.judge, one.text, answer, passages, one.answer)
        cost = cost_of(self.engine.ledger, judging)
        judge_usd = None if cost is None else float(cost)
        verdicts = {"faithfulness": faithful, "relevancy": relevant, "correctness": correct}
        return {**verdicts, "judge_usd": judge_usd}

    # -- the run ----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if not self.questions:
            raise SettingsError("There is no question to ask.")
        cells = self.engine.explain()
        stays = cells["cells"]["monitoring"] == "local"
        if stays and self.judge is not None and not is_local(self.judge):
            raise SettingsError(
                f"The preset '{cells['preset']}' keeps everything on this machine; the judge "
                f"{self.judge.metadata.model_name} would be sent questions, passages and answers. Use a local judge."
            )

    def described(self) -> dict[str, Any]:
        """The engine's parts and index, as the result records them: cells, settings, fingerprints."""
        explained = self.engine.explain()
        keys = ("preset", "cells", "fingerprint", "documents", "chunks")
        described = {key: explained[key] for key in keys}
        described["corpus"] = corpus_digest(self.engine)
        settings = {name: found["value"] for name, found in explained["settings"].items()}
        judge = self.judge.metadata.model_name if self.judge else None
        return {**described, "settings": settings, "judge": judge, "retrieval_only": self.retrieval_only}

    def _name(self) -> str:
        """Key of a run: equal for two runs of which one can resume the other."""
        told = [digest(self.questions), self.described(), self.keep_answers]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _without_answer_cache(engine: PresetEngine) -> PresetEngine:
    """The same engine, which writes every answer: one of the cache would have the cache's latency and cost."""
    parts = engine._parts
    return engine if parts.answers is None else PresetEngine(parts.derived(answers=None))


def corpus_digest(engine: PresetEngine) -> str:
    """Short hash of the documents that an engine searches, by their contents: the same wherever they lie."""
    hashes = sorted(engine._parts.manifest.hashes().values())
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]


def _deeper(retriever: Any) -> Any:
    """A copy of a retriever that gives more; one of a kind that we do not know is taken as it is."""
    deeper = copy.copy(retriever)
    dials = (
        (VectorIndexRetriever, "similarity_top_k"),
        (HybridFusionRetriever, "top_k"),
        (MultiModalRetriever, "_top_k"),
    )
    for kind, dial in dials:
        if isinstance(deeper, kind):
            setattr(deeper, dial, max(getattr(deeper, dial), _DEPTH))
    return deeper


def source_names(hit: NodeWithScore) -> list[str]:
    """Names of a hit's document, the best first."""
    node = hit.node
    given = [node.ref_doc_id, node.metadata.get("source"), node.metadata.get("file_name"), node.node_id]
    return [str(name) for name in given if name]


def _answer_recall(expected: str | None, answer: str) -> float | None:
    """Share of the expected words, stemmed and without stop words, that the answer has."""
    if expected is None:
        return None
    analyzer = Analyzer()
    wanted = set(analyzer.tokens(expected)) or set(expected.lower().split())
    return len(wanted & (set(analyzer.tokens(answer)) | set(answer.lower().split()))) / max(len(wanted), 1)
