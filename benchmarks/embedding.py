"""Our embeddings beside the stock ones: local models, the cache, OpenAI's path, and ingesting a folder again.

    python benchmarks/embedding.py --data DIR [--part local cache openai folder quality] [--rounds 5] [--rows 5000]

`--data` holds scifact/ in BEIR form. `local` runs MiniLM on the same texts through `HuggingFaceEmbedding` with its
defaults and through `LocalEmbedding`; rounds are interleaved and shuffled, ratios are medians of per-round ratios, and
CPU time stands beside wall time. `openai` talks to a loopback server in a process of its own that takes --latency-ms
for each answer. `folder` ingests --rows documents twice, and once more into a new index that shares the cache.
`quality` is nDCG@10 on SciFact in float32, in int8, and in what `auto` takes: where OpenVINO is installed and the CPU
computes in bfloat16, a long run moves there (`explain()`); `torch bfloat16` is in `local` where torch is installed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding

from llama_index_presets import BatchedOpenAIEmbedding, CachedEmbedding, EmbeddingCache, LocalEmbedding, build
from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import find_weights

MODEL = "all-MiniLM-L6-v2"
MIXED_TOKENS = (24, 48, 80, 120, 160, 200, 250)
FIXED_TOKENS = 250
ROOT = Path(__file__).parent.parent
SERVER = """
import sys, time
from tests.servers.openai import OpenAIServer
with OpenAIServer(latency_s=float(sys.argv[1])) as server:
    print(server.url, flush=True)
    time.sleep(3600)
