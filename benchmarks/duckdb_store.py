"""DuckDBVectorStore beside the official adapter, LanceDB, SimpleVectorStore and plain numpy.

    python benchmarks/duckdb_store.py --data DIR [--sizes 10000x384,100000x384,100000x1536] [--rounds 15]
                                      [--engines numpy,ours,official,lancedb,simple]

Every engine is a process of its own, and all take turns at the same question, so that a noisy machine slows
them alike; the figures are medians over the rounds, the ratios medians of the per-round ratios to plain numpy
(``V @ q`` and ``argpartition``, which returns positions where the others return nodes). DIR takes the files
and, once, the environment of the official adapter (duckdb < 1.4; its four lines that download extensions
are taken out, because it cannot be constructed offline).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

FILTERS = {"1 %": ("hundredth", 7), "10 %": ("tenth", 7), "50 %": ("half", 1)}
TOP_K = 10
BATCH = 100
QUERIES = 1000


# ---- data ------------------------------------------------------------------------------------------------


def vectors(count: int, dim: int) -> np.ndarray:
    """Unit vectors around 2,000 centres, as embeddings of texts about 2,000 things would lie."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2000, dim), dtype=np.float32)
    found = centres[rng.integers(0, 2000, count)] + rng.standard_normal((count, dim), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def questions(stored: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    found = stored[rng.integers(0, len(stored), QUERIES)]
    noise = rng.standard_normal(found.shape, dtype=np.float32)
    found = found + noise * np.float32(0.5 / np.sqrt(found.shape[1]))  # float32: a float64 question would
    # make numpy copy all stored vectors to float64 at every query, and the baseline seven times slower
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def metadata(i: int) -> dict[str, Any]:
    return {
        "hundredth": i * 7919 % 100,
        "tenth": i * 7919 % 10,
        "half": i * 7919 % 2,
        "title": f"Chapter {i % 500}",
        "year": 2000 + i % 25,
        "page": i % 300,
        "source": f"folder/file-{i // 20}.pdf",
    }


def nodes(stored: np.ndarray) -> list[Any]:
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    rng = random.Random(2)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(8000)]
    return [
        TextNode(
            id_=f"{i:08x}-aaaa-bbbb-cccc-{i * 31:012x}",
            text=" ".join(rng.choices(words, k=115)),
            embedding=vector.tolist(),
            metadata=metadata(i),
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{i // 20}")},
        )
        for i, vector in enumerate(stored)
    ]


# ---- engines ---------------------------------------------------------------------------------------------


class Numpy:
    """What cannot be had for less: scores and positions, no nodes, no file."""

    def __init__(self, folder: Path, stored: np.ndarray) -> None:
        self.stored = stored
        self.masks = {
            name: np.array([metadata(i)[key] == value for i in range(len(stored))])
            for name, (key, value) in FILTERS.items()
        }

    def query(self, question: np.ndarray, restriction: str | None) -> list[int]:
        scores = self.stored @ question
        return np.argpartition(scores, len(scores) - TOP_K)[-TOP_K:].tolist()

    def batch(self, asked: np.ndarray) -> int:
        for start in range(0, len(self.stored), 8192):
            scores = self.stored[start : start + 8192] @ asked.T
            np.argpartition(scores, len(scores) - TOP_K, axis=0)
        return len(asked)


class Adapter:
    """Any LlamaIndex store."""

    def __init__(self, folder: Path, stored: np.ndarray) -> None:
        self.folder, self.stored = folder, stored
        self.nodes: list[Any] | None = None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.store = self.open()

    def open(self) -> Any:
        raise NotImplementedError

    def make_nodes(self) -> None:
        self.nodes = nodes(self.stored)

    def add(self, calls: int) -> float:
        assert self.nodes
        step = -(-len(self.nodes) // calls)
        start = time.perf_counter()
        for first in range(0, len(self.nodes), step):
            self.store.add(self.nodes[first : first + step])
        return time.perf_counter() - start

    def forget_nodes(self) -> None:
        self.nodes = None

    def size(self) -> int:
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def asked(self, question: np.ndarray, restriction: str | None) -> Any:
        from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery

        filters = None
        if restriction:
            key, value = FILTERS[restriction]
            filters = MetadataFilters(filters=[MetadataFilter(key=key, value=value)])
        return VectorStoreQuery(query_embedding=question.tolist(), similarity_top_k=TOP_K, filters=filters)

    def query(self, question: np.ndarray, restriction: str | None) -> list[str]:
        return list(self.store.query(self.asked(question, restriction)).ids)

    def batch(self, asked: np.ndarray) -> int:
        return sum(len(self.query(question, None)) > 0 for question in asked)


class Ours(Adapter):
    def open(self) -> Any:
        from llama_index_presets import DuckDBVectorStore

        return DuckDBVectorStore(self.folder / "ours.duckdb", cache_mb=2048)

    def batch(self, asked: np.ndarray) -> int:
        return len(self.store.query_many([self.asked(question, None) for question in asked]))

    def reopen(self) -> float:
        self.store.close()
        start = time.perf_counter()
        self.store = self.open()
        self.query(self.stored[0], None)
        return time.perf_counter() - start

    def clear(self) -> None:
        self.store.clear()

    def wrong(self, count: int) -> int:
        """Questions whose ten nodes are not those of a float64 scan, in order."""
        exact, found = self.stored.astype(np.float64), 0
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
        for question in questions(self.stored)[:count]:
            scores = exact @ question.astype(np.float64)
            best = np.argsort(-scores, kind="stable")[:TOP_K]
            found += [int(name[:8], 16) for name in self.query(question, None)] != best.tolist()
        return found


class Official(Adapter):
    def open(self) -> Any:
        from llama_index.vector_stores.duckdb import DuckDBVectorStore

        return DuckDBVectorStore(
            "official.duckdb", embed_dim=self.stored.shape[1], persist_dir=str(self.folder)
        )


class Lance(Adapter):
    def open(self) -> Any:
        from llama_index.vector_stores.lancedb import LanceDBVectorStore

        return LanceDBVectorStore(str(self.folder / "lance"), mode="overwrite")

    def add(self, calls: int) -> float:
        import lancedb

        took = super().add(calls)
        self.table = lancedb.connect(str(self.folder / "lance")).open_table("vectors")
        return took

    def query(self, question: np.ndarray, restriction: str | None) -> list[str]:
        search = self.table.search(question).metric("cosine").limit(TOP_K)
        if restriction:
            key, value = FILTERS[restriction]
            search = search.where(f"metadata.{key} = {value}", prefilter=True)
        return [row["id"] for row in search.select(["id", "text", "metadata"]).to_list()]


class Simple(Adapter):
    def open(self) -> Any:
        from llama_index.core.vector_stores import SimpleVectorStore

        return SimpleVectorStore()


ENGINES = {"numpy": Numpy, "ours": Ours, "official": Official, "lancedb": Lance, "simple": Simple}


def serve(engine: str, folder: str, count: int, dim: int) -> None:
    """Answer commands on stdin, one JSON line each, with how long each took."""
    stored = vectors(count, dim)
    asked = questions(stored)
    subject = ENGINES[engine](Path(folder), stored)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        start, cpu = time.perf_counter(), time.process_time()
        value: Any = None
        try:
            if command == "query":
                subject.query(asked[arguments[0]], arguments[1])
            elif command == "batch":
                subject.batch(asked[arguments[0] : arguments[0] + BATCH])
            elif command == "memory":
                value = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
            else:
                value = getattr(subject, command)(*arguments)
            reply = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "value": value}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"[:200]}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


class Worker:
    """An engine in its own process."""

    def __init__(self, engine: str, python: str, folder: Path, count: int, dim: int) -> None:
        self.name = engine
        command = [python, __file__, "--data", str(folder), "--serve", engine, str(count), str(dim)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, *command: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)


def official_environment(data: Path) -> str:
    """Make the official adapter's environment, once; gives its Python."""
    home = data / "official-environment"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        packages = ["duckdb==1.3.2", "llama-index-vector-stores-duckdb==0.7.0", "numpy", "pyarrow"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        (adapter,) = home.glob("lib/*/site-packages/llama_index/vector_stores/duckdb/base.py")
        lines = adapter.read_text().splitlines(keepends=True)
        adapter.write_text("".join(line for line in lines if "_extension(" not in line))
        (home / "ready").touch()
    return str(python)


# ---- the table -------------------------------------------------------------------------------------------


def compare(data: Path, engines: list[str], count: int, dim: int, rounds: int) -> None:
    print(f"\n## {count:,} x {dim}, {rounds} rounds\n", flush=True)
    workers = []
    for engine in engines:
        if engine == "simple" and count * dim > 50_000_000:
            continue  # lists of Python floats: more memory than this machine has
        python = official_environment(data) if engine == "official" else sys.executable
        workers.append(Worker(engine, python, data / f"{engine}-{count}-{dim}", count, dim))
    writes(workers, count)
    reads(workers, rounds)
    for worker in workers:
        if worker.name == "ours":
            print(
                f"\nours: first query after reopening {worker.ask('reopen').get('value', 0):.2f} s;", end=" "
            )
            print(
                f"not as float64 says: {worker.ask('wrong', QUERIES)['value']} of {QUERIES} questions",
                flush=True,
            )
        worker.stop()


def writes(workers: list[Worker], count: int) -> None:
    print("| engine | add in 1 call, nodes/s (of cpu) | add in 10 calls | upsert / add, s | file, MB |")
    print("|---|---|---|---|---|")
    for worker in workers:
        if worker.name == "numpy":
            continue
        cells: list[str] = []
        worker.ask("make_nodes")
        first = worker.ask("add", 1)
        if "error" in first:
            print(f"| {worker.name} | {first['error']} |")
            continue
        cells.append(f"{count / first['value']:,.0f} ({count / first['cpu']:,.0f})")
        if worker.name == "ours":
            worker.ask("reopen")
        size = f"{worker.ask('size').get('value', 0) / 1e6:.0f}"
        if worker.name == "ours":
            again = worker.ask("add", 1)
            tens = fresh(worker)
            cells.append(f"{count / tens['value']:,.0f} ({count / tens['cpu']:,.0f})")
            cells.append(
                f"{again['value']:.2f} / {first['value']:.2f} = {again['value'] / first['value']:.2f}"
            )
        else:
            cells += ["", ""]
        worker.ask("forget_nodes")
        cells.append(size)
        print(f"| {worker.name} | " + " | ".join(cells) + " |", flush=True)


def fresh(worker: Worker) -> dict[str, Any]:
    """The same nodes into an empty store, ten calls."""
    worker.ask("clear")
    return worker.ask("add", 10)


def reads(workers: list[Worker], rounds: int) -> None:
    kinds: dict[str, tuple[Any, ...]] = {"query": ("query", None), **{f: ("query", f) for f in FILTERS}}
    took: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for round_ in range(-2, rounds):
        order = workers[:]
        random.shuffle(order)
        for kind, (command, restriction) in kinds.items():
            for worker in order:
                reply = worker.ask(command, (round_ * 7) % QUERIES, restriction)
                if round_ >= 0:
                    took.setdefault((worker.name, kind), []).append(reply)
        if round_ >= 0 and round_ % 3 == 0:
            for worker in order:
                if worker.name in ("numpy", "ours"):
                    reply = worker.ask("batch", (round_ * 7) % (QUERIES - BATCH))
                    took.setdefault((worker.name, "batch"), []).append(reply)
    report(workers, took)


def report(workers: list[Worker], took: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    kinds = ["query", *FILTERS, "batch"]
    print("\n| engine | " + " | ".join(kinds) + " | memory MB |\n|---" * 1 + "|---" * (len(kinds) + 1) + "|")
    for worker in workers:
        cells = []
        for kind in kinds:
            mine = took.get((worker.name, kind))
            base = took.get(("numpy", "batch" if kind == "batch" else "query"))
            if not mine or not base:
                cells.append("")
                continue
            if any("error" in reply for reply in mine):
                cells.append(mine[0].get("error", "error")[:40])
                continue
            ratio, cpu = (
                statistics.median(a[of] / b[of] for a, b in zip(mine, base, strict=True))
                for of in ("seconds", "cpu")
            )
            milliseconds = statistics.median(reply["seconds"] for reply in mine) * 1e3
            cells.append(f"{milliseconds:.1f} ms, {ratio:.2f}x (cpu {cpu:.2f}x)")
        memory = worker.ask("memory").get("value") or 0
        print(f"| {worker.name} | " + " | ".join(cells) + f" | {memory:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--sizes", default="10000x384,100000x384,100000x1536")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", nargs=3, metavar=("ENGINE", "COUNT", "DIM"))
    given = parser.parse_args()
    if given.serve:
        serve(given.serve[0], str(given.data), int(given.serve[1]), int(given.serve[2]))
        return
    given.data.mkdir(parents=True, exist_ok=True)
    for size in given.sizes.split(","):
        count, dim = map(int, size.split("x"))
        compare(given.data.resolve(), given.engines.split(","), count, dim, given.rounds)


if __name__ == "__main__":
    main()
