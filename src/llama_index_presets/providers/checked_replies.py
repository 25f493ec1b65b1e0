"""Replies in OpenAI's protocol that say success and hold no answer: an error with the model's name and the usage.

Gateways answer 200 with an ``error`` in the body, or without ``choices``, when the model behind them fails. The
classes of LlamaIndex take the first choice unseen, and end in an IndexError or a TypeError; the reply, with the tokens
that the provider bills, is lost. So each reply is looked at in the SDK client that a model holds.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

import wrapt

from llama_index_presets.errors import ModelReplyError

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:
    _Proxy = wrapt.ObjectProxy

__all__ = ["checking"]

_About: TypeAlias = tuple[str, str, str]
"""Model, address and key."""

_LONGEST: Final = 300
"""Characters of a provider's own message that are passed on."""


def checking(client: Any) -> Any:
    """An SDK client of OpenAI whose replies have an answer, or raise; one that looks already is given back.

    Args:
        client: Left as it is.
    """
    return client if getattr(client, "_self_checks", False) else _CheckingClient(client)


class _CheckingClient(_Proxy):
    _self_checks = True

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._self_checks = True

    @property
    def chat(self) -> Any:
        """The chat API."""
        return _CheckingChat(self.__wrapped__.chat, _where(self.__wrapped__))

    @property
    def completions(self) -> Any:
        """The legacy completions API."""
        return _CheckingCompletions(self.__wrapped__.completions, _where(self.__wrapped__))


class _CheckingChat(_Proxy):
    def __init__(self, chat: Any, where: tuple[str, str]) -> None:
        super().__init__(chat)
        self._self_where = where

    @property
    def completions(self) -> Any:
        """The API that answers chats."""
        return _CheckingCompletions(self.__wrapped__.completions, self._self_where)


class _CheckingCompletions(_Proxy):
    def __init__(self, completions: Any, where: tuple[str, str]) -> None:
        super().__init__(completions)
        self._self_where = where

    def create(self, *args: Any, **request: Any) -> Any:
        """Send a request, and look at its reply."""
        about = (str(request.get("model")), *self._self_where)
        look = _stream if request.get("stream") else _whole
        with _json_wanted(about):
            reply = self.__wrapped__.create(*args, **request)
        return _awaited(reply, look, about) if inspect.isawaitable(reply) else look(reply, about)


def _where(client: Any) -> tuple[str, str]:
    """Address and key of a client; the key is only taken out of what a provider says."""
    return str(client.base_url), str(getattr(client, "api_key", None) or "")


async def _awaited(reply: Any, look: Any, about: _About) -> Any:
    with _json_wanted(about):
        come = await reply
    return look(come, about)


@contextmanager
def _json_wanted(about: _About) -> Iterator[None]:
    try:
        yield
    except json.JSONDecodeError as error:
        raise _no_answer(None, about, "the reply is no JSON") from error


def _whole(reply: Any, about: _About) -> Any:
    """A reply that is not streamed."""
    choices = getattr(reply, "choices", None)
    if not choices:
        raise _no_answer(reply, about, "`choices` is missing or empty")
    first = choices[0]
    if not hasattr(first, "text") and getattr(first, "message", None) is None:
        raise _no_answer(reply, about, "its first choice has no message")
    return reply


def _stream(reply: Any, about: _About) -> Any:
    return _CheckedStream(reply, about)


class _CheckedStream(_Proxy):
    """Pieces of a stream; one that ends without any choice raises."""

    def __init__(self, stream: Any, about: _About) -> None:
        super().__init__(stream)
        self._self_about = about

    def __iter__(self) -> Any:
        held: list[Any] | None = []  # until a choice is there, so that the first piece is no empty one
        for piece in self.__wrapped__:
            ready, held = _ready(piece, held)
            yield from ready
        if held is not None:
            raise _no_answer(_telling(held), self._self_about, "its stream had no choices")

    async def __aiter__(self) -> Any:
        held: list[Any] | None = []
        async for piece in self.__wrapped__:
            ready, held = _ready(piece, held)
            for one in ready:
                yield one
        if held is not None:
            raise _no_answer(_telling(held), self._self_about, "its stream had no choices")


def _ready(piece: Any, held: list[Any] | None) -> tuple[list[Any], list[Any] | None]:
    """Pieces that can be read now, and those that are held back; None once there was a choice."""
    if getattr(piece, "choices", None) is None:
        piece.choices = []  # null is none, which readers count on
    if held is None:
        return [piece], None
    return ([*held, piece], None) if piece.choices else ([], [*held, piece])


def _telling(pieces: list[Any]) -> Any:
    """The last piece with a usage or an error."""
    return next(
        (one for one in reversed(pieces) if getattr(one, "usage", None) or getattr(one, "error", None)), None
    )


def _no_answer(reply: Any, about: _About, problem: str) -> ModelReplyError:
    model, host = about[0], urlsplit(about[1]).netloc.rpartition("@")[2]
    error = getattr(reply, "error", None) or {}
    if not isinstance(error, dict):
        error = {"message": error}
    text = " ".join(str(error.get("message") or "").split())
    if about[2]:
        text = text.replace(about[2], "(key)")
    said = f" It says: {text[:_LONGEST].rstrip('.')}." if text else ""
    code = error.get("code")
    return ModelReplyError(
        f"'{model}' at {host} replied without an answer: {problem}.{said} Ask again; if it stays so, look at "
        "the provider's status page, or name another model.",
        model=model,
        usage=getattr(reply, "usage", None),
        status_code=code if isinstance(code, int) else None,
    )
