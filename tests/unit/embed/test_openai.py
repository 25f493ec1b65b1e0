"""BatchedOpenAIEmbedding against a loopback server that bills: full requests, checked answers, nothing paid twice."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import MockEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding
from tests.servers.openai import Fault, OpenAIServer, unit_vector

from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.embed.cached import CachedEmbedding
from llama_index_presets.embed.openai import BatchedOpenAIEmbedding, _in_order, requests_of
from llama_index_presets.embed.tokens import HostedTokenizer
from llama_index_presets.embed.vectors import pooled, unit_vectors
from llama_index_presets.errors import ModelError, PartialEmbeddingError, SettingsError
from llama_index_presets.monitor.handler import CostTrackingHandler
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.retry import RetryPolicy, retrying

TEXTS = [f"text number {number}" for number in range(10)]
QUICK = RetryPolicy(attempts=2, first_wait_s=0.01, longest_wait_s=0.01)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def model_of(server: OpenAIServer, **options: Any) -> BatchedOpenAIEmbedding:
    options = {"model": "text-embedding-3-small", "max_retries": 0, "embed_batch_size": 2, **options}
    return BatchedOpenAIEmbedding(api_key="sk-secret", api_base=server.url, **options)


def inputs(server: OpenAIServer) -> list[list[str]]:
    return [
        [body["input"]] if isinstance(body["input"], str) else body["input"] for _, body in server.requests
    ]


def test_it_is_the_official_class_with_the_same_vectors(server: OpenAIServer) -> None:
    """Options and vectors of the stock class; every text at its own place."""
    stock = OpenAIEmbedding(
        model="text-embedding-3-small", api_key="sk-x", api_base=server.url, embed_batch_size=2
    )
    ours = model_of(server)
    assert isinstance(ours, OpenAIEmbedding)
    texts = [*TEXTS, "two\nlines"]
    np.testing.assert_allclose(
        ours.get_text_embedding_batch(texts), stock.get_text_embedding_batch(texts), atol=1e-6
    )
    np.testing.assert_allclose(ours.get_query_embedding("q"), stock.get_query_embedding("q"), atol=1e-6)


def test_async_gives_the_same(server: OpenAIServer) -> None:
    """One loop, same vectors, same requests."""
    ours = model_of(server)
    found = asyncio.run(ours.aget_text_embedding_batch(TEXTS))
    assert found == ours.get_text_embedding_batch(TEXTS)
    assert sorted(inputs(server)[:5]) == sorted(inputs(server)[5:])
    assert asyncio.run(ours.aget_query_embedding("q")) == ours.get_query_embedding("q")


def test_requests_run_at_once_up_to_the_limit(server: OpenAIServer) -> None:
    """Three under way at once, never four."""
    server.latency_s = 0.3
    model_of(server, concurrency=3, embed_batch_size=1).get_text_embedding_batch(TEXTS[:6])
    assert (server.most_under_way, len(server.seen_at)) == (3, 6)


@given(
    sizes=st.lists(st.integers(1, 12), max_size=30),
    most_texts=st.integers(1, 6),
    most_tokens=st.integers(1, 20),
)
@settings(max_examples=100)
def test_requests_keep_both_limits(sizes: list[int], most_texts: int, most_tokens: int) -> None:
    """All texts, in order, each once; no request beyond the limits unless one text alone is."""
    texts = ["x" * size for size in sizes]
    requests = requests_of(
        texts,
        most_texts=most_texts,
        most_tokens=most_tokens,
        count=lambda found: [len(text) for text in found],
    )
    assert [place for request in requests for place in request] == list(range(len(texts)))
    for request in requests:
        assert len(request) <= most_texts
        assert len(request) == 1 or sum(sizes[place] for place in request) <= most_tokens


def test_a_request_never_exceeds_the_token_limit(server: OpenAIServer) -> None:
    """Six texts of eight tokens, twenty a request: three requests."""
    text = "one two three four five six seven eight"
    assert HostedTokenizer("cl100k_base").count([text]) == [8]
    model_of(server, embed_batch_size=100, tokens_per_request=20).get_text_embedding_batch([text] * 6)
    assert [len(request) for request in inputs(server)] == [2, 2, 2]


def test_the_ledger_shows_what_was_billed_once(server: OpenAIServer, tmp_path: Path) -> None:
    """One row a request with the server's own tokens, sync and async, also behind the cache."""
    with Ledger(tmp_path / "calls.duckdb") as ledger, CostTrackingHandler(ledger).instrument():
        model = CachedEmbedding(retrying(model_of(server), QUICK), EmbeddingCache(tmp_path / "cache"))
        model.get_text_embedding_batch(TEXTS)
        asyncio.run(model.aget_text_embedding_batch([*TEXTS, "one more", "and more"]))
        model.get_query_embedding("a question")
        ledger.flush()
        rows = ledger.sql(
            "select prompt_tokens, usage_source, provider, model, cost_usd > 0 from llm_calls where not cache_hit"
        ).fetchall()
        hits = ledger.sql("select sum(cost_usd), count(*) from llm_calls where cache_hit").fetchall()
    assert sorted(row[0] for row in rows) == sorted(served.prompt for served in server.served)
    assert {row[1:] for row in rows} == {("reported", "openai", "text-embedding-3-small", True)}
    assert hits == [(0, 1)]


