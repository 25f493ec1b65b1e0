"""Replies that say success and hold no answer: named, tried again, and billed with the usage that they report."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from tests.servers.openai import Fault, OpenAIServer
from tests.servers.recorded import ledger, server

from llama_index_presets import Ledger
from llama_index_presets.embed.openai import BatchedOpenAIEmbedding
from llama_index_presets.errors import ModelReplyError, RerankError
from llama_index_presets.monitor.retry import RetryPolicy, retrying
from llama_index_presets.providers.openai_llm import OpenAI
from llama_index_presets.rerank.provenance_keeper import KeepsRetrievalScores

__all__ = ["ledger", "server"]

MESSAGES = [ChatMessage("hi")]
AT_ONCE = RetryPolicy(attempts=2, first_wait_s=0.0, longest_wait_s=0.0)


async def _all(pieces: Any) -> list[Any]:
    return [piece async for piece in await pieces]


WAYS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda llm: llm.chat(MESSAGES),
    "complete": lambda llm: llm.complete("hi"),
    "achat": lambda llm: asyncio.run(llm.achat(MESSAGES)),
    "stream_chat": lambda llm: list(llm.stream_chat(MESSAGES)),
    "astream_chat": lambda llm: asyncio.run(_all(llm.astream_chat(MESSAGES))),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_reply_without_choices_is_named_and_billed(server: OpenAIServer, ledger: Ledger, way: str) -> None:
    """Both attempts are errors in the ledger, at the price of the tokens that they report."""
    server.fail_always = Fault(without="choices")
    llm = retrying(OpenAI("gpt-4o-mini", api_key="sk-secret", api_base=server.url), AT_ONCE)
    with pytest.raises(
        ModelReplyError, match=r"'gpt-4o-mini' at 127.* without an answer.*name another model"
    ):
        WAYS[way](llm)
    ledger.flush()
    rows = ledger.sql("select status, prompt_tokens, cost_usd > 0 from llm_calls").fetchall()
    assert rows == [("error", 1000, True)] * 2


@pytest.mark.parametrize("way", WAYS)
def test_a_second_attempt_can_answer(server: OpenAIServer, way: str) -> None:
    """One empty reply does not fail a call."""
    server.faults.append(Fault(without="choices"))
    llm = retrying(OpenAI("gpt-4o-mini", api_key="sk-x", api_base=server.url), AT_ONCE)
    assert "42" in str(WAYS[way](llm))


@pytest.mark.parametrize("body", [b"<html>gateway</html>", b"{oops", b"[]", b"null"])
@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_a_reply_of_another_kind_is_named(server: OpenAIServer, body: bytes, kind: str) -> None:
    """Pages of gateways, broken JSON and other values, with status 200: for a chat and for vectors."""
    server.fail_always = Fault(body=body, body_type=kind)
    llm = OpenAI("gpt-4o-mini", api_key="sk-x", api_base=server.url, max_retries=0)
    with pytest.raises(ModelReplyError, match="without an answer"):
        llm.chat(MESSAGES)
    with pytest.raises(ModelReplyError, match="without an answer"):
        asyncio.run(llm.achat(MESSAGES))
    model = BatchedOpenAIEmbedding(
        model="text-embedding-3-small", api_key="sk-x", api_base=server.url, max_retries=0
    )
    with pytest.raises(ModelReplyError, match="returned no vectors"):
        model.get_text_embedding("a b")


def test_a_key_that_the_provider_repeats_is_not_passed_on(server: OpenAIServer) -> None:
    """Providers name the key in what they say of it."""
    body = b'{"error": {"message": "The key sk-verysecret is not known."}}'
    server.fail_always = Fault(body=body, body_type="application/json")
    llm = OpenAI("gpt-4o-mini", api_key="sk-verysecret", api_base=server.url, max_retries=0)
    with pytest.raises(ModelReplyError, match=r"The key \(key\) is not known") as told:
        llm.chat(MESSAGES)
    assert "verysecret" not in str(told.value)


EMBED: dict[str, Callable[[Any], Any]] = {
    "batch": lambda model: model.get_text_embedding_batch(["a b", "c"]),
    "query": lambda model: model.get_query_embedding("a b c"),
    "async": lambda model: asyncio.run(model.aget_text_embedding_batch(["a b", "c"])),
}


@pytest.mark.parametrize("way", EMBED)
def test_a_reply_without_vectors_is_named_and_billed(server: OpenAIServer, ledger: Ledger, way: str) -> None:
    """The ledger has the tokens of every attempt."""
    server.fail_always = Fault(without="data")
    model = BatchedOpenAIEmbedding(model="text-embedding-3-small", api_key="sk-x", api_base=server.url)
    with pytest.raises(ModelReplyError, match=r"'text-embedding-3-small' at 127.* returned no vectors"):
        EMBED[way](retrying(model, AT_ONCE))
    ledger.flush()
    billed = sum(served.prompt for served in server.served)
    assert ledger.sql("select sum(prompt_tokens) from llm_calls").fetchone() == (billed,)
    assert len(server.served) == 2


def test_a_reranker_without_results_is_named() -> None:
    """Its class takes the results of a reply unseen."""

    class Broken(BaseNodePostprocessor):
        model: str = "rerank-v3.5"

        def _postprocess_nodes(self, nodes: Any, query_bundle: Any = None) -> Any:
            return [nodes[place] for place in None]  # type: ignore[attr-defined]

    with pytest.raises(RerankError, match=r"'rerank-v3.5' gave a reply that Broken cannot read"):
        KeepsRetrievalScores(Broken()).postprocess_nodes([NodeWithScore(node=TextNode(text="a"))])


def test_a_page_in_place_of_results_is_named_without_its_words() -> None:
    """A gateway may repeat what was sent to it: the key, and the passages."""

    class PageError(Exception):
        status_code = 200

    class Broken(BaseNodePostprocessor):
        def _postprocess_nodes(self, nodes: Any, query_bundle: Any = None) -> Any:
            raise PageError("<html>Bearer sk-secret: private words</html>")

    with pytest.raises(RerankError, match=r"cannot read \(PageError\)") as caught:
        KeepsRetrievalScores(Broken()).postprocess_nodes([NodeWithScore(node=TextNode(text="a"))])
    assert "secret" not in str(caught.value) and "private" not in str(caught.value)


def test_a_chat_goes_on_after_an_error(run, server: OpenAIServer, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The second message is answered, and the code says that one failed."""
    (tmp_path / "valve.md").write_text("The valve opens at four bar.")
    storage = ("--storage", tmp_path / "s")
    run("ingest", "healthcare", tmp_path / "valve.md", *storage)
    server.faults.append(Fault(status=400, message="no such thing"))
    monkeypatch.setattr("sys.stdin", io.StringIO("When does the valve open?\nWhen does the valve open?\n"))
    code, out, err = run("chat", "healthcare", *storage, "--llm", f"{server.url}#gpt-4o-mini")
    assert code == 1 and "The answer is 42." in out
    assert "no such thing" in err and "The conversation goes on" in err
