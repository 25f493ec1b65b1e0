"""Budgets: a call that could exceed one is refused before it is made.

Before a call its cost is estimated from above (tokens of the prompt, largest answer), and the estimate is
reserved; when its row reaches the ledger the reservation gives way to the true cost. The sums live in a small
locked file beside the journals, so all processes of a ledger share one budget.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Any, Final, Literal

from llama_index_presets.errors import BudgetExceededError, MonitorError, SettingsError
from llama_index_presets.files.disk_faults import is_full
from llama_index_presets.files.private_files import private_folder
from llama_index_presets.files.whole_files import replace_file
from llama_index_presets.monitor.attribution import Attribution
from llama_index_presets.monitor.ledger.journal import journal_folder, locked
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.row import Call
from llama_index_presets.monitor.prices import Tokens, how_to_price, price_key

__all__ = ["Budget", "BudgetState", "Budgets", "Reservation", "Shares"]

# -- shared state ---------------------------------------------------------------------------------------------


_PATIENCE_S: Final = 10.0
_TRIES: Final = 3  # to find a period in the file that has been started there
_LAPSE_S: Final = 900.0
"""A reservation whose process died lapses after this long, in seconds."""
_FORGET_S: Final = {"query": 120.0, "day": 2 * 86_400.0, "month": 70 * 86_400.0, "ever": math.inf}
"""How long after its beginning a period is kept, in seconds. The file is written with each call, so it stays small;
what is forgotten and goes on is summed up from the ledger again."""


class Shares:
    """Sums of all budgets while the lock is held."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._spent: dict[str, list[Any]] = content.get("spent", {})
        self._holds: dict[str, list[Any]] = content.get("holds", {})
        # Sums so far of periods that are to be summed up again.
        self._least: dict[str, list[Any]] = content.get("least", {})
        self._end_lapsed()
        self.factors: dict[str, str] = content.get("factors", {})

    def _end_lapsed(self) -> None:
        """Drop reservations of processes that died, and have their periods summed up again: a call may have been
        recorded in the ledger and not booked here. The sum so far stays the least: ledgers drop old rows."""
        now = time.time()
        for call_id, hold in list(self._holds.items()):
            if hold[2] <= now:
                del self._holds[call_id]
                for key in hold[1]:
                    if (spent := self._spent.pop(key, None)) is not None:
                        self._least[key] = spent

    def begin(self, key: str, spent: Decimal) -> None:
        """Start a period with the ledger's sum, unless another process has started it."""
        if key not in self._spent:
            least, begun = self._least.pop(key, (0, time.time()))
            self._spent[key] = [str(max(spent, Decimal(least))), begun]

    def spent(self, key: str) -> Decimal:
        """Cost of a period so far, in USD."""
        return Decimal(self._spent[key][0]) if key in self._spent else Decimal(0)

    def held(self, key: str) -> Decimal:
        """Reserved for open calls in a period, in USD."""
        holds = (hold for hold in self._holds.values() if key in hold[1])
        return sum((Decimal(hold[0]) for hold in holds), Decimal(0))

    def hold(self, call_id: str, keys: list[str], estimate: Decimal, factor: Decimal, model: str) -> None:
        """Reserve dollars for a call: its estimate times the model's past underestimation."""
        held = str(estimate * factor)
        self._holds[call_id] = [held, keys, time.time() + _LAPSE_S, model, str(estimate)]

    def drop(self, call_id: str) -> list[Any] | None:
        """Release the reservation of a call."""
        return self._holds.pop(call_id, None)

    def has(self, key: str) -> bool:
        """Whether a period has been started."""
        return key in self._spent

    def settle(self, call_id: str, keys: list[str], cost: Decimal) -> None:
        """Replace the reservation of a call by its cost; learn when the estimate was too low."""
        hold = self.drop(call_id)
        for key in dict.fromkeys([*keys, *(hold[1] if hold else ())]):
            for sums in (self._spent, self._least):
                if key in sums:
                    sums[key][0] = str(Decimal(sums[key][0]) + cost)
        if hold and cost > (estimate := Decimal(hold[4])) > 0:
            factor = max(Decimal(self.factors.get(hold[3], "1")), cost / estimate)
            self.factors[hold[3]] = str(factor.quantize(Decimal("0.001"), ROUND_UP))

    def content(self) -> dict[str, Any]:
        """Content to write, without periods that are over."""
        now = time.time()
        held = {key for hold in self._holds.values() for key in hold[1]}
        for sums in (self._spent, self._least):
            for key, (_, begun) in list(sums.items()):
                if now - begun >= _FORGET_S[key.partition("=")[0]] and key not in held:
                    del sums[key]
        return {"spent": self._spent, "holds": self._holds, "factors": self.factors, "least": self._least}


