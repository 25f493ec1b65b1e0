"""The high-volume row end to end: against the services' protocols on loopback, and offline."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from tests.servers.openai import Fault, OpenAIServer
from tests.servers.pinecone import PineconeServer, pinecone_server

from llama_index_presets import PRESETS, build
from llama_index_presets.errors import BudgetExceededError, StoreError
from llama_index_presets.presets.engine import PresetEngine

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "recipes" / "healthcare" / "documents"
QUESTION = "How is botulism treated?"
SETTINGS = {"trace_endpoint": "off", "answer_floor": -1.0}


class Services:
    """The two hosted services of the row, on loopback."""

    def __init__(self, openai: OpenAIServer, pinecone: PineconeServer) -> None:
        self.openai, self.pinecone = openai, pinecone

    def open(self, tenant: str, **settings: object) -> PresetEngine:
        storage = f"pinecone://manuals/{tenant}?host={self.pinecone.url}"
        return build("high-volume", storage=storage, settings={**SETTINGS, **settings})


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    with (
        OpenAIServer(words=("An antitoxin", " helps", " [1]", ".")) as openai,
        pinecone_server(1536) as pinecone,
    ):
        values = {
            "OPENAI_API_KEY": "sk-x",
            "PINECONE_API_KEY": "pc-x",
            "LLAMA_PRESETS_STATE": str(tmp_path / "state"),
        }
        for name, value in {**values, "OPENAI_API_BASE": openai.url, "OPENAI_BASE_URL": openai.url}.items():
            monkeypatch.setenv(name, value)
        yield Services(openai, pinecone)


def only(file_name: str) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key="file_name", value=file_name)])


def asked_in_every_way(engine: PresetEngine, file_name: str) -> list[str]:
    """Filtered, streamed, awaited: each cites the file that the filter names."""
    filtered = engine.with_filters(only(file_name))
    response = filtered.query(QUESTION)
    stream = filtered.stream(QUESTION)
    streamed = "".join(stream.response_gen)
    awaited = asyncio.run(filtered.aquery(QUESTION))
    for metadata in (response.metadata, stream.metadata, awaited.metadata):
        citations = [citation for citation in (metadata or {})["citations"] if citation["valid"]]
        assert citations and {Path(citation["source"]).name for citation in citations} == {file_name}
        assert (metadata or {})["cost_usd"] is not None and (metadata or {})["query_id"]
    return [str(response), streamed, str(awaited)]


def test_against_the_services(services: Services) -> None:
    """Ingest, ask with a filter in every way, read the bill, close, re-open, ask again."""
    with services.open("tenant-1") as engine:
        estimate = engine.estimate(str(DOCUMENTS))
        report = engine.ingest(str(DOCUMENTS), max_cost_usd=1)
        assert (report.documents, report.failed) == (5, []) and report.tokens == estimate.tokens
        assert set(asked_in_every_way(engine, "botulism-ward-guide.md")) == {"An antitoxin helps [1]."}
        bill = {
            row[0]: row[1:]
            for row in engine.ledger.sql(
                "select model, count(*), sum(cost_usd) from llm_calls where kind in ('llm', 'embedding') group by 1"
            ).fetchall()
        }
        assert bill[PRESETS["high-volume"].llm][0] == 3 and bill["text-embedding-3-small"][1] > 0
        assert len(services.pinecone.spaces["tenant-1"]) == report.chunks
    with services.open("tenant-1") as engine:
        again = engine.ingest(str(DOCUMENTS))
        assert (again.unchanged, again.embedded) == (5, 0)
        assert str(engine.query(QUESTION)) == "An antitoxin helps [1]."
        assert engine.explain()["cells"]["store"] == "pinecone" and "sk-x" not in json.dumps(engine.explain())


def test_offline(tmp_path: Path) -> None:
    """The same row with MiniLM, LanceDB and quoted answers; no key, no service."""
    for _ in range(2):
        with build(
            "high-volume", storage=tmp_path / "s", offline=True, settings={"trace_endpoint": "off"}
        ) as engine:
            engine.ingest(str(DOCUMENTS), max_cost_usd=0)
            answers = asked_in_every_way(engine, "botulism-ward-guide.md")
            assert len(set(answers)) == 1 and "antitoxin" in answers[0]
            assert dict(engine.explain()["swapped_for_offline"])["store"] == "pinecone"
            assert engine.ledger.get_usage_stats(days=1).total_cost_usd == 0


def test_tenants_never_see_each_other(services: Services) -> None:
    """A namespace each: what one ingested, the other neither finds nor counts; deleting is apart, too."""
    with services.open("a") as first, services.open("b") as second:
        first.ingest(str(DOCUMENTS / "botulism-ward-guide.md"))
        second.ingest(str(DOCUMENTS / "insulin-storage.md"))
        found = {hit.metadata["file_name"] for hit in first.retriever.retrieve("insulin")}
        assert found == {"botulism-ward-guide.md"}
        second.vector_store.clear()  # type: ignore[attr-defined]
        assert first.retriever.retrieve("botulism") and not second.retriever.retrieve("insulin")


def test_back_pressure_slows_down_and_loses_nothing(services: Services) -> None:
    """Both services answer 429 now and then; everything arrives once, and is paid for once."""
    services.pinecone.fail = lambda number: (429, {"Retry-After": "0"}) if number % 3 == 0 else None
    services.openai.faults.extend(
        [Fault(status=429, retry_after="0.01"), None, Fault(status=429, retry_after="0.01")]
    )
    with services.open("t", batch_chunks=4) as engine:
        report = engine.ingest(str(DOCUMENTS))
        assert (report.documents, report.failed) == (5, [])
        services.pinecone.fail = lambda number: None
        assert len(services.pinecone.spaces["t"]) == report.chunks
    assert sum(call.prompt for call in services.openai.served if call.path == "/embeddings") == report.tokens


def test_a_service_that_stays_down_costs_only_the_batch(services: Services) -> None:
    """The error says what is kept; the next run finishes without paying again for what was embedded."""
    with services.open("t", batch_chunks=4) as engine:
        engine.ingest(str(DOCUMENTS / "insulin-storage.md"))
        services.pinecone.down.add("/vectors/upsert")
        with pytest.raises(StoreError, match="calling again is safe"):
            engine.ingest(str(DOCUMENTS))
        services.pinecone.down.clear()
        paid = sum(call.prompt for call in services.openai.served)
        report = engine.ingest(str(DOCUMENTS))
        assert report.unchanged >= 1 and report.documents + report.unchanged == 5
        billed = sum(call.prompt for call in services.openai.served) - paid
        assert 0 < billed < paid and report.tokens == billed


def test_the_cost_ceiling_holds_before_anything_is_sent(services: Services) -> None:
    """Neither service saw a document."""
    with services.open("t") as engine, pytest.raises(BudgetExceededError, match="Nothing was sent"):
        engine.ingest(str(DOCUMENTS), max_cost_usd=0)
    assert not services.openai.requests and not services.pinecone.spaces["t"]


def test_a_vanished_file_leaves_the_namespace(services: Services, tmp_path: Path) -> None:
    """With sync, its records are deleted from the service."""
    folder = tmp_path / "docs"
    shutil.copytree(DOCUMENTS, folder)
    with services.open("t") as engine:
        chunks = engine.ingest(folder).chunks
        (folder / "botulism-ward-guide.md").unlink()
        assert engine.ingest(folder, sync=True).removed == 1
        assert 0 < len(services.pinecone.spaces["t"]) < chunks


@pytest.mark.slow("a process that loads torch: 20 s of CPU")
def test_the_recipe_prints_what_its_page_shows() -> None:
    """Every line of expected.txt, in order, with no key and no service."""
    recipe = ROOT / "recipes" / "high-volume"
    done = subprocess.run(
        [sys.executable, str(recipe / "recipe.py")],
        capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src", "HF_HUB_OFFLINE": "1", "PINECONE_INDEX": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == (recipe / "expected.txt").read_text()
