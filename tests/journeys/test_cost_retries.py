"""Retries in one layer: counted at a loopback server, one ledger row an attempt."""

from __future__ import annotations

import asyncio
import pickle
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
from llama_index.core.llms import MockLLM
from tests.servers.call_shapes import MESSAGES, SHAPES, Models
from tests.servers.openai import Fault, OpenAIServer

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.retry import (
    RetryPolicy,
    answering_within,
    is_transient,
    retry_after_s,
    retrying,
)

QUICK = RetryPolicy(first_wait_s=0.01, longest_wait_s=0.02)
RETRIED = (
    "chat",
    "complete",
    "stream_chat",
    "stream_complete",
    "achat",
    "acomplete",
    "astream_chat",
    "structured_predict",
    "responses chat",
    "embed query",
    "aembed query",
)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "calls.duckdb") as ledger, CostTrackingHandler(ledger).instrument() as handler:
        yield ledger
        handler.close()


@pytest.fixture
def server():
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def models(server):
    models = Models(server.url, max_retries=5)
    for name in ("llm", "responses", "embedding"):
        setattr(models, name, retrying(getattr(models, name), QUICK))
    yield models
    models.close()


@pytest.mark.parametrize("shape", RETRIED)
def test_each_attempt_is_one_request_and_one_row(server, models, ledger, shape):
    """Two failures and a success are three requests and three rows, numbered, the last with its tokens."""
    server.faults.extend([Fault(status=500), Fault(status=429, retry_after="0.01")])
    SHAPES[shape](models)
    rows = ledger.sql(
        "SELECT attempt, status, error_type, total_tokens > 0 FROM llm_calls ORDER BY timestamp, attempt"
    )
    assert len(server.requests) == 3
    assert rows.fetchall() == [
        (1, "error", "InternalServerError", False),
        (2, "error", "RateLimitError", False),
        (3, "success", "", True),
    ]