def test_callbacks_alone_hear_every_request(server: OpenAIServer, tmp_path: Path) -> None:
    """In a CallbackManager, without instrumentation, the rows are the same."""
    from llama_index.core.callbacks import CallbackManager

    with Ledger(tmp_path / "calls.duckdb") as ledger:
        manager = CallbackManager([CostTrackingHandler(ledger)])
        model_of(server, callback_manager=manager).get_text_embedding_batch(TEXTS)
        ledger.flush()
        rows = ledger.sql("select prompt_tokens from llm_calls").fetchall()
    assert sorted(row[0] for row in rows) == sorted(served.prompt for served in server.served)


def test_a_failed_request_loses_only_itself(server: OpenAIServer, tmp_path: Path) -> None:
    """Four of five requests are paid and kept; the next run pays for the fifth alone."""
    server.faults.extend([None, Fault(status=500)])
    model = CachedEmbedding(model_of(server, concurrency=1), EmbeddingCache(tmp_path))
    with pytest.raises(
        PartialEmbeddingError, match=r"2 of 10 texts were not embedded: InternalServerError"
    ) as caught:
        model.get_text_embedding_batch(TEXTS)
    assert (caught.value.failed, len(server.served)) == ([2, 3], 4)
    found = model.get_text_embedding_batch(TEXTS)
    assert (len(server.served), inputs(server)[-1]) == (5, TEXTS[2:4])
    np.testing.assert_allclose(found, [unit_vector(text, 1536) for text in TEXTS], atol=1e-6)


def test_a_failed_request_loses_only_itself_async(server: OpenAIServer, tmp_path: Path) -> None:
    """The same on an event loop."""
    server.faults.extend([None, Fault(status=500)])
    model = CachedEmbedding(model_of(server, concurrency=1), EmbeddingCache(tmp_path))
    with pytest.raises(PartialEmbeddingError, match=r"2 of 10 texts were not embedded"):
        asyncio.run(model.aget_text_embedding_batch(TEXTS))
    asyncio.run(model.aget_text_embedding_batch(TEXTS))
    assert (len(server.served), len(inputs(server)[-1])) == (5, 2)


def test_retries_are_one_layer_and_each_attempt_a_row(server: OpenAIServer, tmp_path: Path) -> None:
    """Two attempts by policy are two requests: neither the SDK nor the official class adds its own."""
    server.faults.extend([Fault(status=503)])
    with Ledger(tmp_path / "calls.duckdb") as ledger, CostTrackingHandler(ledger).instrument():
        retrying(model_of(server), QUICK).get_text_embedding_batch(TEXTS[:2])
        ledger.flush()
        rows = ledger.sql("select status, attempt from llm_calls order by attempt").fetchall()
    assert rows == [("error", 1), ("success", 2)]
    server.fail_always = Fault(status=503)
    with pytest.raises(openai.InternalServerError, match="scripted 503"):
        retrying(model_of(server), QUICK).get_text_embedding_batch(TEXTS[:2])
    assert len(server.requests) == 4


def test_without_a_policy_the_class_retries_by_itself(server: OpenAIServer) -> None:
    """`max_retries` keeps its meaning, and Retry-After its say."""
    server.faults.append(Fault(status=429, retry_after="0.01"))
    model_of(server, max_retries=3).get_text_embedding("x")
    assert len(server.requests) == 2


def test_a_refused_key_stops_the_rest(server: OpenAIServer) -> None:
    """What cannot succeed is not tried for every request."""
    server.fail_always = Fault(status=401)
    with pytest.raises(PartialEmbeddingError, match="10 of 10 .* AuthenticationError"):
        model_of(server, concurrency=1).get_text_embedding_batch(TEXTS)
    assert len(server.requests) < 5


