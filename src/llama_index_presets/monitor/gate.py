"""The gate: where a call that a budget refuses is stopped.

The dispatcher swallows what event and span handlers raise, so instrumentation cannot stop a call. A callback
handler can: `CallbackManager.on_event_start` runs before the request and lets its exceptions through. So,
when budgets are set, the gate joins the callback manager of each model as its span begins.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from typing import Any

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler

from llama_index_presets._options import strict
from llama_index_presets.monitor.budgets import Budgets, output_limit
from llama_index_presets.monitor.prices import Tokens
from llama_index_presets.monitor.tokens import most_tokens
from llama_index_presets.monitor.tracker import OpenCall

__all__ = ["Gate", "admit"]

Admit = Callable[[CBEventType, dict[str, Any]], None]


@strict()
class Gate(BaseCallbackHandler):
    """Asks its handler to admit each call; one per handler, added to the managers of models it hears."""

    def __init__(self, admit_call: Admit) -> None:
        super().__init__(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self._admit = weakref.WeakMethod(admit_call)
        self._managers: weakref.WeakSet[CallbackManager] = weakref.WeakSet()

    def join(self, model: Any) -> None:
        """Stand in front of a model from its next call on."""
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
        if admit_call is not None and event_type in (CBEventType.LLM, CBEventType.EMBEDDING):
            admit_call(event_type, payload or {})
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
    """Reserve what a call may cost; what an outer call held for it is given back.

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
    arguments = payload.get(EventPayload.ADDITIONAL_KWARGS) or {}
    described = {
        name: arguments[name] for name in ("tools", "response_format", "functions") if name in arguments
    }
    prompt += len(json.dumps(described, default=str)) // 2 if described else 0
    return Tokens(prompt, output_limit(call.instance, arguments, budgets.default_output_tokens))
