"""Evaluation says whether re-ranking pays, from the user's own judgments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from tests.unit.rerank.conftest import save_model

from llama_index_presets import build
from llama_index_presets.errors import SettingsError
from llama_index_presets.evaluate.questions import read_beir
from llama_index_presets.experiments.reranking import reranking_report

TEXTS = {
    "d1": "The valve of the pump leaks.",
    "d2": "The rope of the lift is worn.",
    "d3": "Lamps are changed yearly.",
}


def write_judged(folder: Path) -> Path:
    folder.mkdir()
    rows = [
        {"_id": "1", "text": "Which valve leaks?"},
        {"_id": "2", "text": "What is worn?"},
        {"_id": "3", "text": "x"},
    ]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\td1\t1\n2\td2\t1\n2\td3\t0\n3\td1\t0\n")
    return folder


def test_questions_without_a_relevant_document_are_left_out(tmp_path: Path) -> None:
    """They would count as failures of every system."""
    found = read_beir(write_judged(tmp_path / "judged"))
    assert [(one.text, one.relevance) for one in found] == [
        ("Which valve leaks?", {"d1": 1.0}),
        ("What is worn?", {"d2": 1.0, "d3": 0.0}),
    ]


def test_another_layout_is_refused(tmp_path: Path) -> None:
    """The message says what is expected."""
    with pytest.raises(SettingsError, match=r"not a folder in BEIR layout .*queries.jsonl"):
        read_beir(tmp_path)


def test_the_report_has_every_blend_and_ends_with_the_retrieval_order(tmp_path: Path, run: Any) -> None:
    """Blend 1 is what retrieval gives by itself; nothing can be said to pay against a perfect one."""
    settings = {"pattern": "advanced", "reranker": save_model(tmp_path / "model"), "candidates": 3}
    (tmp_path / "settings.toml").write_text(
        "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    )
    with build("healthcare", storage=tmp_path / "s", settings=tmp_path / "settings.toml") as engine:
        engine.ingest([Document(text=text, doc_id=name) for name, text in TEXTS.items()])
    arguments = ["evaluate", "healthcare", "--questions", str(write_judged(tmp_path / "judged"))]
    arguments += [
        "--storage",
        str(tmp_path / "s"),
        "--settings",
        str(tmp_path / "settings.toml"),
        "--reranking",
        "--json",
    ]
    code, out, _ = run(*arguments)
    report = json.loads(out)
    assert code == 0
    assert report["questions"] == 2 and report["ndcg_at_10"]["1.0"] == 1.0
    assert (report["best_blend"], report["pays"]) == (1.0, False)


def test_an_engine_without_a_cross_encoder_says_so(tmp_path: Path) -> None:
    """There is nothing to measure."""
    with (
        build("healthcare", storage=tmp_path / "s") as engine,
        pytest.raises(SettingsError, match="no cross-encoder"),
    ):
        reranking_report(engine, [])
