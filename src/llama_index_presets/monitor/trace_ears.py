"""The ears of a trace handle on the root dispatcher. They hold the handle weakly, and log what fails in it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler

from llama_index_presets.monitor.trace_attributes import Hit
from llama_index_presets.monitor.trace_hearing import ENDS, STARTS, leg_begins, show_hits
from llama_index_presets.monitor.trace_span import OpenSpan
from llama_index_presets.monitor.trace_tree import SpanTree

if TYPE_CHECKING:
    from llama_index_presets.monitor.traces import Traces

__all__ = ["listen"]

_log = logging.getLogger(__name__)


def listen(traces: Traces) -> Callable[[], None]:
    """Put ears on the root dispatcher; gives what takes them off."""
    events, spans = _EventEar(traces), _SpanEar(traces.tree)
    root = get_dispatcher()
    root.add_event_handler(events)
    root.add_span_handler(spans)

    def silence() -> None:
        # By identity: ears of different handles compare equal.
        root.event_handlers = [known for known in root.event_handlers if known is not events]
        root.span_handlers = [known for known in root.span_handlers if known is not spans]

    return silence


class _EventEar(BaseEventHandler):
    """Takes the events of the process."""

    def __init__(self, traces: Traces) -> None:
        super().__init__()
        object.__setattr__(self, "_owner", weakref.ref(traces))

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "TracesEventEar"

    def handle(self, event: BaseEvent, **kwargs: Any) -> Any:
        """Take one event; the dispatcher would swallow a fault, so it is logged."""
        owner: Traces | None = self._owner()  # type: ignore[attr-defined]
        if owner is None:
            return
        try:
            if (start := STARTS.get(type(event))) is not None:
                if owner.hears():
                    start(owner.tree, event)
            elif (end := ENDS.get(type(event))) is not None:
                end(owner.tree, event)
        except Exception as error:
            _told(error, type(event).__name__)


class _SpanEar(BaseSpanHandler[BaseSpan]):
    """Takes the beginnings and ends of the dispatcher's spans."""

    def __init__(self, tree: SpanTree) -> None:
        super().__init__()
        object.__setattr__(self, "_tree", tree)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "TracesSpanEar"

    def span_enter(
        self,
        id_: str,
        bound_args: Any,
        instance: Any = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note that a span begins; the legs of a hybrid search are known by their tag."""
        tree: SpanTree = self._tree  # type: ignore[attr-defined]
        tree.enter(id_, parent_id, instance)
        if tags and "leg" in tags:
            try:
                leg_begins(tree, id_, tags["leg"])
            except Exception as error:
                _told(error, "leg")
        elif "HybridFusionRetriever.rank-" in id_ and (above := tree.nearest(id_)) is not None:
            above.facts["fusion under way"] = OpenSpan("fusion", "CHAIN", above)

    def span_exit(
        self, id_: str, bound_args: Any, instance: Any = None, result: Any = None, **kwargs: Any
    ) -> None:
        """Note that a span ends."""
        tree: SpanTree = self._tree  # type: ignore[attr-defined]
        span = tree.at(id_)
        if span is not None and span.kind == "RETRIEVER" and "rag.hits" not in span.facts:
            pairs = getattr(result, "pairs", None)  # a keyword leg: ids and scores, no nodes yet
            if isinstance(pairs, list):
                show_hits(span, [Hit(name, score) for name, score in pairs[:100]])
                span.facts["rag.hits"] = len(pairs)
        tree.leave(id_, result)

    def span_drop(
        self, id_: str, bound_args: Any, instance: Any = None, err: BaseException | None = None, **kwargs: Any
    ) -> None:
        """Note that a span fails."""
        tree: SpanTree = self._tree  # type: ignore[attr-defined]
        tree.leave(id_, error=err or RuntimeError())

    def new_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_enter` does the work."""
        return None

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_exit` does the work."""
        return None

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_drop` does the work."""
        return None


def _told(error: Exception, what: str) -> None:
    """Log the class of a fault and where; its message may hold a text."""
    _log.error("Tracing failed on a %s (%s); the call itself goes on.", what, type(error).__name__)
