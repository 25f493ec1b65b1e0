"""What a vendor bills beside plain tokens, through its own client: priced right in plain replies and in streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage as ListedUsage
from genai_prices.data_snapshot import get_snapshot
from llama_index.core.llms import ChatMessage
from tests.journeys.test_models_by_name import VENDORS, Fixture, vendor
from tests.servers.recorded import ledger

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.providers.language_models import make_language_model

__all__ = ["ledger", "vendor"]

MESSAGES = [ChatMessage("hi")]
BY_NAME = {one.name: one for one in VENDORS}


async def _all(pieces: Any) -> list[Any]:
    return [piece async for piece in await pieces]


WAYS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda llm: llm.chat(MESSAGES),
    "achat": lambda llm: asyncio.run(llm.achat(MESSAGES)),
    "stream_chat": lambda llm: list(llm.stream_chat(MESSAGES)),
    "astream_chat": lambda llm: asyncio.run(_all(llm.astream_chat(MESSAGES))),
}
CASES: dict[str, tuple[dict[str, Any], tuple[str, str], dict[str, int], dict[str, str]]] = {
    "anthropic/claude-sonnet-4-5": (
        {"cache_write": 300, "cache_write_1h": 200},
        ("anthropic", "claude-sonnet-4-5"),
        {"cache_read_tokens": 400, "cache_write_tokens": 300, "cache_write_1h_tokens": 200},
        {},
    ),
    "bedrock/anthropic.claude-3-haiku-20240307-v1:0": (
        {"cache_write": 300},
        ("aws", "anthropic.claude-3-haiku-20240307-v1:0"),
        {"cache_read_tokens": 400, "cache_write_tokens": 300},
        {},
    ),
    "gemini/gemini-2.5-flash": (
        {"prompt": 1000},
        ("google", "gemini-2.5-flash"),
        {"cache_read_tokens": 400},
        {},
    ),
    "openai/gpt-5-mini": (
        {},
        ("openai", "gpt-5-mini"),
        {"cache_read_tokens": 400},
        {"service_tier": "flex"},
    ),
}
"""Vendor -> what its server reports, the name in the list of prices, and what is billed beside fresh tokens."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("vendor", [BY_NAME[name] for name in CASES], ids=lambda one: one.name, indirect=True)
def test_the_row_costs_what_the_list_says(vendor: Fixture, ledger: Ledger, way: str) -> None:
    """Cached and written tokens, those of thinking, and another tier: each once, at its own price."""
    reported, listed, billed, context = CASES[vendor.name]
    for name, value in reported.items():
        setattr(vendor.server, name, value)
    llm: Any = make_language_model(vendor.name, {"context_window": 8_000})
    if context:
        llm.additional_kwargs = {**llm.additional_kwargs, **context}
    WAYS[way](llm)
    provider, model = get_snapshot().find_provider_model(listed[1], None, listed[0], None)
    usage = ListedUsage(input_tokens=1000, output_tokens=100, **billed)
    truth = model.calc_price(usage, provider, price_context=context).total_price
    asked = "SELECT prompt_tokens, completion_tokens, cost_usd FROM llm_calls WHERE kind = 'llm'"
    ((prompt, completion, cost),) = ledger.sql(asked).fetchall()
    assert (prompt, completion) == (1000, 100)
    assert abs(cost - truth) < Decimal("1e-11")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    "vendor", [BY_NAME["anthropic/claude-sonnet-4-5"]], ids=lambda one: one.name, indirect=True
)
def test_a_stream_of_anthropic_that_is_left_has_its_whole_prompt(
    vendor: Fixture, ledger: Ledger, asynchronous: bool
) -> None:
    """What the cache read and wrote is said at the beginning, and was lost with the end."""
    vendor.server.cache_write = 300

    async def leave(llm: Any) -> None:
        pieces = await llm.astream_chat(MESSAGES)
        await anext(pieces)
        await pieces.aclose()

    llm = make_language_model(vendor.name, {"context_window": 8_000})
    if asynchronous:
        asyncio.run(leave(llm))
    else:
        pieces = llm.stream_chat(MESSAGES)
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
    asked = "SELECT status, prompt_tokens, cached_tokens, cache_write_tokens FROM llm_calls"
    assert ledger.sql(asked).fetchall() == [("abandoned", 1000, 400, 300)]


@pytest.mark.parametrize(
    "vendor", [BY_NAME["anthropic/claude-sonnet-4-5"]], ids=lambda one: one.name, indirect=True
)
def test_a_stream_of_anthropic_that_is_not_asked_has_its_whole_prompt(
    vendor: Fixture, tmp_path: Path
) -> None:
    """`stream_usage=False` asks no server; here nothing is asked, and what the cache read was free."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        handler = CostTrackingHandler(ledger, stream_usage=False).instrument()
        list(make_language_model(vendor.name, {"context_window": 8_000}).stream_chat(MESSAGES))
        handler.close()
        asked = "SELECT prompt_tokens, completion_tokens, cached_tokens FROM llm_calls"
        assert ledger.sql(asked).fetchall() == [(1000, 100, 400)]
