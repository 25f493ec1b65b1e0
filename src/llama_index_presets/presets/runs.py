"""Saying when a run of an engine, a question or an ingest, begins and ends; traces listen."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]

from llama_index_presets.events import RunEndEvent, RunStartEvent
from llama_index_presets.ingest.pipeline import IngestReport

__all__ = ["ingest_ends", "query_ends", "run_begins", "run_fails"]

dispatcher = get_dispatcher(__name__)


def run_begins(run_id: str, kind: Literal["query", "ingest"]) -> None:
    """Say that a run begins; called where its calls are charged to it."""
    dispatcher.event(RunStartEvent(run_id=run_id, kind=kind))


def query_ends(
    run_id: str, metadata: dict[str, Any] | None, cost_usd: Decimal | None, status: str = "answered"
) -> None:
    """Say that a question is answered, or how it was not.

    Args:
        run_id: Its query_id.
        metadata: Of the response.
        cost_usd: What it cost.
        status: See `AuditTrail.record`.
    """
    told = metadata or {}
    event = RunEndEvent(
        run_id=run_id,
        known=told.get("known"),
        citations=len(told.get("citations", ())),
        cost_usd=cost_usd,
        error=status.split(" ")[-1] if status.startswith(("failed: ", "degraded: ")) else None,
        abandoned=status == "abandoned",
    )
    dispatcher.event(event)


def ingest_ends(run_id: str, report: IngestReport, cost_usd: Decimal | None) -> None:
    """Say what an ingest did."""
    counts = {
        "documents": report.documents,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "failed": len(report.failed),
        "chunks": report.chunks,
        "tokens": report.tokens,
    }
    dispatcher.event(RunEndEvent(run_id=run_id, cost_usd=cost_usd, counts=counts))


def run_fails(run_id: str, error: BaseException) -> None:
    """Say that a run ended with an exception; its class, never its message."""
    dispatcher.event(RunEndEvent(run_id=run_id, error=type(error).__name__))
