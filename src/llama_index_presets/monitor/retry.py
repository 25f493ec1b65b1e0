"""Retries in one layer: the model's own and its SDK's are switched off, and every attempt is a row.

`retrying` gives a copy of a model of the same class, so whatever takes an `OpenAI` takes the copy. Language
models retry whole calls, each attempt with its own events; a stream is retried until its first piece, never
after. Embedding models retry batches, and say which attempts failed with an `AttemptFailedEvent`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar, cast

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception
from tenacity.stop import stop_after_attempt, stop_any, stop_base, stop_before_delay
from tenacity.wait import wait_random_exponential

from llama_index_presets.errors import SettingsError
from llama_index_presets.events import AttemptFailedEvent
from llama_index_presets.monitor.attribution import attempt_number
from llama_index_presets.monitor.calls.model_call import answer_was_lost

__all__ = [
    "RetryPolicy",
    "answering_within",
    "is_transient",
    "retried",
    "retry_after_s",
    "retrying",
    "status_of",
]

_Reply = TypeVar("_Reply")
_Model = TypeVar("_Model", bound=BaseLLM | BaseEmbedding)
_TRANSIENT_STATUSES: Final = frozenset({408, 409, 429})
# Names, so that no SDK need be installed: openai, anthropic and httpx all use these.
_TRANSIENT_ERRORS: Final = frozenset(
    {
        "APIConnectionError",
        "APITimeoutError",
        "TransportError",
        "ConnectionError",
        "TimeoutError",
        "ModelReplyError",
    }
)
_NUMBER: Final = re.compile(r"\d+(\.\d*)?", re.ASCII)
_dispatcher = get_dispatcher(__name__)
_deadline: ContextVar[float] = ContextVar("llama_index_presets_deadline", default=math.inf)
_inside: ContextVar[bool] = ContextVar("llama_index_presets_retrying", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long to try again.

    Attributes:
        attempts: Most attempts of one call, the first included, >= 1.
        first_wait_s: Upper end of the first random wait, in seconds; it doubles with each attempt.
        longest_wait_s: Longest random wait, in seconds. A ``Retry-After`` is honoured even if it is longer.
        total_s: No attempt starts later than this after the first one, in seconds.
    """

    attempts: int = 3
    first_wait_s: float = 2.0
    longest_wait_s: float = 10.0
    total_s: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.first_wait_s, self.longest_wait_s, self.total_s) < 0:
            raise SettingsError(f"{self} is not possible. Expected attempts >= 1 and times >= 0.")

    def options(self, model: Any, before_sleep: Callable[[RetryCallState], None] | None) -> dict[str, Any]:
        """Give the policy as tenacity's options.

        A model may have a method `adapts_to`: whether it will make the next request otherwise, after this error.
        """
        adapts = getattr(model, "adapts_to", None)

        def helps(error: BaseException) -> bool:
            if is_transient(error):
                return True
            if adapts is None or not adapts(error):
                return False
            error._at_once = True  # type: ignore[attr-defined]
            return True

        return {
            "retry": retry_if_exception(helps),
            "stop": stop_any(stop_after_attempt(self.attempts), stop_before_delay(self.total_s), _TooLate()),
            "wait": self._wait,
            "before": _number_attempt,
            "before_sleep": before_sleep,
            "reraise": True,
        }

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if getattr(error, "_at_once", False):
            return 0.0
        asked = retry_after_s(error) if error is not None else None
        if asked is not None:
            return asked
        return wait_random_exponential(multiplier=self.first_wait_s, max=self.longest_wait_s)(state)


@contextlib.contextmanager
def answering_within(limit_s: float) -> Iterator[None]:
    """Begin no attempt after so many seconds: nobody would wait for its answer, and it would still be paid.

    Example:
        >>> with answering_within(30.0):
        ...     pass  # ask models
    """
    before = _deadline.set(min(_deadline.get(), time.monotonic() + limit_s))
    try:
        yield
    finally:
        _deadline.reset(before)


class _TooLate(stop_base):
    """Stops where the wait would end after the deadline."""

    def __call__(self, retry_state: RetryCallState) -> bool:
        return time.monotonic() + retry_state.upcoming_sleep >= _deadline.get()


def _number_attempt(state: RetryCallState) -> None:
    attempt_number.set(state.attempt_number)


