"""Late interaction over the packaged embedding's token vectors (MaxSim) as a re-ranker, beside the default hybrid.

    python benchmarks/maxsim.py --data DIR/scifact … [--queries 150] [--depth 30] [--storage DIR] [--scores FILE]

A folder is one in BEIR layout, ingested as benchmarks/quality.py does. Where it has qrels.train.tsv, these questions
are asked: no decision is made on a test set. The first hits of the hybrid search are scored
again: for each word piece of the question the best cosine with a word piece of the chunk, averaged over the question
(MaxSim), with every piece counting once or by how rare it is among the collection's chunks; and, for comparison, the
best cosine of the question's vector with a window of pieces of the chunk. A blend adds its share to the fused score.
Prints nDCG@10 of documents by collection, and how many milliseconds of CPU a question takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from ir_measures import nDCG
from llama_index.core.schema import MetadataMode
from quality import read_documents, read_judgments, read_lines

from llama_index_presets import build
from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import find_weights
from llama_index_presets.inference.model_folder import read_model_folder
from llama_index_presets.inference.text_encoder import OnnxTextEncoder

WINDOW = 32
SHARES = (0.1, 0.2, 0.3, 0.5, 1.0)


def token_vectors(encoder: OnnxTextEncoder, texts: Sequence[str]) -> list[tuple[list[str], np.ndarray]]:
    """Word pieces of each text with a letter or digit, and their unit vectors, shape (pieces, dim)."""
    encodings = encoder._tokenizer.encode(texts)
    name_of = encoder._tokenizer._tokenizer.id_to_token
    tokens, _ = encoder._session.run(encodings, encoder._output)
    found = []
    for row, one in enumerate(encodings):
        kept = [
            place
            for place, piece in enumerate(map(name_of, one.ids))
            if not one.special_tokens_mask[place] and any(letter.isalnum() for letter in piece)
        ] or [0]
        vectors = tokens[row, kept]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        found.append(([name_of(one.ids[place]) for place in kept], vectors / np.maximum(norms, 1e-9)))
    return found


def training_questions(folder: Path) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Judgments by question, and the questions' texts; those for training where the folder has some."""
    training = (folder / "qrels.train.tsv").exists()
    judgments = read_judgments(folder, "qrels.train.tsv" if training else "qrels.tsv")
    rows = read_lines(folder / ("queries.all.jsonl" if training else "queries.jsonl"))
    return judgments, {row["_id"]: row["text"] for row in rows}


