"""Cost handler for LlamaIndex's callbacks and its instrumentation at once, never counting a call twice.

Its `CallRecorder` listens on the root dispatcher, its callback methods listen in a `CallbackManager`, and both tell one
`CallTree`. The first notice of a call opens it; the first notice of its end closes it.
"""

from __future__ import annotations

import logging
import uuid
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from llama_index.core.callbacks import CBEventType
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation.span import active_span_id

from llama_index_presets._options import refuse_values, strict
from llama_index_presets.errors import MonitorError, SettingsError
from llama_index_presets.monitor.budgets import Budget, Budgets
from llama_index_presets.monitor.calls.call_events import finish_from_payload, start_from_payload
from llama_index_presets.monitor.ledger.journal import IN_MEMORY
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.recorder import CallRecorder
from llama_index_presets.monitor.token_counts import TokenCount, TokenCounts

__all__ = ["CostTrackingHandler"]

_MOST_OPEN: Final = 1_000
_log = logging.getLogger(__name__)
_KINDS: Final = {
    CBEventType.LLM: "llm",
    CBEventType.EMBEDDING: "embedding",
    CBEventType.RERANKING: "rerank",
    CBEventType.RETRIEVE: "retrieval",
    CBEventType.QUERY: "query",
}


_LIMITS: Final = {
    "token_budget": (
        (None,),
        "a limit is in dollars, and holds before the call: budgets=[Budget(...)] of monitor.budgets.",
    )
}


