"""A real Phoenix shows one query as one tree, with its tokens and its cost, for three presets; a browser shows it too.

Set PRESETS_SAVE_IMAGES to renew the pictures of docs/how-to/phoenix.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.fixtures.browser import BROWSER, NO_BROWSER
from tests.servers.phoenix import executable, isolated

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.timeout(900),  # the first run installs Phoenix
    pytest.mark.slow("installs Phoenix and starts it for three presets: minutes"),
]

EMBED = ("embed", "EMBEDDING")
TREES: dict[str, Any] = {
    "knowledge-base": ("query", "CHAIN", ("retrieve", "RETRIEVER", EMBED), ("llm", "LLM")),
    "financial-documents": (
        "query",
        "CHAIN",
        (
            "retrieve",
            "RETRIEVER",
            ("retrieve: bm25", "RETRIEVER"),
            ("retrieve: vector", "RETRIEVER", EMBED),
            ("fusion", "CHAIN"),
        ),
        ("llm", "LLM"),
    ),
    "customer-chatbot": (
        "query",
        "CHAIN",
        ("retrieve", "RETRIEVER", EMBED),
        ("rerank", "RERANKER"),
        ("llm", "LLM"),
    ),
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the program of `phoenix_presets` left what it saw.

    Not below pytest's own folder: as root, Postgres runs as another user, whom each new pytest session locks out of it.
    """
    command = executable()
    with tempfile.TemporaryDirectory(prefix="phoenix-") as name:
        Path(name).chmod(0o755)
        run_program(command, Path(name))
        yield Path(name)


def run_program(command: Path, found: Path) -> None:
    """Run `phoenix_presets` in a network of its own, where that is possible."""
    program = [sys.executable, "-m", "tests.journeys.phoenix_presets", str(found), str(command)]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        isolated(program),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def seen(folder: Path) -> dict[str, Any]:
    """What Phoenix knew in the end."""
    return json.loads((folder / "seen.json").read_text())


def tree(spans: list[dict[str, Any]], root: dict[str, Any]) -> Any:
    """Name, kind and children of a span, in the order in which they began."""
    below = [span for span in spans if span["parent_id"] == root["context"]["span_id"]]
    below.sort(key=lambda span: span["start_time"])
    return (root["name"], root["span_kind"], *(tree(spans, child) for child in below))


def named(found: dict[str, Any], name: str) -> dict[str, Any]:
    """The attributes of the one span of that name in the query's trace."""
    root = next(span for span in found["spans"] if span["name"] == "query")
    trace = root["context"]["trace_id"]
    (span,) = [
        span for span in found["spans"] if span["name"] == name and span["context"]["trace_id"] == trace
    ]
    return span["attributes"]


@pytest.mark.parametrize("preset", TREES)
def test_a_query_is_one_tree(seen: dict[str, Any], preset: str) -> None:
    """Each stage once, each leg of a hybrid search by name, no method shown twice."""
    spans = seen["presets"][preset]["spans"]
    roots = [span for span in spans if span["parent_id"] is None]
    assert sorted(span["name"] for span in roots) == ["ingest", "query"]
    (query,) = [span for span in roots if span["name"] == "query"]
    assert tree(spans, query) == TREES[preset]
    assert {span["status_code"] for span in spans} == {"OK"}


@pytest.mark.parametrize("preset", TREES)
def test_the_root_says_whose_question_it_was(seen: dict[str, Any], preset: str) -> None:
    """Preset, tenant, session and the query_id of response, ledger and audit log."""
    found = seen["presets"][preset]
    root = named(found, "query")
    assert root["rag.query_id"] == found["query_id"]
    assert (root["rag.preset"], root["rag.tenant"], root["session.id"]) == (preset, "acme", "visit-7")
    assert root["rag.known"] is True


def own_bill(seen: dict[str, Any], name: str) -> dict[str, Any]:
    """What Phoenix itself added up for a project."""
    (project,) = [edge["node"] for edge in seen["costs"] if edge["node"]["name"] == name]
    return project


