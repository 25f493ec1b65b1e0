"""Token usage of streams: requested in OpenAI's protocol, completed in Anthropic's.

OpenAI, Azure and most servers that speak their protocol leave the usage out of a stream unless the request has
``stream_options={"include_usage": true}``; some refuse a request that has it. So the question is added to the request
itself, in the SDK client that a model holds: a refused request is sent again without it, the reader notices nothing,
and that server and model are not asked again in this process. Neither the model's settings nor a client that the
application uses elsewhere is changed.

Anthropic says at the beginning of a stream what the prompt cost, with what its cache read and wrote, and at the end
what the answer cost. LlamaIndex passes on the end alone, so what only the beginning said is added to it.
"""

from __future__ import annotations

import inspect
import logging
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import wrapt

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:
    _Proxy = wrapt.ObjectProxy

__all__ = ["ask_for_usage", "complete_usage"]

Wanted = Callable[[], bool]
"""Whether somebody still records the streams of a model."""

_QUESTION: Final = {"stream_options": {"include_usage": True}}
_REFUSALS: Final = (400, 422)
_SAID_FIRST: Final = (
    "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "service_tier", "speed"
)  # fmt: skip
_KNOWN_HOSTS: Final = (".openai.com", ".azure.com")
_accepting: set[tuple[str, str]] = set()
_refusing: set[tuple[str, str]] = set()
_log = logging.getLogger(__name__)


def ask_for_usage(model: Any, wanted: Wanted, *, asynchronous: bool) -> None:
    """Request token usage in the streams of a model, if it sends them through the SDK of OpenAI.

    That is `OpenAI`, `AzureOpenAI`, `OpenAILike` and every class made from them; other models are left alone. A model
    that makes a client for each request (``reuse_client=False``) is asked through its `additional_kwargs`, and only
    at OpenAI and Azure, which are known to answer.

    Args:
        model: A language model that is about to stream.
        wanted: A bound method, held weakly.
        asynchronous: Which of the model's two clients will be used.
    """
    sdk = sys.modules.get("openai")
    get_client = getattr(model, "_get_aclient" if asynchronous else "_get_client", None)
    if sdk is None or get_client is None:
        return
    try:
        client = get_client()
    except Exception:  # without a key, for instance: the call itself is about to say so
        return
    if not isinstance(client, (sdk.OpenAI, sdk.AsyncOpenAI)):
        return
    name = "_aclient" if asynchronous else "_client"
    if getattr(model, name, None) is not client:
        _ask_by_settings(model, str(client.base_url))
        return
    if not isinstance(client, _AskingClient):
        client = _AskingClient(client)
        setattr(model, name, client)
    client.add(wanted)


def complete_usage(model: Any, *, asynchronous: bool) -> None:
    """Let the streams of an Anthropic model say all of their usage, at Vertex and Bedrock, too; others are left alone.

    Nothing is asked of the server.

    Args:
        model: A language model that is about to stream.
        asynchronous: Which of the model's two clients will be used.
    """
    name = "_aclient" if asynchronous else "_client"
    client = getattr(model, name, None)
    if client is None or client.__class__.__module__.partition(".")[0] != "anthropic":
        return
    if not isinstance(client, _CompletingClient):
        setattr(model, name, _CompletingClient(client))


def _ask_by_settings(model: Any, url: str) -> None:
    known = f".{urlsplit(url).hostname}".endswith(_KNOWN_HOSTS)
    if known and "stream_options" not in model.additional_kwargs:
        model.additional_kwargs = {**model.additional_kwargs, **_QUESTION}


