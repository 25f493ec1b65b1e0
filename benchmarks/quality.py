"""Retrieval quality and latency of any preset on any folder in BEIR layout.

    python benchmarks/quality.py --data DIR/scifact [--preset healthcare] [--pattern simple] [--store lancedb] …

    python benchmarks/quality.py --compare --data DIR/scifact … [--queries 500] [--results FILE] [--figure FILE]

The second line prints nDCG@10 of the default hybrid search beside its legs, min-max fusion and QueryFusionRetriever in
two modes, by collection, with the mean and the worst margin to the better leg. Collections whose scores are in the
file of results are not measured again.

A folder holds corpus.jsonl, queries.jsonl and qrels.tsv. Documents are ingested as a user would ingest them; a
document's score is that of its best chunk. Measures come from ir-measures. The index is kept, so a second run
measures without embedding again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import ir_measures
from ir_measures import RR, R, nDCG
from llama_index.core import Document
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import QueryBundle

from llama_index_presets import LocalEmbedding, build
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.matrix import preset

MEASURES = [nDCG @ 10, R @ 100, RR @ 10]
DEPTH = 100


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_documents(folder: Path) -> list[Document]:
    """Title and text; the title is embedded with every chunk, as a heading would be."""
    return [
        Document(
            text=row["text"] or row["title"],
            doc_id=row["_id"],
            metadata={"title": row["title"]} if row.get("title") and row["text"] else {},
        )
        for row in read_lines(folder / "corpus.jsonl")
        if row["text"] or row.get("title")
    ]


def read_judgments(folder: Path, name: str = "qrels.tsv") -> dict[str, dict[str, int]]:
    judgments: dict[str, dict[str, int]] = {}
    for line in (folder / name).read_text(encoding="utf-8").splitlines()[1:]:
        query, document, score = line.split("\t")
        judgments.setdefault(query, {})[document] = int(score)
    # A query without a relevant document measures nothing, and is left out everywhere in the literature.
    return {query: found for query, found in judgments.items() if any(score > 0 for score in found.values())}


def search(retriever: Any, query: str | QueryBundle) -> dict[str, float]:
    """Best score of each document, at most DEPTH documents."""
    found: dict[str, float] = {}
    for hit in retriever.retrieve(query):
        found.setdefault(hit.node.ref_doc_id, hit.score)
    return dict(list(found.items())[:DEPTH])


def systems(engine: PresetEngine) -> dict[str, BaseRetriever]:
    """The default hybrid search of an engine, and what it is compared with, over the same chunks and vectors."""
    from llama_index.core.llms import MockLLM
    from llama_index.core.retrievers import QueryFusionRetriever
    from llama_index.retrievers.bm25 import BM25Retriever

    hybrid = engine.retriever
    vector = engine.index.as_retriever(similarity_top_k=DEPTH)
    nodes = engine.vector_store.get_nodes(None, None)
    stock = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=DEPTH)
    fused = {
        f"QueryFusionRetriever {mode}": QueryFusionRetriever(
            [vector, stock], llm=MockLLM(), num_queries=1, mode=mode, similarity_top_k=DEPTH, use_async=False
        )
        for mode in ("reciprocal_rerank", "relative_score")
    }
    return {
        "vector": vector,
        "BM25": hybrid.keyword_index.as_retriever(DEPTH),
        "BM25Retriever": stock,
        "hybrid, default": hybrid,
        "hybrid, relative": hybrid.tuned_to("relative"),
        "hybrid, rrf": hybrid.tuned_to("rrf"),
        **fused,
    }


def compare(folder: Path, storage: Path, limit: int | None) -> dict[str, list[float]]:
    """nDCG@10 of every system for each question of a collection."""
    settings = {"store": "duckdb", "top_k": DEPTH}
    with build("financial-documents", storage=storage, offline=True, settings=settings) as engine:
        engine.ingest(read_documents(folder))
        judgments = read_judgments(folder)
        texts = {row["_id"]: row["text"] for row in read_lines(folder / "queries.jsonl")}
        asked = list(judgments)[:: max(1, len(judgments) // limit) if limit else 1]
        model = engine.index._embed_model
        vectors = dict(
            zip(asked, model.get_text_embedding_batch([texts[query] for query in asked]), strict=True)
        )
        found: dict[str, list[float]] = {}
        for name, retriever in systems(engine).items():
            run = {}
            for query in asked:
                bundle = QueryBundle(texts[query], embedding=vectors[query])
                run[query] = search(retriever, bundle)
            scores = ir_measures.iter_calc([nDCG @ 10], {query: judgments[query] for query in asked}, run)
            found[name] = [score.value for score in scores]
    return found


def compare_all(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Collection -> system -> nDCG@10 of each question; kept in the file of results after each collection."""
    kept: Path | None = options.results
    results = json.loads(kept.read_text(encoding="utf-8")) if kept and kept.exists() else {}
    for folder in options.data:
        if folder.name in results:
            continue
        storage = (options.storage or Path(".cache") / "quality") / f"{folder.name}-compared"
        scores = compare(folder, storage, options.queries)
        results[folder.name] = {
            name: [round(score, 5) for score in values] for name, values in scores.items()
        }
        print(f"{folder.name}: done", flush=True)
        if kept:
            kept.write_text(json.dumps(results, separators=(",", ":")) + "\n", encoding="utf-8")
    return results


