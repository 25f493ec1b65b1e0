"""LanceDB and pgvector: ours beside the official adapters, in one interleaved run.

    python benchmarks/stores.py --vectors FILE.npy [--only lancedb|pgvector|wide]
        [--rows 100000] [--official-rows 20000]

FILE.npy holds real sentence embeddings, (n, 384) float32, unit length, made for example from the collections of
a data folder by `--embed DATA_DIR` (all-MiniLM-L6-v2). Where more rows are needed they are copied with noise of
half their length: uniform random vectors have no neighbours worth finding. Recall is against float32 brute force.

The official Postgres adapter inserts row by row into its index, which takes minutes for 20,000 rows: it gets
`--official-rows` of them, and loads and queries of the two are compared on tables of that size. The query ratio on
20,000 x 3,072 needs `--only wide --official-rows 20000`, the default.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery

TOP_K, BATCH = 10, 5_000
TEXT = "A passage of ordinary length, as a splitter makes them, about one thing and another. " * 8


def embed(data: Path, target: Path, limit: int = 16_000) -> None:
    """Embed sentences of every corpus.jsonl below a folder with all-MiniLM-L6-v2."""
    from sentence_transformers import SentenceTransformer

    sentences: dict[str, None] = {}
    for corpus in sorted(data.glob("*/corpus.jsonl")):
        for line in corpus.read_text().splitlines():
            pieces = re.split(r"(?<=[.!?])\s+", json.loads(line).get("text") or "")
            sentences |= dict.fromkeys(piece for piece in pieces if 40 <= len(piece) <= 200)
    chosen = np.random.default_rng(0).permutation(list(sentences))[:limit].tolist()
    model = SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2", device="cpu")
    np.save(target, model.encode(chosen, batch_size=64, normalize_embeddings=True).astype("f4"))


def spread(real: np.ndarray, rows: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the wanted number and width, and 100 questions that are none of them; unit length, float32."""
    rng = np.random.default_rng(0)
    if dim != real.shape[1]:  # A random rotation into more dimensions keeps all cosines.
        real = real @ np.linalg.qr(rng.normal(size=(dim, real.shape[1])))[0].T.astype("f4")
    questions, base = real[-100:], real[:-100]
    data = base[np.arange(rows) % len(base)].copy()
    copies = data[len(base) :]
    noise = rng.normal(size=copies.shape).astype("f4")
    copies += 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return data / np.linalg.norm(data, axis=1, keepdims=True), questions


def nodes_of(data: np.ndarray, first: int = 0) -> list[TextNode]:
    """Nodes with 680 characters of text and five metadata keys; `bucket` is i % 100."""
    return [
        TextNode(
            id_=f"{i}",
            text=f"{i} {TEXT}",
            embedding=vector,
            metadata={
                "bucket": i % 100,
                "lang": "en",
                "page": i % 37,
                "source": f"f{i // 20}.pdf",
                "year": 2000,
            },
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"d{i // 20}")},
        )
        for i, vector in enumerate(data.tolist(), first)
    ]


def load(store: Any, nodes: list[TextNode]) -> float:
    """Seconds to add everything in batches and make it ready."""
    begun = time.perf_counter()
    for start in range(0, len(nodes), BATCH):
        store.add(nodes[start : start + BATCH], bulk=True)
        say(f"    {start + BATCH:,} rows, {time.perf_counter() - begun:.0f} s")
    if hasattr(store, "finish_load"):
        store.finish_load()
    return time.perf_counter() - begun


def say(line: str) -> None:
    """Progress, beside the table."""
    print(line, file=sys.stderr, flush=True)


def below(percent: int) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key="bucket", value=percent, operator="<")])


Query = Callable[[Any, list[float], MetadataFilters | None], list[str]]


def plain(store: Any, question: list[float], filters: MetadataFilters | None) -> list[str]:
    found = store.query(VectorStoreQuery(query_embedding=question, similarity_top_k=TOP_K, filters=filters))
    return list(found.ids)


def compare(
    stores: dict[str, Any], data: np.ndarray, questions: np.ndarray, percents: tuple[int | None, ...]
) -> dict[tuple[str, int | None], float]:
    """Print p50, p95, recall@10 and how many came back, per store and filter; queries are interleaved."""
    medians = {}
    cosines = questions @ data.T
    buckets = np.arange(len(data)) % 100
    for percent in percents:
        allowed = cosines if percent is None else np.where(buckets < percent, cosines, -9.0)
        truth = [set(map(str, row)) for row in np.argsort(-allowed, axis=1)[:, :TOP_K].tolist()]
        filters = None if percent is None else below(percent)
        found = ask_all(stores, questions, filters)
        label = "all rows" if percent is None else f"filter {percent:2} %"
        for name, answers in found.items():
            p50, p95 = np.percentile([seconds for seconds, _ in answers], [50, 95]) * 1e3
            medians[name, percent] = p50
            hits = sum(len(set(ids) & true) for (_, ids), true in zip(answers, truth, strict=True))
            fewest = min(len(ids) for _, ids in answers)
            print(
                f"  {label:11} {name:24} p50 {p50:8.1f} ms  p95 {p95:8.1f} ms  "
                f"recall@10 {hits / (TOP_K * len(questions)):.3f}  fewest rows {fewest}",
                flush=True,
            )
    return medians


