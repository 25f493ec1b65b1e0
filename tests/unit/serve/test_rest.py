"""REST routes of a running server: answers, passages, documents, costs, metrics, and what is refused."""

from __future__ import annotations

import json
import re
import tempfile
from typing import Any

import httpx
import pytest
from tests.unit.serve.conftest import TEXTS, LocalWords, Running, wait_for

from llama_index_presets import build
from llama_index_presets.serve.app import create_app

JSON = {"content-type": "application/json"}
TEXT = {"id": "a", "text": "b"}


@pytest.fixture(scope="module")
def client(server: Running) -> httpx.Client:
    return server.client()


def events(text: str) -> list[tuple[str, Any]]:
    """Names and data of server-sent events."""
    blocks = [block.split("\n") for block in text.strip().split("\n\n") if not block.startswith(":")]
    return [(head.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for head, data in blocks]


def problem(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_an_answer_has_sources_citations_and_a_bill(client: httpx.Client) -> None:
    """The documented fields, all of them, and the cited passage."""
    found = client.post("/query", json={"question": "What do cats do all day?"}).raise_for_status().json()
    wanted = {
        "answer",
        "sources",
        "source_count",
        "known",
        "confidence",
        "citations",
        "cost_usd",
        "latency_ms",
        "query_id",
    }
    assert wanted <= set(found)
    assert (found["answer"], found["known"], found["source_count"]) == (
        "Yes [1].",
        True,
        len(found["sources"]),
    )
    assert found["citations"][0]["source"] == "cats.txt"
    assert found["sources"][0]["text"] == TEXTS["cats.txt"]
    assert found["cost_usd"] > 0


def test_a_marker_without_a_passage_is_no_citation_of_the_protocols(
    client: httpx.Client, server: Running
) -> None:
    """An invented number is reported as not valid, and is neither an annotation nor anything that breaks them."""
    llm: Any = server.engine.llm
    llm.says = "Yes [1], surely [9]."
    try:
        found = client.post("/query", json={"question": "What do cats do all day?"}).raise_for_status().json()
        assert [(one["n"], one["valid"]) for one in found["citations"]] == [(1, True), (9, False)]
        body = {"model": "kb", "messages": [{"role": "user", "content": "What do cats do all day?"}]}
        chat = client.post("/v1/chat/completions", json=body).raise_for_status().json()
        assert [one["n"] for one in chat["llama_presets"]["citations"]] == [1]
        assert len(chat["choices"][0]["message"]["annotations"]) == 1
    finally:
        llm.says = "Yes [1]."


def test_a_sentence_that_its_passage_does_not_hold_is_named_by_every_protocol(
    client: httpx.Client, server: Running
) -> None:
    """With the figures that are missing; an answer that is held says nothing of it."""
    llm: Any = server.engine.llm
    asked = {"question": "What do cats do all day?"}
    body = {"model": "kb", "messages": [{"role": "user", "content": "What do cats do all day?"}]}
    assert "unsupported" not in client.post("/query", json=asked).raise_for_status().json()
    llm.says = "Cats purr 14 hours a day [1]."
    wanted = [{"text": "Cats purr 14 hours a day.", "cites": [1], "missing": ["14"]}]
    try:
        assert client.post("/query", json=asked).raise_for_status().json()["unsupported"] == wanted
        chat = client.post("/v1/chat/completions", json=body).raise_for_status().json()
        assert chat["llama_presets"]["unsupported"] == wanted
    finally:
        llm.says = "Yes [1]."


def test_a_stream_gives_sources_then_text_then_the_bill(client: httpx.Client) -> None:
    """Sources come before the first word; the bill comes last and has the whole answer."""
    text = client.post("/query/stream", json={"question": "What do cats do all day?"}).raise_for_status().text
    names = [name for name, _ in events(text)]
    assert names == ["sources", *["text"] * (len(names) - 2), "bill"]
    bill = events(text)[-1][1]
    assert (
        "".join(data["text"] for name, data in events(text) if name == "text") == bill["answer"] == "Yes [1]."
    )
    assert bill["cost_usd"] > 0


def test_history_makes_a_conversation(client: httpx.Client, server: Running) -> None:
    """Earlier messages are condensed into the question; what that costs is on the same bill."""
    history = [{"role": "user", "content": "Cats purr all day?"}, {"role": "assistant", "content": "Yes."}]
    body = {"question": "Cats purr all day, really?", "history": history}
    before = len(server.engine.llm.prompts)  # type: ignore[attr-defined]
    answer = client.post("/query", json=body).raise_for_status().json()
    assert len(server.engine.llm.prompts) - before in (1, 2)  # type: ignore[attr-defined]
    assert answer["query_id"]
    streamed = events(client.post("/query/stream", json=body).raise_for_status().text)
    assert streamed[-1][0] == "bill"


def test_passages_come_without_an_answer(client: httpx.Client) -> None:
    """Best first, at most so many, and narrowed by a filter."""
    found = (
        client.post("/retrieve", json={"question": "Cats purr all day", "top_k": 1}).raise_for_status().json()
    )
    assert [one["source"] for one in found["sources"]] == ["cats.txt"]
    narrowed = client.post("/retrieve", json={"question": "Cats purr", "filters": ["ref_doc_id=dogs.txt"]})
    assert [one["source"] for one in narrowed.json()["sources"]] == ["dogs.txt"]


def test_documents_are_listed_and_deleted(client: httpx.Client) -> None:
    """What is ingested as text is listed, and gone after its removal; a second removal finds nothing."""
    body = {"documents": [{"id": "birds", "text": "Birds sing at dawn.", "metadata": {"kind": "bird"}}]}
    job = client.post("/ingest", json=body)
    assert job.status_code == 202
    wait_for(lambda: client.get(job.headers["location"]).json()["status"] == "done")
    listed = client.get("/documents").json()
    assert "birds" in [one["id"] for one in listed["documents"]]
    assert client.delete("/documents/birds").json() == {"deleted": "birds"}
    assert problem(client.delete("/documents/birds")) == (404, "document_not_found")
    assert "birds" not in [one["id"] for one in client.get("/documents").json()["documents"]]


def test_costs_group_as_the_command_does(client: httpx.Client) -> None:
    """Totals and lines; an unknown group and a senseless period are refused."""
    found = client.get("/costs", params={"by": "model"}).raise_for_status().json()
    assert found["total_calls"] > 0
    assert "gpt-4o-mini" in [line["key"] for line in found["by"]]
    assert client.get("/costs", params={"by": "nonsense"}).status_code == 400
    assert problem(client.get("/costs", params={"days": "nan"})) == (400, "bad_value")


def test_metrics_count_requests_tokens_dollars_and_outcomes(client: httpx.Client) -> None:
    """Counters of answers and of the ledger's rows, by engine and model."""
    client.post("/query", json={"question": "What do cats do all day?"}).raise_for_status()
    text = client.get("/metrics").text
    for line in (
        'llama_presets_requests_total{method="POST",route="/query",status="200"}',
        'llama_presets_tokens_total{direction="output",engine="kb",model="gpt-4o-mini"}',
        'llama_presets_cost_usd_total{engine="kb",model="gpt-4o-mini"}',
        'llama_presets_answers_total{engine="kb",outcome="known"}',
        'llama_presets_request_seconds_bucket{le="0.005",method="GET",route="/readyz"}',
    ):
        assert line in text


def test_the_description_names_every_route(client: httpx.Client) -> None:
    """OpenAPI lists what the application routes, and the page of it asks no other host for anything."""
    given = {"healthy": build("healthcare", storage=tempfile.mkdtemp(), embed_model=LocalWords())}
    routed = {re.sub(":path", "", route.path) for route in create_app(given).routes}  # type: ignore[attr-defined]
    given["healthy"].close()
    described = set(client.get("/openapi.json").json()["paths"])
    assert routed - described == {"/", "/page", "/openapi.json", "/docs", "/v1/models/{model}"}
    assert described <= routed
    assert "://" not in client.get("/docs").text and "src=" not in client.get("/docs").text


@pytest.mark.parametrize(
    ("method", "path", "options", "expected"),
    [
        ("POST", "/query", {"content": b"{", "headers": JSON}, (400, "malformed_json")),
        ("POST", "/query", {"content": b"\xff", "headers": JSON}, (400, "malformed_json")),
        ("POST", "/query", {"content": b"[" * 9_000, "headers": JSON}, (400, "malformed_json")),
        ("POST", "/query", {"content": b'{"question": "\\ud800"}', "headers": JSON}, (400, "malformed_json")),
        ("POST", "/query", {"json": [1]}, (400, "malformed_json")),
        ("POST", "/query", {"data": {"question": "x"}}, (415, "not_json")),
        ("POST", "/query", {"json": {}}, (400, "bad_body")),
        ("POST", "/query", {"json": {"question": "x", "tenant": "acme"}}, (400, "bad_body")),
        ("POST", "/query", {"json": {"question": "x", "groups": ["hr"]}}, (400, "bad_body")),
        ("POST", "/query", {"json": {"question": " "}}, (400, "bad_question")),
        ("POST", "/query", {"json": {"question": "x" * 100_000}}, (400, "bad_question")),
        ("POST", "/query", {"json": {"question": "x", "engine": "none"}}, (404, "model_not_found")),
        ("POST", "/query", {"json": {"question": "x", "filters": ["?"]}}, (400, "bad_question")),
        ("POST", "/query", {"json": {"question": "x" * (1 << 21)}}, (413, "body_too_large")),
        ("POST", "/query/stream", {"json": {"question": "x", "engine": "none"}}, (404, "model_not_found")),
        ("POST", "/ingest", {"json": {"documents": []}}, (400, "bad_body")),
        ("POST", "/ingest", {"json": {"documents": [{**TEXT, "metadata": {"tenant": "x"}}]}}, (400, "bad_metadata")),
        ("POST", "/ingest", {"json": {"documents": [TEXT], "metadata": {"source": "x"}}}, (400, "bad_metadata")),
        ("GET", "/ingest/none", {}, (404, "job_not_found")),
        ("GET", "/nowhere", {}, (404, "not_found")),
        ("GET", "/query", {}, (405, "method_not_allowed")),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_with_a_reason(
    client: httpx.Client, method: str, path: str, options: dict[str, Any], expected: tuple[int, str]
) -> None:
    """Each has its status and code in one shape, and the server answers on."""
    response = client.request(method, path, **options)
    assert problem(response) == expected
    assert response.json()["error"]["message"]
    assert client.get("/healthz").status_code == 200


def test_a_wrong_path_or_method_is_answered_with_what_is_there(client: httpx.Client) -> None:
    """It said "Not Found" and "Method Not Allowed"."""
    assert "GET /docs lists" in client.get("/nowhere").json()["error"]["message"]
    wrong = client.put("/query")
    assert wrong.json()["error"]["message"].startswith("This path takes no PUT, but POST.")
    assert wrong.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[" * 500_000, "nested too deeply"),
        (b'{"question": ' + b"9" * 5_000 + b"}", "a number has too many digits"),
        (b'{"question": "\xff"}', "not UTF-8"),
        (b'{"question": "\\ud800"}', "not UTF-8"),
        (b'{"question":', "line 1, column 13"),
    ],
)
def test_what_is_no_json_is_said(client: httpx.Client, body: bytes, says: str) -> None:
    """The place of a slip, or what else is wrong."""
    response = client.post("/query", content=body, headers=JSON)
    assert response.json()["error"]["message"] == f"The body is no JSON ({says})."


def test_a_large_body_without_a_length_is_stopped(client: httpx.Client) -> None:
    """A body that comes in pieces is counted while it comes."""
    pieces = (b"x" * 65_536 for _ in range(40))
    response = client.post("/query", content=pieces, headers={"content-type": "application/json"})
    assert problem(response) == (413, "body_too_large")


def test_feedback_is_kept_for_answers_of_the_caller(client: httpx.Client, server: Running) -> None:
    """Up or down by query_id; an answer that was never given is not found, and a third rating is refused."""
    asked = client.post("/query", json={"question": "What do cats do all day?"}).raise_for_status().json()
    body = {"query_id": asked["query_id"], "rating": "down"}
    assert client.post("/feedback", json=body).raise_for_status().json() == body
    assert problem(client.post("/feedback", json={**body, "query_id": "no"})) == (404, "query_not_found")
    assert client.post("/feedback", json={**body, "rating": "meh"}).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/documents/cats.txt?engin=other"),
        ("DELETE", "/documents/cats.txt?engine=kb&engine=other"),
        ("POST", "/query?engine=other"),
        ("POST", "/ingest?engine=other"),
        ("GET", "/costs?day=1"),
    ],
)
def test_a_query_string_that_is_not_known_reaches_no_engine(
    client: httpx.Client, method: str, path: str
) -> None:
    """It was passed over, and the default engine removed, took or answered what was meant for another."""
    response = client.request(method, path, json={"question": "What?"} if method == "POST" else None)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_parameter")
    assert "cats.txt" in client.get("/documents?engine=kb").text


def test_a_conversation_that_is_not_stored_is_refused(client: httpx.Client) -> None:
    """The question alone, without what came before, would be answered as another."""
    for earlier in ({"previous_response_id": "resp_1"}, {"conversation": "conv_1"}):
        response = client.post("/v1/responses", json={"model": "kb", "input": "And children?", **earlier})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_value")
