"""Cross-encoder reranker as a node postprocessor."""

from __future__ import annotations

import math
import pickle  # nosec B403
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation.dispatcher import Dispatcher
from llama_index_instrumentation.span import active_span_id

from llama_index_presets._options import strict
from llama_index_presets.errors import RerankError, SettingsError
from llama_index_presets.events import RerankUsageEvent
from llama_index_presets.inference.backends import BACKENDS, Backend
from llama_index_presets.inference.loading import loading
from llama_index_presets.provenance import RERANK, RETRIEVAL, RankedNode, StageRank
from llama_index_presets.rerank.model import load_pair_model
from llama_index_presets.rerank.official import OFFICIAL, check_model, own_settings, with_retrieval_score
from llama_index_presets.rerank.pair_model import ModelSource, PairModel, Precision
from llama_index_presets.rerank.scoring import (
    LongText,
    Outcome,
    ScoreCache,
    blended,
    normalized,
    probability,
    score_texts,
)
from llama_index_presets.text.digests import text_digest

__all__ = ["CrossEncoderRerank", "RerankReport", "RerankedNodes", "check_settings", "reranked_hit"]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check the arguments of a `CrossEncoderRerank`.

    Raises:
        SettingsError: A value is out of range; the message names it and what was expected.
    """
    check_model(settings["model"])
    for name in ("top_n", "batch_size"):
        _expect(settings[name] >= 1, name, settings[name], "a whole number >= 1")
    _expect(settings["cache_size"] >= 0, "cache_size", settings["cache_size"], "a whole number >= 0")
    _expect(0 <= settings["blend"] <= 1, "blend", settings["blend"], "a number from 0 to 1")
    low, wait, length = settings["min_score"], settings["deadline_ms"], settings["max_length"]
    _expect(low is None or 0 <= low <= 1, "min_score", low, "None or a number from 0 to 1")
    _expect(wait is None or wait > 0, "deadline_ms", wait, "None or a number > 0")
    _expect(length is None or length >= 8, "max_length", length, "None or a whole number >= 8")
    choices = {
        "backend": BACKENDS,
        "precision": ("auto", "float32", "bfloat16", "int8"),
        "long_text": ("truncate", "best_window"),
    }
    for name, known in choices.items():
        _expect(settings[name] in known, name, settings[name], f"one of {', '.join(known)}")
    for precision, backends in {"bfloat16": ("torch", "openvino", "auto"), "int8": ("onnx", "auto")}.items():
        if settings["precision"] == precision and settings["backend"] not in backends:
            raise SettingsError(
                f"precision='{precision}' needs backend='{backends[0]}', not '{settings['backend']}'. Leave precision "
                "at 'auto'."
            )


def _expect(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise SettingsError(f"{name} is {value!r}; expected {expected}.")


def _tag_open_span(dispatcher: Dispatcher, tags: Mapping[str, object]) -> None:
    """Add tags to the span that surrounds the caller, in every span handler that keeps spans.

    LlamaIndex sets tags only when a span opens, before anything has been counted.
    """
    span_id = active_span_id.get()
    level: Dispatcher | None = dispatcher
    while level is not None and span_id is not None:
        for handler in level.span_handlers:
            span = handler.open_spans.get(span_id)
            if span is not None:
                span.tags = {**span.tags, **tags}
        level = level.parent if level.propagate else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankReport:
    """Facts of one reranking.

    Attributes:
        model: Model name or folder.
        query_sha256: First 16 hex digits of the query's SHA-256: the same query has the same.
        candidates: Hits that came in.
        returned: Hits that went out.
        pairs: Query-text pairs that the model scored; a long text may make several.
        cached: Texts whose score came from the cache.
        duplicates: Hits whose text another hit has too; each text is scored once.
        truncated: Pairs that were longer than the model reads, and were cut.
        cut: Whether the deadline ended the scoring early.
        unscored: Candidates that the deadline left without a score.
        prompt_tokens: Tokens of all pairs, as the model read them.
        latency_ms: Time spent scoring, in milliseconds, without loading the model.
    """

    model: str
    query_sha256: str
    candidates: int
    returned: int
    pairs: int
    cached: int
    duplicates: int
    truncated: int
    cut: bool
    unscored: int
    prompt_tokens: int
    latency_ms: float

    def as_tags(self) -> dict[str, object]:
        """The report as span or event tags: ``rerank.model``, ``rerank.pairs``, …"""
        return {f"rerank.{name}": value for name, value in asdict(self).items()}


class RerankedNodes(list[NodeWithScore]):
    """Hits, best first, with the report of the reranking.

    A plain list to everyone who does not know it.

    Attributes:
        report: What was done; ``report.cut`` says whether a deadline ended the scoring.
    """

    def __init__(self, hits: Iterable[NodeWithScore], report: RerankReport) -> None:
        super().__init__(hits)
        self.report = report


def reranked_hit(
    hit: NodeWithScore, *, before: int, after: int, score: float | None, p: float | None
) -> RankedNode:
    """Copy a hit with its final score and the history of both stages; the hit itself is left as it was.

    Args:
        hit: A hit as the retriever gave it. An earlier ``"retrieval"`` entry of its history is kept.
        before: Its 1-based place among the candidates.
        after: Its 1-based place in the result.
        score: Its final score in [0, 1]; None when a deadline left it unscored.
        p: The model's own probability; None when unscored, and then there is no ``"rerank"`` entry.
    """
    history, degraded = (dict(hit.stages), hit.degraded) if isinstance(hit, RankedNode) else ({}, ())
    history.setdefault(RETRIEVAL, StageRank(before, hit.score))
    history.pop(RERANK, None)
    if p is not None:
        history[RERANK] = StageRank(after, p)
    return RankedNode(node=hit.node, score=score, stages=history, degraded=degraded)


dispatcher = get_dispatcher(__name__)

_USUAL = {
    "model": "cross-encoder/ms-marco-MiniLM-L6-v2",
    "max_length": None,
    "device": None,
    "revision": None,
    "trust_remote_code": False,
    "cache_folder": None,
    "local_files_only": False,
    "backend": "auto",
}


@strict(also=OFFICIAL, own_check=["model"])
class CrossEncoderRerank(BaseNodePostprocessor):
    """Node postprocessor: orders hits by a cross-encoder's score of each (query, text) pair.

    The model is loaded at the first call (or by `warm_up`). Input nodes are left as they were: the result
    holds `RankedNode`s, whose ``stages["retrieval"]`` and ``stages["rerank"]`` keep both ranks and scores
    out of the metadata, so neither the prompt nor the node's hash sees them. Thread safe; the async methods
    run in a thread.

    Args:
        model: Folder of a saved cross-encoder, or a name on the hub. Looked for in this order: folder, local
            cache, hub.
        top_n: Most hits returned, >= 1.
        min_score: Least final score in [0, 1] of a returned hit; None keeps all. Hits that a deadline left
            unscored are dropped too, since nothing is known of them.
        blend: Weight in [0, 1] of the retrieval score, stretched to [0, 1] over the candidates; the final
            score is ``(1 - blend) * probability + blend * retrieval``. A weak reranker can need 0.5 to help:
            measure it with `ndcg_by_blend`.
        backend: ``"onnx"`` runs the model on ONNX Runtime without torch, in float32 on the CPU; ``"openvino"`` on
            OpenVINO, in bfloat16 where the processor computes in it; ``"torch"`` on sentence-transformers. ``"auto"``
            takes what is installed and starts first: ONNX Runtime; see `explain`.
        batch_size: Most pairs in one forward pass; on a CPU batches are smaller where texts are long.
        deadline_ms: Time for the scoring, in milliseconds, without loading the model. When it runs out, the
            texts scored so far come first and the rest follows in retrieval order, with score None and no
            ``"rerank"`` stage. None is no limit.
        device: ``"cpu"``, ``"cuda"``, …; None takes a GPU where there is one.
        precision: ``"auto"`` is float32 on ONNX Runtime; on torch bfloat16 where the processor computes in it
            natively, else float32. ``"bfloat16"`` is torch's and OpenVINO's, ``"int8"`` ONNX Runtime's.
        max_length: Most tokens of a pair; None is the model's limit.
        long_text: What to do with a longer pair: ``"truncate"`` (counted in the report) or
            ``"best_window"``.
        cache_size: Scores remembered, by model, query and text; 0 is none.
        revision: Commit, tag or branch on the hub.
        trust_remote_code: Whether code of the model's repository may run here.
        cache_folder: Where downloaded models lie.
        local_files_only: Never ask the hub.
        metadata_mode: Which view of a node is scored.
        keep_retrieval_score: Whether the score that a hit came with is also in the metadata of its node, a copy, as
            ``"retrieval_score"``; prompts and embeddings leave it out.
        callback_manager: LlamaIndex callbacks; a ``RERANKING`` event is sent.
        **official: ``cross_encoder_kwargs`` of `SentenceTransformerRerank`, which may hold `max_length`, `device`,
            `revision`, `trust_remote_code`, `cache_folder`, `local_files_only` and `backend`; all else is refused with
            the reason. Every other name of that class means the same here.

    Raises:
        SettingsError: An argument is out of range, unknown, or cannot be honoured.

    Example:
        >>> rerank = CrossEncoderRerank(top_n=3, blend=0.5, deadline_ms=300)
        >>> rerank.top_n, rerank.model
        (3, 'cross-encoder/ms-marco-MiniLM-L6-v2')
    """

    model: str = Field(description="Folder of a cross-encoder, or its name on the hub.")
    top_n: int = Field(description="Most hits returned.")
    min_score: float | None = Field(description="Least final score of a returned hit.")
    blend: float = Field(description="Weight of the retrieval score in the final score.")
    backend: Backend = Field(description="What runs the model.")
    batch_size: int = Field(description="Most pairs in one forward pass.")
    deadline_ms: float | None = Field(description="Time for the scoring, in milliseconds.")
    device: str | None = Field(description="Where the model runs.")
    precision: Precision = Field(description="Number format of the computation.")
    max_length: int | None = Field(description="Most tokens of a pair.")
    long_text: LongText = Field(description="What to do with a longer pair.")
    cache_size: int = Field(description="Scores remembered.")
    revision: str | None = Field(description="Revision on the hub.")
    trust_remote_code: bool = Field(description="Whether remote code may run.")
    cache_folder: str | None = Field(description="Where downloaded models lie.")
    local_files_only: bool = Field(description="Never ask the hub.")
    metadata_mode: MetadataMode = Field(description="Which view of a node is scored.")
    keep_retrieval_score: bool = Field(
        default=False, description="Whether the retrieval score is in the metadata too."
    )
    _held: tuple[ModelSource, PairModel] | None = PrivateAttr(default=None)
    _loading: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _cache: ScoreCache = PrivateAttr()

    def __init__(
        self,
        model: str = "cross-encoder/ms-marco-MiniLM-L6-v2",
        *,
        top_n: int = 5,
        min_score: float | None = None,
        blend: float = 0.0,
        backend: Backend = "auto",
        batch_size: int = 32,
        deadline_ms: float | None = None,
        device: str | None = None,
        precision: Precision = "auto",
        max_length: int | None = None,
        long_text: LongText = "truncate",
        cache_size: int = 0,
        revision: str | None = None,
        trust_remote_code: bool = False,
        cache_folder: str | None = None,
        local_files_only: bool = False,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        keep_retrieval_score: bool = False,
        callback_manager: CallbackManager | None = None,
        **official: Any,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name in type(self).model_fields}
        settings = own_settings(settings, official.pop("cross_encoder_kwargs", None), _USUAL) | official
        settings["callback_manager"] = callback_manager or CallbackManager([])
        check_settings(settings)
        super().__init__(**settings)
        self._cache = ScoreCache(cache_size)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> CrossEncoderRerank:
        return self.model_copy()  # settings of its own; the loaded model, its lock and the scores are shared

    def __reduce__(self) -> tuple[Any, ...]:
        settings = {
            name: getattr(self, name) for name in type(self).model_fields if name != "callback_manager"
        }
        return _reopened, (type(self), settings, _picklable(self.callback_manager))

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "CrossEncoderRerank"

    def warm_up(self) -> CrossEncoderRerank:
        """Load the model now, so that the first question does not wait for it.

        Raises:
            ModelError: It cannot be found or loaded, or is no reranker.
        """
        self._loaded()
        return self

    def explain(self) -> str:
        """What runs the model here, and why; loads it.

        Example:
            >>> CrossEncoderRerank(backend="onnx").explain()  # doctest: +SKIP
            'cross-encoder/ms-marco-MiniLM-L6-v2 runs on onnx: asked for'
        """
        return f"{self.model} runs on {self._loaded().backend}"

    def probabilities(self, query: str, nodes: Sequence[NodeWithScore]) -> list[float]:
        """The model's score of each node in [0, 1], higher is better, in the order given; no deadline."""
        texts = [self._text(hit) for hit in nodes]
        logits, _, _ = self._score(query, texts, deadline_s=None)
        _refuse_nan(logits, nodes, texts, self.model)
        return [probability(logits[text]) for text in texts]

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_of(query_bundle)
        dispatcher.event(
            ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=self.model)
        )
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            hits = self._rerank(query, nodes)
            event.on_end(payload={EventPayload.NODES: hits})
        self._tell(hits)
        return hits

    def _rerank(self, query: str, nodes: Sequence[NodeWithScore]) -> RerankedNodes:
        retrieval = normalized([hit.score for hit in nodes]) if self.blend else [0.0] * len(nodes)
        texts = [self._text(hit) for hit in nodes]
        deadline_s = None if self.deadline_ms is None else self.deadline_ms / 1000
        if nodes:
            self._loaded()
        began = time.perf_counter()
        logits, outcome, cached = self._score(query, texts, deadline_s=deadline_s)
        latency_ms = (time.perf_counter() - began) * 1000
        _refuse_nan(logits, nodes, texts, self.model)
        hits = self._arrange(nodes, texts, logits, retrieval)
        report = RerankReport(
            model=self.model,
            query_sha256=text_digest(query)[:16],
            candidates=len(nodes),
            returned=len(hits),
            pairs=outcome.pairs,
            cached=cached,
            duplicates=len(texts) - len(set(texts)),
            truncated=outcome.truncated,
            cut=outcome.cut,
            unscored=sum(text not in logits for text in texts),
            prompt_tokens=outcome.prompt_tokens,
            latency_ms=latency_ms,
        )
        return RerankedNodes(hits, report)

    def _score(
        self, query: str, texts: Sequence[str], *, deadline_s: float | None
    ) -> tuple[dict[str, float], Outcome, int]:
        """Logits by text, what it took, and how many texts the cache knew."""
        if not texts:
            return {}, Outcome(), 0
        model, name = self._loaded(), f"{self._source()}|{self.long_text}"
        held = {text: logit for text in texts if (logit := self._cache.get(name, query, text)) is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in held]
        outcome = score_texts(
            model,
            query,
            missing,
            batch_size=self.batch_size,
            deadline_s=deadline_s,
            long_text=self.long_text,
        )
        for text, logit in outcome.logits.items():
            if math.isfinite(logit):
                self._cache.put(name, query, text, logit)
        return {**held, **outcome.logits}, outcome, len(held)

    def _arrange(
        self,
        nodes: Sequence[NodeWithScore],
        texts: Sequence[str],
        logits: dict[str, float],
        retrieval: Sequence[float],
    ) -> list[NodeWithScore]:
        """Scored hits best first (ties in retrieval order), then the unscored in retrieval order."""
        scored: list[tuple[float, float, int]] = []
        for index, text in enumerate(texts):
            if text in logits:
                p = probability(logits[text])
                scored.append((blended(p, retrieval[index], self.blend), p, index))
        scored.sort(key=lambda entry: -entry[0])
        kept = [entry for entry in scored if self.min_score is None or entry[0] >= self.min_score]
        unscored = [index for index, text in enumerate(texts) if text not in logits]
        rest = [(None, None, index) for index in unscored] if self.min_score is None else []
        ordered = [*kept, *rest][: self.top_n]
        if self.keep_retrieval_score:
            nodes = [with_retrieval_score(hit) for hit in nodes]
        return [
            reranked_hit(nodes[index], before=index + 1, after=after, score=score, p=p)
            for after, (score, p, index) in enumerate(ordered, start=1)
        ]

    def _tell(self, hits: RerankedNodes) -> None:
        report, tags = hits.report, hits.report.as_tags()
        _tag_open_span(dispatcher, tags)
        dispatcher.event(
            RerankUsageEvent(
                provider="local",
                model=self.model,
                pairs=report.pairs,
                prompt_tokens=report.prompt_tokens,
                truncated=report.truncated,
                cut=report.cut,
                latency_ms=report.latency_ms,
            )
        )
        dispatcher.event(ReRankEndEvent(nodes=hits, tags=tags))

    def _loaded(self) -> PairModel:
        """The model of the fields as they are now; a field that was set since brings another."""
        source = self._source()
        held = self._held
        if held is not None and held[0] == source:
            return held[1]
        with loading(self.model, "rerank") as load, self._loading:
            load.happened = True
            if self._held is None or self._held[0] != source:
                load.begin()
                self._held = (source, load_pair_model(source))
            return self._held[1]

    def _source(self) -> ModelSource:
        return ModelSource(**{field.name: getattr(self, field.name) for field in fields(ModelSource)})

    def _text(self, hit: NodeWithScore) -> str:
        return hit.node.get_content(metadata_mode=self.metadata_mode)


def _picklable(manager: CallbackManager) -> CallbackManager | None:
    """The callbacks, where they can be pickled; LlamaIndex leaves out those that cannot."""
    try:
        pickle.dumps(manager)
    except Exception:
        return None
    return manager


def _reopened(
    kind: type[CrossEncoderRerank], settings: dict[str, Any], callback_manager: CallbackManager | None
) -> CrossEncoderRerank:
    """Make the reranker of a pickle; the model is loaded anew at its first call."""
    return kind(callback_manager=callback_manager, **settings)


def _query_of(bundle: QueryBundle | None) -> str:
    if bundle is None or not bundle.query_str.strip():
        raise RerankError(
            "Reranking needs the text of the query and got none. Pass query_bundle= or query_str=."
        )
    return bundle.query_str


def _refuse_nan(
    logits: dict[str, float], nodes: Sequence[NodeWithScore], texts: Sequence[str], model: str
) -> None:
    for hit, text in zip(nodes, texts, strict=True):
        if not math.isfinite(logits.get(text, 0.0)):
            raise RerankError(
                f"The model '{model}' scored node '{hit.node.node_id}' {logits[text]}; expected a finite "
                "number. Its weights are damaged or overflow in this precision: try precision='float32'."
            )