def test_a_long_text_is_refused_before_anything_is_sent(server: OpenAIServer) -> None:
    """Never cut in silence; the message has both numbers and the way out."""
    with pytest.raises(ModelError, match=r"9,000 tokens; .* reads 8,191\. .*long_text=\"pool\""):
        model_of(server).get_text_embedding_batch([*TEXTS, " word" * 9_000])
    assert server.requests == []


def test_a_long_text_can_be_pooled(server: OpenAIServer) -> None:
    """Its vector is the mean of its pieces by tokens, and short texts beside it keep theirs."""
    text = " word" * 9_000
    short, long = model_of(server, long_text="pool").get_text_embedding_batch(["short", text])
    [[first, *pieces]] = inputs(server)
    tokens = HostedTokenizer("cl100k_base").count(pieces)
    assert (first, len(pieces), "".join(pieces)) == ("short", 2, text)
    expected = pooled(np.array([unit_vector(piece, 1536) for piece in pieces]), tokens)
    np.testing.assert_allclose(long, expected, atol=1e-6)
    np.testing.assert_allclose(short, unit_vector("short", 1536), atol=1e-6)


def test_an_empty_text_is_refused(server: OpenAIServer) -> None:
    """OpenAI would refuse the whole request, and with it the other texts."""
    with pytest.raises(ModelError, match="A text is empty"):
        model_of(server).get_text_embedding_batch([*TEXTS, " "])
    assert server.requests == []


def test_dimensions_shorten(server: OpenAIServer) -> None:
    """What is asked for is sent, checked and told."""
    model = model_of(server, model="text-embedding-3-large", dimensions=256)
    assert (len(model.get_text_embedding("x")), model.dim) == (256, 256)
    assert server.requests[0][1]["dimensions"] == 256


@pytest.mark.parametrize(
    ("name", "dimensions", "message"),
    [
        ("text-embedding-ada-002", 512, "has 1536 dimensions and cannot be shortened"),
        ("text-embedding-3-small", 2000, "dimensions is 2000; .* gives 1 to 1536"),
    ],
)
def test_impossible_dimensions_are_refused(name: str, dimensions: int, message: str) -> None:
    """At once, not by the server after the first batch."""
    with pytest.raises(SettingsError, match=message):
        BatchedOpenAIEmbedding(name, dimensions=dimensions, api_key="sk-x")


def test_vectors_of_another_length_are_refused(server: OpenAIServer) -> None:
    """A server that runs another model is found out before its vectors reach an index."""
    model = model_of(server)
    model.additional_kwargs = {"dimensions": 8}
    with pytest.raises(ModelError, match="returned vectors of 8 numbers; expected 1536"):
        model.get_text_embedding("x")


def test_vectors_are_checked_and_made_unit() -> None:
    """Too few, ragged, zero or infinite vectors are errors; others get length 1."""
    assert np.linalg.norm(unit_vectors([[3, 4]], count=1, dim=None, model="m")) == pytest.approx(1)
    for vectors, message in [
        ([], "0 vectors for 1"),
        ([[0.0, 0.0]], "without direction"),
        ([[float("nan"), 1.0]], "without direction"),
    ]:
        with pytest.raises(ModelError, match=message):
            unit_vectors(vectors, count=1, dim=None, model="m")


def test_no_key_is_said_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constructing needs no key; the first call names the variable."""
    monkeypatch.setattr(openai, "api_key", None)
    with pytest.raises(SettingsError, match="needs a key and none is set. Set OPENAI_API_KEY"):
        BatchedOpenAIEmbedding().get_text_embedding("x")


def test_the_key_is_never_shown(server: OpenAIServer) -> None:
    """Neither repr, nor to_dict, nor an event's payload, nor the identity, nor an error."""
    model = model_of(server, default_headers={"X-Auth": "sk-header"})
    shown = repr(model) + str(model) + str(model.to_dict()) + str(model.to_payload()) + model.vector_identity
    assert "sk-secret" not in shown and "sk-header" not in shown


