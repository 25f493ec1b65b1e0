"""Hybrid search beside its peers: bm25s, BM25Retriever and QueryFusionRetriever; speed, memory and quality.

    python benchmarks/hybrid.py --data DIR [--cache DIR] [--only speed,memory,quality] [--documents 50000]

DIR holds BEIR-style collections (corpus.jsonl, queries.jsonl, qrels.tsv). Embeddings are all-MiniLM-L6-v2,
and are kept in --cache as .npy files. Query times are wall times of interleaved single calls: every query
goes to every system before the next query; with --clock cpu it is the time that the calling thread computed,
which tells more on a machine that others use, and nothing of waiting (QueryFusionRetriever's async rows).
What a fusion adds is its time less that of its vector leg, which gives hits that were computed before.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import bm25s
import numpy as np
import Stemmer
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.retrievers.bm25 import BM25Retriever

from llama_index_presets import BM25Index, HybridFusionRetriever
from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import find_weights
from llama_index_presets.ranking.fusion import FUSIONS
from llama_index_presets.ranking.ndcg import ndcg

FOUR = ("scifact", "tatqa", "hotpotqa-100", "medquad-liveqa")
CANDIDATES, TOP_K, QUERIES = 100, 10, 200


@dataclass
class Collection:
    name: str
    nodes: list[TextNode]
    queries: dict[str, str]
    qrels: dict[str, dict[str, float]]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def read(folder: Path) -> Collection:
    """A BEIR-style collection; a document is its title and its text."""
    nodes = [
        TextNode(id_=row["_id"], text=f"{row.get('title') or ''}\n{row['text']}".strip())
        for row in rows(folder / "corpus.jsonl")
    ]
    qrels: dict[str, dict[str, float]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = float(grade)
    qrels = {query: grades for query, grades in qrels.items() if any(g > 0 for g in grades.values())}
    queries = {row["_id"]: row["text"] for row in rows(folder / "queries.jsonl") if row["_id"] in qrels}
    return Collection(folder.name, nodes, queries, qrels)


def generated(count: int) -> Collection:
    """Documents of 20 to 250 words from a vocabulary with Zipf's frequencies; queries of words from documents."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i:x}" for i in range(60_000)])
    chance = 1 / np.arange(1, len(words) + 1) ** 1.05
    chance /= chance.sum()
    lengths = rng.integers(20, 250, count)
    stream = words[rng.choice(len(words), int(lengths.sum()), p=chance)]
    ends = np.cumsum(lengths)
    texts = [" ".join(stream[end - length : end]) for length, end in zip(lengths, ends, strict=True)]
    nodes = [TextNode(id_=f"d{i}", text=text, metadata={"tenant": i % 20}) for i, text in enumerate(texts)]
    picks = rng.integers(0, count, QUERIES)
    queries = {f"q{i}": " ".join(rng.choice(texts[pick].split(), 7)) for i, pick in enumerate(picks)}
    return Collection(f"generated-{count}", nodes, queries, {})


# -- speed ------------------------------------------------------------------------------------------------


class Known(BaseRetriever):
    """A vector leg whose search costs nothing: it gives hits that were computed before."""

    def __init__(self, nodes: list[TextNode], top_k: int) -> None:
        super().__init__()
        rng = np.random.default_rng(1)
        self.similarity_top_k = top_k
        self._picks = [[nodes[i] for i in rng.integers(0, len(nodes), CANDIDATES)] for _ in range(64)]
        self._scores = [0.7 - i / 300 for i in range(CANDIDATES)]

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        picked = self._picks[len(query_bundle.query_str) % 64][: self.similarity_top_k]
        return [NodeWithScore(node=n, score=s) for n, s in zip(picked, self._scores, strict=False)]


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def bare_bm25s(nodes: list[TextNode], stemmer: Any) -> bm25s.BM25:
    index = bm25s.BM25()
    texts = [node.text for node in nodes]
    index.index(
        bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False
    )
    return index


