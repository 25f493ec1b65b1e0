"""Ledger: every model call as a row in DuckDB, written by many threads and processes at once.

This module imports neither LlamaIndex nor, until a query is run, DuckDB's table module: it starts fast.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import secrets
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from llama_index_presets._options import expect, strict
from llama_index_presets.concurrency.closing import close_behind
from llama_index_presets.concurrency.forks import in_forked_child
from llama_index_presets.counting import counted
from llama_index_presets.errors import MonitorError, SettingsError
from llama_index_presets.files.disk_faults import is_full
from llama_index_presets.monitor.ledger.journal import (
    IN_MEMORY,
    Journal,
    MemoryJournal,
    journal_folder,
    journal_size,
    prompt_key,
)
from llama_index_presets.monitor.ledger.keyed_hash import KeyedHash
from llama_index_presets.monitor.ledger.queries import LedgerReader
from llama_index_presets.monitor.ledger.query_sums import QuerySums
from llama_index_presets.monitor.ledger.row import (
    CALLER_PRICED,
    KINDS,
    LOAD_KIND,
    STATUSES,
    Call,
    used_nothing,
)
from llama_index_presets.monitor.prices import FREE_PROVIDER, PriceBook, Pricer, Tokens
from llama_index_presets.packages.command_process import is_brief

__all__ = ["Ledger"]

Observer = Callable[[list[Call]], None]

_MAY_WAIT: Final = 16  # journals of commands that asked one question each
_FOLD_AT_BYTES: Final = 64 * 2**20
_FLUSH_AT_ROWS: Final = 500
_FLUSH_AT_UNMADE: Final = 1_000
"""Rows of which only the ingredients wait, prompts among them: a second's worth of even a very busy process."""
_MOST_IN_MEMORY: Final = 5_000
_BATCH_ROWS: Final = 500
_log = logging.getLogger(__name__)