@pytest.mark.parametrize("preset", TREES)
def test_tokens_and_cost_are_the_servers_bill(seen: dict[str, Any], preset: str) -> None:
    """1,000 tokens in, 400 of them cached, 100 out: $0.00018, by our price and by Phoenix's own."""
    found = seen["presets"][preset]
    llm, embed, root = (named(found, name) for name in ("llm", "embed", "query"))
    assert llm["llm.token_count.prompt"] == 1000
    assert llm["llm.token_count.prompt_details.cache_read"] == 400
    assert llm["llm.token_count.completion"] == 100
    assert llm["llm.cost.total"] == pytest.approx(600 * 0.15e-6 + 400 * 0.075e-6 + 100 * 0.6e-6)
    assert root["rag.cost_usd"] == pytest.approx(found["cost_usd"])
    assert root["rag.cost_usd"] == pytest.approx(llm["llm.cost.total"] + embed["llm.cost.total"])
    project = own_bill(seen, preset)
    assert project["costSummary"]["total"]["cost"] == pytest.approx(llm["llm.cost.total"])
    assert project["tokenCountTotal"] == 1100


def test_the_model_of_the_row_is_priced_by_both(seen: dict[str, Any]) -> None:
    """Whatever model the row names today, Phoenix knows its price, and it is ours."""
    llm = named(seen["row"], "llm")
    assert llm["llm.model_name"].startswith("gpt-") and llm["llm.model_name"] != "gpt-4o-mini"
    assert llm["llm.cost.total"] > 0
    assert own_bill(seen, "model-of-the-row")["costSummary"]["total"]["cost"] == pytest.approx(
        llm["llm.cost.total"]
    )


def test_each_leg_shows_its_own_ranking(seen: dict[str, Any]) -> None:
    """Documents with scores and ranks on both legs, the history of both on the fused hits."""
    found = seen["presets"]["financial-documents"]
    for leg in ("vector", "bm25"):
        shown = named(found, f"retrieve: {leg}")
        assert shown["retrieval.documents.0.document.score"] is not None
        assert shown["retrieval.documents.0.document.metadata.rank"] == 1  # Phoenix unfolds the JSON
    fused = named(found, "retrieve")
    for stage in ("vector", "bm25", "fusion"):
        assert fused[f"retrieval.documents.0.document.metadata.stages.{stage}.rank"] == 1


def test_the_reranker_shows_what_came_in_and_what_went_out(seen: dict[str, Any]) -> None:
    """With the model and the score that each passage got."""
    shown = named(seen["presets"]["customer-chatbot"], "rerank")
    came = {shown[f"reranker.input_documents.{place}.document.id"] for place in range(3)}
    went = {shown[f"reranker.output_documents.{place}.document.id"] for place in range(3)}
    assert came == went
    assert shown["reranker.model_name"] == "cross-encoder"
    assert 0 <= shown["reranker.output_documents.0.document.score"] <= 1


def test_an_ingest_is_one_tree_too(seen: dict[str, Any]) -> None:
    """A child for each document and one for their embeddings."""
    spans = seen["presets"]["knowledge-base"]["spans"]
    (root,) = [span for span in spans if span["name"] == "ingest"]
    assert [child[0] for child in tree(spans, root)[2:]] == ["document"] * 3 + ["embed"]


def test_no_text_reached_phoenix(seen: dict[str, Any]) -> None:
    """Neither question nor passage nor answer: only keyed digests of them."""
    told = json.dumps([found["spans"] for found in seen["presets"].values()])
    assert "Birch" not in told
    assert "million" not in told
    assert "sha256:" in told


@pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)
@pytest.mark.parametrize("preset", TREES)
def test_a_browser_shows_the_tree(folder: Path, seen: dict[str, Any], preset: str) -> None:
    """Phoenix's own page, in headless Chromium."""
    page = seen["presets"][preset]["page"]
    for name in ("retrieve", "embed", "llm"):
        assert name in page
    with Image.open(folder / f"phoenix-{preset}.png") as picture:
        assert picture.size == (1440, 760)
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 100, "the page is blank"
        if os.environ.get("PRESETS_SAVE_IMAGES"):
            images = ROOT / "docs" / "images"
            images.mkdir(exist_ok=True)
            picture.convert("RGB").quantize(64).save(images / f"phoenix-{preset}.png", optimize=True)
