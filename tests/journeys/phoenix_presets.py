"""Run three presets against a loopback OpenAI server and a real Phoenix, and write down what Phoenix then knows.

    python -m tests.journeys.phoenix_presets FOLDER PHOENIX

Started by test_phoenix.py in a network namespace of its own, so it is a program and not a test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
from pathlib import Path
from typing import Any

from llama_index.core import Document
from tests.fixtures.browser import BROWSER
from tests.servers.openai import OpenAIServer
from tests.servers.phoenix import Phoenix
from tests.unit.rerank.conftest import save_model

from llama_index_presets import CrossEncoderRerank, build
from llama_index_presets.monitor.attribution import attributed

PRESETS: dict[str, dict[str, Any]] = {
    "knowledge-base": {"monitoring": "full", "llm": "gpt-4o-mini"},
    "financial-documents": {"llm": "gpt-4o-mini"},
    "customer-chatbot": {"llm": "gpt-4o-mini"},
}
"""Preset -> what differs from its row; the trace endpoint comes on top.

The model is named, so that its price is the test's and stays when a row gets another model.
"""

LETTERS = [
    Document(text=f"{company} earned {amount} million dollars in 2025.", metadata={"company": company})
    for company, amount in (("Alder", 12), ("Birch", 34), ("Cedar", 56))
]
QUESTION = "What did Birch earn in 2025?"
WORDS = ("Birch", " earned", " 34", " million", " dollars", " [1].")


def main(folder: Path, command: Path) -> None:
    """Write ``seen.json`` and a picture of one trace of each preset into the folder."""
    os.environ["OPENAI_API_KEY"] = "sk-test"
    seen: dict[str, Any] = {"presets": {}}
    database = folder / "phoenix"
    database.mkdir()
    with OpenAIServer(cached=400, words=WORDS) as server, Phoenix(command, database) as phoenix:
        os.environ["OPENAI_API_BASE"] = server.url
        for preset, settings in PRESETS.items():
            seen["presets"][preset] = run(preset, settings, folder, phoenix, project=preset)
        own = "model-of-the-row"  # one more question, which the model of the row answers
        seen["row"] = run("knowledge-base", {"trace_project": own}, folder, phoenix, project=own)
        seen["costs"] = phoenix.ask("{projects{edges{node{name costSummary{total{cost}} tokenCountTotal}}}}")[
            "projects"
        ]["edges"]
        for preset, found in seen["presets"].items():
            trace = next(span for span in found["spans"] if span["name"] == "query")["context"]["trace_id"]
            found["page"] = picture(
                f"{phoenix.url}/redirects/traces/{trace}", folder / f"phoenix-{preset}.png"
            )
    (folder / "seen.json").write_text(json.dumps(seen))


def run(
    preset: str, settings: dict[str, Any], folder: Path, phoenix: Phoenix, *, project: str
) -> dict[str, Any]:
    """Ingest and ask one preset; what it answered, and what Phoenix shows of it."""
    chosen = {"answer_floor": -1.0, **settings, "trace_endpoint": phoenix.url}
    reranker = None
    if preset == "customer-chatbot":  # the cross-encoder of the row needs a model hub
        reranker = CrossEncoderRerank(
            save_model(folder / "cross-encoder"), top_n=3, local_files_only=True
        ).warm_up()
    with build(preset, storage=folder / project, reranker=reranker, settings=chosen) as engine:
        engine.ingest(LETTERS, show_progress=False)
        with attributed(tenant="acme", session="visit-7"):
            response = engine.query(QUESTION)
    wanted = response.metadata["query_id"]
    return {
        "answer": str(response),
        "query_id": wanted,
        "cost_usd": response.metadata["cost_usd"],
        "spans": wait_for(phoenix, project, wanted),
    }


def wait_for(phoenix: Phoenix, project: str, query_id: str) -> list[dict[str, Any]]:
    """All spans of a project, once the root of the query is among them and every parent is there."""
    end = time.monotonic() + 60
    while True:
        found = spans_of(phoenix, project)
        ids = {span["context"]["span_id"] for span in found} | {None}
        whole = all(span["parent_id"] in ids for span in found)
        roots = [span for span in found if span["attributes"].get("rag.query_id") == query_id]
        if (whole and roots) or time.monotonic() > end:
            return found
        time.sleep(0.5)


def spans_of(phoenix: Phoenix, project: str) -> list[dict[str, Any]]:
    """The spans of a project; none while Phoenix has not made it."""
    try:
        found: list[dict[str, Any]] = phoenix.get(f"/v1/projects/{project}/spans?limit=100")["data"]
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return []
    return found


def picture(url: str, path: Path) -> str:
    """Open a page in headless Chromium, save its picture, give its text; empty where there is no Chromium."""
    if BROWSER is None:
        return ""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    options += [f"--user-data-dir={path.parent / 'chromium'}", "--window-size=1440,760"]
    options += ["--virtual-time-budget=20000"]
    subprocess.run([BROWSER, *options, f"--screenshot={path}", url], capture_output=True, timeout=120)
    done = subprocess.run([BROWSER, *options, "--dump-dom", url], capture_output=True, text=True, timeout=120)
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