def is_transient(error: BaseException) -> bool:
    """Whether a retry can help: 408, 409, 429, 5xx, timeouts, lost connections, empty replies; never another 4xx.

    A 429 that means that the account's quota is used up is not transient.

    Example:
        >>> is_transient(ConnectionResetError()), is_transient(ValueError())
        (True, False)
    """
    status = status_of(error)
    if status is not None:
        used_up = getattr(error, "code", None) == "insufficient_quota"
        return not used_up and (status in _TRANSIENT_STATUSES or status >= 500)
    return any(kind.__name__ in _TRANSIENT_ERRORS for kind in type(error).__mro__)


def status_of(error: BaseException) -> int | None:
    """Status of an answer over HTTP, wherever an SDK keeps it; None where there was none."""
    response = getattr(error, "response", None)
    inside = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}  # boto3's
    places = (
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        inside.get("HTTPStatusCode"),
        getattr(error, "http_status", None),  # Voyage's
        getattr(error, "code", None),  # Google's
    )
    found = [place for place in places if isinstance(place, int)]
    # An error in the body of a reply with status 200, as in Google's streams, is an error of its own status.
    return next((place for place in found if place >= 400), found[0] if found else None)


def _headers(error: BaseException) -> Any:
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return getattr(response, "headers", None) or getattr(error, "headers", None) or {}


def retry_after_s(error: BaseException) -> float | None:
    """Read how long a server asks to wait, in seconds: in milliseconds, seconds or as a date."""
    headers = _headers(error)
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        said = str(headers.get(name) or "").strip()
        if _NUMBER.fullmatch(said):
            return float(said) * unit_s
    return _until(said)


