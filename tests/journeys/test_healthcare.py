"""From a folder of files to cited answers, with no key and no network."""

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
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from tests.fakes import ScriptedLLM
from tests.unit.ingest.test_read import write_pdf
from typer.testing import CliRunner

from llama_index_presets import build
from llama_index_presets.cli import app
from llama_index_presets.errors import AnswerError, SettingsError
from llama_index_presets.presets.engine import PresetEngine

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "recipes" / "healthcare" / "documents"
QUESTION = "How is botulism treated?"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PresetEngine]:
    with build("healthcare", storage=tmp_path_factory.mktemp("clinic")) as made:
        made.ingest(DOCUMENTS)
        yield made


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_answer_is_quoted_cited_and_billed(engine: PresetEngine) -> None:
    """Every sentence stands verbatim in the passage that its marker names."""
    response = engine.query(QUESTION)
    metadata = response.metadata or {}
    assert isinstance(engine, BaseQueryEngine)
    assert metadata["known"] and metadata["cost_usd"] == 0 and metadata["latency_ms"] > 0
    passages = {citation["n"]: words(citation["text"]) for citation in metadata["citations"]}
    quotes = [part.strip() for part in str(response).split("]") if part.strip()]
    assert quotes
    for quote in quotes:
        sentence, number = quote.rsplit(" [", 1)
        assert words(sentence) in passages[int(number)]
    assert metadata["citations"][0]["source"].endswith("botulism-ward-guide.md")
    assert {hit.node.node_id for hit in response.source_nodes} >= {
        c["node_id"] for c in metadata["citations"]
    }


def test_it_does_not_know_what_is_not_in_the_documents(engine: PresetEngine) -> None:
    """No model is called and nothing is cited."""
    response = engine.query("Who won the 2030 World Cup?")
    assert str(response) == "I don't know."
    metadata = response.metadata or {}
    assert (metadata["known"], metadata["citations"]) == (False, [])
    kinds = engine.ledger.sql(
        f"select kind from llm_calls where query_id = '{metadata['query_id']}'"
    ).fetchall()
    assert ("llm",) not in kinds


def test_every_way_to_ask_gives_the_same_answer(engine: PresetEngine) -> None:
    """Sync, async, streamed, chat."""
    expected = str(engine.query(QUESTION))
    streaming = engine.stream(QUESTION)
    assert "".join(streaming.response_gen) == expected
    assert streaming.metadata["citations"] and streaming.metadata["cost_usd"] == 0

    async def awaited() -> list[str]:
        stream = await engine.astream(QUESTION)
        text = "".join([piece async for piece in stream.async_response_gen()])
        chat = await engine.as_chat_engine().astream_chat(QUESTION)
        return [
            str(await engine.aquery(QUESTION)),
            text,
            "".join([t async for t in chat.async_response_gen()]),
        ]

    assert asyncio.run(awaited()) == [expected] * 3
    chat = engine.as_chat_engine()
    assert str(chat.chat(QUESTION)) == expected
    assert "".join(chat.stream_chat(QUESTION).response_gen) == expected
    chat.reset()
    assert chat.chat_history == []


def test_queries_at_once_are_billed_apart(engine: PresetEngine) -> None:
    """Eight concurrent questions have eight ids, and each row belongs to one of them."""

    async def main() -> list[str]:
        responses = await asyncio.gather(*(engine.aquery(QUESTION) for _ in range(8)))
        return [(response.metadata or {})["query_id"] for response in responses]

    ids = asyncio.run(main())
    assert len(set(ids)) == 8
    placeholders = ",".join(f"'{one}'" for one in ids)
    rows = engine.ledger.sql(
        f"select query_id, count(*) filter (kind = 'llm'), count(*) filter (kind = 'embedding') "
        f"from llm_calls where query_id in ({placeholders}) group by 1"
    ).fetchall()
    assert sorted(rows) == sorted((one, 1, 1) for one in ids)