class BudgetState:
    """Budget file, its lock, and the copy of it in this process."""

    def __init__(self, ledger: Path, folder: Path | None = None) -> None:
        self._folder = folder or journal_folder(ledger)
        self._path = self._folder / "budgets.json"
        self._mutex = threading.Lock()
        self._known: set[str] = set()

    def knows(self, key: str) -> bool:
        """Whether a period has been started."""
        return key in self._known and self._path.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[Shares]:
        """Read, change and write the file, alone among threads and processes.

        Raises:
            MonitorError: The file cannot be written, was damaged, or its lock was held too long; a call that no
                budget could hold is not made.
        """
        with (
            _writable(self._folder),
            self._mutex,
            locked(self._folder / "budgets.lock", exclusive=True, timeout_s=_PATIENCE_S) as taken,
        ):
            if not taken:
                raise MonitorError(
                    f"The budget lock in '{self._folder}' was held for {_PATIENCE_S:.0f} s. "
                    "Expected microseconds; look for a process that hangs."
                )
            shares = Shares(self._read())
            yield shares
            self._write(shares.content())

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            self._known.clear()
            return {}
        except ValueError as error:  # a crash of the machine; the ledger knows what was spent
            self._path.unlink()
            self._known.clear()
            raise MonitorError(
                f"The sums of the budgets in '{self._path}' were damaged ({error}). Expected JSON; the file was "
                "deleted, and the next call sums up the ledger again."
            ) from error
        return content

    def _write(self, content: dict[str, Any]) -> None:
        replace_file(self._path, json.dumps(content), draft=self._folder / "budgets.draft", private=True)
        self._known = set(content["spent"])


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        private_folder(folder)
        yield
    except OSError as error:
        step = "Free space on its disk" if is_full(error) else "Make the folder writable"
        raise MonitorError(
            f"The sums of the budgets in '{folder}' cannot be written: {error}. {step}: without them no call can be "
            "held to its budget."
        ) from error


