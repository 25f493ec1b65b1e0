"""Write what is only known at the end of a call into the span that is still open."""

from __future__ import annotations

from collections.abc import Mapping

from llama_index_instrumentation.dispatcher import Dispatcher
from llama_index_instrumentation.span import active_span_id

__all__ = ["tag_open_span"]


def tag_open_span(dispatcher: Dispatcher, tags: Mapping[str, object]) -> None:
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
