"""What the language models of vendors do differently, handled once for all of them."""

from __future__ import annotations

import asyncio
import logging
import re
import weakref
from collections.abc import Mapping
from typing import Any, Final

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW

from llama_index_presets.monitor.calls.usage import provider_of
from llama_index_presets.monitor.prices import context_window_of
from llama_index_presets.monitor.retry import status_of
from llama_index_presets.providers.checked_replies import checking, plain_client, wrapped_alike

__all__ = ["HoldsClients", "NamedLLM", "is_reasoning_model"]

_log = logging.getLogger(__name__)

_REASONING: Final = re.compile(r"(^|[/.:])(o[1-9]([-.]|$)|gpt-([5-9]|\d\d)(?!.*-chat))")
"""Names of OpenAI's reasoning models: o1 and its successors, gpt-5 and later but for the chat models."""

_REFUSAL: Final = re.compile(
    r"unsupported|not support|deprecated|only the default|may only be set|not allowed|not permitted|unrecognized|"
    r"unexpected|extra inputs|max_completion_tokens",
    re.IGNORECASE,
)
_OPTIONAL: Final = ("temperature", "max_tokens")
_RENAMED: Final = {"max_tokens": "max_completion_tokens"}
"""Where OpenAI's reasoning models want another name for a limit; elsewhere the parameter is left out."""


def is_reasoning_model(model: str) -> bool:
    """Whether OpenAI's interface refuses a temperature, and ``max_tokens`` under that name, for a model of this name.

    Example:
        >>> [is_reasoning_model(name) for name in ("o4-mini", "gpt-6-luna", "gpt-5-chat-latest", "gpt-4o")]
        [True, True, False, False]
    """
    return bool(_REASONING.search(model))


class NamedLLM:
    """Mix-in before a language model of LlamaIndex.

    * A parameter that the model refuses is left out, or sent under the name that it wants: at once for OpenAI's
      reasoning models, and for any other model after the first refusal, which is answered by the same call.
    * `metadata` has the context window that was given, else that of the class, of the list of prices, or of the server.
    """

    _window: int | None
    _refused: frozenset[str]
    _loop: weakref.ref[asyncio.AbstractEventLoop] | None

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of a model."""
        try:
            known: LLMMetadata | None = super().metadata  # type: ignore[misc]
        except ValueError:  # a model that is newer than its class
            known = None
        if self._window is None:
            self._window = _find_window(self, known)
        if known is not None:
            return known.model_copy(update={"context_window": self._window})
        model: Any = self
        return LLMMetadata(
            context_window=self._window,
            num_output=model.max_tokens or -1,
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=model.model,
        )

    # -- connections -----------------------------------------------------------------------------------------------

    def _get_client(self) -> Any:
        """Client for calls in OpenAI's protocol; its replies have an answer."""
        return self._checked("_client", super()._get_client())  # type: ignore[misc]

    def _get_aclient(self) -> Any:
        """Client for async calls in OpenAI's protocol; its replies have an answer."""
        self._leave_connections_to_their_loop()
        return self._checked("_aclient", super()._get_aclient())  # type: ignore[misc]

    def look_at_replies(self) -> None:
        """Look at the replies that come through the clients that this model holds already."""
        for name in ("_client", "_aclient"):
            if (client := getattr(self, name, None)) is not None:
                self._checked(name, client)

    def _checked(self, name: str, client: Any) -> Any:
        """A client that looks at its replies, kept where the model keeps its own."""
        checked = checking(client)
        if checked is not client and getattr(self, name, None) is client:
            setattr(self, name, checked)
        return checked

    def _leave_connections_to_their_loop(self) -> None:
        """Open new connections in another event loop: those of one that is closed, as after `asyncio.run`, are dead."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._loop is not None and self._loop() is not loop:
            model: Any = self
            for name in ("_aclient", "_async_client"):
                if getattr(model, name, None) is not None:
                    setattr(model, name, _renewed(getattr(model, name)))
            configuration: Any = getattr(getattr(model, "_client", None), "sdk_configuration", None)
            if getattr(configuration, "async_client", None) is not None:  # Mistral's
                configuration.async_client = type(configuration.async_client)(follow_redirects=True)
        self._loop = weakref.ref(loop)

    # -- parameters ------------------------------------------------------------------------------------------------

    def adapts_to(self, error: BaseException) -> bool:
        """Learn from a refusal: whether the same call may succeed without the parameter that the server names.

        Asked by `monitor.retry`; the answer is remembered by this object.
        """
        if status_of(error) not in (400, 422):
            return False
        message = f"{getattr(error, 'param', '')} {error}"
        refused = {
            name
            for name in _OPTIONAL
            if re.search(rf"\b{name}\b", message) and name not in self._refused and _REFUSAL.search(message)
        }
        if not refused:
            return False
        self._refused = self._refused | refused
        model: Any = self
        if "temperature" in refused and isinstance(
            config := getattr(model, "_generation_config", None), dict
        ):
            config["temperature"] = None  # Gemini's parameters are made once
        _log.warning(
            "'%s' does not take %s: sent without from now on.", model.model, " and ".join(sorted(refused))
        )
        return True

    def _get_model_kwargs(self, **options: Any) -> dict[str, Any]:
        """Parameters of a request in OpenAI's protocol."""
        parameters: dict[str, Any] = super()._get_model_kwargs(**options)  # type: ignore[misc]
        model: Any = self
        refused = self._refused | (frozenset(_OPTIONAL) if is_reasoning_model(model.model) else frozenset())
        return {
            _RENAMED.get(name, name) if name in refused else name: value
            for name, value in parameters.items()
            if name not in refused or name in _RENAMED
        }

    @property
    def _model_kwargs(self) -> dict[str, Any]:
        """Parameters of a request to Anthropic, Bedrock, Mistral or Ollama."""
        self._leave_connections_to_their_loop()  # asked before each request
        self.look_at_replies()
        parameters: dict[str, Any] = super()._model_kwargs  # type: ignore[misc]
        return {name: value for name, value in parameters.items() if name not in self._refused}