"""


def abstracts(data: Path) -> list[str]:
    with (data / "scifact" / "corpus.jsonl").open(encoding="utf-8") as stream:
        return [json.loads(line)["text"] for line in stream]


def texts_of(data: Path, count: int, lengths: tuple[int, ...]) -> list[str]:
    """Texts of about as many tokens as asked, in a shuffled order of lengths."""
    tokenizer = LocalEmbedding(MODEL)
    words = itertools.cycle(word for text in abstracts(data) for word in text.split())
    found = []
    for number in range(count):
        text, wanted = "", lengths[number % len(lengths)]
        while tokenizer.count_tokens([text])[0] < wanted:
            text += " " + " ".join(itertools.islice(words, max((wanted - len(text) // 5) // 4, 1)))
        while tokenizer.count_tokens([text])[0] > 256:
            text = text.rpartition(" ")[0]
        found.append(text)
    random.Random(7).shuffle(found)
    return found


def rounds_of(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of every run, in shuffled rounds, after one round to warm up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name in random.Random(number).sample(list(runs), len(runs)):
            wall, cpu = time.perf_counter(), time.process_time()
            runs[name]()
            if number:
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def table(title: str, times: dict[str, list[tuple[float, float]]], count: int, more: dict[str, str]) -> None:
    stock = next(iter(times))
    print(f"\n{title}")
    print(f"{'':34}{'texts/s':>9}{'x stock':>9}{'x by CPU':>10}")
    for name, found in times.items():
        walls = [wall for wall, _ in found]
        ratios = [
            [before[kind] / own[kind] for before, own in zip(times[stock], found, strict=True)]
            for kind in (0, 1)
        ]
        print(
            f"{name:34}{count / statistics.median(walls):9.1f}{statistics.median(ratios[0]):9.2f}"
            f"{statistics.median(ratios[1]):10.2f}  {more.get(name, '')}"
        )


def local(options: argparse.Namespace) -> None:
    folder = str(find_weights(embedding_model(MODEL)))
    stock = HuggingFaceEmbedding(model_name=folder, device="cpu")
    ours = {
        f"LocalEmbedding {precision}": LocalEmbedding(MODEL, precision=precision, device="cpu")
        for precision in ("auto", "int8")
    }
    ours["LocalEmbedding on ONNX Runtime"] = LocalEmbedding(MODEL, backend="onnx", device="cpu")
    ours["LocalEmbedding torch bfloat16"] = LocalEmbedding(
        MODEL, backend="torch", precision="bfloat16", device="cpu"
    )
    models = {"HuggingFaceEmbedding (stock)": stock, **ours}
    print(ours["LocalEmbedding auto"].explain())
    long_run = texts_of(options.data, 84, (FIXED_TOKENS,))  # `auto` is measured after it has moved
    ours["LocalEmbedding auto"].get_text_embedding_batch(long_run)
    for title, lengths in (("fixed", (FIXED_TOKENS,)), ("mixed", MIXED_TOKENS)):
        texts = texts_of(options.data, options.texts, lengths)
        exact = np.array(stock.get_text_embedding_batch(texts))
        agree = {}
        for name, model in models.items():
            cosines = np.sum(exact * np.array(model.get_text_embedding_batch(texts)), axis=1)
            agree[name] = f"cosine {cosines.mean():.6f} mean, {cosines.min():.6f} least"
        runs = {name: partial(model.get_text_embedding_batch, texts) for name, model in models.items()}
        counts = LocalEmbedding(MODEL).count_tokens(texts)
        head = f"{title} lengths, {len(texts)} texts, {statistics.mean(counts):.0f} tokens on average"
        table(head, rounds_of(runs, options.rounds), len(texts), agree)


def cache(options: argparse.Namespace) -> None:
    texts = texts_of(options.data, options.texts, MIXED_TOKENS)
    plain = LocalEmbedding(MODEL, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        kept = EmbeddingCache(folder)
        cached = CachedEmbedding(plain, kept)
        many = [f"{text} {number}" for number in range(20) for text in texts]
        vectors = np.array(cached.get_text_embedding_batch(texts), dtype=np.float32)
        keys = kept.keys(cached.identity, "passage", many)
        started = time.perf_counter()
        kept.put_many({key: vectors[place % len(texts)] for place, key in enumerate(keys)})
        written = (time.perf_counter() - started) / len(many)
        runs = {
            "MiniLM, batch": lambda: plain.get_text_embedding_batch(texts),
            "MiniLM, one at a time": lambda: [plain.get_text_embedding(text) for text in texts],
            "hit, batch": lambda: cached.get_text_embedding_batch(many),
            "hit, one at a time": lambda: [cached.get_text_embedding(text) for text in many],
        }
        times = rounds_of(runs, options.rounds)
        print(f"\ncache: {len(texts)} texts to MiniLM, {len(many)} to the cache; microseconds a text")
        each = {
            name: statistics.median(wall for wall, _ in found)
            / (len(many) if "hit" in name else len(texts))
            * 1e6
            for name, found in times.items()
        }
        for name, microseconds in each.items():
            print(f"{name:34}{microseconds:12.1f}")
        print(f"{'a miss adds (key, write)':34}{written * 1e6:12.1f}")
        print(f"a hit is {each['MiniLM, batch'] / each['hit, batch']:.0f} times as fast in batches,")
        print(f"{each['MiniLM, one at a time'] / each['hit, one at a time']:.0f} times one at a time")


def openai(options: argparse.Namespace) -> None:
    texts = (abstracts(options.data) * 2)[: options.requests * 100]
    command = [sys.executable, "-c", SERVER, str(options.latency_ms / 1000)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()  # type: ignore[union-attr]
            given: dict[str, Any] = {"model": "text-embedding-3-small", "api_key": "sk-x", "api_base": url}
            ours = BatchedOpenAIEmbedding(**given, concurrency=options.concurrency)
            runs = {
                "OpenAIEmbedding (stock)": lambda: OpenAIEmbedding(**given).get_text_embedding_batch(texts),
                "BatchedOpenAIEmbedding": lambda: ours.get_text_embedding_batch(texts),
            }
            times = rounds_of(runs, options.rounds)
        finally:
            server.kill()
    head = (
        f"OpenAI path, {len(texts)} texts, {options.latency_ms} ms an answer, {options.concurrency} at once"
    )
    table(head, times, len(texts), {})


def folder(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "documents").mkdir()
        for number, text in enumerate(
            itertools.islice(itertools.cycle(abstracts(options.data)), options.rows)
        ):
            (root / "documents" / f"{number}.txt").write_text(
                f"Report {number}. {text[:600]}", encoding="utf-8"
            )
        seconds = {}
        settings = {"embedding_cache": str(root / "vectors")}
        for name, storage in (("first run", "one"), ("unchanged", "one"), ("new index, same cache", "two")):
            with build("healthcare", storage=root / storage, offline=True, settings=settings) as engine:
                started = time.perf_counter()
                report = engine.ingest(root / "documents", show_progress=False)
                seconds[name] = time.perf_counter() - started
            share = seconds[name] / seconds["first run"]
            print(
                f"{name:34}{seconds[name]:9.2f} s {share:8.1%}  {report.documents} written, {report.unchanged} known"
            )


def quality(options: argparse.Namespace) -> None:
    """nDCG@10 of exact search over abstracts, one vector of their first 256 tokens each, by precision.

    With --documents, the corpus is what is judged for a question, and the first others up to that number.
    """
    import ir_measures

    place = options.data / "scifact"
    corpus, questions = (
        [json.loads(line) for line in (place / name).read_text(encoding="utf-8").splitlines()]
        for name in ("corpus.jsonl", "queries.jsonl")
    )
    judged = [line.split("\t") for line in (place / "qrels.tsv").read_text().splitlines()[1:]]
    judgments = [ir_measures.Qrel(query, document, int(score)) for query, document, score in judged]
    known = {document for _, document, _ in judged}
    corpus = sorted(corpus, key=lambda row: row["_id"] not in known)[: options.documents]
    texts = [f"{row['title']}\n{row['text']}" for row in corpus]
    per_query: dict[str, dict[str, float]] = {}
    for precision in options.precisions:
        model = LocalEmbedding(MODEL, precision=precision, device="cpu", long_text="truncate")
        began = time.process_time()
        passages = np.array(model.get_text_embedding_batch(texts), dtype=np.float32)
        seconds = time.process_time() - began
        asked = np.array([model.get_query_embedding(row["text"]) for row in questions], dtype=np.float32)
        scores = asked @ passages.T
        run = [
            ir_measures.ScoredDoc(row["_id"], corpus[column]["_id"], float(scores[number, column]))
            for number, row in enumerate(questions)
            for column in np.argsort(-scores[number], kind="stable")[:100]
        ]
        measured = ir_measures.iter_calc([ir_measures.nDCG @ 10], judgments, run)
        per_query[precision] = {one.query_id: one.value for one in measured}
        mean = statistics.mean(per_query[precision].values())
        print(
            f"{precision:10} nDCG@10 {mean:.4f} over {len(per_query[precision])} queries, {seconds:.0f} CPU s",
            flush=True,
        )
    exact, *others = options.precisions
    for precision in others:
        gaps = [per_query[precision][query] - value for query, value in per_query[exact].items()]
        error = statistics.stdev(gaps) / len(gaps) ** 0.5
        print(f"{precision} - {exact}: {statistics.mean(gaps):+.4f} +- {error:.4f} (standard error)")


PARTS = {"local": local, "cache": cache, "openai": openai, "folder": folder, "quality": quality}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=126, help="texts of the local and cache parts")
    parser.add_argument("--requests", type=int, default=40, help="requests of 100 texts of the OpenAI part")
    parser.add_argument("--latency-ms", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--rows", type=int, default=5000, help="documents of the folder part")
    parser.add_argument("--documents", type=int, help="documents of the quality part; default: all")
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["float32", "auto", "int8"],
        help="of the quality part, exact first",
    )
    options = parser.parse_args()
    for part in options.part:
        PARTS[part](options)


if __name__ == "__main__":
    main()
