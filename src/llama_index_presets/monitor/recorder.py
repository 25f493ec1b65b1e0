"""Call recorder: the sink of a `CallTree` that makes rows of one ledger and holds calls to budgets."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.instrumentation.events import BaseEvent

from llama_index_presets.errors import BudgetExceededError, MonitorError
from llama_index_presets.events import AttemptFailedEvent
from llama_index_presets.monitor.attribution import attribution
from llama_index_presets.monitor.budget_guard import BudgetGuard, admit
from llama_index_presets.monitor.budgets import Budget, Budgets
from llama_index_presets.monitor.calls.call_events import COMPLETIONS, ENDS, STARTS
from llama_index_presets.monitor.calls.call_tree import CallTree
from llama_index_presets.monitor.calls.model_call import (
    NO_USAGE,
    CallEnded,
    OpenCall,
    prompt_texts,
    who_bills,
)
from llama_index_presets.monitor.calls.stream_usage import ask_for_usage, complete_usage
from llama_index_presets.monitor.calls.usage import Usage
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.row import Call, forget_oldest
from llama_index_presets.monitor.listener import DispatcherListener, stream_method
from llama_index_presets.monitor.prices import FREE_PROVIDER
from llama_index_presets.monitor.token_counts import TokenCounts

__all__ = ["CallRecorder"]

_log = logging.getLogger(__name__)
_MOST_WAITING: Final = 2_000
_EVERYTHING: Final = COMPLETIONS.keys() | STARTS.keys() | ENDS.keys()


class CallRecorder:
    """Records the calls of its tree in a ledger, and refuses those that budgets refuse.

    Its listener on the root dispatcher completes calls that callbacks opened; once `instrumented`, it opens and closes
    them, too.

    Args:
        ledger: Where the rows go.
        scope: As in `CostTrackingHandler`.
        budgets: Limits that calls are held to.
        stream_usage: Whether streams are asked for their usage.
        counts: Takes the tokens of each call.

    Attributes:
        tracker: The tree of open calls.
        guard: What stops a call that budgets refuse; None without budgets.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        scope: Literal["all", "bound"] = "all",
        budgets: Budgets | None = None,
        stream_usage: bool = True,
        counts: TokenCounts | None = None,
    ) -> None:
        self.ledger = ledger
        self.counts = counts or TokenCounts()
        self.scope = scope
        self.budgets = budgets
        self.tracker = CallTree(self, ledger.next_call_id)
        self.guard = BudgetGuard(self.admit_newest) if budgets is not None else None
        self._stream_usage = stream_usage
        self._instrumented = False
        self._listening = True
        self._to_embed: dict[str, list[str]] = {}
        self._here: dict[tuple[str, str], bool] = {}
        self.listener = DispatcherListener(
            on_event=self.on_event, on_enter=self.on_enter, on_leave=self.on_leave, on_fault=_log_fault
        )
        self.instrumented = False

    @property
    def instrumented(self) -> bool:
        """Whether it records the whole process, or only completes what callbacks open."""
        return self._instrumented

    @instrumented.setter
    def instrumented(self, everywhere: bool) -> None:
        self._instrumented = everywhere
        self.listener.listen(_EVERYTHING if everywhere else COMPLETIONS)

    def close(self) -> None:
        """Stop listening."""
        self._listening = False
        self.listener.detach()
        if self.guard is not None:
            self.guard.leave()

    def hold_to(
        self, budgets: Sequence[Budget], *, sums: Path | None = None, also: Sequence[Ledger] = ()
    ) -> None:
        """Hold calls to these limits from now on, in place of those before; empty lifts them all.

        `sums` is of the first time; see `Budgets`.
        """
        if self.budgets is not None:
            self.budgets.budgets, self.budgets.also = tuple(budgets), tuple(also)
        elif budgets:
            self.budgets = Budgets(self.ledger, budgets, sums=sums, also=also)
            self.guard = BudgetGuard(self.admit_newest)

    def hears(self) -> bool:
        """Tell whether a call made here and now belongs to this ledger, and that is still open."""
        if self.ledger.closed:
            return False
        bound = attribution().ledger
        return bound is self.ledger or (bound is None and self.scope == "all")

    # -- what the dispatcher says ------------------------------------------------------------------------------

    def on_event(self, event: BaseEvent) -> None:
        """Take an event of those that are listened for."""
        kind = type(event)
        if (begin := STARTS.get(kind)) is not None:
            if self.hears():
                begin(self.tracker, event)
        elif (end := ENDS.get(kind)) is not None:
            end(self.tracker, event)
        else:
            COMPLETIONS[kind](self.tracker, event, self._instrumented and self.hears())

    def on_enter(
        self, span_id: str, parent_id: str | None, instance: Any, arguments: Any, tags: object
    ) -> None:
        """Take the beginning of a span; streams, and with budgets all models, are looked at."""
        self.tracker.enter(span_id, parent_id, instance)
        if arguments is not None and isinstance(instance, BaseEmbedding):
            if len(self._to_embed) >= _MOST_WAITING:  # of spans that never end
                forget_oldest(self._to_embed)
            self._to_embed[span_id] = _texts_of(arguments.arguments)
        if self.guard is not None:
            self._stand_before(instance)
        if (method := stream_method(span_id)) and self._will_hear(instance):
            asynchronous = method.startswith("astream")
            complete_usage(instance, asynchronous=asynchronous)
            if self._stream_usage:
                ask_for_usage(instance, self._records, asynchronous=asynchronous)

    def on_leave(self, span_id: str, result: Any, error: BaseException | None) -> None:
        """Take the end of a span."""
        if error is None and self.tracker.is_quiet(span_id):
            self.tracker.spans.pop(span_id, None)
        else:
            self.tracker.leave(span_id, result, error)
        if self._to_embed:
            self._to_embed.pop(span_id, None)

    def _stand_before(self, instance: Any) -> None:
        """Put the guard in front of a model."""
        if (
            self.guard is not None
            and self._instrumented
            and (isinstance(instance, (BaseLLM, BaseEmbedding)) or hasattr(instance, "postprocess_nodes"))
            and self.hears()
        ):
            self.guard.join(instance)

    def _will_hear(self, model: Any) -> bool:
        """Tell whether a call of this model will be recorded, by either way."""
        manager = getattr(model, "callback_manager", None)
        listed = any(getattr(known, "observer", None) is self for known in getattr(manager, "handlers", ()))
        return self.hears() and (self._instrumented or listed)

    def _records(self) -> bool:
        """Tell whether rows are still written; what a client asks again with each stream."""
        return not self.ledger.closed and self._listening

    # -- budgets ---------------------------------------------------------------------------------------------

    def admit_newest(self, kind: str, span_id: str | None, payload: dict[str, Any]) -> None:
        """Hold the newest call of a span to the budgets.

        Raises:
            BudgetExceededError: A budget refuses the call; its row says so.
        """
        call = self.tracker.last(kind, span_id)
        if call is not None and not self.ledger.closed:
            self.admit(call, payload)

    def admit(self, call: OpenCall, payload: dict[str, Any]) -> None:
        """Reserve what a call may cost.

        Raises:
            BudgetExceededError: A budget refuses the call; its row says so.
        """
        if self.budgets is None or not _is_paid(call):
            return
        texts = prompt_texts(call.prompt) if call.kind == "llm" else call.texts or []
        try:
            admit(self.budgets, call, payload, texts)
        except BudgetExceededError as error:
            self.tracker.fail(call, error)
            raise

    def _next_batch(self, call: OpenCall) -> list[str]:
        """Give the texts of the batch that begins: models announce each batch of a call in turn."""
        waiting = self._to_embed.get(call.span_id or "", [])
        size = getattr(call.instance, "embed_batch_size", len(waiting))
        batch = waiting[:size]
        del waiting[:size]
        return batch

    # -- what the tree says ------------------------------------------------------------------------------------

    def started(self, call: OpenCall) -> None:
        """Keep the texts of a batch, which count if it is cancelled, and the prompt for a log that shows prompts."""
        if call.kind == "embedding":
            call.texts = self._next_batch(call)
        self._price_here(call)
        if self.ledger.prompts is not None and call.kind == "llm":
            self.ledger.prompts[call.call_id] = "\n".join(prompt_texts(call.prompt))

    def _price_here(self, call: OpenCall) -> None:
        """Make a model of a server on this machine free, unless a price is known: a gateway passes a bill on.

        Asked when a call begins, for its budgets, and again for its row, since some models name a provider at the end.
        """
        call.provider = who_bills(call, self.ledger.pricer, self._here)

    def first_chunk(self, call: OpenCall) -> None:
        """Do nothing: the end has all that a row needs."""

    def attempt_failed(self, call: OpenCall, event: AttemptFailedEvent) -> None:
        """Record an attempt that failed as a row of its own."""
        self.ledger.add(
            self._row(
                CallEnded(
                    call,
                    "error",
                    event.latency_ms,
                    _now_us(),
                    error_type=event.error_type,
                    attempt=max(event.attempt, call.attempt),
                    usage=None if event.sent else NO_USAGE,
                    response=call.sent,
                ),
                self.ledger.next_call_id(),
            )
        )

    def ended(self, end: CallEnded) -> None:
        """Record a call that counts.

        The caller that waits for the answer does not wait for its row: without budgets, which must know the cost at
        once, reading the usage and hashing the prompt are left to the thread that writes the ledger.
        """
        call = end.call
        if not end.counts:
            self._forget(call)
        elif self._may_wait(end):
            self.ledger.add_later(functools.partial(self._row, end))
        else:
            self.ledger.add(self._row(end))
            call.prompt = call.chunk = call.texts = None
            if self.budgets is not None:
                self._settle_now()

    def _may_wait(self, end: CallEnded) -> bool:
        """Whether nobody needs the row at once."""
        told = self.counts.say is not None
        return self.budgets is None and not told and end.call.kind == "llm" and end.status == "success"

    def _forget(self, call: OpenCall) -> None:
        """Release what was reserved for a call that leaves no row."""
        call.prompt = call.chunk = call.texts = None
        if call.reservation is not None and self.budgets is not None:
            self.budgets.release(call.reservation)
        if self.ledger.prompts is not None:
            self.ledger.prompts.pop(call.call_id, None)

    def _settle_now(self) -> None:
        """Turn estimates into true costs at once, so that the next call is judged by them."""
        try:
            self.ledger.flush()
        except MonitorError as error:
            _log.error("%s", error)

    def _row(self, end: CallEnded, call_id: str | None = None) -> Call:
        call, who = end.call, end.call.who
        self._price_here(call)  # an embedding model said its provider at the end
        usage, source = end.measure()
        cost, version = self._special_cost(end, usage)
        if call_id is None:  # a failed attempt has another id, and is no call of its own
            self._count(end, usage, source)
        parent = call.parent
        while parent is not None and parent.wraps:  # leaves no row that this one could be below
            parent = parent.parent
        return Call(
            call_id or call.call_id,
            end.ended_us,
            call.kind,
            call.provider,
            call.model,
            usage.prompt,
            usage.completion,
            usage.total or usage.prompt + usage.completion,
            cost,
            end.latency_ms,
            end.status,
            who.preset,
            call.query_id,
            parent.call_id if parent is not None else "",
            who.session,
            who.tenant,
            who.tags,
            end.attempt,
            end.error_type,
            usage.cached,
            usage.cache_write,
            usage.reasoning,
            source,
            end.cache_hit,
            self._prompt_sha256(call),
            version,
            searches=getattr(end.report, "searches", 0),
        )

    def _special_cost(self, end: CallEnded, usage: Usage) -> tuple[Decimal | None, str]:
        """Price what the columns of a row do not say; (None, "") leaves the price to the ledger."""
        if end.asks_models():
            return Decimal(0), ""
        if not usage.is_special():
            return None, ""
        call = end.call
        return self.ledger.pricer.price(call.provider, call.model, usage.tokens(), end.ended_us / 1e6)

    def _count(self, end: CallEnded, usage: Usage, source: str) -> None:
        """Count the tokens; a tokenizer that fails costs no row."""
        try:
            self.counts.note(end, usage, source)
        except Exception:
            _log.exception("The tokens of a %s call could not be counted; its row is written.", end.call.kind)

    def _prompt_sha256(self, call: OpenCall) -> str:
        """Hash the prompt, once; without the key, which a full disk keeps from being made, the row has no hash."""
        if call.prompt is not None and not call.prompt_sha256:
            try:
                call.prompt_sha256 = self.ledger.hash_prompt("\x1e".join(prompt_texts(call.prompt)))
            except (MonitorError, OSError) as error:
                _log.error("A call is recorded without the hash of its prompt: %s", error)
        return call.prompt_sha256


def _is_paid(call: OpenCall) -> bool:
    """Whether a budget is asked: not for stages, nor for a reranker that asks models or runs in this process."""
    hosted = call.provider != FREE_PROVIDER and (
        bool(call.provider) or getattr(call.instance, "serves_any_vendor", False)
    )
    return call.kind in ("llm", "embedding") or (call.kind == "rerank" and hosted)


def _now_us() -> int:
    return time.time_ns() // 1000


def _texts_of(arguments: dict[str, Any]) -> list[str]:
    """Give what an embedding method was asked to embed, under whichever name it takes it."""
    for name in ("texts", "queries", "text", "query"):
        value = arguments.get(name)
        if value is not None:
            return [text for text in ([value] if isinstance(value, str) else value) if isinstance(text, str)]
    return []


def _log_fault(where: str, error: Exception) -> None:
    _log.error("Cost tracking failed on a %s; the call itself goes on.", where, exc_info=error)
