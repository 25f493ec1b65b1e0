"""Reuse of answers: when an answer from the cache is the answer to a question, and what is kept of one.

An answer depends on the question, the passages, the model, its prompts and the settings. All but the passages are in
the key. The passages are the same where the index has not changed since, which a local index can tell; else, and always
in a storage with permissions, they are retrieved again and compared. In doubt there is no hit.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Any, Final

from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate, PromptTemplate
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore
from llama_index.core.storage.docstore.utils import doc_to_json, json_to_doc

from llama_index_presets.answer.cache.question_form import normalised, question_form
from llama_index_presets.answer.cache.store import AnswerCache
from llama_index_presets.answer.cited_answer import CitedAnswer
from llama_index_presets.errors import PresetsError
from llama_index_presets.monitor.attribution import attribution
from llama_index_presets.monitor.calls.usage import provider_of
from llama_index_presets.presets.engine_parts import EngineParts
from llama_index_presets.presets.index.storage import Storage
from llama_index_presets.provenance import RankedNode, StageRank
from llama_index_presets.text.digests import text_digest

__all__ = ["CachedAnswer", "Lookup"]

_log = logging.getLogger(__name__)
_BY_HAND: Final = ("store", "embedding", "reranker")
"""Parts given by hand whose changes are not known: the passages are retrieved and compared."""

_NOT_ABOUT_ANSWERS: Final = frozenset(
    {
        "answer_cache", "answer_cache_mb", "answer_cache_hours", "embedding_cache", "monitoring", "state",
        "leg_timeout_s", "batch_chunks", "max_document_mb", "prices", "stream_usage", "trace_endpoint", "trace_project",
        "trace_content", "alert_webhook", "alert_by", "alert_error_rate", "alert_latency_s", "alert_cost_ratio",
    }
)  # fmt: skip
_NOT_ABOUT_THE_MODEL: Final = frozenset(
    {
        "api_key", "token", "callback_manager", "timeout", "request_timeout", "max_retries", "num_workers",
        "reuse_client", "keep_alive", "rate_limiter",
    }
)  # fmt: skip


@dataclass(slots=True)
class CachedAnswer:
    """Answer from the cache; it stands where a `CitedAnswer` would.

    Attributes:
        text: The answer.
        source_nodes: The hits that the model was shown when it wrote the answer.
        facts: What its response said of it, and ``cached``.
        degraded: None: an apology is not kept.
    """

    text: str
    source_nodes: list[NodeWithScore]
    facts: dict[str, Any]
    degraded: None = None

    def metadata(self) -> dict[str, Any]:
        """What a response says of its answer."""
        return dict(self.facts)


@dataclass(slots=True)
class Lookup:
    """One question and the cache: looked up before the search, after it, and kept in the end."""

    cache: AnswerCache
    parts: EngineParts
    question: str
    query_id: str
    options: dict[str, Any]
    key: bytes
    version: str | None
    entry: dict[str, Any] | None = None
    passages: str = ""
    cost_before: Decimal | None = None

    @classmethod
    def of(cls, parts: EngineParts, question: str, query_id: str, image_path: str | None) -> Lookup | None:
        """Begin; None where there is no cache, or what decides the answer is not known."""
        cache = parts.answers
        if cache is None or image_path or not question.strip():
            return None
        try:
            options = _options(parts.synthesizer.llm)
            key = _key(cache, parts, question, options)
            return cls(cache, parts, normalised(question), query_id, options, key, _index_version(parts))
        except (PresetsError, TypeError, ValueError) as error:
            _log.info("A question is not looked up in the answer cache: %s", type(error).__name__)
            return None

    def unchanged(self) -> CachedAnswer | None:
        """The answer to the same words, where the index has not changed since; nothing is retrieved."""
        self.entry = self.cache.get(self.key)
        entry = self.entry
        if entry is None or self.version is None or entry.get("version") != self.version:
            return None
        return self._hit(entry, "unchanged index") if entry.get("question") == self.question else None

    def same_passages(self, hits: Sequence[NodeWithScore]) -> CachedAnswer | None:
        """The answer, where the passages found for the question now are those that it was written from."""
        self.passages = _passages(hits)
        entry = self.entry
        if entry is not None and self.passages and entry.get("passages") == self.passages:
            return self._hit(entry, "same passages")
        if self.passages:
            self.cost_before = self.parts.ledger.answering_cost(self.query_id)
        return None

    def keep(self, answer: CitedAnswer, metadata: Mapping[str, Any]) -> None:
        """Keep an answer that is whole: known, not cut off, with all legs of the search and no service down."""
        whole = answer.known and answer.finish_reason in (None, "stop") and not metadata.get("failed_legs")
        if not self.passages or not whole:
            return
        try:
            self._put(answer, metadata)
        except Exception as error:  # the answer is there; that it cannot be kept costs a later call, no more
            _log.warning("An answer is not kept in the answer cache: %s", type(error).__name__)

    def _put(self, answer: CitedAnswer, metadata: Mapping[str, Any]) -> None:
        now = _options(self.parts.synthesizer.llm)
        self.cache.logs |= {name for name, value in now.items() if _grew(self.options.get(name), value)}
        key = _key(self.cache, self.parts, self.question, self.options)
        if key != _key(self.cache, self.parts, self.question, now):
            return  # somebody changed the model or the prompts meanwhile
        version_now = _index_version(self.parts)
        if self.version is not None and version_now is not None and self.version != version_now:
            return  # written from what was searched before a change: its text may have been removed, and compacted away
        cost = self.parts.ledger.answering_cost(self.query_id)
        known = cost is not None and self.cost_before is not None
        self.cache.put(
            key,
            {
                "question": self.question,
                "version": self.version if self.version == version_now else None,
                "passages": self.passages,
                "text": answer.text,
                "metadata": {name: value for name, value in metadata.items() if name not in _OF_THE_RUN},
                "sources": [_stored(hit) for hit in answer.source_nodes],
                "query_id": self.query_id,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "cost_usd": str(cost - self.cost_before) if known else None,  # type: ignore[operator]
            },
        )

    def _hit(self, entry: Mapping[str, Any], why: str) -> CachedAnswer | None:
        """The answer of an entry, with its row in the ledger; None where the entry cannot be read."""
        begun = time.perf_counter()
        try:
            sources = [_restored(one) for one in entry["sources"]]
            saved = None if entry["cost_usd"] is None else Decimal(entry["cost_usd"])
            facts = {
                **entry["metadata"],
                "cached": {
                    "query_id": entry["query_id"],
                    "at": entry["at"],
                    "why": why,
                    "saved_usd": None if saved is None else float(saved),
                },
            }
            answer = CachedAnswer(str(entry["text"]), sources, facts)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            _log.warning("An entry of the answer cache cannot be read: %s", type(error).__name__)
            return None
        if len(self.parts.visible_hits(sources)) != len(sources):
            return None  # the user may not see all of it any more
        self._bill(saved or Decimal(0), (time.perf_counter() - begun) * 1000)
        return answer

    def _bill(self, saved_usd: Decimal, latency_ms: float) -> None:
        """One row for the call that was not made."""
        who, llm = attribution(), self.parts.synthesizer.llm
        model = llm.metadata.model_name
        self.parts.ledger.record(
            kind="llm", provider=provider_of(llm.class_name(), model), model=model, latency_ms=latency_ms,
            cache_hit=True, saved_usd=saved_usd, preset=self.parts.preset.name, query_id=self.query_id,
            session=who.session, tenant=self.parts.tenant or who.tenant, tags=who.tags,
        )  # fmt: skip


_OF_THE_RUN: Final = ("query_id", "cost_usd", "latency_ms", "cached")


def _key(cache: AnswerCache, parts: EngineParts, question: str, options: Mapping[str, Any]) -> bytes:
    """Key of a question for this engine as it is now: user, index, model, prompts and settings."""
    synthesizer = parts.synthesizer
    access = None if parts.access is None else [sorted(names) for names in parts.access.names]
    scope = {
        "release": version("llama-index-presets"),
        "preset": parts.preset.name,
        "cells": [parts.preset.store, parts.preset.pattern, parts.preset.embedding, parts.preset.llm],
        "overrides": parts.overrides,
        "index": [parts.storage.shown, str(parts.fingerprint)],
        "settings": {
            name: value
            for name, value in dataclasses.asdict(parts.settings).items()
            if name not in _NOT_ABOUT_ANSWERS
        },
        "filters": None if parts.filters is None else parts.filters.model_dump(mode="json"),
        "tenant": parts.tenant,
        "access": access,
        "model": {name: value for name, value in options.items() if name not in cache.logs},
        "prompts": {name: _prompt(one) for name, one in sorted(synthesizer.get_prompts().items())},
        "answers": [
            repr(synthesizer.evidence), synthesizer.context_tokens, synthesizer.verify_numbers,
            synthesizer.on_injection,
        ],
        "order": [type(one).__qualname__ for one in parts.retrieval.postprocessors],
    }  # fmt: skip
    return cache.key(json.dumps(scope, sort_keys=True, default=_as_text), question_form(question))


def _as_text(value: object) -> str:
    if isinstance(value, set | frozenset):
        return repr(sorted(map(str, value)))
    return f"{type(value).__qualname__}:{value}"


def _options(llm: LLM) -> dict[str, Any]:
    """Class and options of a model, as they are now; those that do not change what it says are left out.

    Raises:
        ValueError: They cannot be read.
    """
    try:
        options: dict[str, Any] = llm.to_dict()
    except Exception as error:
        raise ValueError(f"options of {type(llm).__name__} cannot be read") from error
    kept = {name: value for name, value in options.items() if name not in _NOT_ABOUT_THE_MODEL}
    return kept | {"class": f"{type(llm).__module__}.{type(llm).__qualname__}"}


def _grew(before: object, now: object) -> bool:
    return (
        isinstance(before, list) and isinstance(now, list) and len(now) > len(before) == _shared(before, now)
    )


def _shared(before: list[Any], now: list[Any]) -> int:
    return len(before) if now[: len(before)] == before else -1


def _prompt(prompt: BasePromptTemplate) -> list[Any]:
    """All that a prompt says.

    Raises:
        ValueError: It computes something at each question.
    """
    if type(prompt) not in (PromptTemplate, ChatPromptTemplate):
        raise ValueError(f"{type(prompt).__name__} may say something else each time")
    if prompt.function_mappings or prompt.output_parser is not None:
        raise ValueError("the prompt computes something")
    return [prompt.get_template(), prompt.kwargs, prompt.template_var_mappings]


def _index_version(parts: EngineParts) -> str | None:
    """Mark of the index that differs after any change, by whichever process; None where it cannot tell."""
    if parts.storage.address is not None or parts.permissions.on():
        return None
    if any(column in parts.overrides for column in _BY_HAND):
        return None
    documents, vectors = parts.manifest.state(), _vectors_state(parts.storage)
    return None if documents is None or vectors is None else f"{documents};{vectors}"


def _vectors_state(place: Storage) -> str | None:
    """Mark of the vectors' files, which code that writes to the store itself changes, too."""
    file = place.vectors.with_suffix(".duckdb")
    if file.exists():
        files = [file, *(log for log in [file.with_name(f"{file.name}.wal")] if log.exists())]
    else:
        files = sorted(place.vectors.glob("*.lance/_versions"))
    try:
        marks = [(path.name, (found := path.stat()).st_mtime_ns, found.st_size) for path in files]
    except OSError:
        return None
    return json.dumps(marks) if marks else None


def _passages(hits: Sequence[NodeWithScore]) -> str:
    """Digest of ids and contents of hits, in order; empty where there are none, or an image is among them."""
    if not hits or any(isinstance(hit.node, ImageNode) for hit in hits):
        return ""
    contents = [[hit.node.node_id, hit.node.hash, hit.node.get_content(MetadataMode.LLM)] for hit in hits]
    return text_digest(json.dumps(contents))


def _stored(hit: NodeWithScore) -> dict[str, Any]:
    node = hit.node.model_copy(update={"embedding": None})
    ranks: dict[str, Any] = {}
    if isinstance(hit, RankedNode):
        ranks = {"stages": {name: [one.rank, one.score] for name, one in hit.stages.items()}}
    return {"node": doc_to_json(node), "score": hit.score, **ranks}


def _restored(stored: Mapping[str, Any]) -> NodeWithScore:
    node = json_to_doc(stored["node"])
    if "stages" not in stored:
        return NodeWithScore(node=node, score=stored["score"])
    stages = {name: StageRank(int(rank), score) for name, (rank, score) in stored["stages"].items()}
    return RankedNode(node=node, score=stored["score"], stages=stages)
