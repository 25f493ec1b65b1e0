"""Metrics over OTLP, beside the traces: model calls from the ledger's rows, questions from their events.

Names and units are those of OpenTelemetry's conventions for generative AI where these have one (``gen_ai.…``); the
others begin with ``llama_presets``. Labels are model, provider, preset and outcome: nothing that a user typed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from llama_index_presets.errors import MonitorError
from llama_index_presets.events import RunEndEvent, RunStartEvent
from llama_index_presets.monitor.attribution import attribution
from llama_index_presets.monitor.ledger.row import BILLABLE_KINDS, Call
from llama_index_presets.monitor.listener import DispatcherListener
from llama_index_presets.monitor.traces.exporter import (
    is_reachable,
    post_session,
    quieten,
    sending,
    traces_url,
)

if TYPE_CHECKING:
    from llama_index_presets.monitor.ledger.ledger import Ledger

__all__ = ["RunMetrics"]

_log = logging.getLogger(__name__)
_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = tuple(4**power for power in range(14))  # the conventions' own
_OPERATIONS: Final = {"llm": "chat", "embedding": "embeddings", "rerank": "rerank"}
_MOST_OPEN: Final = 4_096


class RunMetrics:
    """Metrics of one ledger's calls and questions, sent in the background every 15 seconds.

    A collector that is down, or takes no metrics, costs metrics and no time. Thread safe.

    Args:
        endpoint: As of `trace_to`; metrics go to ``/v1/metrics``.
        project: Name of the service's project, as of the traces.
        ledger: Whose calls and questions count.
        preset: Label of the questions.
    """

    def __init__(self, endpoint: str, *, project: str, ledger: Ledger, preset: str) -> None:
        url = traces_url(endpoint).removesuffix("/").removesuffix("/v1/traces") + "/v1/metrics"
        resource = Resource({"service.name": "llama-index-presets", "openinference.project.name": project})
        self._reader = PeriodicExportingMetricReader(_QuietExporter(url), export_interval_millis=15_000)
        views = [
            View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(bounds))
            for name, bounds in (
                ("gen_ai.client.operation.duration", _SECONDS),
                ("gen_ai.client.token.usage", _TOKENS),
                ("llama_presets.request.duration", _SECONDS),
            )
        ]
        self._provider = MeterProvider([self._reader], resource=resource, views=views, shutdown_on_exit=True)
        self._make(self._provider.get_meter("llama_index_presets"))
        self._ledger, self._preset, self._closed = ledger, preset, False
        self._open: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        ledger.subscribe(self._count)
        self._listener = DispatcherListener(
            on_event=self._on_event, on_enter=_nothing, on_leave=_nothing, on_fault=_log_fault
        )
        self._listener.listen((RunStartEvent, RunEndEvent))

    def _make(self, meter: Any) -> None:
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "Time of a call of a model."
        )
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens of a call.")
        self._dollars = meter.create_counter("llama_presets.cost", "{USD}", "Known cost of calls.")
        self._saved = meter.create_counter("llama_presets.cost.saved", "{USD}", "Cost that caches saved.")
        self._unpriced = meter.create_counter("llama_presets.unpriced", "{call}", "Calls without a price.")
        self._hits = meter.create_counter(
            "llama_presets.cache.hits", "{call}", "Calls that a cache answered."
        )
        self._requests = meter.create_counter("llama_presets.requests", "{request}", "Questions, by outcome.")
        self._request_s = meter.create_histogram("llama_presets.request.duration", "s", "Time of a question.")

    def _count(self, rows: list[Call]) -> None:
        for row in rows:
            if row.kind in BILLABLE_KINDS:
                self._count_call(row)

    def _count_call(self, row: Call) -> None:
        labels = {
            "gen_ai.operation.name": _OPERATIONS[row.kind],
            "gen_ai.provider.name": row.provider or "unknown",
            "gen_ai.request.model": row.model,
        }
        if row.cache_hit:
            self._hits.add(1, labels)
            self._saved.add(float(row.saved_usd), labels)
            return
        failed = {"error.type": row.error_type or row.status} if row.status in ("error", "refused") else {}
        self._duration.record(row.latency_ms / 1000, labels | failed)
        for kind, tokens in (("input", row.prompt_tokens), ("output", row.completion_tokens)):
            if tokens:
                self._tokens.record(tokens, labels | {"gen_ai.token.type": kind})
        if row.cost_usd is None:
            self._unpriced.add(1, labels)
        else:
            self._dollars.add(float(row.cost_usd), labels)

    def _on_event(self, event: Any) -> None:
        """Count a question of this ledger, from its start to its end."""
        if isinstance(event, RunStartEvent):
            if event.kind == "query" and attribution().ledger is self._ledger:
                with self._lock:
                    self._open[event.run_id] = time.perf_counter()
                    while len(self._open) > _MOST_OPEN:
                        self._open.popitem(last=False)
            return
        with self._lock:
            begun = self._open.pop(event.run_id, None)
        if begun is not None:
            labels = {"preset": self._preset, "outcome": _outcome(event), "cached": event.cached}
            failed = {"error.type": event.error} if event.error else {}
            self._requests.add(1, labels | failed)
            self._request_s.record(time.perf_counter() - begun, labels)

    def flush(self) -> bool:
        """Send what was counted; gives whether that was done in time."""
        self._ledger.flush()
        return bool(self._provider.force_flush())

    def close(self) -> None:
        """Send the last counts and stop. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._listener.detach()
        with contextlib.suppress(MonitorError):  # its own close says so
            self._ledger.flush()
        self._ledger.unsubscribe(self._count)
        self._provider.shutdown()


def _outcome(event: RunEndEvent) -> str:
    if event.abandoned:
        return "abandoned"
    if event.error:
        return "failed"
    return "known" if event.known else "abstained"


class _QuietExporter(OTLPMetricExporter):
    """The OTLP exporter, silent where nothing answers; the traces say that already."""

    def __init__(self, url: str) -> None:
        self._url = url
        super().__init__(endpoint=url, timeout=5, session=post_session(url))
        quieten(OTLPMetricExporter.__module__)

    def export(self, *arguments: Any, **options: Any) -> MetricExportResult:
        """Send what was counted, or drop this report: counts are totals, the next one has them all."""
        if not is_reachable(self._url):
            return MetricExportResult.FAILURE
        with sending():
            return super().export(*arguments, **options)


def _nothing(*_: object) -> None:
    """Spans are for traces."""


def _log_fault(where: str, error: Exception) -> None:
    _log.error("Metrics failed on a %s; the call itself goes on.", where, exc_info=error)
