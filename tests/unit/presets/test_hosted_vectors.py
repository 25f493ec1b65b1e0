"""Hosted embedding models and rerankers whose replies say success and hold nothing: named, and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.schema import NodeWithScore, TextNode
from tests.servers.chat_protocols import ChatServer
from tests.servers.openai import Fault

from llama_index_presets.errors import ModelReplyError, RerankError
from llama_index_presets.monitor.retry import RetryPolicy
from llama_index_presets.providers.embedding_models import (
    EMBEDDING_PROVIDERS,
    make_embedding_model,
    read_embedding_name,
)
from llama_index_presets.providers.rerankers import make_reranker, read_reranker_name

JSON = "application/json"
NAMES = [
    "gemini/gemini-embedding-001",
    "mistral/mistral-embed",
    "cohere/embed-v4.0",
    "ollama/nomic",
    "azure/mine",
]
BODIES = [
    b"<html>gateway</html>", b"{}", b"[]", b"null", b'{"error": {"message": "down"}}',
    # no vectors, in the form of each vendor
    b'{"embeddings": [], "data": [], "id": "1", "object": "list", "model": "m", "usage": {"prompt_tokens": 3, '
    b'"completion_tokens": 0, "total_tokens": 3}}',
    b'{"embeddings": {"float": []}, "id": "1"}',
]  # fmt: skip
WAYS: dict[str, Callable[[Any], Any]] = {
    "batch": lambda model: model.get_text_embedding_batch(["a b", "c"]),
    "text": lambda model: model.get_text_embedding("a b"),
    "query": lambda model: model.get_query_embedding("a b c"),
    "async": lambda model: asyncio.run(model.aget_text_embedding_batch(["a b", "c"])),
    "atext": lambda model: asyncio.run(model.aget_text_embedding("a b")),
    "aquery": lambda model: asyncio.run(model.aget_query_embedding("a b")),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A server that the variables of each vendor lead to."""
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    with ChatServer() as running:
        for provider in EMBEDDING_PROVIDERS.values():
            for variable in provider.keys:
                monkeypatch.setenv(variable, "sk-secret")
            for variable in provider.endpoints:
                monkeypatch.setenv(variable, running.url)
        yield running


def make(name: str) -> Any:
    model: Any = make_embedding_model(read_embedding_name(name), {})
    model._retry_policy = RetryPolicy(attempts=2, first_wait_s=0.0, longest_wait_s=0.0)
    return model


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_a_reply_without_vectors_is_named_and_tried_again(server: ChatServer, name: str, way: str) -> None:
    """An empty list of vectors was taken for those of the texts."""
    for body in BODIES:
        server.fail_always = Fault(body=body, body_type="text/html" if b"<" in body else JSON)
        server.requests.clear()
        with pytest.raises(ModelReplyError, match=r"returned no vectors of [12]\."):
            WAYS[way](make(name))
        assert len(server.requests) == 2


def test_a_single_text_is_embedded_by_mistral_asynchronously(server: ChatServer) -> None:
    """Its class awaits a reply that is there already."""
    body = (
        b'{"id": "1", "object": "list", "model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 0, '
    )
    body += b'"total_tokens": 3}, "data": [{"object": "embedding", "embedding": [0.6, 0.8], "index": 0}]}'
    server.fail_always = Fault(body=body, body_type=JSON)
    assert asyncio.run(make("mistral/mistral-embed").aget_text_embedding("a")) == [0.6, 0.8]


HITS = [NodeWithScore(node=TextNode(text=text, id_=text), score=0.5) for text in ("a", "b")]
RERANKS: dict[str, Callable[[Any], Any]] = {
    "sync": lambda reranker: reranker.postprocess_nodes(HITS, query_str="q"),
    "async": lambda reranker: asyncio.run(reranker.apostprocess_nodes(HITS, query_str="q")),
}


@pytest.mark.parametrize("way", RERANKS)
@pytest.mark.parametrize("body", [b"<html>gateway</html>", b"{}", b"[]", b"null", b'{"results": []}'])
def test_a_reply_without_results_is_tried_again_and_named(
    server: ChatServer, body: bytes, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty results would leave a question without passages, and the answer would be that nothing is known."""
    monkeypatch.setattr("llama_index_presets.rerank.provenance_keeper._PAUSE_S", 0.0)
    fault = Fault(body=body, body_type="text/html" if b"<" in body else JSON)
    server.faults.append(fault)
    reranker = make_reranker(read_reranker_name("cohere/rerank-v3.5"), {}, top_n=2)
    assert [hit.node.node_id for hit in RERANKS[way](reranker)] == ["b", "a"]
    server.fail_always = fault
    with pytest.raises(RerankError, match=r"'rerank-v3.5' gave a reply that CohereRerank cannot read"):
        RERANKS[way](reranker)
    assert len(server.requests) == 5