def test_an_outage_costs_three_requests_and_not_thirty_six(server, models, ledger):
    """With the SDK's and the integration's own retries off, a constant 503 is tried three times."""
    server.fail_always = Fault(status=503)
    with pytest.raises(Exception, match="scripted 503"):
        models.llm.chat(MESSAGES)
    with pytest.raises(Exception, match="scripted 503"):
        models.embedding.get_text_embedding("x")
    assert len(server.requests) == 6
    rows = ledger.sql(
        "SELECT kind, list(attempt ORDER BY timestamp) FROM llm_calls GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert rows == [("embedding", [1, 2, 3]), ("llm", [1, 2, 3])]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_other_client_errors_are_never_retried(server, models, status):
    """A request that is wrong stays wrong."""
    server.fail_always = Fault(status=status)
    with pytest.raises(Exception, match=f"scripted {status}"):
        models.llm.chat(MESSAGES)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_transient_errors_are_retried(server, models, status):
    """What may pass is tried again."""
    server.faults.append(Fault(status=status))
    models.llm.chat(MESSAGES)
    assert len(server.requests) == 2


def test_retry_after_is_honoured(server, models):
    """The second request comes no earlier than the server asked for, although random waits are shorter."""
    server.faults.append(Fault(status=429, retry_after="0.4"))
    models.llm.chat(MESSAGES)
    first, second = server.seen_at
    assert second - first >= 0.4


def test_no_attempt_starts_after_the_total_time(server):
    """A Retry-After beyond the time budget ends the call at once instead of waiting."""
    llm = retrying(Models(server.url).llm, RetryPolicy(total_s=1.0))
    server.fail_always = Fault(status=429, retry_after="3600")
    with pytest.raises(Exception, match="scripted 429"):
        llm.chat(MESSAGES)
    assert len(server.requests) == 1


def test_a_stream_is_not_retried_after_its_first_piece(server, models, ledger):
    """What the reader has seen is not said twice: a stream cut in the middle fails."""
    server.faults.append(Fault(disconnect_after=2))
    with pytest.raises(Exception, match=r"(?i)peer|connection|incomplete"):
        list(models.llm.stream_chat(MESSAGES))
    assert len(server.requests) == 1
    assert ledger.sql("SELECT status, attempt FROM llm_calls").fetchall() == [("error", 1)]


def test_a_slow_server_is_a_timeout_that_is_retried(server):
    """A stall beyond the client's timeout is tried again."""
    server.faults.append(Fault(stall_s=0.5))
    llm = retrying(Models(server.url, timeout=0.2).llm, QUICK)
    llm.chat(MESSAGES)
    assert len(server.requests) == 2


def test_the_copy_is_of_the_same_class_and_the_original_is_untouched(server):
    """`isinstance`, names and pickling hold; the model that was given keeps its own retries."""
    original = Models(server.url, max_retries=5).llm
    copy = retrying(original, QUICK)
    revived = pickle.loads(pickle.dumps(copy))
    assert isinstance(copy, type(original)) and copy.class_name() == original.class_name()
    assert (original.max_retries, copy.max_retries, revived.max_retries) == (5, 0, 0)
    server.faults.append(Fault(status=500))
    revived.chat(MESSAGES)
    assert len(server.requests) == 2
    assert retrying(MockLLM(max_tokens=2), QUICK).complete("x").text == "text text"


def error(status=None, code=None, **headers):
    response = SimpleNamespace(headers={name.replace("_", "-"): value for name, value in headers.items()})
    failure = RuntimeError("scripted")
    failure.status_code, failure.code, failure.response = status, code, response
    return failure


def test_a_used_up_quota_is_not_transient():
    """OpenAI answers 429 for it as well, but no wait helps."""
    assert is_transient(error(429)) and not is_transient(error(429, code="insufficient_quota"))


def test_retry_after_is_read_in_every_form():
    """Seconds, milliseconds and HTTP dates; nonsense is no answer."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after_s(error(retry_after="1.5")) == 1.5
    assert retry_after_s(error(retry_after_ms="250")) == 0.25
    assert 50 < retry_after_s(error(retry_after=later)) <= 60
    without_zone = later.replace("GMT", "-0000")
    assert 50 < retry_after_s(error(retry_after=without_zone)) <= 60
    assert retry_after_s(error(retry_after=" 3 ")) == 3.0
    assert retry_after_s(error(retry_after_ms="soon", retry_after="3")) == 3.0
    assert retry_after_s(error(retry_after="9" * 5_000)) > 1e300  # no attempt will begin then
    assert retry_after_s(ValueError()) is None


@pytest.mark.parametrize(
    "said", ["soon", "-5", "nan", "inf", "1e3", "²", "3;x", "Wed, 21 Oct 2099 07:28:00 +999999999999999"]
)
def test_a_wait_that_is_none_hides_no_error(server, models, said):
    """Not a number, in milliseconds, or a zone beyond all zones raised an error of its own in place of the server's."""
    assert retry_after_s(error(retry_after=said)) is None
    assert retry_after_s(error(retry_after_ms=said)) is None
    server.faults.append(Fault(status=429, retry_after=said.encode("ascii", "ignore").decode()))
    models.llm.chat(MESSAGES)
    assert len(server.requests) == 2


@pytest.mark.parametrize("wait", ["0.4", "http-date"])
def test_nobody_waits_beyond_the_end_of_the_question(server, models, wait):
    """The call fails at once with what the server said: an answer after its end would be paid and read by nobody."""
    if wait == "http-date":
        wait = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    server.fail_always = Fault(status=429, retry_after=wait)
    began = time.monotonic()
    with answering_within(0.3), pytest.raises(Exception, match="scripted 429"):
        models.llm.chat(MESSAGES)
    with answering_within(0.3), pytest.raises(Exception, match="scripted 429"):
        asyncio.run(models.llm.achat(MESSAGES))
    with answering_within(0.3), pytest.raises(Exception, match="scripted 429"):
        models.embedding.get_text_embedding("x")
    assert len(server.requests) == 3
    assert time.monotonic() - began < 60
    server.fail_always = None
    server.faults.append(Fault(status=429, retry_after="0.01"))
    with answering_within(60):
        models.llm.chat(MESSAGES)
    assert len(server.requests) == 5


def test_impossible_policies_are_refused():
    """A policy without an attempt is refused."""
    with pytest.raises(SettingsError, match="Expected attempts >= 1"):
        RetryPolicy(attempts=0)
