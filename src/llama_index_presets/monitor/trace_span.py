"""A span under way, and the OpenTelemetry span that it becomes when it ends."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry import context as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from llama_index_presets.monitor.trace_attributes import Outgoing, attributes
from llama_index_presets.monitor.usage import Usage

__all__ = ["EndedSpan", "OpenSpan", "hush", "unhush"]

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SCOPE: Final = InstrumentationScope("llama_index_presets")
_OK: Final = Status(StatusCode.OK)


class OpenSpan:
    """A span under way. Plain mutable fields with class defaults: many are made, few fields are set.

    Attributes:
        name: What is shown.
        parent: The span around it; None for the root of a trace.
        facts: What is known of it; `trace_attributes.ALLOWED` says what leaves.
    """

    instance: Any = None
    key = ""
    error = ""
    done = False
    into: OpenSpan | None = None  # an inner call that is shown as part of this one
    stream_usage: Usage | None = None
    chunk: Any = None
    prompt: Any = None  # of the innermost call that is shown here, which is the one that is billed
    token: Any = None
    owned = 0  # tokens that the call itself reported
    inner = 0  # tokens that calls inside it reported

    def __init__(self, name: str, kind: str, parent: OpenSpan | None) -> None:
        self.name = name
        self.parent = parent
        self.trace_id: int = parent.trace_id if parent else secrets.randbits(128) or 1
        self.span_id: int = secrets.randbits(64) or 1
        self.started = time.time_ns()
        self.facts: dict[str, Any] = {"openinference.span.kind": kind}
        self.pieces: list[str] = []
        self.events: list[tuple[str, int, dict[str, Any]]] = []

    @property
    def kind(self) -> str:
        """OpenInference kind."""
        return str(self.facts["openinference.span.kind"])

    def happened(self, name: str, **facts: Any) -> None:
        """Note something that happened inside; keys as in `ALLOWED`, with ``_`` for the first dot."""
        self.events.append(
            (name, time.time_ns(), {key.replace("_", ".", 1): value for key, value in facts.items()})
        )


class EndedSpan(ReadableSpan):
    """What is exported: texts are hashed and calls are priced when it is read, on the exporter's thread."""

    def __init__(self, span: OpenSpan, resource: Resource, outgoing: Outgoing) -> None:
        parent = span.parent
        super().__init__(
            span.name,
            context=SpanContext(span.trace_id, span.span_id, False, _SAMPLED),
            parent=SpanContext(parent.trace_id, parent.span_id, False, _SAMPLED) if parent else None,
            resource=resource,
            status=Status(StatusCode.ERROR, span.error) if span.error else _OK,
            start_time=span.started,
            end_time=time.time_ns(),
            instrumentation_scope=_SCOPE,
        )
        self._facts = span.facts
        self._happened = span.events
        self._outgoing = outgoing

    @property
    def attributes(self) -> Any:
        """The facts, through the allow-list."""
        return attributes(self._facts, self._outgoing)

    @property
    def events(self) -> Sequence[Event]:
        """What happened inside, through the allow-list."""
        return [
            Event(name, attributes(facts, self._outgoing), timestamp)
            for name, timestamp, facts in self._happened
        ]


def hush(who: object) -> Any:
    """Keep instrumentors of SDKs silent from here on, since we tell of the call; gives a token for `unhush`."""
    return otel.attach(otel.set_value(otel._SUPPRESS_INSTRUMENTATION_KEY, who))


def unhush(who: object, token: Any) -> None:
    """Let them speak again, unless this is another context than the one they were silenced in."""
    if otel.get_value(otel._SUPPRESS_INSTRUMENTATION_KEY) is who:
        otel.detach(token)
