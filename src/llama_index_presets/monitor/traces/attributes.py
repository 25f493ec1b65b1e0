"""Allow-list of span attributes: a fact leaves only in the form that its table entry gives.

Keys are those of the OpenInference conventions where these have one; ours begin with ``rag.``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, get_args

from openinference.semconv.trace import DocumentAttributes, MessageAttributes, RerankerAttributes
from openinference.semconv.trace import SpanAttributes as Keys

from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.calls.model_call import CallEnded, who_bills
from llama_index_presets.monitor.calls.usage import Usage
from llama_index_presets.monitor.prices import Pricer

__all__ = ["ALLOWED", "Billed", "Content", "Hit", "Message", "Outgoing", "Redactor", "attributes"]

# -- content of texts -----------------------------------------------------------------------------------------


Content = Literal["hash", "text", "none"]
"""``"hash"``: a keyed hash and the length; ``"text"``: the text in clear; ``"none"``: no trace of it."""

_CONTENTS: Final[tuple[str, ...]] = get_args(Content)
_SHOWN: Final = 16
_MOST_CHARS: Final = 20_000
_LONGEST_LABEL: Final = 128
_LABEL: Final = re.compile(r"[\w.:@+=/ -]+")
_MACHINE_ID: Final = re.compile(r"[0-9a-f]{24,64}")


class Redactor:
    """Redaction rule, applied to every text.

    Args:
        content: The choice.
        hash_text: Text -> hex digest; None takes a key of its own, so that digests match within this process only.

    Raises:
        SettingsError: There is no such choice.

    Example:
        >>> Redactor("hash", lambda text: "ab" * 32).text("Ada Lovelace")
        'sha256:abababababababab, 12 characters'
        >>> Redactor("text").text("Ada"), Redactor("none").text("Ada")
        ('Ada', None)
    """

    def __init__(self, content: Content = "hash", hash_text: Callable[[str], str] | None = None) -> None:
        if content not in _CONTENTS:
            raise SettingsError(f"content is '{content}'. Expected one of {', '.join(_CONTENTS)}.")
        self.content = content
        self._hash = hash_text or _keyed_hash(secrets.token_bytes(32))

    @property
    def clear(self) -> bool:
        """Whether texts leave in clear."""
        return self.content == "text"

    def text(self, text: object) -> str | None:
        """Exported form of a text; None where it must not be exported."""
        if not isinstance(text, str) or self.content == "none":
            return None
        if self.clear:
            return text[:_MOST_CHARS].encode("utf-8", "replace").decode()
        return f"sha256:{self._hash(text)[:_SHOWN]}, {counted(len(text), 'character')}"

    def identifier(self, name: object) -> str | None:
        """Give an id of a node or document: ids made by a machine as they are, others, such as paths, as texts.

        Example:
            >>> Redactor("hash", lambda text: "ab" * 32).identifier("patients/ada.txt")
            'sha256:abababababababab'
        """
        if not isinstance(name, str):
            return None
        if self.clear:
            return name[:_MOST_CHARS].encode("utf-8", "replace").decode()
        if _MACHINE_ID.fullmatch(name.replace("-", "")) and not name.isdecimal():
            return name
        return f"sha256:{self._hash(name)[:_SHOWN]}"


def _keyed_hash(key: bytes) -> Callable[[str], str]:
    """Make a keyed SHA-256: equal texts have equal digests, and none can be found by trying texts without the key."""
    return lambda text: hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def label(value: object) -> str | None:
    """Give a short plain name as it is; None for anything that is not one.

    Example:
        >>> label("gpt-4o-mini"), label("x" * 500), label(7)
        ('gpt-4o-mini', None, None)
    """
    if isinstance(value, str) and len(value) <= _LONGEST_LABEL and _LABEL.fullmatch(value):
        return value
    return None


def model_label(value: object) -> str | None:
    """Give the name of a model; of a path on this machine only the last part, since folders name people.

    Example:
        >>> model_label("/srv/models/reranker"), model_label("cross-encoder/ms-marco-MiniLM-L6-v2")
        ('reranker', 'cross-encoder/ms-marco-MiniLM-L6-v2')
    """
    if not isinstance(value, str):
        return None
    local = value.startswith(("/", ".", "~")) or value.count("/") > 1 or "\\" in value
    return label(re.split(r"[/\\]", value.rstrip("/\\"))[-1]) if local else label(value)


Value = str | bool | int | float | list[str]
_MOST_HITS: Final = 20


class Hit(NamedTuple):
    """One passage of a ranking.

    Attributes:
        node_id: Id of the node.
        score: Higher is better; None where nothing scored it.
        text: Its text, where it is at hand.
        stages: Stage -> (1-based rank, score).
    """

    node_id: str
    score: float | None
    text: str | None = None
    stages: Mapping[str, tuple[int, float | None]] = {}


class Message(NamedTuple):
    """One chat message."""

    role: str
    text: str


@dataclass(slots=True)
class Billed:
    """Calls that one span shows, measured and priced when the span leaves and not before.

    Attributes:
        ends: What they said as they ended: one, or one a batch.
    """

    ends: list[CallEnded]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What the writers need.

    Attributes:
        redactor: What becomes of texts.
        pricer: What calls cost.
    """

    redactor: Redactor
    pricer: Pricer