def _renewed(client: Any) -> Any:
    """A client with connections of its own; None where the model makes one when it has none."""
    if not hasattr(client, "auth_token"):
        return None
    plain = plain_client(client)  # Anthropic's
    renewed = type(plain)(
        api_key=plain.api_key,
        auth_token=plain.auth_token,
        base_url=plain.base_url,
        timeout=plain.timeout,
        max_retries=plain.max_retries,
        default_headers=plain._custom_headers,
    )
    return wrapped_alike(client, renewed)  # one that completes usage goes on doing so


class HoldsClients:
    """Mix-in before a class that gives its clients as properties: `Ollama`."""

    @property
    def client(self) -> Any:
        """Client for calls; its replies have an answer."""
        return self._checked("_client", super().client)  # type: ignore[misc,attr-defined]

    @property
    def async_client(self) -> Any:
        """Client for async calls in this event loop; its replies have an answer."""
        self._leave_connections_to_their_loop()  # type: ignore[attr-defined]
        return self._checked("_async_client", super().async_client)  # type: ignore[misc,attr-defined]


_SMALLEST_WINDOW: Final = 8_192
"""Tokens; of a model that nobody knows."""

_NAMES: Final = (
    "max_model_len",  # vLLM
    "loaded_context_length",  # LM Studio: what it was loaded with, less than the model can
    "context_length",  # OpenRouter, Together
    "context_window",  # Groq
    "max_context_length",  # Mistral, LM Studio
    "n_ctx",  # llama.cpp
    "n_ctx_train",
)
_TIMEOUT_S: Final = 3.0


def _find_window(model: Any, known: LLMMetadata | None) -> int:
    """Context window of a model in tokens; 8,192, with a warning in the log, where it is unknown.

    Args:
        model: The model.
        known: What its class says, or None.
    """
    if known is not None and known.context_window != DEFAULT_CONTEXT_WINDOW:  # which stands for "unknown"
        return known.context_window
    provider = provider_of(model.class_name(), model.model)
    found = (context_window_of(provider, model.model) if provider else None) or _of_server(model)
    if found is None:
        _log.warning(
            "The context window of '%s' is not known; %d tokens are assumed. Set llm.context_window.",
            model.model, _SMALLEST_WINDOW,
        )  # fmt: skip
    return found or _SMALLEST_WINDOW


def _of_server(model: Any) -> int | None:
    """What a server of OpenAI's protocol says of its model; None where it cannot be asked or says nothing."""
    if not getattr(model, "api_base", None):
        return None
    try:
        listed = model._get_client().with_options(timeout=_TIMEOUT_S, max_retries=0).models.list().data
    except Exception as error:  # it may be down, or have no such list: the answer will say what is wrong
        _log.info("The server of '%s' does not list its models (%s).", model.model, type(error).__name__)
        return None
    entries = [entry.model_dump() for entry in listed]
    chosen = [entry for entry in entries if entry.get("id") == model.model] or entries[: len(entries) == 1]
    return _window(chosen[0]) if chosen else None


def _window(entry: Mapping[str, Any]) -> int | None:
    """The window in an entry of ``/v1/models``, under the name of any server."""
    places = [entry, *(part for part in entry.values() if isinstance(part, Mapping))]
    counts = (place.get(name) for name in _NAMES for place in places)
    return next((count for count in counts if isinstance(count, int) and count > 0), None)