def test_the_ledger_has_the_promised_columns_and_no_prompt(engine: PresetEngine) -> None:
    """A bill that can be queried, without the text of anybody's question."""
    engine.query("Does Mrs Zylberschtejn need insulin?")
    result = engine.ledger.sql("select * from llm_calls")
    names = {column[0] for column in result.description}
    assert names >= {
        "call_id", "timestamp", "kind", "provider", "model", "prompt_tokens", "completion_tokens", "total_tokens",
        "cost_usd", "latency_ms", "status", "preset", "query_id", "prompt_sha256",
    }  # fmt: skip
    stats = engine.ledger.get_usage_stats(days=7)
    assert (
        stats.total_calls > 0
        and stats.total_tokens > 0
        and stats.total_cost_usd == 0
        and stats.avg_latency_ms > 0
    )
    engine.ledger.flush()
    lines = [json.loads(line) for line in engine._parts.storage.logs.read_text().splitlines()]
    assert {"embedding", "query"} <= {line["kind"] for line in lines}
    assert all(line["preset"] == "healthcare" and line["status"] == "success" for line in lines)
    written = b"".join(
        path.read_bytes() for path in engine._parts.storage.folder.rglob("*") if path.is_file()
    )
    assert b"Zylberschtejn" not in written


def test_filters_restrict_and_cannot_be_dropped(engine: PresetEngine) -> None:
    """A filtered engine never sees another file, and filtering again can only narrow."""
    only = MetadataFilters(filters=[MetadataFilter(key="file_name", value="insulin-storage.md")])
    other = MetadataFilters(filters=[MetadataFilter(key="file_name", value="botulism-ward-guide.md")])
    insulin = engine.with_filters(only)
    assert {hit.metadata["file_name"] for hit in insulin.retriever.retrieve(QUESTION)} == {
        "insulin-storage.md"
    }
    assert insulin.with_filters(other).retriever.retrieve(QUESTION) == []
    assert engine.filters is None


def test_its_parts_are_plain_llamaindex(engine: PresetEngine) -> None:
    """The index and the retriever work in stock code."""
    stock = RetrieverQueryEngine.from_args(
        engine.index.as_retriever(similarity_top_k=2), llm=ScriptedLLM(says="Ok.")
    )
    assert str(stock.query(QUESTION)) == "Ok."
    assert engine.retriever.retrieve(QUESTION)[0].score > 0.5
    explained = engine.explain()
    assert explained["cells"]["store"] == "lancedb" and explained["documents"] == 5
    assert explained["settings"]["top_k"] == {"value": 8, "from": "default"}


def test_more_passages_are_read_where_they_cost_nothing(tmp_path: Path) -> None:
    """Eight where passages are quoted, five where a language model is paid by the token, and what the settings say."""

    def top_k(llm: ScriptedLLM | None, settings: dict[str, int] | None) -> int:
        with build("healthcare", storage=tmp_path / "s", llm=llm, settings=settings, offline=True) as engine:
            return engine.settings.top_k

    assert top_k(None, None) == 8
    assert top_k(ScriptedLLM(says="Ok."), None) == 5
    assert top_k(None, {"top_k": 5}) == 5


def test_any_llm_can_take_the_place_of_quoting(tmp_path: Path) -> None:
    """Its inventions are removed and reported."""
    with build("healthcare", storage=tmp_path / "s", llm=ScriptedLLM(says="Antitoxin [1][9].")) as engine:
        engine.ingest(DOCUMENTS / "botulism-ward-guide.md")
        response = engine.query(QUESTION)
        assert str(response) == "Antitoxin [1]."
        assert {"n": 9, "valid": False} in (response.metadata or {})["citations"]
        assert engine.explain()["given_by_hand"] == {"llm": "ScriptedLLM"}


def test_a_remote_model_is_refused_by_the_local_preset(tmp_path: Path) -> None:
    """Nothing leaves the machine by accident."""
    from llama_index.llms.openai import OpenAI

    with pytest.raises(SettingsError, match="OpenAI would send text elsewhere"):
        build("healthcare", storage=tmp_path / "s", llm=OpenAI(api_key="sk-test"))
    assert not (tmp_path / "s").exists()


def test_a_pdf_is_cited_by_page(tmp_path: Path) -> None:
    """Close, re-open, ask again: the page is still known."""
    pages = [f"Chapter {number} is about linen and towels." for number in range(1, 10)]
    pdf = write_pdf(tmp_path / "manual.pdf", [*pages, "Morphine is counted twice a day by two nurses."])
    for _ in range(2):
        with build("healthcare", storage=tmp_path / "s") as engine:
            engine.ingest(pdf)
            response = engine.query("How often is morphine counted?")
            assert (response.metadata or {})["citations"][0]["page"] == "10"
            assert "twice a day" in str(response)


