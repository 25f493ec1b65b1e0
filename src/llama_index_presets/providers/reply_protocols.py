"""What each vendor's SDK calls a reply, its usage and its errors: one table that `checked_replies` looks replies up in.

A reply that has no text and says why, such as one that was held back or that used its tokens up for reasoning, is an
answer with a finish reason (`answer.finish`). One that has neither is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import wrapt

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:
    _Proxy = wrapt.ObjectProxy

__all__ = ["ReplyProtocol", "protocol_of"]


def _as_it_is(reply: Any) -> Any:
    return reply


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyProtocol:
    """How replies of one SDK are read.

    Attributes:
        calls: Paths of the client's methods that answer -> whether the method streams; None where the request says so.
        address: The address that a client asks.
        key: Its key, which is only taken out of what a provider says.
        problem: What a whole reply lacks; empty for an answer.
        begins: Whether a piece of a stream belongs to an answer.
        usage: What a reply, or a piece of a stream, says that was used.
        unreadable: Names of the errors that the SDK raises for a reply with status 200 that it cannot read, or that is
            an error in its body.
        mended: A reply, or a piece of a stream, such that the class of LlamaIndex can read it.
        pieces: Key of the stream in a reply that has one; empty where the reply is the stream.
    """

    calls: dict[str, bool | None]
    address: Callable[[Any], Any]
    key: Callable[[Any], Any]
    problem: Callable[[Any], str]
    begins: Callable[[Any], bool]
    usage: Callable[[Any], Any]
    unreadable: frozenset[str] = frozenset({"JSONDecodeError"})
    mended: Callable[[Any], Any] = _as_it_is
    pieces: str = ""


def protocol_of(client: Any) -> ReplyProtocol | None:
    """The protocol of an SDK's client, by the package of its class; None of one that is not known.

    Example:
        >>> import openai
        >>> sorted(protocol_of(openai.OpenAI(api_key="sk-x")).calls)
        ['chat.completions.create', 'completions.create']
    """
    for kind in type(client).__mro__:
        for package, protocol in _PROTOCOLS.items():
            if f"{kind.__module__}.".startswith(f"{package}."):
                return protocol
    return None


# -- OpenAI, and all that speak its protocol --------------------------------------------------------------------------


def _choices_missing(reply: Any) -> str:
    choices = getattr(reply, "choices", None)
    if not choices:
        return "`choices` is missing or empty"
    first = choices[0]
    if not hasattr(first, "text") and getattr(first, "message", None) is None:
        return "its first choice has no message"
    return ""


def _with_choices(piece: Any) -> Any:
    """A piece whose choices can be counted: null becomes an empty list."""
    if getattr(piece, "choices", ()) is None:
        piece.choices = []
    return piece


_OPENAI: Final = ReplyProtocol(
    calls={"chat.completions.create": None, "completions.create": None},
    address=lambda client: client.base_url,
    key=lambda client: getattr(client, "api_key", None),
    problem=_choices_missing,
    begins=lambda piece: bool(getattr(piece, "choices", None)),
    usage=lambda reply: getattr(reply, "usage", None),
    unreadable=frozenset({"JSONDecodeError", "APIError"}),
    mended=_with_choices,
)

# -- Anthropic --------------------------------------------------------------------------------------------------------


def _message_missing(reply: Any) -> str:
    if not hasattr(reply, "content"):
        return "the reply is no message"
    if reply.content is None or not (reply.content or reply.stop_reason):
        return "`content` is missing or empty, and no reason is given"
    return ""


_ANTHROPIC: Final = ReplyProtocol(
    calls={"messages.create": None, "beta.messages.create": None},
    address=lambda client: client.base_url,
    key=lambda client: client.api_key,
    problem=_message_missing,
    begins=lambda event: (
        str(getattr(event, "type", "")).startswith("content_block")
        or getattr(getattr(event, "delta", None), "stop_reason", None) is not None
    ),
    usage=lambda reply: getattr(getattr(reply, "message", reply), "usage", None),
    unreadable=frozenset({"JSONDecodeError", "APIResponseValidationError", "APIStatusError"}),
)

# -- Google -----------------------------------------------------------------------------------------------------------

_STATED: Final = (
    "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE",
    "IMAGE_SAFETY",
)  # fmt: skip
"""Reasons that say why there is no text; after another one, such as a malformed call of a tool, a second try helps."""


class _EndedEarly(_Proxy):
    """A candidate that ended early. The class of LlamaIndex raises at its reason, which `model_dump` still has."""

    @property
    def finish_reason(self) -> None:
        """None, as of a candidate that goes on."""
        return None


def _reason(candidate: Any) -> str:
    return str(getattr(candidate.finish_reason, "name", candidate.finish_reason) or "")


def _parts(candidate: Any) -> Any:
    return getattr(candidate.content, "parts", None)


def _candidate_missing(reply: Any) -> str:
    candidates = getattr(reply, "candidates", None)
    if not candidates:
        return "`candidates` is missing or empty"
    # a proxy hides the reason from the class of LlamaIndex alone
    first = getattr(candidates[0], "__wrapped__", candidates[0])
    if any(part.text != "" for part in _parts(first) or ()) or _reason(first) in _STATED:
        return ""
    named = f"the reason {_reason(first)}" if _reason(first) else "no reason"
    return f"its first candidate has no text, and {named}"


def _held_back(reply: Any) -> Any:
    """A candidate that says what a refused prompt says in a place of its own."""
    from google.genai import types

    named = str(getattr(reply.prompt_feedback.block_reason, "name", ""))
    reason = types.FinishReason.__members__.get(named, types.FinishReason.PROHIBITED_CONTENT)
    if reason is types.FinishReason.OTHER:
        reason = types.FinishReason.PROHIBITED_CONTENT
    return types.Candidate(finish_reason=reason)


def _with_candidate(reply: Any) -> Any:
    """A reply of which LlamaIndex reads the reason and the usage, too, where there is no text."""
    from google.genai import types

    if not reply.candidates and getattr(reply.prompt_feedback, "block_reason", None) is not None:
        reply.candidates = [_held_back(reply)]
    for place, candidate in enumerate(reply.candidates or ()):
        ended = bool(_reason(candidate))
        if ended and not _parts(candidate):
            candidate.content = types.Content(role="model", parts=[types.Part(text="")])
        if ended and _reason(candidate) != "STOP":
            reply.candidates[place] = _EndedEarly(candidate)
    return reply


_GEMINI: Final = ReplyProtocol(
    calls={
        f"{way}models.{method}": method.endswith("_stream")
        for way in ("", "aio.")
        for method in ("generate_content", "generate_content_stream")
    },
    address=lambda client: client._api_client._http_options.base_url,
    key=lambda client: client._api_client.api_key,
    problem=_candidate_missing,
    begins=lambda piece: not _candidate_missing(piece),
    usage=lambda reply: getattr(reply, "usage_metadata", None),
    unreadable=frozenset({"JSONDecodeError", "UnknownApiResponseError", "ValidationError"}),
    mended=_with_candidate,
)

# -- Mistral ----------------------------------------------------------------------------------------------------------

_MISTRAL: Final = ReplyProtocol(
    calls={
        "chat.complete": False, "chat.complete_async": False, "chat.stream": True, "chat.stream_async": True
    },
    address=lambda client: client.sdk_configuration.get_server_details()[0],
    key=lambda client: getattr(client.sdk_configuration.security, "api_key", None),
    problem=_choices_missing,
    begins=lambda event: bool(getattr(event.data, "choices", None)),
    usage=lambda reply: getattr(getattr(reply, "data", reply), "usage", None),
    unreadable=frozenset({"JSONDecodeError", "ResponseValidationError", "SDKError"}),
)  # fmt: skip

# -- Ollama -----------------------------------------------------------------------------------------------------------

_OLLAMA: Final = ReplyProtocol(
    calls={"chat": None},
    address=lambda client: client._client.base_url,
    key=lambda client: client._client.headers.get("authorization", "").removeprefix("Bearer "),
    problem=lambda reply: (
        # of a model that was only loaded: the prompt was not read
        "the model was loaded, and wrote nothing" if reply.get("done_reason") == "load" else ""
    ),
    begins=lambda piece: piece.get("done_reason") != "load",
    usage=_as_it_is,
    # a value of another kind than an object, too, which the SDK reads unseen
    unreadable=frozenset(
        {"JSONDecodeError", "ValidationError", "TypeError", "AttributeError", "ResponseError"}
    ),
)

# -- Amazon -----------------------------------------------------------------------------------------------------------


def _output_missing(reply: Any) -> str:
    message = ((reply if isinstance(reply, dict) else {}).get("output") or {}).get("message")
    if message is None:
        return "`output` has no message"
    if not (message.get("content") or reply.get("stopReason")):
        return "its message is empty, and no reason is given"
    return ""


_BEDROCK: Final = ReplyProtocol(
    calls={"converse": False, "converse_stream": True},
    address=lambda client: client.meta.endpoint_url,
    key=lambda client: "",
    problem=_output_missing,
    begins=lambda event: any(name in event for name in ("contentBlockStart", "contentBlockDelta", "messageStop")),
    usage=lambda reply: reply.get("metadata", reply).get("usage"),
    unreadable=frozenset(
        {
            "JSONDecodeError", "ResponseParserError", "TypeError", "AttributeError",
            # of the frames of a stream, and of an error in one
            "ChecksumMismatch", "InvalidHeadersLength", "InvalidPayloadLength", "EventStreamError",
        }
    ),
    pieces="stream",
)  # fmt: skip

_PROTOCOLS: Final[dict[str, ReplyProtocol]] = {
    "openai": _OPENAI,
    "anthropic": _ANTHROPIC,
    "google.genai": _GEMINI,
    "mistralai": _MISTRAL,
    "ollama": _OLLAMA,
    "botocore": _BEDROCK,
}
"""Package of an SDK -> its protocol."""
