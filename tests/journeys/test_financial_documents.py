"""Filings: figures with page and table, verified, on record; offline and against the services."""

from __future__ import annotations

import json
from pathlib import Path

from tests.journeys.rows import ask_every_way, only_sees
from tests.servers.openai import OpenAIServer

from llama_index_presets import build
from llama_index_presets.monitor.audit import audit_key, verify

DOCUMENTS = Path(__file__).parents[2] / "recipes" / "financial-documents" / "documents"
QUESTION = "What was the net income in the income statement of 2024?"


def test_offline_with_page_table_and_record(tmp_path: Path) -> None:
    """A row of a PDF's table is quoted whole; hybrid search finds a ticker; every question is on record."""
    with build("financial-documents", storage=tmp_path / "s", offline=True) as engine:
        engine.ingest(DOCUMENTS)
        found = ask_every_way(engine.for_user("ada"), QUESTION)
        cited = found[0]["citations"][0]
        assert (cited["page"], cited["table"]) == ("1", "Table 1: Income statement")
        assert "Net income; 2024: 96.3; 2023: 80.2" in cited["text"]
        assert found[0]["numbers"]["checked"] >= 1 and found[0]["numbers"]["unsupported"] == []
        ticker = engine.query("Which notes have the ISIN XS1234567890?").source_nodes[0]
        assert "XS1234567890" in ticker.text and "bm25" in ticker.stages
        only_sees(engine, "EBITDA in Q3", "year=2024", "year", 2024)
    report = verify(tmp_path / "s" / "audit.jsonl", key=audit_key(make=False))
    assert (report.ok, report.entries) == (True, 6)
    with build("financial-documents", storage=tmp_path / "s", offline=True) as engine:
        assert engine.ingest(DOCUMENTS).unchanged == 3 and engine.query(QUESTION).metadata["known"]
    lines = (tmp_path / "s" / "audit.jsonl").read_text().splitlines()
    entries = [json.loads(line)["entry"] for line in lines]
    assert [entry["who"] for entry in entries][:4] == ["ada"] * 4 and len(entries) == 7


def test_against_the_services(tmp_path: Path, openai: OpenAIServer) -> None:
    """A figure that the model makes up is left out, whole and streamed; what it quotes stays."""
    settings = {"answer_floor": -1.0, "top_k": 1}
    with build("financial-documents", storage=tmp_path / "s", settings=settings) as engine:
        engine.ingest(DOCUMENTS / "brightwind-note.md")
        openai.words = ("EBITDA", " was", " $41.7", " million", " in", " Q3", " [1].")
        ask_every_way(engine, "What was the EBITDA of BWE in Q3?")
        openai.words = (
            "EBITDA",
            " was",
            " $41.7",
            " million",
            " [1].",
            " It",
            " grew",
            " by",
            " 9%",
            " [1].",
        )
        response = engine.query("What was the EBITDA of BWE in Q3?")
        stream = engine.stream("What was the EBITDA of BWE in Q3?")
        streamed = "".join(stream.response_gen)
    assert str(response).startswith("EBITDA was $41.7 million [1].") and "9%" not in str(response) + streamed
    assert response.metadata["numbers"]["unsupported"][0]["numbers"] == ["9%"]
    assert verify(tmp_path / "s" / "audit.jsonl", key=audit_key(make=False)).entries == 6
