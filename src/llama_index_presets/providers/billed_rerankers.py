"""Hosted rerankers as the ledger wants them: what each reply bills is said, and failures are tried again in one layer.

The classes of LlamaIndex give the passages back and drop the rest of the reply, so the client that they hold is looked
at. Cohere bills searches; Voyage, and most servers of Cohere's protocol, count tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import wrapt
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]

from llama_index_presets.events import RerankUsageEvent
from llama_index_presets.monitor.retry import retried

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:
    _Proxy = wrapt.ObjectProxy

__all__ = ["say_what_is_billed"]

_dispatcher = get_dispatcher(__name__)
_ONE_LAYER: Final[dict[str, dict[str, Any]]] = {"cohere": {"request_options": {"max_retries": 0}}}
"""Package of an SDK -> what turns its own retries off, where it has some."""


def say_what_is_billed(reranker: Any, provider: str) -> None:
    """Have a reranker of LlamaIndex say what each reply bills, with a `RerankUsageEvent`.

    Args:
        reranker: Holds its client as ``_client``; one without is left as it is.
        provider: As `genai-prices` spells it.
    """
    client = getattr(reranker, "_client", None)
    if client is not None and not isinstance(client, _BilledClient):
        reranker._client = _BilledClient(client, provider)


class _BilledClient(_Proxy):
    """SDK client whose rerankings are tried again and say what they bill; else unchanged."""

    def __init__(self, client: Any, provider: str) -> None:
        super().__init__(client)
        self._self_provider = provider
        self._self_extra = _ONE_LAYER.get(type(client).__module__.partition(".")[0], {})

    def rerank(self, **request: Any) -> Any:
        """Send a request."""
        began = [0.0]

        def send() -> Any:
            began[0] = time.perf_counter()
            return self.__wrapped__.rerank(**{**self._self_extra, **request})

        reply = retried(send)
        searches, tokens = _billed(reply)
        _dispatcher.event(
            RerankUsageEvent(
                provider=self._self_provider,
                model=str(request.get("model") or ""),
                pairs=len(request.get("documents") or ()),
                prompt_tokens=tokens,
                searches=searches,
                usage_source="reported" if searches or tokens else None,
                latency_ms=(time.perf_counter() - began[0]) * 1000,
            )
        )
        return reply


def _billed(reply: Any) -> tuple[int, int]:
    """Searches and tokens that a reply bills; 0 where it says nothing."""
    units = _at(reply, "meta", "billed_units")
    searches = _count(units, "search_units")
    places: tuple[Callable[[], Any], ...] = (
        lambda: units,
        lambda: reply,  # Voyage
        lambda: _at(reply, "usage"),  # vLLM, Infinity, Jina
        lambda: _at(reply, "meta", "tokens"),
    )
    for place in places if not searches else ():
        for name in ("total_tokens", "input_tokens"):
            if found := _count(place(), name):
                return searches, found
    return searches, 0


def _at(holder: Any, *path: str) -> Any:
    for name in path:
        holder = holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)
    return holder


def _count(holder: Any, name: str) -> int:
    value = _at(holder, name)
    return int(value) if isinstance(value, (int, float)) and value > 0 else 0
