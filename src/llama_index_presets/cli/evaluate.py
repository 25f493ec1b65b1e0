"""The command that measures an index on judged questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_index_presets.cli.app import (
    STORAGE,
    AsJson,
    Offline,
    PresetName,
    SettingsFile,
    StorageFolder,
    app,
    emit,
    print_table,
    say,
    table,
)
from llama_index_presets.cli.engines import open_engine

__all__ = ["evaluate"]


@app.command()
def evaluate(
    preset: PresetName,
    questions: Annotated[Path, typer.Option("--questions", help="Folder with queries.jsonl and qrels.tsv.")],
    storage: StorageFolder = STORAGE,
    offline: Offline = False,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Whether re-ranking pays on your questions, and at which blend (advanced pattern)."""
    from llama_index_presets.evaluate.questions import read_beir
    from llama_index_presets.presets.reranking_report import reranking_report

    asked = read_beir(questions)
    with open_engine(preset, storage, offline, settings) as engine:
        report = reranking_report(engine, asked)
    if as_json:
        scores = {str(blend): score for blend, score in report.ndcg_at_10.items()}
        verdict = {"best_blend": report.best_blend, "pays": report.pays}
        emit({"questions": report.questions, "ndcg_at_10": scores, **verdict})
        return
    shown = table("blend", "nDCG@10")
    for blend, score in sorted(report.ndcg_at_10.items()):
        note = {0.0: "  re-ranker alone", 1.0: "  retrieval order"}.get(blend, "")
        shown.add_row(f"{blend:g}", f"{score:.4f}{note}")
    print_table(shown)
    result = f"pays, at blend = {report.best_blend:g}" if report.pays else "does not pay"
    say(f"Re-ranking {result}, on these {report.questions} questions.")
