"""Monitoring levels: the handlers, logs, traces and audit that each level starts."""

from __future__ import annotations

import getpass
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from llama_index.core.schema import MetadataMode, NodeWithScore

from llama_index_presets._addresses import is_loopback
from llama_index_presets.errors import MonitorError, SettingsError
from llama_index_presets.monitor.alerts import AlertMonitor, Thresholds, to_log, to_webhook
from llama_index_presets.monitor.audit import AuditLog, audit_key
from llama_index_presets.monitor.handler import CostTrackingHandler
from llama_index_presets.monitor.json_log import JsonLog
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.presets.index.storage import Storage
from llama_index_presets.presets.settings import Settings

__all__ = ["AuditTrail", "open_audit", "start_monitoring"]

# -- audit log ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTrail:
    """Audit trail of one engine.

    Attributes:
        log: The chained log.
        preset: Name of the preset.
        model: Name of what writes the answers.
    """

    log: AuditLog
    preset: str
    model: str

    def record(
        self,
        *,
        user: str,
        query_id: str,
        question: str,
        shown: Sequence[NodeWithScore],
        closest: Sequence[Mapping[str, Any]] = (),
        answer: str,
        cost_usd: Decimal | None,
        status: str,
    ) -> None:
        """Append a question to the audit log, durable on return.

        Args:
            user: Who asked; empty takes the name that the process runs under.
            query_id: Its id in the ledger.
            question: As it was asked.
            shown: The passages that the model was shown.
            closest: Those that the reader was shown beside an "I don't know", see `closest.closest_passages`.
            answer: What was answered; as far as it got, where it did not get to its end.
            cost_usd: What it cost, or None when that is not known.
            status: ``"answered"``, ``"abandoned"`` (a stream that was not read to its end), ``"degraded: STAGE ERROR"``
                (an apology) or ``"failed: ERROR"``.

        Raises:
            AuditError: It cannot be written.
        """
        passages = [(hit.node.node_id, hit.node.get_content(MetadataMode.NONE)) for hit in shown]
        known = {node_id for node_id, _ in passages}
        passages += [(one["node_id"], one["text"]) for one in closest if one["node_id"] not in known]
        self.log.append(
            who=user or _login(),
            preset=self.preset,
            model=self.model,
            query_id=query_id,
            prompt=question,
            passages=passages,
            answer=answer,
            cost_usd=cost_usd,
            status=status,
        )


def open_audit(level: str, storage: Storage, *, preset: str, model: str) -> AuditTrail | None:
    """The audit trail of a monitoring level, or None where the level has none.

    Raises:
        SettingsError: The operator's key cannot be read or made.
    """
    if level != "audit":
        return None
    return AuditTrail(log=AuditLog(storage.audit, key=audit_key(make=True)), preset=preset, model=model)


def _login() -> str:
    """The name that the process runs under; in a container without a user there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


_PHOENIX = "http://127.0.0.1:6006"
_OFF = "off"
_ALERT_EVERY_S = 30.0
_log = logging.getLogger(__name__)


def start_monitoring(
    level: str, storage: Storage, opened: ExitStack, settings: Settings, *, preset: str, local: bool
) -> tuple[Ledger, CostTrackingHandler]:
    """Open the ledger, its cost handler, and what else the level has.

    Traces, and metrics beside them, are sent at the level ``full``, to the setting `trace_endpoint` or to this machine,
    and at any other level where that setting says where to.

    Args:
        level: Key of `matrix.MONITORING`.
        storage: Where the files lie.
        opened: Takes what must be closed.
        settings: Where traces and alerts go, and what is an alert.
        preset: Name of the preset; the project that the traces are filed under.
        local: Whether nothing may leave this machine.

    Raises:
        SettingsError: Traces or alerts would leave the machine though nothing may.
        MissingExtraError: Traces are wanted and the extra ``tracing`` is not installed.
    """
    if local:
        _refuse_remote("trace_endpoint", settings.trace_endpoint)
        _refuse_remote("alert_webhook", settings.alert_webhook)
    ledger = Ledger(storage.ledger, prices=settings.prices)
    audited = level == "audit"
    opened.callback(_close, ledger.close, audited)
    if level == "local":
        opened.callback(_close, JsonLog(ledger, to=storage.logs).close, audited)
    handler = CostTrackingHandler(
        ledger, scope="bound", stream_usage=settings.stream_usage, recount=False
    ).instrument()
    opened.callback(handler.close)
    if level == "full":
        opened.callback(_start_alerts(ledger, settings).stop)
    endpoint = settings.trace_endpoint or (_PHOENIX if level == "full" else _OFF)
    if endpoint != _OFF:
        from llama_index_presets.monitor.traces.tracing import trace_to  # needs the extra `tracing`

        traces = trace_to(
            endpoint,
            project=settings.trace_project or preset,
            content=settings.trace_content,
            ledger=ledger,
            local_only=local,
        )
        opened.callback(traces.close)
        from llama_index_presets.monitor.traces.metrics import RunMetrics

        metrics = RunMetrics(endpoint, project=settings.trace_project or preset, ledger=ledger, preset=preset)
        opened.callback(metrics.close)
    return ledger, handler


def _close(close: Callable[[], None], audited: bool) -> None:
    """Close a ledger or log; without an audit log, a full disk is logged and costs no answer."""
    try:
        close()
    except (MonitorError, OSError) as error:
        if audited:
            raise
        _log.error("The last calls are not in the ledger: %s", error)


def _start_alerts(ledger: Ledger, settings: Settings) -> AlertMonitor:
    thresholds = Thresholds(
        error_rate=settings.alert_error_rate,
        latency_s=settings.alert_latency_s,
        cost_ratio=settings.alert_cost_ratio,
    )
    sinks = [to_log, *([to_webhook(settings.alert_webhook)] if settings.alert_webhook else [])]
    monitor = AlertMonitor(ledger, sinks, thresholds, by=settings.alert_by)
    monitor.start(_ALERT_EVERY_S)
    return monitor


def _refuse_remote(name: str, address: str | None) -> None:
    if address and address != _OFF and not is_loopback(address):
        raise SettingsError(
            f"{name} is on '{urlsplit(address).hostname or 'another machine'}', and nothing may leave this machine. "
            "Take an address on 127.0.0.1, or build without offline and the monitoring level 'local'."
        )
