"""Budgets against a loopback server: what is refused never reaches it."""

from __future__ import annotations

import asyncio
import errno
import json
import multiprocessing
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import MockLLM
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI
from tests.servers.call_shapes import MESSAGES, SHAPES, Models
from tests.servers.openai import Fault, OpenAIServer

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.errors import BudgetExceededError, MonitorError, SettingsError
from llama_index_presets.monitor.attribution import attributed, attribution
from llama_index_presets.monitor.budgets import Budget, Budgets, BudgetState
from llama_index_presets.monitor.prices import Tokens

CENT = Decimal("0.01")


@pytest.fixture(autouse=True)
def silence_after_each_test(monkeypatch):
    """Close the handlers a test made, also when it fails: they hear the whole process."""
    made: list[CostTrackingHandler] = []
    plain = CostTrackingHandler.__init__

    def init(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(CostTrackingHandler, "__init__", init)
    yield
    for handler in made:
        handler.close()


PRICE = (1000 * Decimal("0.15") + 100 * Decimal("0.60")) / 1_000_000  # of one call of the server


def model(server: OpenAIServer, *handlers: CostTrackingHandler, **options: Any) -> OpenAI:
    manager = CallbackManager(list(handlers))
    return OpenAI(
        model="gpt-4o-mini",
        api_key="k",
        api_base=server.url,
        max_retries=0,
        callback_manager=manager,
        **options,
    )


@pytest.mark.parametrize("way", ["instrument", "callbacks", "both"])
@pytest.mark.parametrize("max_tokens", [None, 100])
def test_a_cent_is_never_exceeded_by_sixteen_tasks_at_once(tmp_path, way, max_tokens):
    """However the handler listens, the calls that the server answered cost no more than the budget."""
    with OpenAIServer(latency_s=0.01) as server, Ledger(tmp_path / "calls.duckdb") as ledger:
        handler = CostTrackingHandler(ledger, budgets=[Budget(limit_usd=CENT)])
        if way != "callbacks":
            handler.instrument()
        llm = model(server, *([] if way == "instrument" else [handler]), max_tokens=max_tokens)
        refused = asyncio.run(_hammer(llm, tasks=16, each=6))
        handler.close()
        assert refused > 0 and len(server.requests) + refused == 96
        assert len(server.requests) * PRICE <= CENT
        # With an honest max_tokens the budget is used to within two calls.
        assert max_tokens is None or len(server.requests) * PRICE > CENT - 2 * PRICE
        rows = dict(ledger.sql("SELECT status, count(*) FROM llm_calls GROUP BY 1").fetchall())
        assert rows == {"success": len(server.requests), "refused": refused}


async def _hammer(llm: OpenAI, tasks: int, each: int) -> int:
    refused = 0

    async def work() -> None:
        nonlocal refused
        for _ in range(each):
            try:
                await llm.achat(MESSAGES)
            except BudgetExceededError:
                refused += 1

    await asyncio.gather(*[work() for _ in range(tasks)])
    return refused


def _spend(path: Path, url: str) -> None:
    with Ledger(path) as ledger:
        handler = CostTrackingHandler(ledger, budgets=[Budget(limit_usd=CENT)]).instrument()
        llm = OpenAI(model="gpt-4o-mini", api_key="k", api_base=url, max_retries=0, max_tokens=100)
        for _ in range(30):
            try:
                llm.chat(MESSAGES)
            except BudgetExceededError:
                break
        handler.close()


def test_processes_share_one_budget(tmp_path):
    """Another process and this one spend at once and stay within one cent together."""
    with OpenAIServer(latency_s=0.02) as server:
        arguments = (tmp_path / "calls.duckdb", server.url)
        other = multiprocessing.get_context("spawn").Process(target=_spend, args=arguments)
        other.start()
        _wait_for_a_call(server)
        _spend(*arguments)
        other.join()
        assert other.exitcode == 0
        assert CENT - 2 * PRICE < len(server.requests) * PRICE <= CENT


def _wait_for_a_call(server: OpenAIServer) -> None:
    deadline = time.monotonic() + 60
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize(
    "shape", ["chat", "stream_chat", "achat", "astream_chat", "structured_predict", "predict"]
)
def test_every_shape_of_call_can_be_refused(tmp_path, shape):
    """With the budget used up no shape of call reaches the server."""
    with OpenAIServer() as server, Ledger(tmp_path / "calls.duckdb") as ledger:
        ledger.record(kind="llm", cost_usd=CENT)
        handler = CostTrackingHandler(ledger, budgets=[Budget(limit_usd=CENT)]).instrument()
        with pytest.raises(BudgetExceededError, match="refused before it was made"):
            SHAPES[shape](Models(server.url))
        handler.close()
        assert server.requests == []


@pytest.mark.parametrize("shape", ["embed query", "embed batches", "aembed batches"])
def test_embeddings_are_refused_too(tmp_path, shape):
    """A budget that holds less than the texts cost refuses to embed them."""
    with OpenAIServer() as server, Ledger(tmp_path / "calls.duckdb") as ledger:
        handler = CostTrackingHandler(ledger, budgets=[Budget(limit_usd=Decimal("1e-9"))]).instrument()
        with pytest.raises(BudgetExceededError, match="refused"):
            SHAPES[shape](Models(server.url))
        handler.close()
        assert server.requests == []


def test_the_refusal_says_limit_spent_and_reset(tmp_path):
    """The error carries the numbers, in its text and as attributes."""
    with OpenAIServer() as server, Ledger(tmp_path / "calls.duckdb") as ledger:
        ledger.record(kind="llm", cost_usd=Decimal("0.0099"))
        handler = CostTrackingHandler(ledger, budgets=[Budget(limit_usd=CENT, per="month")]).instrument()
        with pytest.raises(
            BudgetExceededError, match=r"\$0\.0099 of \$0\.01 is spent.*resets at .*-01 00:00"
        ) as caught:
            model(server).chat(MESSAGES)
        handler.close()
    error = caught.value
    assert (error.limit_usd, error.spent_usd, error.held_usd) == (CENT, Decimal("0.0099"), 0)
    assert error.resets_at > datetime.now(UTC)


def test_each_tenant_has_a_budget_of_its_own(tmp_path):
    """One tenant's spending does not refuse another's call; presets and queries work alike."""
    budgets = [Budget(limit_usd=CENT, by="tenant"), Budget(limit_usd=CENT, by="preset", only="dear")]
    with OpenAIServer() as server, Ledger(tmp_path / "calls.duckdb") as ledger:
        ledger.record(kind="llm", cost_usd=CENT, tenant="acme")
        ledger.record(kind="llm", cost_usd=CENT, preset="dear", tenant="initech")
        handler = CostTrackingHandler(ledger, budgets=budgets).instrument()
        llm = model(server)
        with attributed(tenant="acme"), pytest.raises(BudgetExceededError, match="tenant=acme"):
            llm.chat(MESSAGES)
        with (
            attributed(preset="dear", tenant="hooli"),
            pytest.raises(BudgetExceededError, match="preset=dear"),
        ):
            llm.chat(MESSAGES)
        with attributed(tenant="globex", preset="cheap"):
            llm.chat(MESSAGES)
        handler.close()
        assert len(server.requests) == 1


def test_a_query_has_a_budget_of_its_own(tmp_path):
    """The second call of one query is refused; the next query starts anew."""
    budget = Budget(limit_usd=PRICE + Decimal("0.0001"), per="query")
    with OpenAIServer() as server, Ledger(tmp_path / "calls.duckdb") as ledger:
        handler = CostTrackingHandler(ledger, budgets=[budget]).instrument()
        llm = model(server, max_tokens=100)
        with attributed(query_id="one"):
            llm.chat(MESSAGES)
            with pytest.raises(BudgetExceededError, match="query=one"):
                llm.chat(MESSAGES)
        with attributed(query_id="two"):
            llm.chat(MESSAGES)
        handler.close()


def test_a_failed_call_gives_its_reservation_back(tmp_path):
    """Errors cost nothing, so ten of them leave the budget whole."""
    with OpenAIServer() as server, Ledger(tmp_path / "calls.duckdb") as ledger:
        handler = CostTrackingHandler(ledger, budgets=[Budget(limit_usd=Decimal("0.0003"))]).instrument()
        llm = model(server, max_tokens=100)
        server.faults.extend([Fault(status=400)] * 10)
        for _ in range(10):
            with pytest.raises(Exception, match="scripted 400"):
                llm.chat(MESSAGES)
        llm.chat(MESSAGES)
        handler.close()


def test_a_model_without_a_price_is_refused_unless_allowed(tmp_path):
    """No budget can hold a model whose price is unknown; who wants it says so."""
    with OpenAIServer() as server, Ledger(tmp_path / "calls.duckdb") as ledger:
        unknown = OpenAIEmbedding(model_name="mystery", api_key="k", api_base=server.url, max_retries=0)
        handler = CostTrackingHandler(ledger, budgets=[Budget(limit_usd=CENT)]).instrument()
        with pytest.raises(BudgetExceededError, match="No price is known for model 'mystery'"):
            unknown.get_query_embedding("x")
        handler.close()
        handler = CostTrackingHandler(
            ledger, budgets=Budgets(ledger, [Budget(limit_usd=CENT)], unpriced="allow")
        )
        with handler.instrument():
            unknown.get_query_embedding("x")
        handler.close()


def test_local_models_pass_any_budget_and_a_soft_limit_warns_once(tmp_path, caplog):
    """What costs nothing is never refused; near the limit one warning is logged a period."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        ledger.record(kind="llm", cost_usd=Decimal("0.009"))
        handler = CostTrackingHandler(ledger, budgets=[Budget(limit_usd=CENT)]).instrument()
        MockLLM(max_tokens=2).complete("x")
        MockLLM(max_tokens=2).complete("x")
        handler.close()
    assert [
        record.getMessage() for record in caplog.records if "is spent or held" in record.getMessage()
    ] == [f"Budget day={datetime.now(UTC):%Y-%m-%d};limit=0.01: $0.009000000000 of $0.01 is spent or held."]


def test_impossible_budgets_are_refused():
    """All faults of a budget are named together."""
    with pytest.raises(SettingsError, match=r"limit_usd is 0\.1, expected a Decimal > 0; per is 'year'"):
        Budget(limit_usd=0.1, per="year")


def test_a_call_that_fails_on_a_full_disk_raises_its_own_error(tmp_path, monkeypatch, caplog):
    """Its reservation cannot be released; that is logged, and the reservation stays."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        budgets = Budgets(ledger, [Budget(limit_usd=CENT)])
        held = budgets.reserve("call-1", "openai", "gpt-4o-mini", Tokens(1000, 100), attribution())
        with monkeypatch.context() as full, pytest.raises(KeyError, match="its own"):
            full.setattr(BudgetState, "_write", _refuse)
            try:
                raise KeyError("its own")
            finally:
                budgets.release(held)
        assert "reservation of call call-1 was not released" in caplog.text
        budgets.release(held)


def _refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_cost_that_could_not_be_booked_is_booked_before_the_next_call(tmp_path, monkeypatch):
    """While the sums cannot be written no call is made; afterwards the budget has what was spent meanwhile."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        budgets = Budgets(ledger, [Budget(limit_usd=CENT)])
        budgets.reserve("call-1", "openai", "gpt-4o-mini", Tokens(1000, 100), attribution())
        with monkeypatch.context() as full:
            full.setattr(BudgetState, "_write", _refuse)
            ledger.record(kind="llm", provider="openai", model="gpt-4o-mini", cost_usd=Decimal("0.009"))
            ledger.flush()
        with pytest.raises(BudgetExceededError, match=r"\$0.009 of \$0.01 is spent"):
            budgets.reserve("call-2", "openai", "gpt-4o-mini", Tokens(10_000, 100), attribution())


def test_sums_that_were_emptied_are_read_from_the_ledger_again(tmp_path):
    """A file that another program replaced by an empty one gives no call a fresh budget."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        budgets = Budgets(ledger, [Budget(limit_usd=CENT)])
        held = budgets.reserve("call-1", "openai", "gpt-4o-mini", Tokens(1000, 100), attribution())
        budgets.release(held)
        ledger.record(kind="llm", provider="openai", model="gpt-4o-mini", cost_usd=CENT)
        ledger.flush()
        (tmp_path / "calls.duckdb.journal" / "budgets.json").write_text("{}")
        with pytest.raises(BudgetExceededError, match=r"\$0.01 of \$0.01 is spent"):
            budgets.reserve("call-2", "openai", "gpt-4o-mini", Tokens(1000, 100), attribution())


def test_a_crash_between_the_row_and_the_sums_loses_nothing(tmp_path):
    """The reservation of a process that died lapses; what it had recorded was in no sum for the rest of the day."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        dying = Budgets(ledger, [Budget(limit_usd=CENT)])
        dying.reserve("call-1", "openai", "gpt-4o-mini", Tokens(1000, 100), attribution())
        dying.close()  # it books no more
        ledger.record(kind="llm", cost_usd=CENT)
        ledger.flush()
        file = tmp_path / "calls.duckdb.journal" / "budgets.json"
        content = json.loads(file.read_text())
        content["holds"]["call-1"][2] = time.time() - 1
        file.write_text(json.dumps(content))
        budgets = Budgets(ledger, [Budget(limit_usd=CENT)])
        with pytest.raises(BudgetExceededError, match=r"\$0.01 of \$0.01 is spent, \$0 is held"):
            budgets.reserve("call-2", "openai", "gpt-4o-mini", Tokens(1000, 100), attribution())


def test_a_crash_forgets_nothing_that_the_ledger_no_longer_has(tmp_path):
    """A ledger that keeps some days would have given a limit for ever a fresh start."""
    limits = [Budget(limit_usd=CENT, per="ever")]
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        dying = Budgets(ledger, limits)
        ledger.record(kind="llm", cost_usd=CENT / 2)
        dying.reserve("call-1", "openai", "gpt-4o-mini", Tokens(1000, 100), attribution())
        ledger.record(kind="llm", cost_usd=CENT / 2)
        ledger.flush()
    folder = tmp_path / "calls.duckdb.journal"
    content = json.loads((folder / "budgets.json").read_text())
    content["holds"]["call-1"][2] = time.time() - 1
    (tmp_path / "sums").mkdir()
    (tmp_path / "sums" / "budgets.json").write_text(json.dumps(content))
    with Ledger(tmp_path / "empty.duckdb") as ledger:
        for _ in range(2):
            budgets = Budgets(ledger, limits, sums=tmp_path / "sums")
            with pytest.raises(BudgetExceededError, match=r"\$0.01 of \$0.01 is spent, \$0 is held"):
                budgets.reserve("call-2", "openai", "gpt-4o-mini", Tokens(1000, 100), attribution())


def test_a_day_that_begins_between_two_looks_at_the_clock_begins_with_nothing(tmp_path, monkeypatch):
    """It began with the sum of the day before, and kept it."""
    late = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    moments = iter([late, late])

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return next(moments, datetime(2026, 3, 2, tzinfo=UTC))

    with Ledger(tmp_path / "calls.duckdb") as ledger:
        at = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1e6)
        ledger.record(kind="llm", cost_usd=CENT / 2, timestamp_us=at)
        budgets = Budgets(ledger, [Budget(limit_usd=CENT)])
        monkeypatch.setattr("llama_index_presets.monitor.budgets.datetime", Clock)
        for call in ("call-1", "call-2"):
            budgets.reserve(call, "openai", "gpt-4o-mini", Tokens(1000, 100), attribution())
    sums = json.loads((tmp_path / "calls.duckdb.journal" / "budgets.json").read_text())["spent"]
    assert Decimal(sums["day=2026-03-02;limit=0.01"][0]) == 0


def test_the_sums_of_periods_that_are_over_are_forgotten(tmp_path):
    """They are written with each call: those of a day's queries were megabytes. One that goes on is summed up again."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        budgets = Budgets(ledger, [Budget(limit_usd=CENT, per="query")])
        with attributed(query_id="q0"):
            budgets.release(budgets.reserve("c0", "openai", "gpt-4o-mini", Tokens(1000, 100), attribution()))
        ledger.record(kind="llm", cost_usd=CENT, query_id="q0")
        file = tmp_path / "calls.duckdb.journal" / "budgets.json"
        content = json.loads(file.read_text())
        ages = {"query=q0;limit=0.01": 600, "query=q1;limit=0.01": 600, "day=2026-01-01;limit=1": 3 * 86_400}
        content["spent"] = {
            key: ["0", time.time() - age] for key, age in (ages | {"ever=;limit=1": 10**9}).items()
        }
        file.write_text(json.dumps(content))
        with attributed(query_id="q2"):
            budgets.reserve("c2", "openai", "gpt-4o-mini", Tokens(1000, 100), attribution())
        kept = json.loads(file.read_text())["spent"]
        assert kept.keys() == {"ever=;limit=1", "query=q2;limit=0.01"}
        with (
            attributed(query_id="q0"),
            pytest.raises(BudgetExceededError, match=r"\$0.01 of \$0.01 is spent"),
        ):
            budgets.reserve("c3", "openai", "gpt-4o-mini", Tokens(1000, 100), attribution())


@pytest.mark.parametrize("limit", ["NaN", "Infinity", "-1", "0"])
def test_a_limit_that_holds_nothing_is_refused(limit):
    """Infinity was taken, and held no call."""
    with pytest.raises(SettingsError, match="expected a Decimal > 0"):
        Budget(limit_usd=Decimal(limit))


@pytest.mark.parametrize("way", ["callback", "instrument"])
def test_no_call_is_made_while_the_sums_cannot_be_written(tmp_path, monkeypatch, way):
    """A callback handler logged it and let the call through, so it was in no budget."""
    with OpenAIServer() as server, Ledger(tmp_path / "calls.duckdb") as ledger:
        handler = CostTrackingHandler(ledger, budgets=[Budget(limit_usd=Decimal(5))])
        llm = model(server, *([handler] if way == "callback" else []))
        if way == "instrument":
            handler.instrument()
        llm.complete("Hello")
        with monkeypatch.context() as full:
            full.setattr(BudgetState, "_write", _refuse)
            with pytest.raises(MonitorError, match="no call can be held to its budget"):
                llm.complete("Hello")
        assert len(server.requests) == 1
        llm.complete("Hello")