_PERIODS: Final = ("day", "month", "query", "ever")
_SCOPES: Final = ("", "tenant", "preset", "session", "tag")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One limit.

    Attributes:
        limit_usd: Most that may be spent in a period, in USD, > 0.
        per: ``"day"`` and ``"month"`` (UTC), ``"query"``, or ``"ever"``.
        by: ``"tenant"``, ``"preset"`` or ``"session"``: each has a limit of its own; ``"tag"``: calls that carry the
            tag `only`; empty means all together.
        only: With `by`, the one tenant, preset, session or tag that the limit is for; empty means each.
        warn_at: Share of the limit at which a warning is logged once a period, in (0, 1].

    Example:
        >>> Budget(limit_usd=Decimal("5"), per="day", by="tenant").key(
        ...     Attribution(tenant="acme"), datetime(2026, 3, 1, tzinfo=UTC))
        'day=2026-03-01;tenant=acme;limit=5'
    """

    limit_usd: Decimal
    per: Literal["day", "month", "query", "ever"] = "day"
    by: Literal["", "tenant", "preset", "session", "tag"] = ""
    only: str = ""
    warn_at: float = 0.8

    def __post_init__(self) -> None:
        faults = []
        if not isinstance(self.limit_usd, Decimal) or not self.limit_usd.is_finite() or self.limit_usd <= 0:
            faults.append(f"limit_usd is {self.limit_usd!r}, expected a Decimal > 0")
        if self.per not in _PERIODS:
            faults.append(f"per is '{self.per}', expected one of {_PERIODS}")
        if self.by not in _SCOPES:
            faults.append(f"by is '{self.by}', expected one of {_SCOPES}")
        if self.only and not self.by:
            faults.append("only is given without by")
        if self.by == "tag" and not self.only:
            faults.append("by is 'tag' without only: a call may carry several tags, so name the one")
        if not 0 < self.warn_at <= 1:
            faults.append(f"warn_at is {self.warn_at}, expected a share in (0, 1]")
        if faults:
            raise SettingsError(f"Budget: {'; '.join(faults)}.")

    def key(self, who: Attribution, now: datetime, query_id: str = "") -> str | None:
        """Name the period and scope that a call falls into; None when the budget does not apply to it."""
        owner = self._owner(who)
        query = query_id or who.query_id
        if (self.only and owner != self.only) or (self.per == "query" and not query):
            return None
        period = {"day": f"{now:%Y-%m-%d}", "month": f"{now:%Y-%m}", "query": query, "ever": ""}[self.per]
        scope = f";{self.by}={owner}" if self.by else ""
        return f"{self.per}={period}{scope};limit={self.limit_usd}"

    def _owner(self, who: Attribution) -> str:
        """Tenant, preset, session or tag of a call that the budget is kept for."""
        if self.by == "tag":
            return self.only if self.only in who.tags else ""
        return getattr(who, self.by) if self.by else ""

    def resets_at(self, now: datetime) -> datetime | None:
        """End of the period; None for a query and for ever."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.per == "day":
            return midnight + timedelta(days=1)
        return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1) if self.per == "month" else None

    def spent_in(self, ledger: Ledger, who: Attribution, now: datetime, query_id: str) -> Decimal:
        """Read from the ledger what the period has cost so far."""
        conditions, values = ["true"], []
        starts = {"day": now.replace(hour=0, minute=0, second=0, microsecond=0)}
        starts["month"] = starts["day"].replace(day=1)
        if self.per in starts:
            conditions.append("timestamp >= make_timestamp(?)")
            values.append(int(starts[self.per].timestamp() * 1e6))
        if self.per == "query":
            conditions.append("query_id = ?")
            values.append(query_id or who.query_id)  # type: ignore[arg-type]
        if self.by:
            conditions.append("list_contains(tags, ?)" if self.by == "tag" else f"{self.by} = ?")
            values.append(self._owner(who))  # type: ignore[arg-type]
        statement = f"SELECT coalesce(sum(cost_usd), 0) FROM llm_calls WHERE {' AND '.join(conditions)}"  # noqa: S608
        return Decimal(ledger.sql(statement, values).fetchall()[0][0])


@dataclass(frozen=True, slots=True)
class Reservation:
    """Dollars reserved for an open call.

    Attributes:
        call_id: The call's row.
        estimate_usd: What was held.
    """

    call_id: str
    estimate_usd: Decimal


