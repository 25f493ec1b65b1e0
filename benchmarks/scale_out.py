"""Unit costs behind docs/how-to/scale-out.md: what a chunk takes to cut, embed, store and keep.

    python benchmarks/scale_out.py --rows 20000 --embed 400

Texts are made of the words of this repository's documentation; vectors are random, as sizes do not depend on them.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode

from llama_index_presets import DuckDBVectorStore, LanceDBVectorStore, PostgresVectorStore, embedded_postgres
from llama_index_presets.embed.local.embedding import LocalEmbedding
from llama_index_presets.ingest.chunking.cut import cut
from llama_index_presets.ingest.sources.source import sources
from llama_index_presets.presets.models import make_chunker

WORDS = " ".join(path.read_text() for path in Path(__file__).parents[1].rglob("docs/**/*.md")).split()
BATCH = 256


def text(words: int) -> str:
    """Sentences of eight to twenty words."""
    parts = []
    while words > 0:
        length = random.randint(8, 20)
        parts.append(" ".join(random.choices(WORDS, k=length)) + ".")
        words -= length
    return " ".join(parts)


def nodes(rows: int, dim: int) -> list[TextNode]:
    """Chunks of 170 words with the metadata that ingest writes."""
    generator = np.random.default_rng(0)
    made = []
    for number in range(rows):
        vector = generator.normal(size=dim).astype(np.float32)
        source = f"/data/corpus/{number // 5}.txt"
        metadata = {"source": source, "file_name": Path(source).name, "char_start": 0, "char_end": 1000}
        node = TextNode(id_=f"{number:032x}", text=text(170), metadata=metadata)
        node.embedding = (vector / np.linalg.norm(vector)).tolist()
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=source)
        made.append(node)
    return made


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def postgres(folder: Path, dim: int) -> Iterator[PostgresVectorStore]:
    with embedded_postgres(folder / "pg") as url:
        store = PostgresVectorStore.from_url(url, embed_dim=dim)
        yield store
        store.close()


def postgres_bytes(store: PostgresVectorStore) -> tuple[int, int]:
    """Bytes of the table with its text, and of its vector index."""
    sql = (
        "select pg_table_size('chunks'), coalesce((select sum(pg_relation_size(i.indexrelid)) from pg_index i "
        "join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam where a.amname = 'hnsw'), 0)"
    )

    def read(cursor: object) -> tuple[int, int]:
        cursor.execute(sql)  # type: ignore[attr-defined]
        return tuple(int(value) for value in cursor.fetchone())  # type: ignore[attr-defined,return-value]

    return store._transactions.run(read)


def load(store: object, made: list[TextNode]) -> tuple[float, float]:
    """Seconds to store in batches of whole documents, and to build the index."""
    began = time.perf_counter()
    for start in range(0, len(made), BATCH):
        store.replace_documents([], made[start : start + BATCH])  # type: ignore[attr-defined]
    stored = time.perf_counter()
    getattr(store, "finish_load", lambda: None)()  # exact stores have nothing to finish
    return stored - began, time.perf_counter() - stored


def row(name: str, made: list[TextNode], seconds: tuple[float, float], table: float, index: float) -> None:
    each = len(made)
    print(
        f"{name:<22}{each / seconds[0]:>10,.0f}/s{seconds[1] / each * 1e6:>12,.0f} us"
        f"{table / each:>12,.0f} B{index / each:>12,.0f} B"
    )


def stores(rows: int, dim: int) -> None:
    made = nodes(rows, dim)
    characters = sum(len(node.text) for node in made) / rows
    print(f"\n{rows:,} chunks, {dim} numbers, {characters:,.0f} characters each")
    print(f"{'store':<22}{'stored':>12}{'index a row':>15}{'disk a row':>14}{'index':>14}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lance = LanceDBVectorStore(str(folder / "lance"))
        seconds = load(lance, made)
        index = sum(folder_bytes(path) for path in (folder / "lance").rglob("_indices"))
        row("lancedb", made, seconds, folder_bytes(folder / "lance") - index, index)
        duck = DuckDBVectorStore(str(folder / "duck.duckdb"), dim=dim)
        seconds = load(duck, made)
        duck.close()
        row("duckdb", made, seconds, (folder / "duck.duckdb").stat().st_size, 0)
        with postgres(folder, dim) as store:
            seconds = load(store, made)
            row("pgvector", made, seconds, *postgres_bytes(store))


def rate(name: str, work: Callable[[], int]) -> None:
    began = time.perf_counter()
    done = work()
    print(f"{name:<40}{done / (time.perf_counter() - began):>12,.0f} chunks/s")


def cutting_and_embedding(documents: int, embedded: int) -> None:
    model = LocalEmbedding("all-MiniLM-L6-v2", allow_download=False)
    chunker = make_chunker(model, None)
    found = sources([Document(text=text(800), doc_id=str(number)) for number in range(documents)])
    print(f"\n{os.cpu_count()} cores; {documents} documents of 800 words")
    rate("read, cut and count, one process", lambda: sum(len(cut(source, chunker)) for source in found))
    texts = [node.get_content() for source in found for node in cut(source, chunker)][:embedded]
    model.get_text_embedding("warm")
    rate("all-MiniLM-L6-v2, 256 tokens, all cores", lambda: len(model.get_text_embedding_batch(texts)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--embed", type=int, default=400)
    options = parser.parse_args()
    random.seed(0)
    cutting_and_embedding(max(20, options.embed // 4), options.embed)
    for dim in (384, 1536):
        stores(options.rows, dim)


if __name__ == "__main__":
    main()