Written = dict[str, Value]
Writer = Callable[[Written, str, Any, Outgoing], None]


def attributes(facts: Mapping[str, Any], outgoing: Outgoing) -> Written:
    """Turn facts into attributes; a fact that is not in `ALLOWED`, or has another type, does not leave.

    Example:
        >>> attributes({"rag.preset": "healthcare", "patient": "Ada"}, Outgoing(Redactor(), Pricer()))
        {'rag.preset': 'healthcare'}
    """
    written: Written = {}
    for key, value in facts.items():
        writer = ALLOWED.get(key)
        if writer is not None and value is not None:
            writer(written, key, value, outgoing)
    return written


def _put(written: Written, key: str, value: Value | None) -> None:
    if value is not None:
        written[key] = value


def _label(written: Written, key: str, value: Any, _: Outgoing) -> None:
    _put(written, key, label(value))


def _labels(written: Written, key: str, value: Any, _: Outgoing) -> None:
    written[key] = [found for item in value if (found := label(item)) is not None]


def _model(written: Written, key: str, value: Any, _: Outgoing) -> None:
    _put(written, key, model_label(value))


def _number(written: Written, key: str, value: Any, _: Outgoing) -> None:
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        written[key] = value


def _flag(written: Written, key: str, value: Any, _: Outgoing) -> None:
    if isinstance(value, bool):
        written[key] = value


def _text(written: Written, key: str, value: Any, outgoing: Outgoing) -> None:
    _put(written, key, outgoing.redactor.text(value))


def _identifier(written: Written, key: str, value: Any, outgoing: Outgoing) -> None:
    _put(written, key, outgoing.redactor.identifier(value))


def _messages(written: Written, key: str, value: Sequence[Any], outgoing: Outgoing) -> None:
    for place, message in enumerate(value):
        if not isinstance(message, Message):
            continue
        start = f"{key}.{place}."
        _put(written, start + MessageAttributes.MESSAGE_ROLE, label(message.role))
        _put(written, start + MessageAttributes.MESSAGE_CONTENT, outgoing.redactor.text(message.text))


def _hits(written: Written, key: str, value: Sequence[Any], outgoing: Outgoing) -> None:
    for place, hit in enumerate(value[:_MOST_HITS]):
        if not isinstance(hit, Hit):
            continue
        start = f"{key}.{place}."
        _put(written, start + DocumentAttributes.DOCUMENT_ID, outgoing.redactor.identifier(hit.node_id))
        if hit.score is not None:
            _number(written, start + DocumentAttributes.DOCUMENT_SCORE, float(hit.score), outgoing)
        if hit.text is not None:
            _put(written, start + DocumentAttributes.DOCUMENT_CONTENT, outgoing.redactor.text(hit.text))
        written[start + DocumentAttributes.DOCUMENT_METADATA] = json.dumps(_ranks(place + 1, hit))


def _ranks(rank: int, hit: Hit) -> dict[str, Any]:
    """Rank here, and rank and score of each stage: names of stages and numbers, nothing else."""
    stages = {
        name: {"rank": int(at), **({} if score is None else {"score": round(float(score), 6)})}
        for name, (at, score) in hit.stages.items()
        if label(name)
    }
    return {"rank": rank, "stages": stages} if stages else {"rank": rank}


