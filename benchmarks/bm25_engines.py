"""BM25 on disk beside its peers: our index, SQLite FTS5 and tantivy, on one BEIR-layout collection.

    python benchmarks/bm25_engines.py --data DIR [--copies 10] [--rounds 5]

DIR holds corpus.jsonl, queries.jsonl and qrels.tsv. Each engine stores the node's JSON beside its index, keeps a change
on disk before it returns, and is asked for the ids of the 10 best. "own" analysis is the engine's English stemmer over
the raw text; "ours" is the tokens of our analyzer, so that only the engine differs. Builds and queries are CPU time
(queries of the calling thread, interleaved: each goes to every engine before the next one), updates are wall time.
tantivy is not a dependency: ``pip install tantivy``; without it its rows are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from llama_index.core.schema import TextNode

from llama_index_presets import BM25Index
from llama_index_presets.ranking.bm25.analyzer import Analyzer

Rewrite = Callable[[str], str]
ANALYZER = Analyzer(language="english")


def raw(text: str) -> str:
    """Words of the text in lower case; for the engine's own analysis."""
    return " ".join(re.findall(r"\w+", text.lower()))


def analyzed(text: str) -> str:
    """Tokens of our analyzer, as words."""
    return " ".join(ANALYZER.tokens(text))


class Engine(Protocol):
    """What each engine does here."""

    def put(self, nodes: Sequence[TextNode]) -> None: ...
    def search(self, query: str) -> list[str]: ...
    def flush(self) -> None: ...


class Ours:
    def __init__(self, folder: Path) -> None:
        self.index = BM25Index(folder / "index")

    def put(self, nodes: Sequence[TextNode]) -> None:
        self.index.add(nodes)

    def flush(self) -> None:
        """Nothing to do."""

    def search(self, query: str) -> list[str]:
        return [node_id for node_id, _ in self.index.search(query, 10)]


class FTS5:
    def __init__(self, folder: Path, rewrite: Rewrite, tokenizer: str) -> None:
        self.rewrite = rewrite
        self.db = sqlite3.connect(folder / "index.sqlite")
        self.db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "CREATE TABLE nodes(row INTEGER PRIMARY KEY, id TEXT UNIQUE, json TEXT);"
            f"CREATE VIRTUAL TABLE words USING fts5(text, tokenize='{tokenizer}')"
        )

    def put(self, nodes: Sequence[TextNode]) -> None:
        with self.db:
            for node in nodes:
                old = self.db.execute("SELECT row FROM nodes WHERE id = ?", [node.node_id]).fetchone()
                if old:
                    self.db.execute("DELETE FROM words WHERE rowid = ?", old)
                    self.db.execute("DELETE FROM nodes WHERE row = ?", old)
                values = [node.node_id, node.to_json()]
                row = self.db.execute("INSERT INTO nodes(id, json) VALUES (?, ?)", values).lastrowid
                self.db.execute(
                    "INSERT INTO words(rowid, text) VALUES (?, ?)", [row, self.rewrite(node.text)]
                )

    def flush(self) -> None:
        """Move the write-ahead log into the file."""
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def search(self, query: str) -> list[str]:
        words = " OR ".join(f'"{word}"' for word in dict.fromkeys(self.rewrite(query).split()))
        rows = self.db.execute(
            "SELECT id FROM (SELECT rowid, rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT 10) AS best "
            "JOIN nodes ON nodes.row = best.rowid ORDER BY best.rank",
            [words],
        )
        return [node_id for (node_id,) in rows]


class Tantivy:
    def __init__(self, folder: Path, rewrite: Rewrite, tokenizer: str) -> None:
        import tantivy

        self.rewrite, self.tantivy = rewrite, tantivy
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("id", stored=True, tokenizer_name="raw")
        builder.add_text_field("text", tokenizer_name=tokenizer)
        builder.add_bytes_field("json", stored=True)
        path = folder / "index"
        path.mkdir(exist_ok=True)
        self.index = tantivy.Index(builder.build(), path=str(path))

    def put(self, nodes: Sequence[TextNode]) -> None:
        writer = self.index.writer(num_threads=1)
        for node in nodes:
            writer.delete_documents_by_term("id", node.node_id)
            json_bytes = node.to_json().encode()
            writer.add_document(
                self.tantivy.Document(id=node.node_id, text=self.rewrite(node.text), json=json_bytes)
            )
        writer.commit()
        writer.wait_merging_threads()  # and gives up the lock of the folder
        self.index.reload()

    def flush(self) -> None:
        """Nothing to do."""

    def search(self, query: str) -> list[str]:
        parsed = self.index.parse_query(self.rewrite(query), ["text"])
        searcher = self.index.searcher()
        return [searcher.doc(address)["id"][0] for _, address in searcher.search(parsed, 10).hits]


