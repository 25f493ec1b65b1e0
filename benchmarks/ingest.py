"""Ingest beside its parts: a long log counted, and many small files ingested without a model.

    python benchmarks/ingest.py [--megabytes 50] [--files 20000]

The log is estimated by the command, in a process of its own, with `healthcare`: CPU seconds beyond those of a file of
one line, and the most memory of the process, the model whose speed it measures included (about a second of embedding,
which weighs on a short log). OMP_NUM_THREADS=1 gives the figures of one core. The small files are ingested with vectors
that cost nothing, and the time of reading their text is taken off.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llama_index.core.embeddings import MockEmbedding

from llama_index_presets import build
from llama_index_presets.ingest.readers.text import read_text

WORDS = (
    "retry",
    "session",
    "pump",
    "valve",
    "queue",
    "cache",
    "request",
    "expired",
    "started",
    "commit",
    "received",
)


def write_log(path: Path, megabytes: int) -> None:
    draw, size = random.Random(5), 0
    with path.open("w") as file:
        while size < megabytes * 1_000_000:
            words = " ".join(draw.choices(WORDS, k=draw.randint(5, 14)))
            address = f"10.{draw.randint(0, 255)}.{draw.randint(0, 255)}.7"
            size += file.write(
                f"2026-05-01T10:22:{size % 60:02d} INFO id={draw.getrandbits(48):012x} {address} {words}\n"
            )


def estimated(path: Path) -> tuple[float, float]:
    """CPU seconds and megabytes of one estimate."""
    command = [
        sys.executable,
        "-m",
        "llama_index_presets",
        "estimate",
        "healthcare",
        str(path),
        "--offline",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"The estimate failed: {status}.")
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit


def small_files(folder: Path, count: int) -> tuple[float, float, float]:
    """Milliseconds a file: reading its text, ingesting it, and seeing that it is unchanged."""
    draw = random.Random(1)
    for number in range(count):
        path = folder / f"{number % 100:02d}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Note {number}. {' '.join(draw.choices(WORDS, k=30))}.")
    engine = build(
        "healthcare",
        storage=folder.parent / "storage",
        offline=True,
        embed_model=MockEmbedding(embed_dim=384),
    )
    seconds = []
    for step in (
        lambda: [read_text(path) for path in folder.rglob("*.txt")],
        *2 * [lambda: engine.ingest(folder)],
    ):
        began = time.process_time()
        step()
        seconds.append((time.process_time() - began) * 1e3 / count)
    return seconds[0], seconds[1], seconds[2]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--files", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "line.txt").write_text("The pump is inspected every month.")
        write_log(folder / "long.log", arguments.megabytes)
        base, base_memory = estimated(folder / "line.txt")
        cpu, memory = estimated(folder / "long.log")
        print(
            f"log: {arguments.megabytes / max(cpu - base, 1e-9):.1f} MB a CPU second, {memory:.0f} MB of memory"
        )
        print(f"     (one line: {base:.1f} s and {base_memory:.0f} MB, most of it the model)")
        (folder / "small").mkdir()
        read, ingested, again = small_files(folder / "small", arguments.files)
        print(
            f"small files: {ingested - read:.2f} ms each beyond {read:.2f} ms of reading; unchanged {again:.2f} ms"
        )
    print(f"most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000} MB")


if __name__ == "__main__":
    main()
