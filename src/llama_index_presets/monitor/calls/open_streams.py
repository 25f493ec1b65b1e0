"""Open streams: assignment of spans that begin while a stream is read to the call that opened it.

LlamaIndex knows the nesting of spans from a context variable, and a generator runs in the context of its reader, not
in that of the call that made it. So the synchronous stream that `CustomLLM.astream_chat` starts at its first piece
appears beside the call it serves. Which call that is cannot be told from model and prompt, since several readers may
ask the same. It can be told from the stack: the generator that the call gave out is running there.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from types import AsyncGeneratorType, FrameType, GeneratorType
from typing import Any

__all__ = ["OpenStreams"]


class OpenStreams:
    """Generators returned by spans, by the frame that runs when one is read. Thread safe; keeps none alive.

    Example:
        >>> streams = OpenStreams()
        >>> def pieces():
        ...     yield streams.around(None, {})
        >>> stream = pieces()
        >>> streams.add(stream, "LLM.stream_chat-1")
        >>> next(stream), streams.around(None, {})
        ('LLM.stream_chat-1', None)
    """

    def __init__(self) -> None:
        self._spans: dict[int, tuple[weakref.ref[Any], str]] = {}

    def __bool__(self) -> bool:
        return bool(self._spans)

    def add(self, stream: Any, span_id: str) -> None:
        """Remember the generator that a span returned, until nothing refers to it any more."""
        frame = _frame_of(stream)
        if frame is None:  # read to its end already, or no generator of Python's own
            return
        place = id(frame)

        def forget(gone: weakref.ref[Any]) -> None:
            if self._spans.get(place, (None,))[0] is gone:
                self._spans.pop(place, None)

        self._spans[place] = weakref.ref(stream, forget), span_id

    def around(self, parent_id: str | None, spans: Mapping[str, tuple[str | None, Any]]) -> str | None:
        """Parent of a span that begins here and now.

        Args:
            parent_id: The parent that the dispatcher names.
            spans: Id of each open span -> id of the span around it, and anything.

        Returns:
            The span whose stream is being read here, unless `parent_id` is inside of it; else `parent_id`.
        """
        stream = self._running()
        if stream is None or stream in _outward(parent_id, spans):
            return parent_id
        return stream

    def _running(self) -> str | None:
        """Innermost registered generator on the stack of this thread."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            stream, span_id = self._spans.get(id(frame), (None, None))
            if stream is not None and _frame_of(stream()) is frame:  # an id may have been used before
                return span_id
            frame = frame.f_back
        return None


def _frame_of(stream: Any) -> FrameType | None:
    if isinstance(stream, GeneratorType):
        return stream.gi_frame
    return stream.ag_frame if isinstance(stream, AsyncGeneratorType) else None


def _outward(span_id: str | None, spans: Mapping[str, tuple[str | None, Any]]) -> set[str]:
    around: set[str] = set()
    while span_id is not None and span_id not in around:
        around.add(span_id)
        span_id = spans.get(span_id, (None, None))[0]
    return around
