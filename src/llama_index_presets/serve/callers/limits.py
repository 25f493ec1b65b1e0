"""Limits of a server: how large, how slow, how many and how often."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any, Final

from starlette.types import Message, Receive, Send

from llama_index_presets.errors import SettingsError
from llama_index_presets.serve.callers.key_file import parse_rate
from llama_index_presets.serve.protocols.problems import Problem

_MOST: Final = 1_000_000_000  # no limit can be meant beyond, and waiting functions take no infinity

__all__ = ["ClientGone", "ClientTooSlow", "Limits", "RateLimiter", "Slots", "bounded_receive", "bounded_send"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a server.

    Attributes:
        body_kb: Largest body of a request, in KiB, uploads excepted.
        upload_mb: Largest upload, in MiB.
        upload_files: Most files of one upload.
        body_s: Longest time in which a body may arrive, in seconds.
        header_s: Longest time in which the head of a request may arrive, in seconds.
        send_s: Longest that a client may take to read a piece of a response, in seconds.
        answer_s: Longest time for an answer, in seconds.
        running: Requests that are worked on at the same time; the others wait.
        waiting: Requests that may wait; more are refused with 503.
        wait_s: Longest wait, in seconds.
        connections: Open connections; more are refused with 503.
        rate: Requests of one caller, for keys without a rate of their own.
        stop_s: Longest wait for open requests when the server stops, in seconds.
    """

    body_kb: int = 1_024
    upload_mb: int = 100
    upload_files: int = 100
    body_s: float = 60.0
    header_s: float = 10.0
    send_s: float = 30.0
    answer_s: float = 120.0
    running: int = 32
    waiting: int = 256
    wait_s: float = 30.0
    connections: int = 1_000
    rate: str = "600/minute"
    stop_s: float = 30.0

    def __post_init__(self) -> None:
        values: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        whole = [one.name for one in fields(self) if one.type == "int"]
        rate = values.pop("rate")
        wrong = [
            f"{name} is {value!r}"
            for name, value in values.items()
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST
        ]
        if wrong:
            raise SettingsError(f"Limits: {'; '.join(wrong)}. Expected a number > 0, at most {_MOST:,}.")
        wrong = [f"{name} is {values[name]!r}" for name in whole if not isinstance(values[name], int)]
        if wrong:
            raise SettingsError(f"Limits: {'; '.join(wrong)}. Expected a whole number > 0.")
        if not isinstance(rate, str):
            raise SettingsError(f"Limits: rate is {rate!r}. Expected a text as 600/minute.")
        if rate:
            parse_rate(rate)


class RateLimiter:
    """Token buckets, one a caller: a burst of the whole period's requests, refilled evenly.

    Example:
        >>> limiter = RateLimiter()
        >>> [limiter.retry_after("ada", "2/minute", now=at) for at in (0.0, 0.0, 0.0, 30.0)]
        [0.0, 0.0, 30.0, 0.0]
    """

    _MOST: Final = 10_000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def retry_after(self, name: str, rate: str, *, now: float | None = None) -> float:
        """Take one request; seconds to wait where none is left, else 0."""
        if not rate:
            return 0.0
        count, period = parse_rate(rate)
        moment = time.monotonic() if now is None else now
        with self._lock:
            left, before = self._buckets.pop((name, rate), (count, moment))
            left = min(count, left + (moment - before) * count / period)
            enough = left >= 1.0
            self._buckets[(name, rate)] = (left - 1.0 if enough else left, moment)
            while len(self._buckets) > self._MOST:
                self._buckets.popitem(last=False)
        return 0.0 if enough else (1.0 - left) * period / count


class Slots:
    """Places for requests that are worked on, and a bounded queue before them. For one event loop.

    Args:
        limits: Of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places = asyncio.Semaphore(limits.running)
        self._waiting = 0
        self.taken = 0

    async def acquire(self) -> None:
        """Take a place, or wait for one.

        Raises:
            Problem: 503, too many wait, or one has waited too long.
        """
        if self._places.locked():
            await self._wait()
        else:
            await self._places.acquire()
        self.taken += 1

    async def _wait(self) -> None:
        if self._waiting >= self._limits.waiting:
            raise _busy()
        self._waiting += 1
        try:
            await asyncio.wait_for(self._places.acquire(), self._limits.wait_s)
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1

    def release(self) -> None:
        """Give the place back."""
        self.taken -= 1
        self._places.release()


def _busy() -> Problem:
    return Problem(
        503, "The server is busy. Try again in a moment.", code="busy", headers={"Retry-After": "2"}
    )


class ClientGone(OSError):
    """A response could not be sent: its client has left. Not every `OSError`: a full disk of the server is another."""


class ClientTooSlow(ClientGone):
    """A client does not read its response."""


def bounded_receive(receive: Receive, most_bytes: int, limit_s: float) -> Receive:
    """Receive a body of bounded size in bounded time.

    Raises:
        Problem: 413 for a larger body, 408 for a slower one.
    """
    got, done = 0, False
    deadline = time.monotonic() + limit_s

    async def bounded() -> Message:
        nonlocal got, done
        if done:
            return await receive()  # waits for the client to leave
        try:
            async with asyncio.timeout(max(0.001, deadline - time.monotonic())):
                message = await receive()
        except TimeoutError:
            raise Problem(
                408,
                f"The body did not arrive within {limit_s:g} s.",
                code="body_too_slow",
                headers={"Connection": "close"},
            ) from None
        got += len(message.get("body", b""))
        if got > most_bytes:
            raise too_large(most_bytes)
        done = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return bounded


def too_large(most_bytes: int) -> Problem:
    """413, with the limit."""
    most = f"{most_bytes // 1024:,} KiB" if most_bytes < 2**20 else f"{most_bytes / 2**20:,.0f} MiB"
    return Problem(
        413,
        f"The body is larger than {most}. Send less.",
        code="body_too_large",
        headers={"Connection": "close"},
    )


def bounded_send(send: Send, limit_s: float) -> Send:
    """Send to a client that reads; one that does not is dropped.

    Raises:
        ClientTooSlow: A piece was not read in time.
        ClientGone: The connection is closed.
    """

    async def bounded(message: Message) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await send(message)
        except TimeoutError:
            raise ClientTooSlow(f"A piece of the response was not read within {limit_s:g} s.") from None
        except OSError as error:
            raise ClientGone(*error.args) from error

    return bounded
