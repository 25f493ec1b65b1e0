"""OpenTelemetry spans of queries and ingestion, exported to Phoenix or any OTLP endpoint."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_index_presets.monitor.traces.tracing import Traces as Traces
    from llama_index_presets.monitor.traces.tracing import trace_to as trace_to

_PUBLIC = {"Traces": "tracing", "trace_to": "tracing"}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