class Budgets:
    """Admits calls within limits and refuses the others. Thread safe, and safe among processes of one host.

    Args:
        ledger: Whose calls are limited; its rows settle the reservations.
        budgets: The limits; a call must fit all that apply to it.
        default_output_tokens: Answer length to assume where the model is called without a limit, in tokens.
        unpriced: What to do with a model without a known price, which no budget can hold: ``"refuse"`` it or
            ``"allow"`` it.
        sums: Folder of the file with the sums; None puts it beside the ledger's journals. Budgets of several ledgers
            that name the same folder share their limits.
        also: Other ledgers whose calls count, too, when a period begins.
    """

    def __init__(
        self,
        ledger: Ledger,
        budgets: Sequence[Budget],
        *,
        default_output_tokens: int = 4096,
        unpriced: Literal["refuse", "allow"] = "refuse",
        sums: Path | None = None,
        also: Sequence[Ledger] = (),
    ) -> None:
        if unpriced not in ("refuse", "allow"):
            raise SettingsError(f"unpriced is '{unpriced}'. Expected 'refuse' or 'allow'.")
        if ledger.in_memory and sums is None:
            raise SettingsError(
                "Budgets hold across processes by a file beside the ledger, and this ledger is in memory. "
                "Give the ledger a path, or the budgets a folder (sums=)."
            )
        self.budgets = tuple(budgets)
        self.default_output_tokens = default_output_tokens
        self.unpriced = unpriced
        self._ledger = ledger
        self.also = tuple(also)
        self._state = BudgetState(ledger.path, sums)
        self._warned: set[str] = set()
        self._unbooked: list[tuple[Call, list[str]]] = []  # rows whose cost is not yet in the sums
        self._booking = threading.Lock()
        ledger.subscribe(self._settle)

    def close(self) -> None:
        """Stop settling; reservations that are still held lapse."""
        self._ledger.unsubscribe(self._settle)

    def reserve(
        self, call_id: str, provider: str, model: str, tokens: Tokens, who: Attribution, query_id: str = ""
    ) -> Reservation:
        """Hold the estimated cost of a call, or refuse it.

        Raises:
            BudgetExceededError: A limit would be exceeded, or the model has no known price.
        """
        if not self._keys(who, query_id, datetime.now(UTC)):
            return Reservation(call_id, Decimal(0))
        cost, _ = self._ledger.pricer.price(provider, model, tokens)
        if cost is None:
            return self._without_price(call_id, provider, model)
        try:
            return self._hold(call_id, cost, f"{provider}/{model}", who, query_id)
        except BudgetExceededError:
            # Rows in memory still hold their estimates: settle them, then ask once more.
            self._ledger.flush()
            return self._hold(call_id, cost, f"{provider}/{model}", who, query_id)

    def refuse_spent(self, who: Attribution) -> None:
        """Refuse a caller whose limit is used up, before anything is done for the question.

        Raises:
            BudgetExceededError: A budget of the caller has nothing left; says when it resets.
        """
        now = datetime.now(UTC)
        keys = self._keys(who, "", now)
        if not keys:
            return
        with self._started(keys, who, now, "") as shares:
            for key, budget in keys.items():
                spent, held = shares.spent(key), shares.held(key)
                if spent + held >= budget.limit_usd:
                    raise _refusal(budget, key, spent, held, Decimal(0), budget.resets_at(now))

    def release(self, reservation: Reservation) -> None:
        """Release the reservation of a call that leaves no row.

        A failure is logged and not raised, since the call's own error may be under way; the reservation then stays.
        """
        try:
            with self._sums() as shares:
                shares.drop(reservation.call_id)
        except MonitorError as error:
            _log.error("The reservation of call %s was not released: %s", reservation.call_id, error)

    def _without_price(self, call_id: str, provider: str, model: str) -> Reservation:
        if self.unpriced == "refuse":
            raise BudgetExceededError(
                f"No price is known for model '{model}' of provider '{provider or 'unknown'}', so no budget "
                f"can hold it. {how_to_price([price_key(provider, model)])} Budgets(unpriced='allow') allows it."
            )
        return Reservation(call_id, Decimal(0))

    def _hold(
        self, call_id: str, estimate: Decimal, model: str, who: Attribution, query_id: str
    ) -> Reservation:
        now = datetime.now(UTC)
        keys = self._keys(who, query_id, now)
        with self._started(keys, who, now, query_id) as shares:
            factor = Decimal(shares.factors.get(model, "1"))
            for key, budget in keys.items():
                self._check(budget, key, shares, estimate * factor, now)
            shares.hold(call_id, list(keys), estimate, factor, model)
        return Reservation(call_id, estimate * factor)

    def _keys(self, who: Attribution, query_id: str, now: datetime) -> dict[str, Budget]:
        """Budgets that apply to a call, by the name of their period. One moment names it and sums it up: two of them
        around midnight would begin a day with the sum of the day before."""
        return {key: budget for budget in self.budgets if (key := budget.key(who, now, query_id)) is not None}

    @contextlib.contextmanager
    def _started(
        self, keys: dict[str, Budget], who: Attribution, now: datetime, query_id: str
    ) -> Iterator[Shares]:
        """The sums under the lock, in which each of these periods has been started.

        Raises:
            MonitorError: Someone deletes or empties the file again and again; a period that begins with nothing would
                let calls through that its budget has no room for.
        """
        for _ in range(_TRIES):
            begun = self._begun(keys, who, now, query_id)
            with self._sums() as shares:
                for key, spent in begun.items():
                    shares.begin(key, spent)
                if all(shares.has(key) for key in keys):
                    yield shares
                    return
        raise MonitorError(
            "The sums of the budgets vanish while they are in use, so the call was not made. Look for what deletes or "
            "rewrites 'budgets.json'."
        )

    @contextlib.contextmanager
    def _sums(self) -> Iterator[Shares]:
        """The sums under the lock, with the cost of rows that could not be booked before."""
        with self._booking:
            waiting = list(self._unbooked)
            with self._state.locked() as shares:
                for call, keys in waiting:
                    shares.settle(call.call_id, keys, call.cost_usd or Decimal(0))
                yield shares
            del self._unbooked[: len(waiting)]

    def _begun(
        self, keys: dict[str, Budget], who: Attribution, now: datetime, query_id: str
    ) -> dict[str, Decimal]:
        """Spent so far in the periods that no process has started.

        Read outside the lock: a reader flushes, and a flush settles, which takes the lock.
        """
        unseen = {key for key in keys if not self._state.knows(key)}
        ledgers = [self._ledger, *(ledger for ledger in self.also if not ledger.closed)]
        return {
            key: sum((keys[key].spent_in(ledger, who, now, query_id) for ledger in ledgers), Decimal(0))
            for key in unseen
        }

    def _check(self, budget: Budget, key: str, shares: Shares, estimate: Decimal, now: datetime) -> None:
        spent, held = shares.spent(key), shares.held(key)
        if spent + held + estimate > budget.limit_usd:
            raise _refusal(budget, key, spent, held, estimate, budget.resets_at(now))
        if (
            spent + held + estimate > budget.limit_usd * Decimal(str(budget.warn_at))
            and key not in self._warned
        ):
            self._warned.add(key)
            _log.warning(
                "Budget %s: $%s of $%s is spent or held.", key, spent + held + estimate, budget.limit_usd
            )

    def _settle(self, rows: Iterable[Call]) -> None:
        """Book the true cost of rows, whether they were reserved or not; what fails is booked before the next call."""
        settled = [(call, keys) for call in rows if (keys := self._keys_of(call))]
        if not settled:
            return
        with self._booking:
            self._unbooked += settled
        with self._sums():
            pass

    def _keys_of(self, call: Call) -> list[str]:
        who = Attribution(call.preset, call.query_id, call.session, call.tenant, call.tags)
        now = datetime.fromtimestamp(call.timestamp / 1e6, UTC)
        return [key for budget in self.budgets if (key := budget.key(who, now)) is not None]


def _refusal(
    budget: Budget, key: str, spent: Decimal, held: Decimal, estimate: Decimal, resets_at: datetime | None
) -> BudgetExceededError:
    when = f"It resets at {resets_at:%Y-%m-%d %H:%M} UTC." if resets_at else "It does not reset by time."
    error = BudgetExceededError(
        f"Budget {key}: ${_short(spent)} of ${_short(budget.limit_usd)} is spent, ${_short(held)} is held for "
        f"calls under way; this call may cost ${_short(estimate)}. It was refused before it was made. {when} "
        "Wait, raise the limit, or ask for a shorter answer with max_tokens."
    )
    error.limit_usd, error.spent_usd, error.held_usd = budget.limit_usd, spent, held
    error.estimate_usd, error.resets_at = estimate, resets_at
    return error


def _short(amount: Decimal) -> str:
    text = format(amount, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
