"""A response is LlamaIndex's own, and a plain dictionary, a readable text and a safe page besides."""

from __future__ import annotations

import json
from typing import Any

from llama_index.core.base.response.schema import Response
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_presets.answer.response import CitedResponse, CitedStream

CITED = {"n": 1, "valid": True, "source": "a.md", "page": "2", "heading": "H", "text": "<b>x</b>"}
METADATA: dict[str, Any] = {
    "known": True,
    "confidence": 0.91,
    "query_id": "q",
    "cost_usd": 0.0,
    "latency_ms": 3.5,
    "citations": [CITED, {"n": 9, "valid": False}],
}


def response() -> CitedResponse:
    node = TextNode(id_="n", text="x" * 300, metadata={"source": "a.md", "page": "2"})
    return CitedResponse("Yes <i> [1].", [NodeWithScore(node=node, score=0.5)], dict(METADATA))


def test_to_dict_has_the_answer_its_sources_and_its_cost() -> None:
    """Every key of the contract, as JSON."""
    found = json.loads(json.dumps(response().to_dict()))
    assert found["sources"] == [{"id": "n", "text": "x" * 200, "source": "a.md", "page": "2", "score": 0.5}]
    keys = ("answer", "source_count", "known", "confidence", "cost_usd", "latency_ms", "query_id")
    assert [found[key] for key in keys] == ["Yes <i> [1].", 1, True, 0.91, 0.0, 3.5, "q"]
    assert len(found["citations"]) == 2


def test_it_is_still_the_response_of_llamaindex() -> None:
    """Code that expects a `Response` and its text is not surprised."""
    assert isinstance(response(), Response)
    assert str(response()) == "Yes <i> [1]."


def test_a_terminal_shows_the_answer_and_what_it_cites() -> None:
    """One line a valid citation."""
    assert repr(response()) == "Yes <i> [1].\n  [1] a.md, page 2 (H)"


def test_a_notebook_page_runs_nothing_of_a_document() -> None:
    """Text of passages and answers is escaped."""
    page = response()._repr_html_()
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "<b>x" not in page and "<i>" not in page


def test_a_stream_shows_what_was_written_so_far() -> None:
    """`to_dict` does not use up the stream."""
    stream = CitedStream(iter(["a", "b"]), [], {})
    stream.written = lambda: "a"
    assert stream.to_dict()["answer"] == "a"
    assert stream.to_dict()["known"] is None