def ask_all(
    stores: dict[str, Any], questions: np.ndarray, filters: MetadataFilters | None
) -> dict[str, list[tuple[float, list[str]]]]:
    """Seconds and ids of each answer, per store; one question is asked of all before the next."""
    found: dict[str, list[tuple[float, list[str]]]] = {name: [] for name in stores}
    for store in stores.values():
        plain(store, questions[0].tolist(), filters)
    for question in questions.tolist():
        for name, store in stores.items():
            begun = time.perf_counter()
            ids = plain(store, question, filters)
            found[name].append((time.perf_counter() - begun, ids))
    return found


PERCENTS = (None, 1, 10, 50)


def lancedb_part(real: np.ndarray, rows: int, official_rows: int) -> None:
    """Ours with its automatic index, ours scanning, and the official adapter, which scans."""
    from llama_index.vector_stores.lancedb import LanceDBVectorStore as Official

    from llama_index_presets import LanceDBVectorStore

    data, questions = spread(real, rows, 384)
    nodes = nodes_of(data)
    with tempfile.TemporaryDirectory() as folder:
        ours = LanceDBVectorStore(f"{folder}/ours")
        flat = LanceDBVectorStore(f"{folder}/flat", index="none")
        official = Official(f"{folder}/official")
        print(f"LanceDB, {rows:,} x 384")
        print(f"  load  ours with index    {load(ours, nodes):8.1f} s", flush=True)
        print(f"  load  ours, no index     {load(flat, nodes):8.1f} s", flush=True)
        print(f"  load  official, no index {load(official, nodes):8.1f} s", flush=True)
        stores = {"ours, auto index": ours, "ours, scan": flat, "official, scan": official}
        medians = compare(stores, data, questions[:30], PERCENTS)
        ratio = medians["ours, scan", None] / medians["ours, auto index", None]
        print(f"  the index is {ratio:.1f}x the scan", flush=True)


def pgvector_part(real: np.ndarray, rows: int, official_rows: int, dim: int = 384) -> None:
    """Ours at full size; then ours and the official adapter on as many rows as the latter loads in minutes."""
    from llama_index_presets import PostgresVectorStore, embedded_postgres

    data, questions = spread(real, rows, dim)
    nodes = nodes_of(data)
    few = min(rows, official_rows)
    hnsw = {"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 100}
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(folder) as url:
        ours = PostgresVectorStore.from_url(url, embed_dim=dim, table_name="ours", hnsw_kwargs=dict(hnsw))
        print(f"pgvector, {rows:,} x {dim}; beside the official adapter {few:,}")
        mine = load(ours, nodes)
        print(f"  load  ours with HNSW, {rows:,} rows {mine:8.1f} s", flush=True)
        compare({f"ours, {rows:,} rows": ours}, data, questions[:50], PERCENTS)
        same = ours
        if few < rows:
            same = PostgresVectorStore.from_url(url, embed_dim=dim, table_name="same", hnsw_kwargs=dict(hnsw))
            mine = load(same, nodes[:few])
        official = official_postgres(url, dim, dict(hnsw))
        theirs = load(official, nodes[:few])
        print(
            f"  load  {few:,} rows: ours {mine:8.1f} s  official {theirs:8.1f} s  ratio {theirs / mine:.1f}",
            flush=True,
        )
        medians = compare({"ours": same, "official": official}, data[:few], questions[:30], PERCENTS)
        print(
            f"  query ratio official / ours {medians['official', None] / medians['ours', None]:.1f}",
            flush=True,
        )


def official_postgres(url: str, dim: int, hnsw: dict[str, Any]) -> Any:
    """The official adapter with an HNSW index, where it can make one."""
    from llama_index.vector_stores.postgres import PGVectorStore

    address = url.replace("postgresql://", "postgresql+{}://")
    return PGVectorStore.from_params(
        connection_string=address.format("psycopg2"),
        async_connection_string=address.format("asyncpg"),
        embed_dim=dim,
        hnsw_kwargs=hnsw,
        use_jsonb=True,
    )


def wide_part(real: np.ndarray, rows: int, official_rows: int) -> None:
    """OpenAI's 3,072 dimensions, for which the official adapter makes no index."""
    pgvector_part(real, min(rows, 20_000), official_rows, 3072)


PARTS = {"lancedb": lancedb_part, "pgvector": pgvector_part, "wide": wide_part}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--embed", type=Path, metavar="DATA_DIR")
    parser.add_argument("--only", choices=sorted(PARTS))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--official-rows", type=int, default=20_000)
    arguments = parser.parse_args()
    if arguments.embed:
        embed(arguments.embed, arguments.vectors)
    real = np.load(arguments.vectors)
    for name in [arguments.only] if arguments.only else PARTS:
        PARTS[name](real, arguments.rows, arguments.official_rows)


if __name__ == "__main__":
    main()
