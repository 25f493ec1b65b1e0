"""Event and span handlers on the root dispatcher. They hold their owner weakly, and log what fails in it.

The dispatcher swallows every exception of an event or span handler, so a fault here would vanish: it is
logged.
"""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler

from llama_index_presets.monitor.recorder import COMPLETIONS, ENDS, STARTS

if TYPE_CHECKING:
    from llama_index_presets.monitor.handler import CostTrackingHandler
    from llama_index_presets.monitor.recorder import CallRecorder

__all__ = ["DispatcherEventHandler", "DispatcherSpanHandler"]

_log = logging.getLogger(__name__)


def _remember(ear: Any, owner: weakref.ref[CostTrackingHandler]) -> None:
    """Keep the owner as a plain attribute: reading a pydantic private attribute takes microseconds."""
    object.__setattr__(ear, "_owner", owner)


class DispatcherEventHandler(BaseEventHandler):
    """Passes the events of the process to its handler: those that complete calls, once instrumented all that matter."""

    def __init__(self, owner: weakref.ref[CostTrackingHandler]) -> None:
        super().__init__()
        _remember(self, owner)
        self.listen(everywhere=False)

    def listen(self, *, everywhere: bool) -> None:
        """Hear the beginnings and ends of calls, too, or leave those to the callbacks."""
        kinds = COMPLETIONS.keys() | STARTS.keys() | ENDS.keys() if everywhere else COMPLETIONS.keys()
        object.__setattr__(self, "_kinds", frozenset(kinds))

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "CostTrackingEventEar"

    def handle(self, event: BaseEvent, **kwargs: Any) -> Any:
        """Pass one event on."""
        if type(event) not in self._kinds:  # type: ignore[attr-defined]
            return
        owner: CostTrackingHandler | None = self._owner()  # type: ignore[attr-defined]
        if owner is not None:
            try:
                owner.on_instrumentation_event(event)
            except Exception:
                _log.exception("Cost tracking failed on a %s; the call itself goes on.", type(event).__name__)


class DispatcherSpanHandler(BaseSpanHandler[BaseSpan]):
    """Passes the beginnings and ends of spans on; keeps no spans itself.

    Every span of the process comes by, and nearly all mean nothing here, so those are noted in the tracker directly.
    """

    def __init__(self, owner: weakref.ref[CostTrackingHandler], observer: CallRecorder) -> None:
        super().__init__()
        _remember(self, owner)
        object.__setattr__(self, "_observer", observer)
        object.__setattr__(self, "_spans", observer.tracker.spans)
        object.__setattr__(self, "_tracker", observer.tracker)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "CostTrackingSpanEar"

    def span_enter(
        self,
        id_: str,
        bound_args: Any,
        instance: Any = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note that a span begins; streams, and with budgets all, are looked at."""
        self._tracker.enter(id_, parent_id, instance)  # type: ignore[attr-defined]
        if self._observer.budgets is None and "stream_" not in id_:  # type: ignore[attr-defined]
            return
        owner: CostTrackingHandler | None = self._owner()  # type: ignore[attr-defined]
        if owner is not None:
            try:
                owner.on_span_enter(id_, instance, bound_args)
            except Exception:
                _log.exception("Cost tracking failed as a span began; the call itself goes on.")

    def span_exit(
        self, id_: str, bound_args: Any, instance: Any = None, result: Any = None, **kwargs: Any
    ) -> None:
        """Note that a span ends; one that leaves something open is looked at."""
        if self._observer.is_quiet(id_):  # type: ignore[attr-defined]
            self._spans.pop(id_, None)  # type: ignore[attr-defined]
        else:
            self._leave(id_, result, None)

    def span_drop(
        self, id_: str, bound_args: Any, instance: Any = None, err: BaseException | None = None, **kwargs: Any
    ) -> None:
        """Tell that a span fails."""
        self._leave(id_, None, err)

    def _leave(self, id_: str, result: Any, error: BaseException | None) -> None:
        owner: CostTrackingHandler | None = self._owner()  # type: ignore[attr-defined]
        if owner is not None:
            try:
                owner.on_span_leave(id_, result, error)
            except Exception:
                _log.exception("Cost tracking failed as a span ended; the call itself goes on.")

    def new_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_enter` does the work."""
        return None

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_exit` does the work."""
        return None

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_drop` does the work."""
        return None