@strict()
class Ledger(LedgerReader):
    """A table of calls that many processes may write at the same time.

    Rows go to memory, then within `flush_interval_s` to this process's own journal in ``<path>.journal``;
    `close` (or the end of the process) folds the journal into the DuckDB file at `path`. Readers see
    everything that has been flushed. A process that is killed loses at most the last interval; with
    ``durable=True`` nothing. Thread safe; survives `fork`.

    Args:
        path: The DuckDB file; made when missing, and only once there is something to write. ``":memory:"`` keeps the
            rows in this process alone, for as long as the ledger lives; some hundred bytes each.
        durable: Write each row to the disk before `record` returns (about 0.2 ms a row).
        flush_interval_s: Longest time that a row stays in memory, in seconds, > 0.
        keep_days: Rows older than this are deleted when journals are folded; None keeps all.
        prices: Own prices, looked up before the bundled ones: a `PriceBook` or the path of its TOML file.

    Example:
        >>> import tempfile
        >>> with Ledger(tempfile.mkdtemp() + "/calls.duckdb") as ledger:
        ...     _ = ledger.record(kind="llm", provider="openai", model="gpt-4o-mini", prompt_tokens=1_000_000)
        ...     ledger.get_usage_stats().total_cost_usd
        Decimal('0.150000000000')
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durable: bool = False,
        flush_interval_s: float = 1.0,
        keep_days: float | None = None,
        prices: PriceBook | str | os.PathLike[str] | None = None,
    ) -> None:
        if not flush_interval_s > 0:
            raise SettingsError(
                f"flush_interval_s is {flush_interval_s}. Expected seconds > 0; the default is 1."
            )
        if keep_days is not None and not keep_days > 0:
            raise SettingsError(f"keep_days is {keep_days}. Expected days > 0, or None to keep all rows.")
        self.in_memory = str(path) == IN_MEMORY
        expect("path", path, (str, os.PathLike), "the path of the ledger")
        self.path = Path(path) if self.in_memory else Path(path).expanduser().absolute()
        if not self.in_memory and self.path.is_dir():
            raise SettingsError(
                f"'{self.path}' is a folder. Expected a file, such as '{self.path / 'calls.duckdb'}'."
            )
        self.durable = durable
        self.keep_days = keep_days
        self.pricer = Pricer(Path(prices) if isinstance(prices, os.PathLike) else prices)
        self._interval_s = flush_interval_s
        self._observers: tuple[Observer, ...] = ()
        self._closed = False
        self._reset()
        _live.add(self)

    def _reset(self) -> None:
        """Start empty; also in a forked child, where rows, locks and threads belong to the parent."""
        self._pending: deque[Call | Callable[[], Call]] = deque()
        self._journal: Journal | MemoryJournal = (
            MemoryJournal() if self.in_memory else Journal(journal_folder(self.path), durable=self.durable)
        )
        self._writing = threading.RLock()
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._flusher: threading.Thread | None = None
        self._numbers = itertools.count()
        self._prefix = secrets.token_hex(8)
        self._prompt_hash: KeyedHash | None = None
        self._queries = QuerySums()
        self._failure_logged = False
        self._loss_told = False
        self.prompts: dict[str, str] | None = None

    # -- writing -------------------------------------------------------------------------------------------

    def record(
        self,
        *,
        kind: str,
        provider: str = "",
        model: str = "",
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        latency_ms: float = 0.0,
        status: str = "success",
        tags: Iterable[str] = (),
        query_id: str = "",
        preset: str = "",
        session: str = "",
        tenant: str = "",
        parent_id: str = "",
        attempt: int = 1,
        error_type: str = "",
        cached_tokens: int = 0,
        cache_write_tokens: int = 0,
        reasoning_tokens: int = 0,
        total_tokens: int | None = None,
        usage_source: str = "",
        cache_hit: bool = False,
        prompt_sha256: str = "",
        cost_usd: Decimal | None = None,
        saved_usd: Decimal = Decimal(0),
        searches: int = 0,
        timestamp_us: int | None = None,
    ) -> str:
        """Add one row; the names are the columns of `Call`.

        Returns at once (microseconds), unless the ledger is durable. A cost that is not given is looked up;
        one that is given must be a Decimal.

        Returns:
            The row's call_id.

        Raises:
            SettingsError: Unknown kind or status, or a cost that is no Decimal.
            MonitorError: The ledger is closed, or, when durable, cannot be written.
        """
        if kind not in KINDS or status not in STATUSES:
            raise SettingsError(
                f"kind is '{kind}', status '{status}'. Expected a kind of {KINDS} and a status of {STATUSES}."
            )
        if cost_usd is not None and not isinstance(cost_usd, Decimal):
            raise SettingsError(f"cost_usd is {cost_usd!r}. Expected a Decimal: floats lose cents.")
        call_id = f"{self._prefix}-{next(self._numbers)}"
        total = prompt_tokens + completion_tokens if total_tokens is None else total_tokens
        now = time.time_ns() // 1000 if timestamp_us is None else timestamp_us
        version = "" if cost_usd is None else CALLER_PRICED
        self.add(
            Call(
                call_id, now, kind, provider, model, prompt_tokens, completion_tokens, total, cost_usd,
                latency_ms, status, preset, query_id, parent_id, session, tenant, tuple(tags), attempt,
                error_type, cached_tokens, cache_write_tokens, reasoning_tokens, usage_source, cache_hit,
                prompt_sha256, version, saved_usd, searches,
            )
        )  # fmt: skip
        return call_id

    def next_call_id(self) -> str:
        """Give an id that no other row of this ledger has, in any process."""
        return f"{self._prefix}-{next(self._numbers)}"

    def add(self, call: Call) -> None:
        """Add a row that is made already; `record` checks its input, this does not."""
        expect("The row", call, Call, "a Call, or use record()")
        if call.kind == LOAD_KIND:
            self._queries.note_load(call)
        self._add(call, _FLUSH_AT_ROWS)

    def add_later(self, make_row: Callable[[], Call]) -> None:
        """Add a row that the writing thread makes, soon; its parts stay in memory until then."""
        self._add(make_row, _FLUSH_AT_UNMADE)

    def _add(self, row: Call | Callable[[], Call], flush_at: int) -> None:
        if self._closed:
            raise MonitorError(f"Ledger '{self.path}' is closed. Open a new one to record more calls.")
        self._pending.append(row)
        if self.durable:
            self.flush()
        elif self._flusher is None:
            self._start()
        elif (waiting := len(self._pending)) > flush_at:
            if not self._wake.is_set():
                self._wake.set()
            if waiting > _MOST_IN_MEMORY:
                self._tick()  # the writing thread cannot keep up: the caller helps, so that memory stays small

    def flush(self) -> None:
        """Price the rows in memory and write them to the journal; readers see them from now on.

        Raises:
            MonitorError: The journal cannot be written; the rows stay in memory.
        """
        with self._writing:
            while batch := self._drain():
                try:
                    self._journal.append(batch)
                except MonitorError:
                    self._pending.extendleft(reversed(batch))
                    raise
                self._queries.add(batch)
                self._tell(batch)

    def close(self) -> None:
        """Flush, and fold the journals without a writer into the DuckDB file. May be called twice.

        A command that asks one question leaves its journal to a later close while few wait: readers see journals, too.
        So does a full disk, which is logged.

        Raises:
            MonitorError: The rows cannot be written; they stay in memory and a later close tries again.
        """
        with self._writing:
            if self._closed and not self._pending:
                return
            try:
                self.flush()
            except MonitorError:
                self._loss_told = True
                raise
            self._closed = True
            self._journal.close()
        self._wake.set()
        _live.discard(self)
        if not self._may_wait():
            self._fold_where_room()

    def _fold_where_room(self) -> None:
        """Fold; a full disk is no error for the caller who closes, as nothing is lost and readers see every row."""
        try:
            self.fold()
        except MonitorError as error:
            if not is_full(error):
                raise
            _log.warning("%s", " ".join(str(error).split()))

    def _may_wait(self) -> bool:
        """Whether to leave the folding to a later close: DuckDB takes 50 MB and a tenth of a second to load."""
        if self.in_memory or not is_brief() or "duckdb" in sys.modules:
            return False
        sizes = [journal_size(path) for path in journal_folder(self.path).glob("*.jsonl")]
        return len(sizes) < _MAY_WAIT and sum(sizes) < _FOLD_AT_BYTES

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def fold(self) -> int:
        """Fold journals without a writer into the DuckDB file and drop rows older than `keep_days`."""
        if isinstance(self._journal, MemoryJournal):
            if self.keep_days is not None:
                with self._writing:
                    self._journal.forget_before(int((time.time() - self.keep_days * 86_400) * 1e6))
            return 0
        from llama_index_presets.monitor.ledger.storage import fold

        return fold(self.path, keep_days=self.keep_days)

    def subscribe(self, observer: Observer) -> None:
        """Call a function with each batch of priced rows, after it was written, on the writing thread."""
        self._observers = (*self._observers, observer)

    def unsubscribe(self, observer: Observer) -> None:
        """Stop calling a function given to `subscribe`."""
        self._observers = tuple(known for known in self._observers if known != observer)

    def hash_prompt(self, prompt: str) -> str:
        """Give the keyed SHA-256 of a prompt, in hex: equal prompts match, none can be guessed."""
        expect("prompt", prompt, str, "a text")
        if self._prompt_hash is None:
            key = secrets.token_bytes(32) if self.in_memory else prompt_key(journal_folder(self.path))
            self._prompt_hash = KeyedHash(key)
        return self._prompt_hash.of(prompt)

    def _start(self) -> None:
        with self._starting:
            if self._flusher is None:
                reference = weakref.ref(self)
                self._flusher = threading.Thread(
                    target=_flush_forever,
                    args=(reference, self._wake, self._interval_s),
                    daemon=True,
                    name="ledger",
                )
                self._flusher.start()

    def _drain(self) -> list[Call]:
        """Take some rows: small batches, so that what is encoded at once stays small."""
        batch: list[Call] = []
        while len(batch) < _BATCH_ROWS:
            try:
                row = self._pending.popleft()
            except IndexError:
                break
            if (made := _made(row)) is not None:
                batch.append(self._priced(made))
        return batch

    def _priced(self, call: Call) -> Call:
        if call.price_version or call.cost_usd is not None:
            return call
        if call.kind not in ("llm", "embedding", "rerank") or call.cache_hit or used_nothing(call):
            return call._replace(cost_usd=Decimal(0))
        tokens = Tokens(
            call.prompt_tokens, call.completion_tokens, call.cached_tokens, call.cache_write_tokens,
            searches=call.searches,
        )  # fmt: skip
        cost, version = self.pricer.price(call.provider, call.model, tokens, call.timestamp / 1e6)
        if cost == 0 and call.kind == "rerank" and call.provider != FREE_PROVIDER and not call.usage_source:
            return call  # nobody said what it used, so that 0 would be a guess
        return call._replace(cost_usd=cost, price_version=version)

    def _tell(self, batch: list[Call]) -> None:
        for observer in self._observers:
            try:
                observer(batch)
            except Exception:
                _log.exception(
                    "A ledger observer failed on %s; the rows are written.", counted(len(batch), "row")
                )

    def _tick(self) -> None:
        """Flush from the background thread: log a failure once, and rotate a journal that has grown."""
        try:
            self.flush()
            self._failure_logged = False
        except MonitorError as error:
            if not self._failure_logged:
                _log.error("%s", error)
            self._failure_logged = True
        with self._writing:
            rotate = self._journal.size > _FOLD_AT_BYTES
            if rotate:
                self._journal.close()
        if rotate:
            try:
                self._fold_where_room()
            except MonitorError as error:  # this thread goes on writing
                _log.error("%s", error)

    def query_loading_ms(self, query_id: str) -> float:
        """Give how long a query of this process has waited for models to be loaded, in milliseconds."""
        return self._queries.loading_ms(query_id)

    def query_cost(self, query_id: str) -> Decimal | None:
        """Give what a query has cost so far, in USD; None when a call is unpriced, 0 without calls."""
        with self._writing:
            self.flush()
            if query_id in self._queries.costs:
                return self._queries.costs[query_id]
        return self.recorded_cost(query_id)

    def answering_cost(self, query_id: str) -> Decimal | None:
        """Give what the language model has cost a query of this process so far, in USD; None when it is unpriced."""
        with self._writing:
            self.flush()
            return self._queries.answering.get(query_id, Decimal(0))

    def unpriced_models_of(self, query_id: str) -> list[str]:
        """Give the models that a query of this process asked and that have no price, as a price book names them."""
        with self._writing:
            return list(self._queries.unpriced.get(query_id, ()))

    def _before_reading(self) -> None:
        if self._pending:
            self.flush()

    def _rows_in_memory(self) -> list[bytes] | None:
        return self._journal.lines() if isinstance(self._journal, MemoryJournal) else None

    # -- life ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close_behind(self.close, error, f"ledger '{self.path}'")

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r})"

    def __copy__(self) -> Ledger:
        return self  # two writers of one memory would each write its rows

    def __deepcopy__(self, memo: dict[int, Any]) -> Ledger:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self.in_memory:
            raise MonitorError(
                "A ledger in memory cannot be pickled: its rows would stay behind. Give it a path, and pickle that one."
            )
        return _reopened, (str(self.path), self.durable, self._interval_s, self.keep_days, self.pricer.book)


def _reopened(
    path: str, durable: bool, flush_interval_s: float, keep_days: float | None, prices: PriceBook | None
) -> Ledger:
    """Open the ledger of a pickle; rows of its own go to a journal of its own."""
    return Ledger(
        path, durable=durable, flush_interval_s=flush_interval_s, keep_days=keep_days, prices=prices
    )


def _made(row: Call | Callable[[], Call]) -> Call | None:
    """Make a row that is not made yet; a fault in that is logged, since its call has long gone on."""
    if isinstance(row, Call):
        return row
    try:
        return row()
    except Exception:
        _log.exception("A call could not be recorded: its row cannot be made.")
        return None


def _flush_forever(reference: weakref.ref[Ledger], wake: threading.Event, interval_s: float) -> None:
    """Flush a ledger until it is closed or forgotten; holds no reference to it while it sleeps."""
    while True:
        wake.wait(interval_s)
        ledger = reference()
        if ledger is None or ledger._wake is not wake:
            return
        wake.clear()
        ledger._tick()
        if ledger._closed:
            return
        del ledger


_live: weakref.WeakSet[Ledger] = weakref.WeakSet()


def _close_all() -> None:
    for ledger in list(_live):
        told = ledger._loss_told
        try:
            ledger.close()
        except MonitorError as error:
            if not told:  # else the caller of `close` has heard of it
                _log.error("Calls of this process are not recorded, and lost: %s", error)
        except Exception:
            _log.exception("Ledger '%s' could not be closed; its last rows are lost.", ledger.path)


def _reset_all() -> None:
    for ledger in list(_live):
        ledger._reset()


atexit.register(_close_all)
in_forked_child(_reset_all)
