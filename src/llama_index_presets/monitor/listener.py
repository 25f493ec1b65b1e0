"""Listener on the root dispatcher: an event handler and a span handler that call plain functions, and log their faults.

The dispatcher swallows every exception of its handlers, so a fault of ours would vanish. Both the ledger and the traces
listen through a `DispatcherListener`; it refers to nothing but the functions it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, Final

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler

__all__ = ["DispatcherListener", "stream_method"]

OnEvent = Callable[[BaseEvent], object]
OnEnter = Callable[[str, "str | None", Any, Any, "dict[str, Any] | None"], object]
"""Takes the id of a span, the id of the one around it, the object, its bound arguments and the current tags."""
OnLeave = Callable[[str, Any, "BaseException | None"], object]
"""Takes the id of a span, what its method returned, and what it raised."""
OnFault = Callable[[str, Exception], object]
"""Takes where a function failed, and how."""

_STREAM: Final = re.compile(r"\.(a?stream_\w+)-")


def stream_method(span_id: str) -> str | None:
    """Give the streaming method of a model that a span is; the only thing that is read out of LlamaIndex's span ids.

    Example:
        >>> stream_method("OpenAI.astream_chat-0b1f"), stream_method("OpenAI.chat-0b1f")
        ('astream_chat', None)
    """
    if "stream_" not in span_id:  # each span of the process comes by
        return None
    found = _STREAM.search(span_id)
    return found[1] if found else None


class DispatcherListener:
    """Passes on what the root dispatcher says.

    Args:
        on_event: Takes events of the kinds it listens for.
        on_enter: Takes the beginnings of spans.
        on_leave: Takes the ends of spans, failed ones too.
        on_fault: Takes what one of these raised.

    Example:
        >>> seen = []
        >>> listener = DispatcherListener(
        ...     on_event=seen.append, on_enter=lambda *span: None, on_leave=lambda *span: None, on_fault=print
        ... )
        >>> listener.listen([BaseEvent])
        >>> get_dispatcher().event(BaseEvent())
        >>> listener.detach()
        >>> len(seen)
        1
    """

    def __init__(self, *, on_event: OnEvent, on_enter: OnEnter, on_leave: OnLeave, on_fault: OnFault) -> None:
        self._events = _EventHandler(on_event, on_fault)
        self._spans = _SpanHandler(on_enter, on_leave, on_fault)
        root = get_dispatcher()
        root.add_event_handler(self._events)
        root.add_span_handler(self._spans)

    def listen(self, kinds: Collection[type]) -> None:
        """Take events of exactly these classes from now on."""
        object.__setattr__(self._events, "_kinds", frozenset(kinds))

    def detach(self) -> None:
        """Stop listening."""
        root = get_dispatcher()
        # By identity: handlers of different listeners compare equal.
        root.event_handlers = [known for known in root.event_handlers if known is not self._events]
        root.span_handlers = [known for known in root.span_handlers if known is not self._spans]


class _EventHandler(BaseEventHandler):
    """Passes events on. Plain attributes: reading a pydantic private attribute takes microseconds."""

    def __init__(self, on_event: OnEvent, on_fault: OnFault) -> None:
        super().__init__()
        object.__setattr__(self, "_kinds", frozenset())
        object.__setattr__(self, "_on_event", on_event)
        object.__setattr__(self, "_on_fault", on_fault)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "PresetsEventHandler"

    def handle(self, event: BaseEvent, **kwargs: Any) -> Any:
        """Pass one event on."""
        if type(event) in self._kinds:  # type: ignore[attr-defined]
            try:
                self._on_event(event)  # type: ignore[attr-defined]
            except Exception as error:
                self._on_fault(type(event).__name__, error)  # type: ignore[attr-defined]


class _SpanHandler(BaseSpanHandler[BaseSpan]):
    """Passes the beginnings and ends of spans on; keeps no spans itself."""

    def __init__(self, on_enter: OnEnter, on_leave: OnLeave, on_fault: OnFault) -> None:
        super().__init__()
        object.__setattr__(self, "_on_enter", on_enter)
        object.__setattr__(self, "_on_leave", on_leave)
        object.__setattr__(self, "_on_fault", on_fault)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "PresetsSpanHandler"

    def span_enter(
        self,
        id_: str,
        bound_args: Any,
        instance: Any = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note that a span begins."""
        try:
            self._on_enter(id_, parent_id, instance, bound_args, tags)  # type: ignore[attr-defined]
        except Exception as error:
            self._on_fault("span that begins", error)  # type: ignore[attr-defined]

    def span_exit(
        self, id_: str, bound_args: Any, instance: Any = None, result: Any = None, **kwargs: Any
    ) -> None:
        """Note that a span ends."""
        try:
            self._on_leave(id_, result, None)  # type: ignore[attr-defined]
        except Exception as error:
            self._on_fault("span that ends", error)  # type: ignore[attr-defined]

    def span_drop(
        self, id_: str, bound_args: Any, instance: Any = None, err: BaseException | None = None, **kwargs: Any
    ) -> None:
        """Note that a span fails."""
        try:
            self._on_leave(id_, None, err or RuntimeError())  # type: ignore[attr-defined]
        except Exception as error:
            self._on_fault("span that fails", error)  # type: ignore[attr-defined]

    def new_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_enter` does the work."""
        return None

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_exit` does the work."""
        return None

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Make no span: `span_drop` does the work."""
        return None
