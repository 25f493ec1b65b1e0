"""An internal handbook: departments, a folder that is kept in step, offline and against the services."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.journeys.rows import ask_every_way, only_sees
from tests.servers.openai import OpenAIServer

from llama_index_presets import build

DOCUMENTS = Path(__file__).parents[2] / "recipes" / "knowledge-base" / "documents"
QUESTION = "How many weeks of parental leave may each parent take?"


def test_offline_departments_and_sync(tmp_path: Path) -> None:
    """A file that vanishes leaves the index; the answer survives re-opening."""
    folder = tmp_path / "handbook"
    shutil.copytree(DOCUMENTS, folder)
    with build("knowledge-base", storage=tmp_path / "s", offline=True) as engine:
        engine.ingest(folder, folder_key="department", sync=True)
        found = ask_every_way(engine, QUESTION)
        assert (
            found[0]["citations"][0]["source"].endswith("hr/parental-leave.md") and found[0]["cost_usd"] == 0
        )
        only_sees(engine, "access from another country", "department=it", "department", "it")
        (folder / "hr" / "parental-leave.md").unlink()
        assert engine.ingest(folder, folder_key="department", sync=True).removed == 1
        assert not engine.query(QUESTION).metadata["known"]
    with build("knowledge-base", storage=tmp_path / "s", offline=True) as engine:
        assert engine.explain()["documents"] == 4
        assert engine.ingest(folder, folder_key="department", sync=True).unchanged == 4
        assert "800" not in str(engine.query("Which error means that the network blocks the tunnel?"))


def test_against_the_services(tmp_path: Path, openai: OpenAIServer) -> None:
    """OpenAI embeds and answers, LanceDB holds; the bill is the server's."""
    openai.words = ("Each", " parent", " may", " take", " 24", " weeks", " [1].")
    with build("knowledge-base", storage=tmp_path / "s", settings={"answer_floor": -1.0}) as engine:
        report = engine.ingest(DOCUMENTS, folder_key="department")
        assert report.documents == 5 and report.cost_usd and report.cost_usd > 0
        found = ask_every_way(engine, QUESTION)
        only_sees(engine, QUESTION, "department=hr", "department", "hr")
        served = [call for call in openai.served if call.path == "/chat/completions"]
        billed = engine.ledger.sql(
            "select count(*), sum(prompt_tokens) from llm_calls where kind = 'llm'"
        ).fetchone()
    assert found[0]["cost_usd"] > 0
    assert billed == (len(served), sum(call.prompt for call in served))
    with build("knowledge-base", storage=tmp_path / "s", settings={"answer_floor": -1.0}) as engine:
        assert engine.query(QUESTION).metadata["known"]