def lifecycle(collection: Collection, folder: Path) -> None:
    """Build, persist, load, add 1 %."""
    nodes, extra = (
        collection.nodes,
        [
            TextNode(id_=f"extra{i}", text=node.text)
            for i, node in enumerate(collection.nodes[: len(collection.nodes) // 100])
        ],
    )
    stemmer = Stemmer.Stemmer("english")
    built, bare = timed(lambda: bare_bm25s(nodes, stemmer))
    saved, _ = timed(lambda: bare.save(str(folder / "bm25s"), corpus=[n.text for n in nodes]))
    loaded, _ = timed(lambda: bm25s.BM25.load(str(folder / "bm25s"), load_corpus=True))
    report("bm25s", built, saved, loaded, built)
    built, stock = timed(lambda: BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=TOP_K))
    saved, _ = timed(lambda: stock.persist(str(folder / "stock")))
    loaded, _ = timed(lambda: BM25Retriever.from_persist_dir(str(folder / "stock")))
    report("BM25Retriever", built, saved, loaded, built)
    built, ours = timed(lambda: BM25Index.from_nodes(nodes))
    saved, _ = timed(lambda: ours.persist(folder / "ours"))
    on_disk = BM25Index(folder / "ours")
    loaded, _ = timed(lambda: BM25Index(folder / "ours").search("x"))
    added, _ = timed(lambda: on_disk.add(extra))
    report("BM25Index (added durably)", built, saved, loaded, added)
    print(f"| adding 1 % / building and persisting all | {added / (built + saved):.3f} | bar 0.05 |")


def report(name: str, built: float, saved: float, loaded: float, added: float) -> None:
    print(f"| {name} | {built:.2f} s | {saved:.2f} s | {loaded:.3f} s | {added:.3f} s |")


def fusion_of(legs: list[BaseRetriever], mode: str, use_async: bool) -> QueryFusionRetriever:
    return QueryFusionRetriever(
        legs, llm=MockLLM(), num_queries=1, mode=mode, use_async=use_async, similarity_top_k=TOP_K
    )


def query_times(collection: Collection, clock: Callable[[], float], count: int) -> None:
    nodes, queries = collection.nodes, list(collection.queries.values())[:count]
    stemmer = Stemmer.Stemmer("english")
    bare = bare_bm25s(nodes, stemmer)
    index = BM25Index.from_nodes(nodes)
    few, many = (BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=k) for k in (TOP_K, CANDIDATES))
    leg, short = Known(nodes, CANDIDATES), Known(nodes, TOP_K)

    def bare_query(query: str) -> Any:
        tokens = bm25s.tokenize(query, stopwords="en", stemmer=stemmer, show_progress=False)
        return bare.retrieve(tokens, k=TOP_K, show_progress=False)

    systems: dict[str, Callable[[str], Any]] = {
        "bm25s": bare_query,
        "BM25Retriever": few.retrieve,
        "BM25Index": index.as_retriever(TOP_K).retrieve,
        "vector leg, 100": leg.retrieve,
        "vector leg, 10": short.retrieve,
        "HybridFusionRetriever auto": HybridFusionRetriever(leg, index).retrieve,
        "HybridFusionRetriever rrf": HybridFusionRetriever(leg, index, fusion="rrf").retrieve,
        "QueryFusion rrf, 100 candidates": fusion_of([leg, many], "reciprocal_rerank", False).retrieve,
        "QueryFusion rrf async, 100": fusion_of([leg, many], "reciprocal_rerank", True).retrieve,
        "QueryFusion relative, 100": fusion_of([leg, many], "relative_score", False).retrieve,
        "QueryFusion rrf, 10 candidates": fusion_of([short, few], "reciprocal_rerank", False).retrieve,
    }
    gc.collect()
    gc.freeze()  # The corpora of the peers must not make collections of garbage slower for everyone.
    times: dict[str, list[float]] = {name: [] for name in systems}
    for round_ in range(3):
        for query in queries:
            for name, ask in systems.items():
                start = clock()
                ask(query)
                if round_:
                    times[name].append((clock() - start) * 1e6)
    gc.unfreeze()
    print(f"\n| {collection.name} | p50 us | p95 us |\n|---|---|---|")
    for name, taken in times.items():
        print(f"| {name} | {statistics.median(taken):.0f} | {np.percentile(taken, 95):.0f} |")
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    ours = middle["HybridFusionRetriever auto"] - middle["vector leg, 100"]
    print(f"| BM25Index / BM25Retriever | {middle['BM25Index'] / middle['BM25Retriever']:.2f} | bar 0.6 |")
    for name in (n for n in middle if n.startswith("QueryFusion")):
        base = "vector leg, 100" if "100" in name else "vector leg, 10"
        print(f"| auto adds / {name} adds | {ours / (middle[name] - middle[base]):.2f} | bar 0.4 |")


def memory(collection: Collection) -> None:
    """Growth of a fresh process that builds one index over the same nodes."""
    makers: dict[str, Callable[[], Any]] = {
        "bm25s": lambda: bare_bm25s(collection.nodes, Stemmer.Stemmer("english")),
        "BM25Retriever": lambda: BM25Retriever.from_defaults(nodes=collection.nodes),
        "BM25Index": lambda: BM25Index.from_nodes(collection.nodes),
    }
    with tempfile.TemporaryDirectory() as folder:
        BM25Index.from_nodes(collection.nodes, folder)
        makers["BM25Index, opened from its folder"] = lambda: (
            BM25Index(folder),
            BM25Index(folder).search("w1"),
        )[0]
        print(f"\n| {collection.name} | MiB | |\n|---|---|---|")
        millions = len(collection.nodes) / 1e6
        for name, make in makers.items():
            grown = _growth_mib(make)
            print(f"| {name} | {grown:.0f} | {grown / 1024 / millions:.1f} GiB per million |", flush=True)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 2**20
        print(f"| BM25Index, its folder | {size:.0f} | {size / 1024 / millions:.1f} GiB per million |")


def _growth_mib(make: Callable[[], Any]) -> float:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def measure() -> None:
        before = _resident_mib()
        kept = make()
        gc.collect()
        sender.send(_resident_mib() - before)
        del kept

    process = context.Process(target=measure)
    process.start()
    grown = float(receiver.recv())
    process.join()
    return grown


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


# -- quality ----------------------------------------------------------------------------------------------