def test_a_closed_engine_says_so(tmp_path: Path) -> None:
    """Closing twice is fine; asking afterwards is an error."""
    engine = build("healthcare", storage=tmp_path / "s")
    engine.close()
    engine.close()
    with pytest.raises(AnswerError, match="engine is closed"):
        engine.query(QUESTION)


@pytest.mark.slow("two processes that load torch: 20 s of CPU")
def test_it_works_with_the_network_off(tmp_path: Path) -> None:
    """Ingest and query run inside a network namespace that has no way out."""
    unshare = shutil.which("unshare")
    assert unshare, "util-linux is part of every Linux that this package is tested on"
    program = ["llama_index_presets.cli", "ask", "healthcare", QUESTION, "--storage", str(tmp_path / "s")]
    for arguments in (
        ["llama_index_presets.cli", "ingest", "healthcare", str(DOCUMENTS), "--storage", str(tmp_path / "s")],
        program,
    ):
        done = subprocess.run(
            [unshare, "--net", "--map-root-user", sys.executable, "-m", *arguments],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "src"}, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "antitoxin" in done.stdout and "botulism-ward-guide.md" in done.stdout


@pytest.mark.slow("what make demo runs")
def test_the_recipe_runs_and_stays_short() -> None:
    """What `make demo` shows, in at most 60 lines."""
    recipe = ROOT / "recipes" / "healthcare" / "recipe.py"
    assert len(recipe.read_text().splitlines()) <= 60
    done = subprocess.run(
        [sys.executable, str(recipe)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "src"},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    for part in ("antitoxin", "[1] botulism-ward-guide.md", "28 days", "I don't know.", "In all: "):
        assert part in done.stdout
    assert "replaced in handover-note: 1 birth_date, 1 phone, 1 record_number" in done.stdout
    assert "DOB: [BIRTH DATE]" in done.stdout and "Files that name Mrs Fictional: 0 of" in done.stdout


def test_an_encrypted_clinic_works_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingest, ask, chat, doctor under a key; personal data reported; no file tells the patient's name."""
    documents, storage = tmp_path / "docs", tmp_path / "s"
    shutil.copytree(DOCUMENTS, documents)
    (documents / "zylberschtejn.md").write_text(
        "# Discharge letter\n\nMrs Zylberschtejn, MRN: 4711, takes warfarin every evening.\n"
    )
    monkeypatch.setenv("LLAMA_PRESETS_ENCRYPTION_KEY", "5f" * 32)

    def run(*arguments: str, stdin: str = "") -> str:
        done = CliRunner().invoke(app, [*arguments, "--storage", str(storage)], input=stdin)
        assert done.exit_code == 0, done.output
        return done.stdout

    report = json.loads(run("ingest", "healthcare", str(documents), "--json"))
    assert report["documents"] == 6
    assert report["personal_data"] == {str(documents / "zylberschtejn.md"): {"record_number": 1}}
    asked = json.loads(run("ask", "healthcare", "When does Mrs Zylberschtejn take warfarin?", "--json"))
    assert "every evening" in asked["answer"]
    assert asked["citations"][0]["source"] == str(documents / "zylberschtejn.md")
    assert "antitoxin" in run("chat", "healthcare", stdin=f"{QUESTION}\n")
    assert json.loads(run("doctor", "healthcare", "--json"))["healthy"]
    written = {str(path): path.read_bytes() for path in storage.rglob("*") if path.is_file()}
    assert [name for name, content in written.items() if b"ylberschtejn" in content + name.encode()] == []
    monkeypatch.delenv("LLAMA_PRESETS_ENCRYPTION_KEY")
    done = CliRunner().invoke(app, ["ask", "healthcare", QUESTION, "--storage", str(storage)])
    assert (done.exit_code, "is encrypted and no key was given" in done.stderr) == (1, True)


def test_sync_works_on_folders_alone(tmp_path: Path) -> None:
    """A file that vanished goes; data without a place on disk is refused before anything happens."""
    import polars as pl

    folder = tmp_path / "docs"
    shutil.copytree(DOCUMENTS, folder)
    with build("healthcare", storage=tmp_path / "s") as engine:
        engine.ingest(folder)
        (folder / "botulism-ward-guide.md").unlink()
        report = engine.ingest(folder, sync=True)
        assert (report.removed, report.unchanged) == (1, 4)
        assert str(engine.query(QUESTION)) == "I don't know."
        with pytest.raises(SettingsError, match="sync works on folders"):
            engine.ingest(pl.DataFrame({"t": ["x"]}), text_column="t", sync=True)
