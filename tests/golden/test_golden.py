"""What one question leaves behind, per preset: ledger rows and spans, with ids and times masked.

The files were written by commit f7e21b1. A change that means to change them rewrites them with
``UPDATE_GOLDEN=1 pytest tests/golden``, and the difference is reviewed like code.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from tests.fakes import ScriptedLLM, WordEmbedding
from tests.servers.otlp import Receiver

from llama_index_presets import PRESETS, build

HERE = Path(__file__).parent
DOCUMENTS = [
    Document(text=f"The {word} fish lives in lake {word}.", doc_id=word) for word in ("red", "blue", "green")
]
PLAIN = {"embedding_cache": "off", "answer_floor": -1.0}
LOCAL = {"store": "duckdb"}
COLUMNS = (
    "kind, provider, model, prompt_tokens, completion_tokens, total_tokens, cost_usd, status, preset, "
    "attempt, error_type, cached_tokens, usage_source, cache_hit"
)


def settings_of(preset: str) -> dict[str, Any]:
    """A store that needs no server; a reranker only where weights are at hand, so the simple pattern elsewhere."""
    plain: dict[str, Any] = dict(PLAIN)
    if preset != "multi-modal":
        plain |= LOCAL
    if preset in ("customer-chatbot", "research-papers"):
        plain |= {"pattern": "simple"}
    if preset == "healthcare":
        plain |= {"encryption": "off", "pii": "off"}
    return plain


def compare(name: str, found: Any) -> None:
    """Compare with the file of that name, or write it when asked to."""
    file = HERE / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(json.dumps(found, indent=1, default=str) + "\n", encoding="utf-8")
    assert json.loads(json.dumps(found, default=str)) == json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "multi-modal"])
def test_rows_of_an_ingest_and_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    """One row for each call, below the row that it belongs to."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LLAMA_PRESETS_TRACE_ENDPOINT", "http://127.0.0.1:9/v1/traces")
    with Receiver() as receiver:
        values = settings_of(preset)
        if preset in ("customer-chatbot", "high-volume"):
            values["trace_endpoint"] = receiver.endpoint
        with build(
            preset,
            storage=tmp_path / "s",
            embed_model=WordEmbedding(),
            llm=ScriptedLLM(),
            offline=True,
            settings=values,
        ) as engine:
            engine.ingest(DOCUMENTS)
            assert str(engine.query("Where does the red fish live?")) == "Yes [1]."
            rows = engine.ledger.sql(
                f"select {COLUMNS}, (select kind from llm_calls as outer_call "
                "where outer_call.call_id = llm_calls.parent_id) as below, query_id <> '' as of_query "
                "from llm_calls"
            ).fetchall()
    compare(f"rows-{preset}", sorted([str(value) for value in row] for row in rows))


@pytest.mark.parametrize("pattern", ["simple", "hybrid"])
def test_spans_of_an_ingest_and_a_question(tmp_path: Path, pattern: str) -> None:
    """One tree for the ingest, one for the question: names, parents, status and which facts they carry."""
    with Receiver() as receiver:
        values = (
            PLAIN | LOCAL | {"pattern": pattern, "monitoring": "full", "trace_endpoint": receiver.endpoint}
        )
        with build(
            "knowledge-base",
            storage=tmp_path / "s",
            embed_model=WordEmbedding(),
            llm=ScriptedLLM(),
            offline=True,
            settings=values,
        ) as engine:
            engine.ingest(DOCUMENTS)
            engine.query("Where does the red fish live?")
        spans = sorted(receiver.spans(), key=lambda span: (span.start_time_unix_nano, span.name))
    names = {span.span_id: span.name for span in spans}
    found = [
        [
            span.name,
            names.get(span.parent_span_id, ""),
            span.status.code,
            sorted(item.key for item in span.attributes),
        ]
        for span in spans
    ]
    compare(f"spans-{pattern}", sorted(found))
