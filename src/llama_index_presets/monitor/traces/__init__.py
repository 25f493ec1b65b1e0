"""OpenTelemetry spans of queries and ingestion, exported to Phoenix or any OTLP endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_index_presets.packages.lazy_names import lazy_names

if TYPE_CHECKING:
    from llama_index_presets.monitor.traces.tracing import Traces as Traces
    from llama_index_presets.monitor.traces.tracing import trace_to as trace_to

_PUBLIC = {"Traces": "tracing", "trace_to": "tracing"}

__all__ = [*_PUBLIC]
__getattr__ = lazy_names(__name__, _PUBLIC)