def print_comparison(results: dict[str, dict[str, list[float]]]) -> None:
    """A row a system; after each mean half the width of its 95 % interval over the questions."""
    names = list(results)
    means = {
        name: {one: statistics.fmean(values) for one, values in found.items()}
        for name, found in results.items()
    }
    print(f"\n| nDCG@10 | {' | '.join(names)} | mean | worst margin |")
    print("|---" * (len(names) + 3) + "|")
    for one in next(iter(means.values())):
        cells, margins = [], []
        for name in names:
            values = results[name][one]
            half = 1.96 * statistics.stdev(values) / len(values) ** 0.5
            cells.append(f"{means[name][one]:.4f} ± {half:.3f}")
            margins.append(means[name][one] - max(means[name]["vector"], means[name]["BM25"]))
        mean = statistics.fmean(means[name][one] for name in names)
        print(f"| {one} | {' | '.join(cells)} | {mean:.4f} | {min(margins):+.4f} |")


def draw(path: Path, results: dict[str, dict[str, list[float]]]) -> None:
    """Mean nDCG@10 of each system by collection, with 95 % intervals over the questions."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "quality"
    import matplotlib.pyplot as plt

    shown, axes = plt.subplots(figsize=(9, 4))
    names = list(next(iter(results.values())))
    for place, name in enumerate(names):
        scores = [found[name] for found in results.values()]
        means = [statistics.fmean(values) for values in scores]
        halves = [1.96 * statistics.stdev(values) / len(values) ** 0.5 for values in scores]
        across = [one + (place - (len(names) - 1) / 2) * 0.1 for one in range(len(scores))]
        mark = "D" if name == "hybrid, default" else "o"
        axes.errorbar(across, means, halves, fmt=mark, markersize=5, capsize=2, linewidth=1, label=name)
    labels = [f"{name}\n{len(next(iter(found.values())))} questions" for name, found in results.items()]
    axes.set_xticks(range(len(results)), labels)
    axes.set_ylabel("nDCG@10")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    shown.savefig(path, metadata={"Date": None}, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, nargs="+", help="one folder, or several to compare"
    )
    parser.add_argument(
        "--compare", action="store_true", help="all systems beside each other, on each folder"
    )
    parser.add_argument(
        "--queries", type=int, help="with --compare: about so many of each collection, evenly taken"
    )
    parser.add_argument("--results", type=Path, help="with --compare: JSON file of the scores, added to")
    parser.add_argument(
        "--figure", type=Path, help="with --compare: SVG of means and intervals by collection"
    )
    parser.add_argument("--preset", default="healthcare")
    parser.add_argument("--storage", type=Path, help="default: .cache/quality/DATA-PRESET-CELLS")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16", "int8"], default="auto")
    parser.add_argument("--online", action="store_true", help="use the preset's network services")
    for cell in ("pattern", "store", "embedding"):
        parser.add_argument(f"--{cell}")
    options = parser.parse_args()
    if options.compare:
        results = compare_all(options)
        print_comparison(results)
        if options.figure:
            draw(options.figure, results)
        return
    if len(options.data) > 1:
        parser.error("several folders go with --compare")
    (options.data,) = options.data
    cells = {
        cell: getattr(options, cell) for cell in ("pattern", "store", "embedding") if getattr(options, cell)
    }
    settings = {**cells, "top_k": 3 * DEPTH}
    given: dict[str, Any] = {}
    if options.precision != "auto":
        model = options.embedding or preset(options.preset).embedding
        given["embed_model"] = LocalEmbedding(model, precision=options.precision)
        cells["precision"] = options.precision
    name = "-".join([options.data.name, options.preset, *cells.values()])
    storage = options.storage or Path(".cache") / "quality" / name
    with build(
        options.preset, storage=storage, offline=not options.online, settings=settings, **given
    ) as engine:
        started = time.perf_counter()
        report = engine.ingest(read_documents(options.data))
        for failed in report.failed:
            print(f"left out: {failed.source}: {failed.error}")
        print(
            f"{report.chunks} chunks in {time.perf_counter() - started:.0f} s, {report.unchanged} documents unchanged"
        )
        judgments = read_judgments(options.data)
        questions = {row["_id"]: row["text"] for row in read_lines(options.data / "queries.jsonl")}
        run, latencies = {}, []
        for query_id in judgments:
            started = time.perf_counter()
            run[query_id] = search(engine.retriever, questions[query_id])
            latencies.append((time.perf_counter() - started) * 1000)
    scores = ir_measures.calc_aggregate(MEASURES, judgments, run)
    latencies.sort()
    print(f"{options.data.name}, preset {options.preset} {cells or ''}: {len(judgments)} queries")
    print("  ".join(f"{measure} {scores[measure]:.5f}" for measure in MEASURES))
    print(
        f"latency p50 {statistics.median(latencies):.1f} ms, p95 {latencies[int(len(latencies) * 0.95)]:.1f} ms"
    )


if __name__ == "__main__":
    main()
