"""CrossEncoderRerank beside CrossEncoder.predict and LlamaIndex's SentenceTransformerRerank, same weights.

    python benchmarks/rerank.py --data DIR [--model FOLDER] [--rounds 5] [--queries 10]

`--data` holds scifact/ in BEIR form; `--model` is a cross-encoder folder (else the packaged MiniLM encoder with
a random head: right for speed, too flat to judge rank agreement). Rounds are interleaved and shuffled; the
ratios are medians of per-round ratios. CPU time stands beside wall time: on a machine that others use, only
the former can be compared, and with --threads 1 it is the wall time of an idle machine.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from llama_index.core.postprocessor import SentenceTransformerRerank
from llama_index.core.schema import NodeWithScore, TextNode
from scipy.stats import kendalltau
from sentence_transformers import CrossEncoder

from llama_index_presets import CrossEncoderRerank
from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import find_weights

MIXED_TOKENS = (30, 60, 90, 140, 200, 260, 330)
FIXED_TOKENS = 256
DEADLINES_MS = (100, 300, 1000)
# The stock reranker reads 512 tokens whatever the model says; so do the others here.
MAX_LENGTH = 512


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def random_head(folder: Path) -> Path:
    torch.manual_seed(0)
    weights = find_weights(embedding_model("all-MiniLM-L6-v2"))
    CrossEncoder(str(weights), num_labels=1, device="cpu").save_pretrained(str(folder))
    return folder


def texts_of(documents: list[dict[str, str]], tokenizer, lengths: list[int]) -> list[str]:
    """Texts of exactly as many tokens as asked, made of consecutive abstracts."""
    found = []
    for place, length in enumerate(lengths):
        ids: list[int] = []
        while len(ids) < length:
            ids += tokenizer(documents[place]["text"], add_special_tokens=False, verbose=False)["input_ids"]
            place = (place + len(lengths)) % len(documents)
        found.append(tokenizer.decode(ids[:length]))
    return found


def nodes_of(texts: list[str]) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=str(place), text=text), score=1 - place / len(texts))
        for place, text in enumerate(texts)
    ]


def interleaved(
    runs: dict[str, Callable[[], object]], rounds: int, draw: random.Random
) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU) seconds of each run in each round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name in draw.sample(list(runs), len(runs)):
            began, busy = time.perf_counter(), time.process_time()
            runs[name]()
            seconds[name].append((time.perf_counter() - began, time.process_time() - busy))
    return seconds


def speed(title: str, query: str, texts: list[str], model: str, rounds: int) -> None:
    predict = CrossEncoder(model, device="cpu", max_length=MAX_LENGTH)
    stock = SentenceTransformerRerank(model=model, top_n=10, device="cpu", trust_remote_code=False)
    ways: dict[str, dict[str, Any]] = {
        "float32": {"precision": "float32"},
        "bfloat16, torch": {"precision": "bfloat16"},
        "bfloat16, OpenVINO": {"backend": "openvino"},
    }
    ours = {
        name: CrossEncoderRerank(model, top_n=10, max_length=MAX_LENGTH, device="cpu", **way).warm_up()
        for name, way in ways.items()
    }
    runs: dict[str, Callable[[], object]] = {
        "SentenceTransformerRerank": lambda: stock.postprocess_nodes(nodes_of(texts), query_str=query),
        "CrossEncoder.predict": lambda: predict.predict([(query, text) for text in texts]),
    }
    for name, rerank in ours.items():
        runs[f"CrossEncoderRerank {name}"] = lambda rerank=rerank: rerank.postprocess_nodes(
            nodes_of(texts), query_str=query
        )
    for run in runs.values():
        run()
    seconds = interleaved(runs, rounds, random.Random(1))
    print_speed(title, seconds, rounds, len(texts))


def print_speed(title: str, seconds: dict[str, list[tuple[float, float]]], rounds: int, pairs: int) -> None:
    stock = seconds["SentenceTransformerRerank"]
    print(f"\n{title}: {pairs} pairs, {rounds} interleaved rounds, {torch.get_num_threads()} threads\n")
    print("| | wall s | CPU s | x stock, wall | x stock, CPU |\n|---|---|---|---|---|")
    for name, found in seconds.items():
        medians = [statistics.median(one[kind] for one in found) for kind in (0, 1)]
        ratios = [
            statistics.median(base[kind] / one[kind] for base, one in zip(stock, found, strict=True))
            for kind in (0, 1)
        ]
        print(
            f"| {name} | {medians[0]:.2f} | {medians[1]:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |",
            flush=True,
        )


def exactness(query: str, texts: list[str], model: str) -> None:
    raw = CrossEncoder(model, device="cpu", max_length=MAX_LENGTH).predict(
        [(query, text) for text in texts], activation_fn=torch.nn.Sigmoid()
    )
    rerank = CrossEncoderRerank(
        model, top_n=len(texts), precision="float32", max_length=MAX_LENGTH, device="cpu"
    )
    found = rerank.postprocess_nodes(nodes_of(texts), query_str=query)
    order = sorted(range(len(texts)), key=lambda place: -raw[place])
    same = [hit.node_id for hit in found] == [str(place) for place in order]
    worst = max(abs(hit.score - float(raw[int(hit.node_id)])) for hit in found)
    print(f"\nfloat32 against CrossEncoder.predict, {len(texts)} pairs: same order {same}, "
          f"largest difference {worst:.1e}", flush=True)  # fmt: skip


def agreement(data: Path, model: str, queries: int) -> None:
    """bfloat16 against float32 on real queries: a relevant abstract of each among 49 drawn at random."""
    documents = {row["_id"]: row for row in rows(data / "scifact" / "corpus.jsonl")}
    asked = {row["_id"]: row["text"] for row in rows(data / "scifact" / "queries.all.jsonl")}
    judged = [line.split("\t") for line in (data / "scifact" / "qrels.tsv").read_text().splitlines()[1:]]
    draw = random.Random(2)
    rerankers = [
        CrossEncoderRerank(model, precision=precision, device="cpu") for precision in ("float32", "bfloat16")
    ]
    overlaps, taus, gaps = [], [], []
    for query, relevant, _ in draw.sample(judged, queries):
        chosen = [relevant, *draw.sample(sorted(documents), 49)]
        hits = nodes_of([f"{documents[name]['title']}\n{documents[name]['text']}" for name in chosen])
        exact, fast = (rerank.probabilities(asked[query], hits) for rerank in rerankers)
        tops = [set(sorted(range(50), key=lambda p: -scores[p])[:10]) for scores in (exact, fast)]
        overlaps.append(len(tops[0] & tops[1]) / 10)
        taus.append(kendalltau(exact, fast).statistic)
        gaps.append(max(abs(one - other) for one, other in zip(exact, fast, strict=True)))
    print(f"\nbfloat16 against float32, {queries} queries x 50 abstracts: top-10 overlap mean "
          f"{statistics.mean(overlaps):.3f} (min {min(overlaps):.1f}), Kendall tau mean {statistics.mean(taus):.4f}, "
          f"largest difference of a probability {max(gaps):.4f}", flush=True)  # fmt: skip


def deadlines(query: str, texts: list[str], model: str, rounds: int) -> None:
    rerankers = {
        deadline: CrossEncoderRerank(
            model, top_n=10, deadline_ms=deadline, max_length=MAX_LENGTH, device="cpu"
        ).warm_up()
        for deadline in DEADLINES_MS
    }
    next(iter(rerankers.values())).postprocess_nodes(nodes_of(texts), query_str=query)
    scored: dict[int, list[int]] = {deadline: [] for deadline in DEADLINES_MS}

    def run(deadline: int) -> None:
        found = rerankers[deadline].postprocess_nodes(nodes_of(texts), query_str=query)
        scored[deadline].append(found.report.candidates - found.report.unscored)

    runs: dict[str, Callable[[], object]] = {
        str(deadline): lambda deadline=deadline: run(deadline) for deadline in DEADLINES_MS
    }
    seconds = interleaved(runs, rounds, random.Random(3))
    print(
        f"\n{len(texts)} pairs with a deadline\n\n| deadline ms | median ms | worst ms | pairs scored |"
        "\n|---|---|---|---|"
    )
    for deadline in DEADLINES_MS:
        took = [wall * 1000 for wall, _ in seconds[str(deadline)]]
        print(f"| {deadline} | {statistics.median(took):.0f} | {max(took):.0f} | "
              f"{statistics.median(scored[deadline]):.0f} |", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--threads", type=int, help="torch threads; default: all cores")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = str(arguments.model or random_head(Path(folder)))
        documents = rows(arguments.data / "scifact" / "corpus.jsonl")
        query = rows(arguments.data / "scifact" / "queries.jsonl")[0]["text"]
        tokenizer = CrossEncoder(model, device="cpu").tokenizer
        draw = random.Random(0)
        mixed = texts_of(documents, tokenizer, [draw.choice(MIXED_TOKENS) for _ in range(arguments.pairs)])
        beside = len(tokenizer(query, add_special_tokens=False)["input_ids"]) + 3
        fixed = texts_of(documents, tokenizer, [FIXED_TOKENS - beside] * arguments.pairs)
        print(
            f"{'trained' if arguments.model else 'random'} head, {torch.get_num_threads()} threads",
            flush=True,
        )
        exactness(query, mixed, model)
        speed("mixed lengths", query, mixed, model, arguments.rounds)
        speed(f"fixed {FIXED_TOKENS} tokens", query, fixed, model, arguments.rounds)
        deadlines(query, fixed, model, max(9, arguments.rounds))
        if arguments.queries:
            agreement(arguments.data, model, arguments.queries)


if __name__ == "__main__":
    main()
