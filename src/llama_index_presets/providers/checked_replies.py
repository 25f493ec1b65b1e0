"""Replies of hosted models that say success and hold no answer: an error with the model's name and the usage.

Gateways answer 200 with an ``error`` in the body, without ``choices`` or with a page, when the model behind them fails.
The classes of LlamaIndex take what they look for unseen: they end in an IndexError or a KeyError, or give a stream
without pieces, and the tokens that the provider bills are lost. So each reply is looked at in the SDK client that a
model holds; `reply_protocols` has what differs by vendor.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

import wrapt

from llama_index_presets.errors import ModelReplyError
from llama_index_presets.monitor.retry import status_of
from llama_index_presets.providers.reply_protocols import ReplyProtocol, protocol_of

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:
    _Proxy = wrapt.ObjectProxy

__all__ = ["checking", "plain_client", "wrapped_alike"]

_LONGEST: Final = 300
"""Characters of a provider's own message that are passed on."""


def checking(client: Any) -> Any:
    """An SDK client whose replies have an answer, or raise.

    One that looks already, or of an unknown SDK, is given back.

    Args:
        client: Left as it is.
    """
    if getattr(client, "_self_checks", False):
        return client
    protocol = protocol_of(plain_client(client))
    return client if protocol is None else _CheckingClient(client)


def plain_client(client: Any) -> Any:
    """The SDK's own client in proxies."""
    while (inner := getattr(client, "__wrapped__", None)) is not None:
        client = inner
    return client


def wrapped_alike(client: Any, renewed: Any) -> Any:
    """A new client in the same proxies as another one."""
    inner = getattr(client, "__wrapped__", None)
    return renewed if inner is None else type(client)(wrapped_alike(inner, renewed))


class _Asked(NamedTuple):
    """Whom a request went to, and how replies of it are read."""

    protocol: ReplyProtocol
    address: str
    key: str
    model: str = ""


class _CheckingPart(_Proxy):
    """An SDK client, or a part of one on the path to a method that answers."""

    def __init__(self, part: Any, asked: _Asked, path: str) -> None:
        super().__init__(part)
        self._self_asked = asked
        self._self_path = path

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__wrapped__, name)
        if name.startswith("_"):
            return value
        path, asked = self._self_path + name, self._self_asked
        if path in asked.protocol.calls:
            return _checked_call(value, asked, asked.protocol.calls[path])
        if any(call.startswith(f"{path}.") for call in asked.protocol.calls):
            return _CheckingPart(value, asked, f"{path}.")
        if name == "chats":  # Google's chats ask the models that they were given
            return type(value)(self.models)
        return value


class _CheckingClient(_CheckingPart):
    _self_checks = True

    def __init__(self, client: Any) -> None:
        plain = plain_client(client)
        protocol = cast("ReplyProtocol", protocol_of(plain))
        asked = _Asked(protocol, str(protocol.address(plain)), str(protocol.key(plain) or ""))
        super().__init__(client, asked, "")
        self._self_checks = True


def _checked_call(method: Any, asked: _Asked, streams: bool | None) -> Any:
    """A method of a client that looks at what it gives."""

    def call(*args: Any, **request: Any) -> Any:
        """Send a request, and look at its reply."""
        model = request.get("model") or request.get("modelId") or ""
        about = asked._replace(model=str(model))
        streaming = bool(request.get("stream")) if streams is None else streams
        with _readable(about):
            reply = method(*args, **request)
        return (
            _awaited(reply, about, streaming)
            if inspect.isawaitable(reply)
            else _checked(reply, about, streaming)
        )

    return call


async def _awaited(reply: Any, asked: _Asked, streaming: bool) -> Any:
    with _readable(asked):
        come = await reply
    return _checked(come, asked, streaming)


def _checked(reply: Any, asked: _Asked, streaming: bool) -> Any:
    protocol = asked.protocol
    if streaming:
        if protocol.pieces:
            return {**reply, protocol.pieces: _CheckedStream(reply[protocol.pieces], asked)}
        return _CheckedStream(reply, asked)
    with _readable(asked):
        reply = protocol.mended(reply) if reply is not None else None
    if problem := protocol.problem(reply):
        raise _no_answer(asked, problem, usage=protocol.usage(reply), error=getattr(reply, "error", None))
    return reply