@strict(also=_LIMITS)
class CostTrackingHandler(BaseCallbackHandler):
    """Records every model call that LlamaIndex makes in a `Ledger`.

    Put it in a `CallbackManager`, or call `instrument` to hear the whole process, or both: a call is one row.
    A call made inside ``attributed(ledger=...)`` is recorded by that ledger's handlers alone.

    Args:
        ledger: Where the rows go: a `Ledger`, the path of one, or None for one in memory.
        scope: ``"all"`` records every call unless another ledger claims it; ``"bound"`` records only calls
            made inside ``attributed(ledger=ledger)``.
        budgets: Limits that refuse a call before it is made; also a ready `Budgets`.
        stream_usage: Whether to ask servers of OpenAI's protocol for the usage of streams
            (``stream_options.include_usage``), which they leave out by default; one that refuses the question gets
            the request without it, and is not asked again. Holds for `OpenAI`, `AzureOpenAI`, `OpenAILike` and
            every class made from them. False estimates the tokens of streams that say nothing.
        tokenizer: Counts the tokens of `total_llm_token_count` and its siblings where no server reports them, as in
            `TokenCountingHandler`; None takes LlamaIndex's own. The ledger counts by the model's own tokenizer.
        recount: Whether `tokenizer` counts what no server reports, as in `TokenCountingHandler`; False takes the
            ledger's own counts, and spares each embedded text a second tokenizer.
        keep_texts: Whether `llm_token_counts` and `embedding_token_counts` have the prompts and answers.
        event_starts_to_ignore: Kinds of events that callbacks leave out.
        event_ends_to_ignore: The same.
        verbose: Whether the tokens of each call are printed.
        logger: Where they are said in place of the standard output, at level DEBUG.
        **official: ``token_budget``, which is refused with the way to get it.

    Raises:
        SettingsError: An option is unknown or cannot be honoured.

    Example:
        >>> import tempfile
        >>> from llama_index.core.llms import MockLLM
        >>> ledger = Ledger(tempfile.mkdtemp() + "/calls.duckdb")
        >>> with CostTrackingHandler(ledger).instrument():
        ...     _ = MockLLM().complete("Hello")
        >>> ledger.get_usage_stats().total_calls
        1
    """

    def __init__(
        self,
        ledger: Ledger | str | Path | None = None,
        *,
        scope: Literal["all", "bound"] = "all",
        budgets: Budgets | Sequence[Budget] | None = None,
        stream_usage: bool = True,
        tokenizer: Callable[[str], list[Any]] | None = None,
        keep_texts: bool = False,
        recount: bool = True,
        event_starts_to_ignore: Sequence[CBEventType] | None = None,
        event_ends_to_ignore: Sequence[CBEventType] | None = None,
        verbose: bool = False,
        logger: logging.Logger | None = None,
        **official: Any,
    ) -> None:
        refuse_values("CostTrackingHandler", official, _LIMITS)
        ignored = [*(event_starts_to_ignore or ()), *(event_ends_to_ignore or ())]
        super().__init__(event_starts_to_ignore=ignored, event_ends_to_ignore=ignored)
        ledger = _opened(ledger)
        self.ledger = ledger
        self.scope = scope
        self._verbose, self._logger = verbose, logger
        counts = TokenCounts(
            tokenizer, keep_texts=keep_texts, recount=recount, say=self._say() if verbose else None
        )
        if budgets is not None and not isinstance(budgets, Budgets):
            budgets = Budgets(ledger, budgets)
        self._stream_usage = stream_usage
        self._observer = CallRecorder(
            ledger, scope=scope, budgets=budgets, stream_usage=stream_usage, counts=counts
        )
        self._tree = self._observer.tracker
        self._by_callback: dict[str, Any] = {}
        self._token = uuid.uuid4().hex
        _by_token[self._token] = self
        weakref.finalize(self, self._observer.close)

    def _say(self) -> Callable[[str], object]:
        return print if self._logger is None else self._logger.debug

    # -- a copy is the same handler: there is one ledger, and one listener ----------------------------------------

    def __copy__(self) -> CostTrackingHandler:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> CostTrackingHandler:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle names the handler: here it is this one, elsewhere one like it over the same ledger.

        Budgets stay with the process that set them, and a ledger in memory starts empty elsewhere.
        """
        ledger = None if self.ledger.in_memory else self.ledger
        options = {
            "scope": self.scope,
            "stream_usage": self._stream_usage,
            "keep_texts": self._observer.counts.keep_texts,
            "recount": self._observer.counts.recount,
            "event_starts_to_ignore": list(self.event_starts_to_ignore),
            "verbose": self._verbose,
            "logger": self._logger,
        }
        return _reopened, (self._token, ledger, options)

    # -- tokens, by the names of TokenCountingHandler ----------------------------------------------------------

    @property
    def _counts(self) -> TokenCounts:
        """Counts of all calls that are over: the rows of some may not be made yet."""
        if not self.ledger.closed:
            self.ledger.flush()
        return self._observer.counts

    @property
    def tokenizer(self) -> Callable[[str], list[Any]]:
        """What counts tokens that no server reports."""
        return self._observer.counts.tokenizer

    @property
    def llm_token_counts(self) -> list[TokenCount]:
        """Tokens of each call of a language model, the last 10,000."""
        return list(self._counts.llm)

    @property
    def embedding_token_counts(self) -> list[TokenCount]:
        """Tokens of each embedding call, which may be of many texts; the last 10,000."""
        return list(self._counts.embedding)

    @property
    def total_llm_token_count(self) -> int:
        """Tokens that language models have read and written since the handler was made, or `reset_counts`."""
        counts = self._counts
        return counts.prompt_tokens + counts.completion_tokens

    @property
    def prompt_llm_token_count(self) -> int:
        """Tokens that language models have read."""
        return self._counts.prompt_tokens

    @property
    def completion_llm_token_count(self) -> int:
        """Tokens that language models have written."""
        return self._counts.completion_tokens

    @property
    def total_embedding_token_count(self) -> int:
        """Tokens that were embedded."""
        return self._counts.embedding_tokens

    def reset_counts(self) -> None:
        """Count tokens from 0 again; the ledger keeps its rows."""
        self._counts.reset()

    @property
    def observer(self) -> CallRecorder:
        """What turns events into rows."""
        return self._observer

    @property
    def budgets(self) -> Budgets | None:
        """Limits that calls are held to, or None."""
        return self._observer.budgets

    def hold_to(
        self, budgets: Sequence[Budget], *, sums: Path | None = None, also: Sequence[Ledger] = ()
    ) -> None:
        """Hold calls to these limits from now on, in place of those before; what is spent stays counted.

        Args:
            budgets: The limits; none lifts them.
            sums: See `Budgets`; taken the first time.
            also: See `Budgets`.
        """
        self._observer.hold_to(budgets, sums=sums, also=also)

    @property
    def instrumented(self) -> bool:
        """Whether the handler records every call of the process."""
        return self._observer.instrumented

    def instrument(self) -> CostTrackingHandler:
        """Record every call of the process, until `uninstrument` or the end of a ``with`` block."""
        self._observer.instrumented = True
        _instrumented.add(self)
        return self

    def uninstrument(self) -> None:
        """Record only calls of the callback managers that hold this handler."""
        self._observer.instrumented = False
        _instrumented.discard(self)

    def close(self) -> None:
        """Stop listening altogether; the ledger stays open."""
        self.uninstrument()
        self._observer.close()

    def __enter__(self) -> CostTrackingHandler:
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstrument()

    def hears(self) -> bool:
        """Tell whether a call made here and now belongs to this handler's ledger, and that is still open."""
        return self._observer.hears()

    # -- callbacks -----------------------------------------------------------------------------------------

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        """Open a call, unless instrumentation has opened it already."""
        kind = _KINDS.get(event_type)
        if kind is not None and self.hears():
            span_id = active_span_id.get()
            if not self._is_opened_by_instrumentation(kind, span_id):
                self._start(kind, span_id, payload or {}, event_id)
        return event_id

    def _start(self, kind: str, span_id: str | None, payload: dict[str, Any], event_id: str) -> None:
        """Open a call.

        A fault in the tracking is logged and the call goes on; not where budgets are to hold it.

        Raises:
            MonitorError: A budget refuses the call, or cannot hold it.
        """
        try:
            call = start_from_payload(self._tree, kind, span_id, payload)
            self._observer.admit(call, payload)
            self._by_callback[event_id] = call
            if len(self._by_callback) > _MOST_OPEN:
                self._forget_closed()
        except MonitorError:
            raise
        except Exception as error:
            if self._observer.budgets is not None:
                raise MonitorError(
                    f"A {kind} call cannot be held to its budget ({type(error).__name__}), so it was not made."
                ) from error
            _log.exception("Cost tracking failed at the start of a %s call; the call itself goes on.", kind)

    def _forget_closed(self) -> None:
        """Forget calls whose end no callback announced, such as streams that were dropped unread."""
        for event_id, call in list(self._by_callback.items()):
            if call.done:
                self._by_callback.pop(event_id, None)

    def _is_opened_by_instrumentation(self, kind: str, span_id: str | None) -> bool:
        if not self.instrumented:
            return False
        return kind in ("retrieval", "query") or self._tree.first(kind, span_id) is not None

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **kwargs: Any,
    ) -> None:
        """Close a call that a callback opened."""
        call = self._by_callback.pop(event_id, None)
        if call is not None:
            try:
                finish_from_payload(self._tree, call, payload or {})
            except Exception:
                _log.exception("Cost tracking failed at the end of a %s call; the call stands.", call.kind)

    def start_trace(self, trace_id: str | None = None) -> None:
        """Do nothing: spans carry the nesting."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Do nothing: spans carry the nesting."""


_instrumented: set[CostTrackingHandler] = set()
_by_token: weakref.WeakValueDictionary[str, CostTrackingHandler] = weakref.WeakValueDictionary()


def _opened(ledger: Ledger | str | Path | None) -> Ledger:
    if callable(ledger):
        raise SettingsError(
            "The first argument of CostTrackingHandler is the ledger; a tokenizer is given as tokenizer=."
        )
    return ledger if isinstance(ledger, Ledger) else Ledger(IN_MEMORY if ledger is None else ledger)


def _reopened(token: str, ledger: Ledger | None, options: dict[str, Any]) -> CostTrackingHandler:
    """The handler of a pickle: the living one of this process, else a new one."""
    known = _by_token.get(token)
    if known is None:
        known = CostTrackingHandler(ledger, **options)
        _by_token.pop(known._token)
        known._token = token
        _by_token[token] = known
    return known