def embedded(texts: list[str], cache: Path | None, name: str) -> np.ndarray:
    """Unit vectors by all-MiniLM-L6-v2, shape (texts, 384); long texts are cut at 256 tokens."""
    file = None if cache is None else cache / f"{name}.npy"
    if file is not None and file.exists():
        return np.load(file)
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_weights(embedding_model("all-MiniLM-L6-v2"))), device="cpu")
    vectors = model.encode(texts, batch_size=16, normalize_embeddings=True).astype(np.float32)
    if file is not None:
        np.save(file, vectors)
    return vectors


class Cosine(BaseRetriever):
    """Exact vector search over vectors that were computed before."""

    def __init__(self, collection: Collection, cache: Path | None) -> None:
        super().__init__()
        self.nodes = collection.nodes
        self.vectors = embedded([n.text for n in self.nodes], cache, f"{collection.name}.corpus")
        texts = list(collection.queries.values())
        asked = embedded(texts, cache, f"{collection.name}.judged-queries")
        self.asked = dict(zip(texts, asked, strict=True))
        self.places = {node.node_id: place for place, node in enumerate(self.nodes)}
        self.similarity_top_k = CANDIDATES

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        cosine = self.vectors @ self.asked[query_bundle.query_str]
        best = np.argsort(-cosine, kind="stable")[: self.similarity_top_k]
        return [NodeWithScore(node=self.nodes[i], score=float(cosine[i])) for i in best]

    def score_ids(self, query_bundle: QueryBundle, ids: Sequence[str]) -> dict[str, float]:
        """Cosines of given nodes, as a vector store would tell them."""
        asked = self.asked[query_bundle.query_str]
        return {name: float(self.vectors[self.places[name]] @ asked) for name in ids}


def measures(collection: Collection, retriever: BaseRetriever) -> tuple[float, float]:
    """nDCG@10 and Recall@100."""
    gains, recalls = [], []
    for query, text in collection.queries.items():
        found = [hit.node.node_id for hit in retriever.retrieve(text)]
        relevant = {name for name, grade in collection.qrels[query].items() if grade > 0}
        gains.append(ndcg(found, collection.qrels[query], TOP_K))
        recalls.append(len(relevant & set(found[:100])) / len(relevant))
    return statistics.fmean(gains), statistics.fmean(recalls)


def quality(collections: list[Collection], cache: Path | None) -> None:
    """nDCG@10 / Recall@100 of the legs, of every fusion at its defaults, and of QueryFusionRetriever."""
    table: dict[str, dict[str, tuple[float, float]]] = {}
    for collection in collections:
        leg, index = Cosine(collection, cache), BM25Index.from_nodes(collection.nodes)
        stock = BM25Retriever.from_defaults(nodes=collection.nodes, similarity_top_k=CANDIDATES)
        systems: dict[str, BaseRetriever] = {
            "vector": leg,
            "BM25Index": index.as_retriever(CANDIDATES),
            "BM25Retriever": stock,
            **{
                f"hybrid {name}": HybridFusionRetriever(leg, index, fusion=name, top_k=100)
                for name in FUSIONS
            },
        }
        for mode in ("reciprocal_rerank", "relative_score"):
            fusion = QueryFusionRetriever(
                [leg, stock], llm=MockLLM(), num_queries=1, mode=mode, similarity_top_k=100
            )
            systems[f"QueryFusion {mode}"] = fusion
        for name, system in systems.items():
            table.setdefault(name, {})[collection.name] = measures(collection, system)
        print(f"{collection.name}: done", file=sys.stderr, flush=True)
    names = [collection.name for collection in collections]
    print(f"\n| nDCG@10 / Recall@100 | {' | '.join(names)} | mean of four |")
    print("|---" * (len(names) + 2) + "|")
    for system, found in table.items():
        cells = " | ".join(f"{found[name][0]:.3f} / {found[name][1]:.3f}" for name in names)
        four = [found[name][0] for name in FOUR if name in found]
        print(f"| {system} | {cells} | {statistics.fmean(four) if four else float('nan'):.4f} |")
    for name in names:
        better = max(table["vector"][name][0], table["BM25Index"][name][0])
        print(
            f"| {name}: auto less its better leg | {table['hybrid auto'][name][0] - better:+.3f} | bar -0.015 |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--only", default="speed,memory,quality")
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--queries", type=int, default=QUERIES)
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.thread_time
    parts = set(options.only.split(","))
    if parts & {"speed", "memory"}:
        for collection in (read(options.data / "scifact"), generated(options.documents)):
            print(f"\n## {collection.name}: {len(collection.nodes)} documents\n")
            if "speed" in parts:
                print("| | build | persist | load | add 1 % |\n|---|---|---|---|---|")
                with tempfile.TemporaryDirectory() as folder:
                    lifecycle(collection, Path(folder))
                query_times(collection, clock, options.queries)
            if "memory" in parts:
                memory(collection)
    if "quality" in parts:
        found = sorted(path.parent for path in options.data.glob("*/corpus.jsonl"))
        quality([read(folder) for folder in found], options.cache)


if __name__ == "__main__":
    main()
