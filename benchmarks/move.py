"""Peak memory of `move` from DuckDB to LanceDB and to pgvector, and whether every byte arrives.

    python benchmarks/move.py --vectors FILE.npy [--rows 100000] [--only lancedb|pgvector]

FILE.npy is that of `benchmarks/stores.py`. Each move is the command `llama-presets move`, in a process of its own;
"peak" is its `ru_maxrss`, imports included. Postgres' own processes are not part of it. Afterwards, in another process,
all nodes of both stores are compared: text, metadata, type, relations and every number of every vector.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGETS = ("lancedb", "pgvector")
FINGERPRINT = "model=benchmark;dim=384"
BATCH = 5_000


def make(folder: Path, vectors: Path, rows: int) -> None:
    """Write the source: a DuckDB file of so many nodes."""
    import numpy as np
    from stores import nodes_of, spread

    from llama_index_presets import DuckDBVectorStore

    data, _ = spread(np.load(vectors), rows, 384)
    with DuckDBVectorStore(folder / "source.duckdb", fingerprint=FINGERPRINT) as store:
        for start in range(0, rows, BATCH):
            store.add(nodes_of(data[start : start + BATCH], start))


@contextlib.contextmanager
def place(folder: Path, target: str) -> Iterator[str]:
    """The target as the command takes it; Postgres runs meanwhile."""
    from llama_index_presets import embedded_postgres

    if target == "lancedb":
        yield f"lancedb:{folder / 'lance'}"
        return
    with embedded_postgres(folder / "postgres") as url:
        yield url


def run(folder: Path, target: str) -> dict[str, Any]:
    """Move by the command; its report, its seconds and the highest resident memory of its process in MiB."""
    with place(folder, target) as address:
        source = f"duckdb:{folder / 'source.duckdb'}"
        command = [sys.executable, "-m", "llama_index_presets", "move", source, address, "--json"]
        begun = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            report = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"The move to {target} failed ({process.returncode}): {report}")
    return json.loads(report) | {"seconds": seconds, "peak": usage.ru_maxrss / 1024}


@contextlib.contextmanager
def opened(folder: Path, target: str) -> Iterator[tuple[Any, Any]]:
    """The source and the target, to compare them."""
    from llama_index_presets import DuckDBVectorStore, LanceDBVectorStore, PostgresVectorStore

    with (
        place(folder, target) as address,
        DuckDBVectorStore(folder / "source.duckdb", read_only=True) as source,
    ):
        if target == "lancedb":
            yield source, LanceDBVectorStore(folder / "lance", fingerprint=FINGERPRINT)
            return
        with PostgresVectorStore.from_url(address, embed_dim=384, fingerprint=FINGERPRINT) as store:
            yield source, store


def compare(folder: Path, target: str) -> None:
    """Print how many nodes differ in anything."""
    import numpy as np

    with opened(folder, target) as (source, store):
        ids = source.client.execute("SELECT node_id FROM vectors").fetchall()
        different = 0
        for start in range(0, len(ids), BATCH):
            batch = [node_id for (node_id,) in ids[start : start + BATCH]]
            for left, right in zip(source.get_nodes(batch), store.get_nodes(batch), strict=True):
                same = np.array_equal(np.float32(left.embedding), np.float32(right.embedding))
                left.embedding = right.embedding = None
                different += not (same and left == right)
        print(json.dumps({"different": different}))


def child(*arguments: str) -> dict[str, Any]:
    """Run one step in a fresh process; what it printed last."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", choices=TARGETS)
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, folder = arguments.step[0], Path(arguments.step[1])
        if step == "make":
            make(folder, arguments.vectors, arguments.rows)
        else:
            compare(folder, arguments.only)
        return
    if not arguments.vectors:
        parser.error("--vectors is required")
    with tempfile.TemporaryDirectory() as folder:
        sizes = ["--vectors", str(arguments.vectors), "--rows", str(arguments.rows)]
        child("--step", "make", folder, *sizes)
        size = Path(folder, "source.duckdb").stat().st_size / 2**20
        print(f"source: {arguments.rows:,} x 384 in DuckDB, {size:,.0f} MiB", flush=True)
        for target in [arguments.only] if arguments.only else TARGETS:
            found = run(Path(folder), target)
            checked = child("--step", "compare", folder, "--only", target)
            print(
                f"  to {target:9} {found['seconds']:7.1f} s  peak {found['peak']:6.0f} MiB  "
                f"recall@10 {found['recall_at_10']:.3f}  different {checked['different']}  ok {found['ok']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
