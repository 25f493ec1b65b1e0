"""Guard of the budgets: where a call that a budget refuses is stopped.

The dispatcher swallows what event and span handlers raise, so instrumentation cannot stop a call. A callback handler
can: `CallbackManager.on_event_start` runs before the request and lets its exceptions through. So, when budgets are
set, the guard joins the callback manager of each model as its span begins.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from typing import Any, Final

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.schema import MetadataMode

from llama_index_presets._options import strict
from llama_index_presets.monitor.budgets import Budgets
from llama_index_presets.monitor.calls.model_call import OpenCall
from llama_index_presets.monitor.calls.usage import most_tokens
from llama_index_presets.monitor.prices import Tokens, billed_searches

__all__ = ["BudgetGuard", "admit", "output_limit"]

_HELD: Final = {
    CBEventType.LLM: "llm",
    CBEventType.EMBEDDING: "embedding",
    CBEventType.RERANKING: "rerank",
}
Admit = Callable[[str, "str | None", dict[str, Any]], None]
"""Takes the kind of a call, the span that it is made in, and what LlamaIndex says of it."""


@strict()
class BudgetGuard(BaseCallbackHandler):
    """Callback that has its recorder admit each call; one per recorder, added to the managers of observed models."""

    def __init__(self, admit_call: Admit) -> None:
        super().__init__(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self._admit = weakref.WeakMethod(admit_call)
        self._managers: weakref.WeakSet[CallbackManager] = weakref.WeakSet()

    def join(self, model: Any) -> None:
        """Guard a model from its next call on."""
        manager = getattr(model, "callback_manager", None)
        if not isinstance(manager, CallbackManager):
            manager = model.callback_manager = CallbackManager([])
        if not any(known is self for known in manager.handlers):
            manager.add_handler(self)
            self._managers.add(manager)

    def leave(self) -> None:
        """Leave all managers."""
        for manager in list(self._managers):
            manager.set_handlers([known for known in manager.handlers if known is not self])

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        """Let a call pass, or raise BudgetExceededError."""
        admit_call = self._admit()
        kind = _HELD.get(event_type)
        if admit_call is not None and kind is not None:
            admit_call(kind, active_span_id.get(), payload or {})
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **kwargs: Any,
    ) -> None:
        """Do nothing: rows settle budgets."""

    def start_trace(self, trace_id: str | None = None) -> None:
        """Do nothing."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Do nothing."""


def admit(budgets: Budgets, call: OpenCall, payload: dict[str, Any], texts: list[str]) -> None:
    """Reserve the possible cost of a call; the reservation of an outer call is released.

    Raises:
        BudgetExceededError: A budget refuses the call.
    """
    if call.reservation is not None:
        return
    outer = call.parent
    if outer is not None and outer.kind == call.kind and outer.reservation is not None:
        budgets.release(outer.reservation)
        outer.reservation = None
    tokens = _largest(budgets, call, payload, texts)
    call.reservation = budgets.reserve(
        call.call_id, call.provider, call.model, tokens, call.who, call.query_id
    )


def _largest(budgets: Budgets, call: OpenCall, payload: dict[str, Any], texts: list[str]) -> Tokens:
    prompt = most_tokens(call.provider, call.model, texts)
    if call.kind == "embedding":
        return Tokens(prompt)
    if call.kind == "rerank":
        return _most_searched(call, payload)
    arguments = payload.get(EventPayload.ADDITIONAL_KWARGS) or {}
    described = {
        name: arguments[name] for name in ("tools", "response_format", "functions") if name in arguments
    }
    prompt += len(json.dumps(described, default=str)) // 2 if described else 0
    return Tokens(prompt, output_limit(call.instance, arguments, budgets.default_output_tokens))


def _most_searched(call: OpenCall, payload: dict[str, Any]) -> Tokens:
    """What a reranking can be billed: its pairs as tokens, or as searches."""
    query = str(payload.get(EventPayload.QUERY_STR) or "")
    texts = [hit.node.get_content(MetadataMode.EMBED) for hit in payload.get(EventPayload.NODES) or ()]
    pairs = [most_tokens(call.provider, call.model, [query, text]) for text in texts]
    return Tokens(sum(pairs), searches=billed_searches(pairs))


def output_limit(instance: Any, arguments: dict[str, Any], default: int) -> int:
    """Longest answer of a call, in tokens: from its arguments or model."""
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict"):
        for value in (arguments.get(name), getattr(instance, name, None)):
            if isinstance(value, int) and value > 0:
                return value
    return default
