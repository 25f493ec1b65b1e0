"""Server-sent events: a response that is written piece by piece, and notices when its client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

__all__ = ["EventStream", "event"]

_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_PING_S: Final = 15.0


def event(data: Any, name: str | None = None) -> bytes:
    r"""One event, its data as JSON in one line.

    Example:
        >>> event({"text": "a\nb"}, "text")
        b'event: text\ndata: {"text":"a\\nb"}\n\n'
    """
    head = f"event: {name}\n" if name else ""
    text = (
        data
        if isinstance(data, str)
        else json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=str)
    )
    return f"{head}data: {text}\n\n".encode("utf-8", "replace")


class EventStream(StreamingResponse):
    """Response of events; a comment every 15 s without one keeps proxies from closing it.

    Args:
        events: The events, encoded.
        on_end: Called once when the response has ended, in whatever way; also where no event was read.
    """

    def __init__(self, events: AsyncIterator[bytes], on_end: Callable[[], object] = lambda: None) -> None:
        self._pieces = _with_pings(events)
        self._on_end = on_end
        super().__init__(self._pieces, media_type="text/event-stream", headers=_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client leaves."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()
            await self._pieces.aclose()


async def _with_pings(events: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    waiting: asyncio.Future[bytes] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(_next(events))
            done, _ = await asyncio.wait([waiting], timeout=_PING_S)
            if not done:
                yield b": waiting\n\n"
                continue
            try:
                piece = waiting.result()
            except StopAsyncIteration:
                return
            waiting = None
            yield piece
    finally:
        if waiting is not None:
            waiting.cancel()
            with suppress(BaseException):  # also where it has ended: asyncio logs an end that nobody looks at
                await waiting
        aclose = getattr(events, "aclose", None)
        if aclose is not None:
            with suppress(RuntimeError):
                await aclose()


async def _next(events: AsyncIterator[bytes]) -> bytes:
    return await anext(events)
