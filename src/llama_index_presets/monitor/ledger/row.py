"""Ledger row: one model call, one retrieval, or one whole query. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

__all__ = [
    "ADDED_LATER",
    "BILLABLE_KINDS",
    "CALLER_PRICED",
    "COLUMNS",
    "KINDS",
    "LOAD_KIND",
    "STATUSES",
    "Call",
    "as_json_fields",
    "as_stored_fields",
    "covered_s",
    "forget_oldest",
    "used_nothing",
]

BILLABLE_KINDS: Final = ("llm", "embedding", "rerank")
"""Kinds that are calls of a model; the others are stages, which cost nothing by themselves."""

LOAD_KIND: Final = "load"
"""Kind of the rows of models being loaded: no calls, so in no latency, count or alert."""

KINDS: Final = (*BILLABLE_KINDS, "retrieval", "query", LOAD_KIND)
STATUSES: Final = ("success", "error", "abandoned", "refused")

CALLER_PRICED: Final = "caller"
"""`Call.price_version` of a row whose cost was given to `Ledger.record` by hand."""

COLUMNS: Final[dict[str, str]] = {
    "call_id": "VARCHAR",
    "timestamp": "TIMESTAMP",
    "kind": "VARCHAR",
    "provider": "VARCHAR",
    "model": "VARCHAR",
    "prompt_tokens": "BIGINT",
    "completion_tokens": "BIGINT",
    "total_tokens": "BIGINT",
    "cost_usd": "DECIMAL(18,12)",
    "latency_ms": "DOUBLE",
    "status": "VARCHAR",
    "preset": "VARCHAR",
    "query_id": "VARCHAR",
    "parent_id": "VARCHAR",
    "session": "VARCHAR",
    "tenant": "VARCHAR",
    "tags": "VARCHAR[]",
    "attempt": "INTEGER",
    "error_type": "VARCHAR",
    "cached_tokens": "BIGINT",
    "cache_write_tokens": "BIGINT",
    "reasoning_tokens": "BIGINT",
    "usage_source": "VARCHAR",
    "cache_hit": "BOOLEAN",
    "prompt_sha256": "VARCHAR",
    "price_version": "VARCHAR",
    "saved_usd": "DECIMAL(18,12)",
    "searches": "BIGINT",
}
"""Column -> DuckDB type of the table `llm_calls`, in order. Timestamps are UTC."""

ADDED_LATER: Final = ("saved_usd", "searches")
"""Columns that tables of earlier releases lack."""


class Call(NamedTuple):
    """One row of the ledger.

    Attributes:
        call_id: Unique in the ledger.
        timestamp: When the call ended, in microseconds since 1970, UTC.
        kind: One of `KINDS`.
        provider: As `genai-prices` spells it; ``"local"`` costs nothing.
        model: Name the provider was asked for.
        prompt_tokens: All input tokens, cached ones included.
        completion_tokens: All output tokens, reasoning ones included.
        total_tokens: Their sum, or what the provider says.
        cost_usd: Decimal dollars; None when no price is known, never a guess.
        latency_ms: From the request to the last byte of the answer, in milliseconds, without the loading of models.
        status: One of `STATUSES`.
        preset: Which preset asked.
        query_id: Which query it belongs to.
        parent_id: The span it ran in, where LlamaIndex tells.
        session: Conversation or user session.
        tenant: Who pays.
        tags: Free labels.
        attempt: 1-based; above 1 after a retry.
        error_type: Class name of the exception, empty on success.
        cached_tokens: Input tokens that the provider read from its cache.
        cache_write_tokens: Input tokens that the provider wrote to its cache.
        reasoning_tokens: Output tokens that were thinking.
        usage_source: ``"reported"``, ``"counted"`` or ``"estimated"``; empty where nothing was used.
        cache_hit: Whether our own cache answered and no call was made; of a load, whether another thread loaded.
        prompt_sha256: Keyed hash of the prompt, so that equal prompts can be counted and not guessed.
        price_version: Where the price came from; empty until the ledger has priced the row.
        saved_usd: Of a language model's call that the answer cache saved: what the call had cost, as far as known.
        searches: Searches that a hosted reranker bills.
    """

    call_id: str
    timestamp: int
    kind: str
    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: Decimal | None
    latency_ms: float
    status: str
    preset: str
    query_id: str
    parent_id: str
    session: str
    tenant: str
    tags: tuple[str, ...]
    attempt: int
    error_type: str
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    usage_source: str
    cache_hit: bool
    prompt_sha256: str
    price_version: str
    saved_usd: Decimal = Decimal(0)
    searches: int = 0


def as_json_fields(call: Call) -> dict[str, Any]:
    """Give a row as JSON-ready fields: dollars as text, so that no digit is lost; the time stays an integer.

    Example:
        >>> as_json_fields(Call("a", 0, "llm", "local", "m", 1, 2, 3, Decimal("0.1"), 5.0, "success", "", "",
        ...     "", "", "", ("t",), 1, "", 0, 0, 0, "reported", False, "", "caller"))["cost_usd"]
        '0.1'
    """
    return _with_dollars(call._asdict(), call)


def as_stored_fields(call: Call) -> dict[str, Any]:
    """Give a row as its journal keeps it: without what is empty, zero or false, but with a cost of zero."""
    fields: dict[str, Any] = {name: value for name, value in zip(Call._fields, call, strict=True) if value}
    return _with_dollars(fields, call)


def _with_dollars(fields: dict[str, Any], call: Call) -> dict[str, Any]:
    """Dollars as text, so that no digit is lost; saved ones where there are any."""
    if call.cost_usd is not None:
        fields["cost_usd"] = format(call.cost_usd, "f")
    fields.pop("saved_usd", None)
    return fields | ({"saved_usd": format(call.saved_usd, "f")} if call.saved_usd else {})


def covered_s(intervals: Sequence[tuple[float, float]], start: float) -> float:
    """Give the time that intervals cover after a moment, in seconds; what several cover counts once.

    Example:
        >>> covered_s([(0.0, 4.0), (3.0, 5.0), (8.0, 9.0)], 1.0)
        5.0
    """
    covered, reached = 0.0, start
    for begin, end in sorted(intervals):
        covered += max(end - max(begin, reached), 0.0)
        reached = max(reached, end)
    return covered


def forget_oldest(table: dict[str, Any]) -> None:
    """Forget the oldest key of a table that other threads change at the same time.

    Example:
        >>> table = {"a": 1, "b": 2}
        >>> forget_oldest(table)
        >>> table
        {'b': 2}
    """
    try:
        oldest = next(iter(table))
    except (
        RuntimeError,
        StopIteration,
    ):  # changed in between: there is room now, or the next caller makes it
        return
    table.pop(oldest, None)


def used_nothing(call: Call) -> bool:
    """Whether an attempt failed or was refused without a usage that is known: it was not billed."""
    return call.status in ("error", "refused") and not call.total_tokens