class _AskingClient(_Proxy):
    """SDK client whose streams request their usage while a listener wants it; else unchanged."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._self_wanted: tuple[weakref.WeakMethod[Any], ...] = ()

    def add(self, wanted: Any) -> None:
        """Ask on behalf of one more listener."""
        if all(known() != wanted for known in self._self_wanted):
            alive = [known for known in self._self_wanted if known() is not None]
            self._self_wanted = (*alive, weakref.WeakMethod(wanted))

    def is_wanted(self) -> bool:
        """Tell whether a listener is left."""
        return any(wanted() for known in self._self_wanted if (wanted := known()) is not None)

    @property
    def chat(self) -> Any:
        """The chat API."""
        return _AskingChat(self.__wrapped__.chat, self)

    @property
    def completions(self) -> Any:
        """The legacy completions API."""
        return _AskingCompletions(self.__wrapped__.completions, self)


class _AskingChat(_Proxy):
    def __init__(self, chat: Any, client: _AskingClient) -> None:
        super().__init__(chat)
        self._self_client = client

    @property
    def completions(self) -> Any:
        """The API that answers chats."""
        return _AskingCompletions(self.__wrapped__.completions, self._self_client)


class _AskingCompletions(_Proxy):
    def __init__(self, completions: Any, client: _AskingClient) -> None:
        super().__init__(completions)
        self._self_client = client

    def create(self, *args: Any, **request: Any) -> Any:
        """Send a request, a stream with the question and, if it is refused, without."""
        plain = self.__wrapped__.create
        server = (str(self._self_client.base_url), str(request.get("model")))
        ask = request.get("stream") and "stream_options" not in request and self._self_client.is_wanted()
        if not ask or server in _refusing:
            return plain(*args, **request)
        asynchronous = isinstance(self._self_client, sys.modules["openai"].AsyncOpenAI)
        return (_asend if asynchronous else _send)(plain, server, args, request)


class _CompletingClient(_Proxy):
    """Anthropic's SDK client whose streams end with all of their usage; else unchanged."""

    @property
    def messages(self) -> Any:
        """The API that answers chats."""
        return _CompletingMessages(self.__wrapped__.messages)


class _CompletingMessages(_Proxy):
    def create(self, *args: Any, **request: Any) -> Any:
        """Send a request."""
        answer = self.__wrapped__.create(*args, **request)
        if not request.get("stream"):
            return answer
        return _acompleting(answer) if inspect.isawaitable(answer) else _CompletingStream(answer)


async def _acompleting(answer: Any) -> Any:
    return _CompletingStream(await answer)


class _CompletingStream(_Proxy):
    """Events of a stream; its first piece and its last usage have what the first event said."""

    def __iter__(self) -> Any:
        first = _FirstUsage()
        for event in self.__wrapped__:
            first.add_to(event)
            yield event

    async def __aiter__(self) -> Any:
        first = _FirstUsage()
        async for event in self.__wrapped__:
            first.add_to(event)
            yield event


class _FirstUsage:
    """What the first event of a stream said that it used: a stream may be left before its end says it."""

    def __init__(self) -> None:
        self.said: Any = None
        self.told = False

    def add_to(self, event: Any) -> None:
        """Add it to the first piece, and to the usage of the last event where that leaves it out."""
        kind = getattr(event, "type", "")
        if kind == "message_start":
            self.said = event.message.usage
        elif self.said is None:
            return
        elif kind == "content_block_delta" and not self.told:
            self.told = True
            event.usage = self.said
        elif kind == "message_delta":
            for name in _SAID_FIRST:
                if getattr(event.usage, name, None) is None:
                    setattr(event.usage, name, getattr(self.said, name, None))


def _send(plain: Any, server: tuple[str, str], args: Any, request: dict[str, Any]) -> Any:
    try:
        answer = plain(*args, **request, **_QUESTION)
    except Exception as error:
        if not _may_refuse(error, server):
            raise
        answer = plain(*args, **request)  # if it fails again, the question was not at fault
        _remember_refusal(server)
        return answer
    _accepting.add(server)
    return answer


async def _asend(plain: Any, server: tuple[str, str], args: Any, request: dict[str, Any]) -> Any:
    try:
        answer = await plain(*args, **request, **_QUESTION)
    except Exception as error:
        if not _may_refuse(error, server):
            raise
        answer = await plain(*args, **request)
        _remember_refusal(server)
        return answer
    _accepting.add(server)
    return answer


def _may_refuse(error: Exception, server: tuple[str, str]) -> bool:
    """Whether a server may have refused the option; many name it, some only report an unknown field."""
    if getattr(error, "status_code", None) not in _REFUSALS:
        return False
    return server not in _accepting or "stream_options" in str(error)


def _remember_refusal(server: tuple[str, str]) -> None:
    _refusing.add(server)
    _accepting.discard(server)
    _log.warning(
        "The server %s refuses stream_options for model '%s': its streams are sent without, and the tokens of those "
        "that say nothing are estimated. Set stream_usage to false to not ask at all.",
        urlsplit(server[0]).netloc.rpartition("@")[2],
        server[1],
    )