def test_it_can_be_sent_to_a_worker(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickled model works, with its retries and limits, under the key of the worker's environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-worker")
    model = retrying(model_of(server, tokens_per_minute=1_000_000, dimensions=64), QUICK)
    copy = pickle.loads(pickle.dumps(model))
    assert copy.get_text_embedding("x") == model.get_text_embedding("x")
    assert (type(copy), copy.dim) == (type(model), 64)


def test_limits_per_minute_hold(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three a "minute" of a second, the fourth request waits for it; a busy server sees the first one late."""
    monkeypatch.setattr("llama_index.core.rate_limiter._SLIDING_WINDOW_SECONDS", 1.0)
    model_of(server, requests_per_minute=3, concurrency=4).get_text_embedding_batch(TEXTS[:8])
    assert len(server.seen_at) == 4 and server.seen_at[3] - server.seen_at[0] > 0.5


def test_tokens_per_minute_hold_on_a_loop(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are cut to what a minute allows, and wait their turn."""
    monkeypatch.setattr("llama_index.core.rate_limiter._SLIDING_WINDOW_SECONDS", 1.0)
    model = model_of(server, tokens_per_minute=8, embed_batch_size=100)
    asyncio.run(model.aget_text_embedding_batch(["one two three four"] * 4))
    assert [len(request) for request in inputs(server)] == [2, 2]
    assert server.seen_at[1] - server.seen_at[0] > 0.5


def test_a_model_of_ones_own_server(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One entry of a file names server, length and limit of a model that OpenAI does not have."""
    file = tmp_path / "models.toml"
    file.write_text(
        f'[house-embed]\nprovider = "house"\ndim = 1536\nmax_tokens = 512\napi_base = "{server.url}"\n'
    )
    monkeypatch.setenv("LLAMA_PRESETS_MODELS", str(file))
    model = BatchedOpenAIEmbedding("house-embed", api_key="sk-x", max_retries=0)
    assert len(model.get_text_embedding("x")) == 1536
    assert (server.requests[0][1]["model"], model.max_tokens, model.dim) == ("house-embed", 512, 1536)


def test_unlike_models_do_not_share_a_cache(server: OpenAIServer, tmp_path: Path) -> None:
    """A shortened vector is another vector."""
    cache = EmbeddingCache(tmp_path)
    whole = CachedEmbedding(model_of(server), cache)
    short = CachedEmbedding(model_of(server, dimensions=64), cache)
    assert [len(model.get_text_embedding("x")) for model in (whole, short)] == [1536, 64]
    assert len(CachedEmbedding(MockEmbedding(embed_dim=3), cache).get_text_embedding("x")) == 3


def test_vectors_without_numbers_come_in_the_order_of_the_texts(server: OpenAIServer) -> None:
    """Not every server of the protocol numbers its vectors; the official class takes them as they come."""
    server.numbers_vectors = False
    texts = ["one", "two", "three"]
    official = OpenAIEmbedding(api_key="k", api_base=server.url).get_text_embedding_batch(texts)
    ours = BatchedOpenAIEmbedding(api_key="k", api_base=server.url)
    assert np.allclose(ours.get_text_embedding_batch(texts), official, atol=1e-6)
    assert np.allclose(asyncio.run(ours.aget_text_embedding_batch(texts)), official, atol=1e-6)


@pytest.mark.parametrize(
    ("places", "order"),
    [([2, 0, 1], [1, 2, 0]), ([None, None], [0, 1]), ([0, 0, 0], [0, 1, 2]), ([0], [0]), ([7], [0])],
)
def test_numbers_decide_the_order_where_there_are_any(places: list[Any], order: list[int]) -> None:
    """A server may answer in any order; one that numbers all alike does not number."""
    data = [SimpleNamespace(index=place, embedding=n) for n, place in enumerate(places)]
    assert _in_order(data, "m") == order


@pytest.mark.parametrize("places", [[0, None], [1, 2], [0, 0, 1]])
def test_numbers_of_other_texts_are_refused(places: list[Any]) -> None:
    """A vector of another text would be found for ever by the wrong questions."""
    data = [SimpleNamespace(index=place, embedding=n) for n, place in enumerate(places)]
    with pytest.raises(ModelError, match=r"numbers \d vectors \[.*Expected 0 to"):
        _in_order(data, "m")


@pytest.mark.parametrize(
    ("usage", "row"),
    [
        (None, ("counted", 2)),
        ({"prompt_tokens": 0, "total_tokens": 0}, ("counted", 2)),
        ({"total_tokens": 5}, ("reported", 5)),
        ({"prompt_tokens": 4, "total_tokens": 5}, ("reported", 4)),
    ],
)
def test_what_a_server_leaves_out_of_its_usage_is_counted(
    usage: dict[str, int] | None, row: tuple[str, int], tmp_path: Path
) -> None:
    """A total alone is the input; zero, or nothing, is no count."""
    model = BatchedOpenAIEmbedding(api_key="k")
    answer = SimpleNamespace(
        usage=None if usage is None else SimpleNamespace(**usage),
        data=[SimpleNamespace(index=0, embedding=[1.0] * 1536)],
    )
    with Ledger(tmp_path / "calls.duckdb") as ledger, CostTrackingHandler(ledger).instrument() as handler:
        model._checked(answer, ["Hello world"])
        assert ledger.sql("SELECT usage_source, prompt_tokens FROM llm_calls").fetchall() == [row]
        handler.close()
