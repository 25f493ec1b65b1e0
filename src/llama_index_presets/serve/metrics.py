"""Prometheus metrics of a server. Labels are route templates, engine and model names: nothing a caller could invent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from llama_index_presets.monitor.ledger.row import Call
    from llama_index_presets.serve.engines import Served

__all__ = ["Metrics", "Usage"]

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_QUERIES = 4_096  # whose tokens are remembered until the response is written


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the language model calls of one question."""

    prompt: int = 0
    completion: int = 0


class Metrics:
    """Counters of one server, in a registry of their own. Thread safe.

    Calls of models are counted from the ledger's rows, so metrics and bill agree.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests answered.", "method", "route", "status")
        self._latency = Histogram(
            "llama_presets_request_seconds",
            "Time from a request's head to the end of its response.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._running = Gauge("llama_presets_requests_running", "Requests under way.", registry=self.registry)
        self._tokens = self._counter("tokens", "Tokens of model calls.", "engine", "model", "direction")
        self._dollars = self._counter(
            "cost_usd", "Known cost of model calls, in US dollars.", "engine", "model"
        )
        self._unpriced = self._counter(
            "unpriced_calls", "Model calls without a known price.", "engine", "model"
        )
        self._calls = self._counter("model_calls", "Model calls.", "engine", "model", "kind", "status")
        self._hits = self._counter("cache_hits", "Embedding calls answered by the cache.", "engine", "model")
        self._cached = self._counter(
            "cached_answers", "Answers given by the answer cache.", "engine", "model"
        )
        self._saved = self._counter(
            "saved_usd", "Known cost of calls that the answer cache saved, in US dollars.", "engine", "model"
        )
        self._answers = self._counter("answers", "Questions, by outcome.", "engine", "outcome")
        self._errors = self._counter("errors", "Requests that failed, by code.", "route", "code")
        self._usage: OrderedDict[str, Usage] = OrderedDict()
        self._lock = Lock()
        self._observers: dict[int, Callable[[list[Call]], None]] = {}

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"llama_presets_{name}", about, labels, registry=self.registry)

    def render(self) -> tuple[bytes, str]:
        """Text in Prometheus' format, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def begin(self) -> None:
        """Count a request that is under way."""
        self._running.inc()

    def end(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._running.dec()
        known = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "OTHER"
        self._requests.labels(known, route, str(status)).inc()
        self._latency.labels(known, route).observe(seconds)

    def failed(self, route: str, code: str) -> None:
        """Count a request that was refused or failed."""
        self._errors.labels(route, code).inc()

    def answered(self, engine: str, outcome: str) -> None:
        """Count a question: ``"known"``, ``"abstained"``, ``"abandoned"`` or ``"failed"``."""
        self._answers.labels(engine, outcome).inc()

    # -- the ledger's rows ---------------------------------------------------------------------------------------

    def follow(self, served: Served) -> None:
        """Count the calls of an engine from its ledger."""

        def count(rows: list[Call]) -> None:
            for row in rows:
                self._count(served.name, row)

        self._observers[id(served)] = count
        served.engine.ledger.subscribe(count)

    def unfollow(self, served: Served) -> None:
        """Count no more calls of an engine."""
        observer = self._observers.pop(id(served), None)
        if observer is not None:
            served.engine.ledger.unsubscribe(observer)

    def usage(self, query_id: str) -> Usage:
        """Tokens of the language model in a question that has been billed."""
        with self._lock:
            return self._usage.get(query_id, Usage())

    def _count(self, engine: str, row: Call) -> None:
        if row.kind not in ("llm", "embedding", "rerank"):
            return
        self._calls.labels(engine, row.model, row.kind, row.status).inc()
        if row.cache_hit and row.kind == "llm":
            self._cached.labels(engine, row.model).inc()
            self._saved.labels(engine, row.model).inc(float(row.saved_usd))
            return
        if row.cache_hit:
            self._hits.labels(engine, row.model).inc()
            return
        self._tokens.labels(engine, row.model, "input").inc(row.prompt_tokens)
        self._tokens.labels(engine, row.model, "output").inc(row.completion_tokens)
        if row.cost_usd is None:
            self._unpriced.labels(engine, row.model).inc()
        else:
            self._dollars.labels(engine, row.model).inc(float(row.cost_usd))
        if row.kind == "llm" and row.query_id:
            self._remember(row)

    def _remember(self, row: Call) -> None:
        with self._lock:
            before = self._usage.pop(row.query_id, Usage())
            self._usage[row.query_id] = Usage(
                before.prompt + row.prompt_tokens, before.completion + row.completion_tokens
            )
            while len(self._usage) > _QUERIES:
                self._usage.popitem(last=False)