def engines() -> dict[str, Callable[[Path], Engine]]:
    """Name -> factory over a folder."""
    found: dict[str, Callable[[Path], Engine]] = {
        "ours": Ours,
        "SQLite FTS5, own": lambda folder: FTS5(folder, raw, "porter unicode61"),
        "SQLite FTS5, ours": lambda folder: FTS5(folder, analyzed, "unicode61"),
    }
    if importlib.util.find_spec("tantivy"):
        found["tantivy, own"] = lambda folder: Tantivy(folder, raw, "en_stem")
        found["tantivy, ours"] = lambda folder: Tantivy(folder, analyzed, "whitespace")
    return found


def lines(path: Path) -> list[Any]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def load(data: Path, copies: int) -> tuple[list[TextNode], dict[str, str], dict[str, dict[str, float]]]:
    """Nodes (each text `copies` times), queries that have judgments, and the judgments."""
    rows = lines(data / "corpus.jsonl")
    nodes = [
        TextNode(id_=f"{row['_id']}#{copy}" if copy else row["_id"], text=f"{row['title']} {row['text']}")
        for copy in range(copies)
        for row in rows
    ]
    qrels: dict[str, dict[str, float]] = {}
    for line in (data / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = float(grade)
    queries = {row["_id"]: row["text"] for row in lines(data / "queries.jsonl") if row["_id"] in qrels}
    return nodes, queries, qrels


def ndcg_at_10(ids: Sequence[str], grades: dict[str, float]) -> float:
    """nDCG@10 with gains that are the grades."""
    gained = sum(grades.get(name, 0.0) / math.log2(rank + 2) for rank, name in enumerate(ids[:10]))
    best = sorted(grades.values(), reverse=True)[:10]
    return gained / sum(grade / math.log2(rank + 2) for rank, grade in enumerate(best))


def megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def update_ms(engine: Engine, nodes: Sequence[TextNode], rounds: int) -> float:
    """Median wall time of replacing the nodes by changed ones."""
    times = []
    for number in range(rounds):
        changed = [TextNode(id_=node.node_id, text=f"{node.text} revision{number}") for node in nodes]
        began = time.perf_counter()
        engine.put(changed)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def measure(data: Path, copies: int, rounds: int) -> None:
    nodes, queries, qrels = load(data, copies)
    factories = engines()
    with tempfile.TemporaryDirectory() as root:
        built: dict[str, Engine] = {}
        figures: dict[str, list[str]] = {name: [] for name in factories}
        for name, factory in factories.items():
            folder = Path(root) / re.sub(r"\W+", "-", name)
            folder.mkdir()
            engine, began = factory(folder), time.process_time()
            engine.put(nodes)
            figures[name].append(f"{time.process_time() - began:.2f}")
            engine.flush()
            figures[name].append(f"{megabytes(folder):.1f}")
            built[name] = engine
        times: dict[str, list[float]] = {name: [] for name in built}
        scores: dict[str, list[float]] = {name: [] for name in built}
        for key, query in queries.items():
            for name, engine in built.items():
                began = time.thread_time()
                ids = engine.search(query)
                times[name].append((time.thread_time() - began) * 1e3)
                scores[name].append(ndcg_at_10([node_id.split("#")[0] for node_id in ids], qrels[key]))
        some = nodes[::100]
        for name, engine in built.items():
            figures[name] += [
                f"{statistics.median(times[name]):.2f}",
                f"{statistics.quantiles(times[name], n=20)[18]:.2f}",
            ]
            figures[name] += [f"{statistics.fmean(scores[name]):.4f}" if copies == 1 else "-"]
            figures[name] += [
                f"{update_ms(engine, some, rounds):.0f}",
                f"{update_ms(engine, nodes[:1], rounds):.1f}",
            ]
    print(
        f"\n{len(nodes):,} documents, {len(queries)} queries, {len(some)} replaced; SQLite {sqlite3.sqlite_version}\n"
    )
    print(
        "| engine, analysis | build, CPU s | disk, MB | query p50, ms | p95, ms | nDCG@10 "
        "| replace 1 %, ms | replace 1, ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, cells in figures.items():
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=1, help="how often each document is indexed")
    parser.add_argument("--rounds", type=int, default=5, help="updates measured")
    options = parser.parse_args()
    measure(options.data, options.copies, options.rounds)


if __name__ == "__main__":
    main()