def _billed(written: Written, key: str, value: Any, outgoing: Outgoing) -> None:
    if not isinstance(value, Billed) or not value.ends:
        return
    usages, sources = zip(*(end.measure() for end in value.ends), strict=True)
    usage = Usage(*(sum(one[place] for one in usages) for place in range(Usage._fields.index("total"))))
    counts = {
        Keys.LLM_TOKEN_COUNT_PROMPT: usage.prompt,
        Keys.LLM_TOKEN_COUNT_COMPLETION: usage.completion,
        Keys.LLM_TOKEN_COUNT_TOTAL: sum(one.total or one.prompt + one.completion for one in usages),
        Keys.LLM_TOKEN_COUNT_PROMPT_DETAILS_CACHE_READ: usage.cached,
        Keys.LLM_TOKEN_COUNT_PROMPT_DETAILS_CACHE_WRITE: usage.cache_write,
        Keys.LLM_TOKEN_COUNT_COMPLETION_DETAILS_REASONING: usage.reasoning,
    }
    written.update({name: count for name, count in counts.items() if count})
    _put(written, "rag.usage_source", label(sources[-1]))
    prices = [_price(end, one, outgoing.pricer) for end, one in zip(value.ends, usages, strict=True)]
    if any(price is None for price in prices):
        written["rag.unpriced"] = True
    else:
        written[Keys.LLM_COST_TOTAL] = float(sum(price for price in prices if price is not None))


def _price(end: CallEnded, usage: Usage, pricer: Pricer) -> Decimal | None:
    """What the ledger bills for a call."""
    if end.asks_models():
        return Decimal(0)
    provider = who_bills(end.call, pricer, {})
    return pricer.price(provider, end.call.model, end.tokens(usage), end.ended_us / 1e6)[0]


ALLOWED: Final[dict[str, Writer]] = {
    Keys.OPENINFERENCE_SPAN_KIND: _label,
    Keys.INPUT_VALUE: _text,
    Keys.OUTPUT_VALUE: _text,
    Keys.SESSION_ID: _label,
    Keys.LLM_MODEL_NAME: _model,
    Keys.LLM_PROVIDER: _label,
    Keys.LLM_INPUT_MESSAGES: _messages,
    Keys.LLM_OUTPUT_MESSAGES: _messages,
    Keys.EMBEDDING_MODEL_NAME: _model,
    Keys.RETRIEVAL_DOCUMENTS: _hits,
    RerankerAttributes.RERANKER_MODEL_NAME: _model,
    RerankerAttributes.RERANKER_TOP_K: _number,
    RerankerAttributes.RERANKER_QUERY: _text,
    RerankerAttributes.RERANKER_INPUT_DOCUMENTS: _hits,
    RerankerAttributes.RERANKER_OUTPUT_DOCUMENTS: _hits,
    Keys.TAG_TAGS: _labels,
    "exception.type": _label,
    "rag.attempt": _number,
    "rag.batches": _number,
    "rag.billed": _billed,
    "rag.budget_refused": _flag,
    "rag.cache_hit": _flag,
    "rag.cached_texts": _number,
    "rag.candidates": _number,
    "rag.chunks": _number,
    "rag.citations": _number,
    "rag.cost_usd": _number,
    "rag.deadline_cut": _flag,
    "rag.degraded": _labels,
    "rag.document": _identifier,
    "rag.documents": _number,
    "rag.failed": _number,
    "rag.fusion": _label,
    "rag.hits": _number,
    "rag.known": _flag,
    "rag.latency_ms": _number,
    "rag.leg": _label,
    "rag.legs": _labels,
    "rag.not_shown": _number,
    "rag.pairs": _number,
    "rag.preset": _label,
    "rag.query_id": _label,
    "rag.removed": _number,
    "rag.retriever": _label,
    "rag.stream_abandoned": _flag,
    "rag.tenant": _label,
    "rag.texts": _number,
    "rag.tokens": _number,
    "rag.truncated": _number,
    "rag.unchanged": _number,
}
"""Fact -> how it is written."""