def measure(folder: Path, storage: Path, limit: int, depth: int) -> list[dict[str, Any]]:
    """Of each question: its judgments, and of each hit the document, the fused score and the late interactions."""
    settings = {"store": "duckdb", "top_k": depth}
    encoder = OnnxTextEncoder(read_model_folder(find_weights(embedding_model("all-MiniLM-L6-v2"))))
    with build("financial-documents", storage=storage, offline=True, settings=settings) as engine:
        engine.ingest(read_documents(folder))
        judgments, texts = training_questions(folder)
        asked = list(judgments)[:: max(1, len(judgments) // limit)]
        hits = {query: engine.retriever.retrieve(texts[query]) for query in asked}
    wanted: dict[str, tuple[str, list[str]]] = {}
    for query, found in hits.items():
        for hit in found:
            text = hit.node.get_content(MetadataMode.EMBED)
            wanted.setdefault(hit.node.node_id, (text, []))[1].append(query)
    questions = {query: token_vectors(encoder, [texts[query]])[0] for query in asked}
    whole = {query: encoder.encode([texts[query]], 1)[0] for query in asked}
    holders: Counter[str] = Counter()
    best: dict[tuple[str, str], tuple[np.ndarray, float]] = {}
    order = sorted(wanted, key=lambda name: len(wanted[name][0]))
    began = time.process_time()
    for start in range(0, len(order), 8):
        names = order[start : start + 8]
        for name, (pieces, vectors) in zip(
            names, token_vectors(encoder, [wanted[name][0] for name in names]), strict=True
        ):
            holders.update(set(pieces))
            windows = np.stack(
                [
                    vectors[at : at + WINDOW].mean(axis=0)
                    for at in range(0, max(len(vectors) - WINDOW // 2, 1), WINDOW // 2)
                ]
            )
            windows /= np.linalg.norm(windows, axis=1, keepdims=True)
            for query in wanted[name][1]:
                maxima = (questions[query][1] @ vectors.T).max(axis=1)
                best[query, name] = maxima, float((windows @ whole[query]).max())
    print(
        f"{folder.name}: {len(order)} chunks, {(time.process_time() - began) / len(order) * 1000:.1f} ms CPU a chunk, "
        f"{sum(map(len, hits.values())) / len(hits):.0f} hits a question",
        flush=True,
    )
    rows = []
    for query in asked:
        rarity = np.array([np.log(1 + len(order) / (1 + holders[piece])) for piece in questions[query][0]])
        rarity = rarity if rarity.sum() else np.ones_like(rarity)
        rows.append(
            {
                "query": query,
                "judgments": judgments[query],
                "hits": [
                    {
                        "document": hit.node.ref_doc_id,
                        "fused": hit.score,
                        "MaxSim": float(best[query, hit.node.node_id][0].mean()),
                        "MaxSim, rare pieces more": float(
                            (best[query, hit.node.node_id][0] * rarity).sum() / rarity.sum()
                        ),
                        "best window": best[query, hit.node.node_id][1],
                    }
                    for hit in hits[query]
                ],
            }
        )
    return rows


def stretched(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    span = array.max() - array.min()
    return (array - array.min()) / span if span > 0 else np.full(len(array), 0.5)


def ndcg(rows: list[dict[str, Any]], score: Callable[[list[dict[str, Any]]], Sequence[float]]) -> float:
    run: dict[str, dict[str, float]] = {}
    for row in rows:
        ranked: dict[str, float] = {}
        for hit, value in zip(row["hits"], score(row["hits"]), strict=True):
            ranked[hit["document"]] = max(ranked.get(hit["document"], -1e9), float(value))
        run[row["query"]] = ranked
    judgments = {row["query"]: row["judgments"] for row in rows}
    return float(ir_measures.calc_aggregate([nDCG @ 10], judgments, run)[nDCG @ 10])


def blended(kind: str, share: float) -> Callable[[list[dict[str, Any]]], Sequence[float]]:
    def score(hits: list[dict[str, Any]]) -> Sequence[float]:
        fused = stretched([hit["fused"] for hit in hits])
        return (1 - share) * fused + share * stretched([hit[kind] for hit in hits])

    return score


def report(found: dict[str, list[dict[str, Any]]]) -> None:
    print(f"\n| nDCG@10 | share | {' | '.join(found)} | mean | mean gain | worst |")
    print("|---" * (len(found) + 5) + "|")
    base = {name: ndcg(rows, blended("fused", 1.0)) for name, rows in found.items()}
    cells = " | ".join(f"{value:.4f}" for value in base.values())
    print(f"| hybrid | | {cells} | {statistics.fmean(base.values()):.4f} | | |")
    for kind in ("MaxSim", "MaxSim, rare pieces more", "best window"):
        for share in SHARES:
            own = {name: ndcg(rows, blended(kind, share)) for name, rows in found.items()}
            gains = [own[name] - base[name] for name in found]
            cells = " | ".join(f"{value:.4f}" for value in own.values())
            print(
                f"| {kind} | {share} | {cells} | {statistics.fmean(own.values()):.4f} "
                f"| {statistics.fmean(gains):+.4f} | {min(gains):+.4f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--queries", type=int, default=150, help="at least so many of each collection")
    parser.add_argument("--depth", type=int, default=10, help="hits that are scored again")
    parser.add_argument("--storage", type=Path, default=Path(".cache") / "quality")
    parser.add_argument("--scores", type=Path, help="file in which what was measured is kept")
    options = parser.parse_args()
    kept: Path | None = options.scores
    found = json.loads(kept.read_text(encoding="utf-8")) if kept and kept.exists() else {}
    for folder in options.data:
        if folder.name not in found:
            storage = options.storage / f"{folder.name}-compared"
            found[folder.name] = measure(folder, storage, options.queries, options.depth)
            if kept:
                kept.write_text(json.dumps(found) + "\n", encoding="utf-8")
    report(found)


if __name__ == "__main__":
    main()