class _CheckedStream(_Proxy):
    """Pieces of a stream; one that ends without any piece of an answer raises."""

    def __init__(self, stream: Any, asked: _Asked) -> None:
        super().__init__(stream)
        self._self_asked = asked

    def __iter__(self) -> Any:
        begun = _Beginning(self._self_asked)
        with begun.readable():
            for piece in self.__wrapped__:
                yield from begun.ready(piece)
        begun.ended()

    async def __aiter__(self) -> Any:
        begun = _Beginning(self._self_asked)
        with begun.readable():
            async for piece in self.__wrapped__:
                for one in begun.ready(piece):
                    yield one
        begun.ended()


class _Beginning:
    """The pieces before the first one of an answer, held back so that a stream without one can be tried again."""

    def __init__(self, asked: _Asked) -> None:
        self.asked = asked
        self.held: list[Any] | None = []

    def ready(self, piece: Any) -> list[Any]:
        """The pieces that can be read now."""
        piece = self.asked.protocol.mended(piece)
        if self.held is None:
            return [piece]
        self.held.append(piece)
        if not self.asked.protocol.begins(piece):
            return []
        pieces, self.held = self.held, None
        return pieces

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Name errors for what cannot be read; once an answer has begun, they are those of the SDK."""
        try:
            yield
        except Exception as error:
            if self.held is None or not _is_unreadable(error, self.asked.protocol):
                raise
            raise _unreadable(error, self.asked, self.held) from error

    def ended(self) -> None:
        """Take the end of the stream.

        Raises:
            ModelReplyError: No piece of an answer came.
        """
        if self.held is not None:
            error = next(
                (found for one in reversed(self.held) if (found := getattr(one, "error", None))), None
            )
            raise _no_answer(
                self.asked, "its stream had no answer", usage=_usage_in(self.asked.protocol, self.held), error=error
            )  # fmt: skip


def _usage_in(protocol: ReplyProtocol, pieces: Sequence[Any]) -> Any:
    """The usage that the last of some pieces says."""
    return next((usage for one in reversed(pieces) if (usage := protocol.usage(one)) is not None), None)


@contextmanager
def _readable(asked: _Asked) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_unreadable(error, asked.protocol):
            raise
        raise _unreadable(error, asked, ()) from error


def _is_unreadable(error: Exception, protocol: ReplyProtocol) -> bool:
    """Whether an error of an SDK is of a reply that said success."""
    return status_of(error) in (None, -1, 200) and type(error).__name__ in protocol.unreadable


def _unreadable(error: Exception, asked: _Asked, pieces: Sequence[Any]) -> ModelReplyError:
    told = _body_of(error)
    usage = told.get("usage") or _usage_in(asked.protocol, pieces)
    said = told.get("error") or told.get("Error") or getattr(error, "error", None) or told
    return _no_answer(asked, "the reply cannot be read as an answer", usage=usage, error=said)


def _body_of(error: Exception) -> dict[str, Any]:
    """The body of a reply, where an SDK's error keeps one: as an object, or as its text."""
    body: Any = getattr(error, "body", None) or getattr(error, "response", None)
    if isinstance(body, str):
        with suppress(ValueError):
            body = json.loads(body)
    return body if isinstance(body, dict) else {}


def _no_answer(asked: _Asked, problem: str, *, usage: Any, error: Any) -> ModelReplyError:
    host = urlsplit(asked.address).netloc.rpartition("@")[2]
    if not isinstance(error, dict):
        error = {"message": error}
    text = " ".join(str(error.get("message") or error.get("Message") or "").split())
    if asked.key:
        text = text.replace(asked.key, "(key)")
    said = f" It says: {text[:_LONGEST].rstrip('.')}." if text else ""
    code = error.get("code")
    return ModelReplyError(
        f"'{asked.model}' at {host} replied without an answer: {problem}.{said} Ask again; if it stays so, look at "
        "the provider's status page, or name another model.",
        model=asked.model,
        usage=usage,
        status_code=code if isinstance(code, int) else None,
    )