def _until(said: str) -> float | None:
    """Seconds until a date of HTTP; one without a zone is in UTC."""
    try:
        date = parsedate_to_datetime(said)
    except (TypeError, ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max((date - datetime.now(UTC)).total_seconds(), 0.0)


def retrying(model: _Model, policy: RetryPolicy | None = None) -> _Model:
    """Give a copy of a model that retries in this layer alone.

    Args:
        model: A LlamaIndex language or embedding model; left as it is.
        policy: How often and how long; None means 3 attempts, waits of up to 2 to 10 s, 120 s in all.

    Returns:
        A model of the same class, with `max_retries` 0.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> isinstance(retrying(MockLLM()), MockLLM)
        True
    """
    copy = model.model_copy()
    _switch_off(copy)
    return cast("_Model", _changed(copy, type(model), policy or RetryPolicy()))


def retried(send: Callable[[], _Reply], policy: RetryPolicy | None = None) -> _Reply:
    """Send a request that no model of LlamaIndex makes, such as a reranker's, as `retrying` sends a model's.

    Example:
        >>> retried(lambda: "reply")
        'reply'
    """
    attempt = attempt_number.set(1)
    try:
        return Retrying(**(policy or RetryPolicy()).options(None, _report_attempts()))(send)
    finally:
        attempt_number.reset(attempt)


def _changed(model: Any, plain: Any, policy: RetryPolicy) -> Any:
    model.__class__ = _retrying_class(plain)
    object.__setattr__(model, "_retry_policy", policy)
    return model


def _switch_off(model: Any) -> None:
    """Switch off the model's own retries and those of the SDK clients it holds."""
    if hasattr(model, "max_retries"):
        model.max_retries = 0
    for name in ("_client", "_aclient"):
        client = getattr(model, name, None)
        if client is not None and hasattr(client, "with_options"):
            setattr(model, name, client.with_options(max_retries=0))


class _Retrying:
    """Marks the classes made here, and lets their objects be pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        plain = type(self).__mro__[2]
        return _revive, (plain, self.__getstate__(), self._retry_policy)  # type: ignore[attr-defined]


def _revive(plain: Any, state: Any, policy: RetryPolicy) -> Any:
    model = plain.__new__(plain)
    model.__setstate__(state)
    return _changed(model, plain, policy)


@functools.cache
def _retrying_class(plain: Any) -> Any:
    if issubclass(plain, _Retrying):
        return plain
    wrappers = _LLM_METHODS if issubclass(plain, BaseLLM) else _EMBEDDING_METHODS
    methods: dict[str, Any] = {
        name: wrap(plain, name) for name, wrap in wrappers.items() if hasattr(plain, name)
    }
    for method in methods.values():
        method.__dispatcher_span_decorated__ = True  # the inner method has a span; one is enough
    names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    return type(plain)(plain.__name__, (_Retrying, plain), {**names, **methods})


def _policy(model: Any) -> RetryPolicy:
    policy: RetryPolicy = model._retry_policy
    return policy


def _call(model: Any, work: Callable[[], Any], before_sleep: Callable[[RetryCallState], None] | None) -> Any:
    """Run work with retries; inside another retried call just run it."""
    if _inside.get():
        return work()
    inside, attempt = _inside.set(True), attempt_number.set(1)
    try:
        return Retrying(**_policy(model).options(model, before_sleep))(work)
    finally:
        _inside.reset(inside)
        attempt_number.reset(attempt)


async def _acall(
    model: Any, work: Callable[[], Any], before_sleep: Callable[[RetryCallState], None] | None
) -> Any:
    """Run async work with retries; inside another retried call just run it."""
    if _inside.get():
        return await work()
    inside, attempt = _inside.set(True), attempt_number.set(1)
    try:
        return await AsyncRetrying(**_policy(model).options(model, before_sleep))(work)
    finally:
        _inside.reset(inside)
        attempt_number.reset(attempt)


def _method(kind: type, name: str) -> Any:
    """The method as its class has it, to be bound: a decorated one that is read off the class and called with the model
    loses its first argument in wrapt below 2.5."""
    return next(vars(one)[name] for one in kind.__mro__ if name in vars(one))


def _plain(kind: type, name: str, before_sleep: Any = None) -> Any:
    inner = _method(kind, name)

    @functools.wraps(inner)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _call(self, lambda: inner.__get__(self)(*args, **kwargs), before_sleep and before_sleep())

    return method


def _async(kind: type, name: str, before_sleep: Any = None) -> Any:
    inner = _method(kind, name)

    @functools.wraps(inner)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        async def work() -> Any:
            return await inner.__get__(self)(*args, **kwargs)

        return await _acall(self, work, before_sleep and before_sleep())

    return method


_END: Final = object()


def _stream(kind: type, name: str) -> Any:
    inner = _method(kind, name)

    @functools.wraps(inner)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        def begin() -> tuple[Any, Any]:
            pieces = inner.__get__(self)(*args, **kwargs)
            return next(pieces, _END), pieces

        first, pieces = _call(self, begin, None)
        return _continued(first, pieces)

    return method


def _continued(first: Any, pieces: Any) -> Iterator[Any]:
    if first is not _END:
        yield first
        yield from pieces


def _async_stream(kind: type, name: str) -> Any:
    inner = _method(kind, name)

    @functools.wraps(inner)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        async def begin() -> tuple[Any, Any]:
            pieces = await inner.__get__(self)(*args, **kwargs)
            return await anext(pieces, _END), pieces

        first, pieces = await _acall(self, begin, None)
        return _acontinued(first, pieces)

    return method


async def _acontinued(first: Any, pieces: Any) -> Any:
    try:
        if first is not _END:
            yield first
            async for piece in pieces:
                yield piece
    finally:
        await pieces.aclose()


def _report_attempts() -> Callable[[RetryCallState], None]:
    """Report each failed attempt before the wait; the last one fails the call itself."""
    began = [time.perf_counter()]

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        latency_ms = (time.perf_counter() - began[0]) * 1000
        event = AttemptFailedEvent(
            attempt=state.attempt_number,
            error_type=type(error).__name__,
            latency_ms=latency_ms,
            wait_s=state.upcoming_sleep,
            sent=error is not None and answer_was_lost(error),
        )
        _dispatcher.event(event)
        began[0] = time.perf_counter() + state.upcoming_sleep

    return report


_plain_batch = functools.partial(_plain, before_sleep=_report_attempts)
_async_batch = functools.partial(_async, before_sleep=_report_attempts)
_LLM_METHODS: Final[dict[str, Callable[[type, str], Any]]] = {
    "chat": _plain,
    "complete": _plain,
    "achat": _async,
    "acomplete": _async,
    "stream_chat": _stream,
    "stream_complete": _stream,
    "astream_chat": _async_stream,
    "astream_complete": _async_stream,
}
_EMBEDDING_METHODS: Final[dict[str, Callable[[type, str], Any]]] = {
    "_get_query_embedding": _plain_batch,
    "_get_text_embedding": _plain_batch,
    "_get_text_embeddings": _plain_batch,
    "_aget_query_embedding": _async_batch,
    "_aget_text_embedding": _async_batch,
    "_aget_text_embeddings": _async_batch,
}
