"""Budgets: a call that could exceed one is refused before it is made.

Before a call its cost is estimated from above (tokens of the prompt, largest answer), and the estimate is
reserved; when its row reaches the ledger the reservation gives way to the true cost. The sums live in a small
locked file beside the journals, so all processes of a ledger share one budget.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from llama_index_presets.errors import BudgetExceededError, SettingsError
from llama_index_presets.monitor.budget_state import BudgetState, Shares
from llama_index_presets.monitor.calls import Call
from llama_index_presets.monitor.context import Attribution
from llama_index_presets.monitor.ledger import Ledger
from llama_index_presets.monitor.prices import Tokens

__all__ = ["Budget", "Budgets", "Reservation"]

_PERIODS: Final = ("day", "month", "query", "ever")
_SCOPES: Final = ("", "tenant", "preset", "session")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One limit.

    Attributes:
        limit_usd: Most that may be spent in a period, in USD, > 0.
        per: ``"day"`` and ``"month"`` (UTC), ``"query"``, or ``"ever"``.
        by: ``"tenant"``, ``"preset"`` or ``"session"``: each has a limit of its own; empty means all
            together.
        only: With `by`, the one tenant, preset or session that the limit is for; empty means each.
        warn_at: Share of the limit at which a warning is logged once a period, in (0, 1].

    Example:
        >>> Budget(limit_usd=Decimal("5"), per="day", by="tenant").key(
        ...     Attribution(tenant="acme"), datetime(2026, 3, 1, tzinfo=UTC))
        'day=2026-03-01;tenant=acme;limit=5'
    """

    limit_usd: Decimal
    per: Literal["day", "month", "query", "ever"] = "day"
    by: Literal["", "tenant", "preset", "session"] = ""
    only: str = ""
    warn_at: float = 0.8

    def __post_init__(self) -> None:
        faults = []
        if not isinstance(self.limit_usd, Decimal) or not self.limit_usd > 0:
            faults.append(f"limit_usd is {self.limit_usd!r}, expected a Decimal > 0")
        if self.per not in _PERIODS:
            faults.append(f"per is '{self.per}', expected one of {_PERIODS}")
        if self.by not in _SCOPES:
            faults.append(f"by is '{self.by}', expected one of {_SCOPES}")
        if self.only and not self.by:
            faults.append("only is given without by")
        if not 0 < self.warn_at <= 1:
            faults.append(f"warn_at is {self.warn_at}, expected a share in (0, 1]")
        if faults:
            raise SettingsError(f"Budget: {'; '.join(faults)}.")

    def key(self, who: Attribution, now: datetime, query_id: str = "") -> str | None:
        """Name the period and scope that a call falls into; None when the budget does not apply to it."""
        owner = getattr(who, self.by) if self.by else ""
        query = query_id or who.query_id
        if (self.only and owner != self.only) or (self.per == "query" and not query):
            return None
        period = {"day": f"{now:%Y-%m-%d}", "month": f"{now:%Y-%m}", "query": query, "ever": ""}[self.per]
        scope = f";{self.by}={owner}" if self.by else ""
        return f"{self.per}={period}{scope};limit={self.limit_usd}"

    def resets_at(self, now: datetime) -> datetime | None:
        """Give the end of the period; None for a query and for ever."""
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
            conditions.append(f"{self.by} = ?")
            values.append(getattr(who, self.by))
        statement = f"SELECT coalesce(sum(cost_usd), 0) FROM llm_calls WHERE {' AND '.join(conditions)}"  # noqa: S608
        return Decimal(ledger.sql(statement, values).fetchall()[0][0])


@dataclass(frozen=True, slots=True)
class Reservation:
    """Dollars held for a call that is under way.

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
    """

    def __init__(
        self,
        ledger: Ledger,
        budgets: Sequence[Budget],
        *,
        default_output_tokens: int = 4096,
        unpriced: Literal["refuse", "allow"] = "refuse",
    ) -> None:
        if unpriced not in ("refuse", "allow"):
            raise SettingsError(f"unpriced is '{unpriced}'. Expected 'refuse' or 'allow'.")
        self.budgets = tuple(budgets)
        self.default_output_tokens = default_output_tokens
        self.unpriced = unpriced
        self._ledger = ledger
        self._state = BudgetState(ledger.path)
        self._warned: set[str] = set()
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
        cost, _ = self._ledger.pricer.price(provider, model, tokens)
        if cost is None:
            return self._without_price(call_id, provider, model)
        try:
            return self._hold(call_id, cost, f"{provider}/{model}", who, query_id)
        except BudgetExceededError:
            # Rows in memory still hold their estimates: settle them, then ask once more.
            self._ledger.flush()
            return self._hold(call_id, cost, f"{provider}/{model}", who, query_id)

    def release(self, reservation: Reservation) -> None:
        """Give back what was held for a call that leaves no row."""
        with self._state.locked() as shares:
            shares.drop(reservation.call_id)

    def _without_price(self, call_id: str, provider: str, model: str) -> Reservation:
        if self.unpriced == "refuse":
            raise BudgetExceededError(
                f"No price is known for model '{model}' of provider '{provider or 'unknown'}', so no budget "
                "can hold it. Add it to a PriceBook, or allow it with Budgets(unpriced='allow')."
            )
        return Reservation(call_id, Decimal(0))

    def _hold(
        self, call_id: str, estimate: Decimal, model: str, who: Attribution, query_id: str
    ) -> Reservation:
        now = datetime.now(UTC)
        keys = {key: budget for budget in self.budgets if (key := budget.key(who, now, query_id)) is not None}
        unseen = {key for key in keys if not self._state.knows(key)}
        # Read outside the lock: a reader flushes, and a flush settles, which takes the lock.
        begun = {key: keys[key].spent_in(self._ledger, who, now, query_id) for key in unseen}
        with self._state.locked() as shares:
            for key, spent in begun.items():
                shares.begin(key, spent)
            factor = Decimal(shares.factors.get(model, "1"))
            for key, budget in keys.items():
                self._check(budget, key, shares, estimate * factor, now)
            shares.hold(call_id, list(keys), estimate, factor, model)
        return Reservation(call_id, estimate * factor)

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
        """Book the true cost of rows, whether they were reserved or not."""
        with self._state.locked() as shares:
            for call in rows:
                who = Attribution(call.preset, call.query_id, call.session, call.tenant)
                now = datetime.fromtimestamp(call.timestamp / 1e6, UTC)
                keys = [key for budget in self.budgets if (key := budget.key(who, now)) is not None]
                shares.settle(call.call_id, keys, call.cost_usd or Decimal(0))


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


def output_limit(instance: Any, arguments: dict[str, Any], default: int) -> int:
    """Give the longest answer that a call may bring, in tokens: from its arguments or model."""
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict"):
        for value in (arguments.get(name), getattr(instance, name, None)):
            if isinstance(value, int) and value > 0:
                return value
    return default
