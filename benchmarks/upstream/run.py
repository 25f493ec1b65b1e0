"""LlamaIndex's own tests with its classes, and with ours put in their place.

    python benchmarks/upstream/run.py CHECKOUT [--official-python PYTHON] [--only duckdb] [--match EXPRESSION]
        [--json FILE] [--markdown FILE]

CHECKOUT is a checkout of https://github.com/run-llama/llama_index at any commit; nothing of it is copied into this
repository, and nothing is written into it. The official adapters are those that are installed. Two cannot be installed
beside this package, as `llama-index-vector-stores-duckdb` pins duckdb < 1.4: PYTHON is an interpreter that has them,

    uv venv official && uv pip install --python official/bin/python pytest pytest-asyncio \\
        llama-index-vector-stores-duckdb llama-index-retrievers-bm25

Without it their columns stay empty. Postgres is a server of its own, in a temporary folder, with pgvector. What is put
where is in `swap.py`; of the tests only the port of the server is changed, in a copy.

Prints a row a suite, and every test that one of the two does not pass, with its reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree as ElementTree  # of a report that pytest wrote a moment ago
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

HERE = Path(__file__).parent
STORES = "llama-index-integrations/vector_stores/llama-index-vector-stores-"
CORE = "llama-index-core/tests"
CORE_STORE = (f"{CORE}/vector_stores/test_simple.py", f"{CORE}/vector_stores/test_simple_doc_ids.py")


@dataclass(frozen=True)
class Suite:
    """Tests of one official class.

    Attributes:
        name: Row of the table.
        files: In the checkout; one that a commit does not have is left out.
        ours: What `UPSTREAM_SWAP` is for our class.
        official: And for the official one; empty is no swap.
        apart: The official class is in the other environment.
        without: Tests of something else than the class, for `-k`.
    """

    name: str
    files: tuple[str, ...]
    ours: str
    official: str = ""
    apart: bool = False
    without: str = ""


SUITES = {
    **{
        f"core-{store}": Suite(
            f"core's vector store suite on {store}",
            CORE_STORE,
            store,
            f"official-{store}",
            apart=store == "duckdb",
            without="persist_dir or missing_source_mapping",  # the files and fields of SimpleVectorStore itself
        )
        for store in ("duckdb", "lancedb", "postgres")
    },
    "duckdb": Suite(
        "DuckDBVectorStore",
        (f"{STORES}duckdb/tests",),
        "DuckDBVectorStore",
        "official-DuckDBVectorStore",
        apart=True,
    ),
    "lancedb": Suite("LanceDBVectorStore", (f"{STORES}lancedb/tests",), "LanceDBVectorStore"),
    "postgres": Suite("PGVectorStore", (f"{STORES}postgres/tests",), "PGVectorStore"),
    "bm25": Suite(
        "BM25Retriever",
        ("llama-index-integrations/retrievers/llama-index-retrievers-bm25/tests",),
        "BM25Retriever",
        apart=True,
    ),
    "counter": Suite(
        "TokenCountingHandler", (f"{CORE}/callbacks/test_token_counter.py",), "TokenCountingHandler"
    ),
    "rerank": Suite(
        "SentenceTransformerRerank",
        (
            f"{CORE}/postprocessor/test_sbert_rerank.py",
            "llama-index-integrations/postprocessor/llama-index-postprocessor-sbert-rerank/tests",
        ),
        "SentenceTransformerRerank",
        "official-SentenceTransformerRerank",
    ),
}


@dataclass
class Outcome:
    """What became of the tests of a suite.

    Attributes:
        passed: Names of tests.
        failed: Name -> reason, its last line.
        skipped: Name -> reason.
        error: The whole run ended otherwise.
    """

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return self.error
        of = len(self.passed) + len(self.failed)
        return f"{len(self.passed)} of {of}" + (f", {len(self.skipped)} skipped" if self.skipped else "")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres(folder: Path) -> Iterator[int]:
    """A server with pgvector behind a port of the loopback, as the tests want one; ours listens at a Unix socket."""
    from llama_index_presets import embedded_postgres

    port, loop = free_port(), asyncio.new_event_loop()
    with embedded_postgres(folder) as url:
        unix = Path(parse_qs(urlsplit(url).query)["host"][0]) / ".s.PGSQL.5432"

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            from_server, to_server = await asyncio.open_unix_connection(unix)
            await asyncio.gather(pump(reader, to_server), pump(from_server, writer), return_exceptions=True)

        loop.run_until_complete(asyncio.start_server(joined, "127.0.0.1", port))
        threading.Thread(target=loop.run_forever, daemon=True).start()
        try:
            yield port
        finally:
            loop.call_soon_threadsafe(loop.stop)


def copied(checkout: Path, suite: Suite, place: Path, port: int) -> list[str]:
    """Copy the tests of a suite, with the port of the server."""
    found = []
    for number, name in enumerate(suite.files):
        source = checkout / name
        if not source.exists():
            continue
        target = place / f"{number}" / source.name
        target.parent.mkdir(parents=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        for file in [target] if target.is_file() else target.rglob("*.py"):
            file.write_text(file.read_text().replace('"port": 5432', f'"port": {port}'))
        found.append(str(target))
    return found


def run(
    tests: list[str], python: str, swap: str, suite: Suite, place: Path, port: int, match: str
) -> Outcome:
    """Run tests in a process of their own."""
    if not tests:
        return Outcome(error="not in this checkout")
    report = place / f"{swap or 'official'}.xml"
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "pytest_asyncio.plugin",
        "-p",
        "swap",
        "--asyncio-mode=auto",
    ]
    command += [
        "-p",
        "no:cacheprovider",
        f"--rootdir={place}",
        "-c",
        os.devnull,
        f"--junitxml={report}",
        *tests,
    ]
    chosen = [f"not ({suite.without})"] * bool(suite.without) + [f"({match})"] * bool(match)
    command += ["-k", " and ".join(chosen)] if chosen else []
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "HF_HUB_OFFLINE": "1",
        "UPSTREAM_SWAP": swap,
        "UPSTREAM_POSTGRES": f"postgresql://postgres:mark90@127.0.0.1:{port}/postgres",
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if not report.exists() or done.returncode not in (0, 1):
        return Outcome(error=f"pytest ended with {done.returncode}: {done.stdout[-800:]}{done.stderr[-400:]}")
    return read(report)


def read(report: Path) -> Outcome:
    """Outcome of each test in a JUnit report."""
    outcome = Outcome()
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname', '').split('.')[-1]}::{case.get('name')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        if bad is not None:
            outcome.failed[name] = (bad.get("message") or "").strip().split("\n")[0][:300]
        elif skipped is not None:
            outcome.skipped[name] = skipped.get("message") or ""
        else:
            outcome.passed.append(name)
    return outcome


def commit_of(checkout: Path) -> str:
    """The checkout's commit; a folder without git has none."""
    done = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def table(results: dict[str, dict[str, Outcome]]) -> str:
    """A row a suite, in Markdown, and below it what failed."""
    lines = ["| tests of | official | ours |", "|---|---|---|"]
    lines += [f"| {SUITES[key].name} | {row['official']} | {row['ours']} |" for key, row in results.items()]
    for key, row in results.items():
        for side, outcome in row.items():
            lines += [f"\n{SUITES[key].name}, {side}:\n"] if outcome.failed else []
            lines += [f"- `{name}`: {reason}" for name, reason in sorted(outcome.failed.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the suites, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="of run-llama/llama_index")
    parser.add_argument("--official-python", help="interpreter with the official DuckDB and BM25 adapters")
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES), help="these suites")
    parser.add_argument("--match", default="", help="these tests, as for pytest's -k")
    parser.add_argument("--commit", help="of the checkout, where it is no git repository")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    if not (checkout / CORE).is_dir():
        parser.error(f"'{checkout}' has no {CORE}; give a checkout of run-llama/llama_index")
    results: dict[str, dict[str, Outcome]] = {}
    # Not in a folder of root's own: the server runs as another user.
    with tempfile.TemporaryDirectory() as folder, postgres(Path(folder) / "server") as port:
        for key in options.only:
            suite, place = SUITES[key], Path(folder) / key
            tests = copied(checkout, suite, place, port)
            python = options.official_python if suite.apart else sys.executable
            official = (
                run(tests, python, suite.official, suite, place, port, options.match)
                if python
                else Outcome(error="needs --official-python")
            )
            results[key] = {
                "official": official,
                "ours": run(tests, sys.executable, suite.ours, suite, place, port, options.match),
            }
            print(
                f"{suite.name}: official {official}; ours {results[key]['ours']}", file=sys.stderr, flush=True
            )
    text = table(results)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.json:
        head = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "commit": options.commit or commit_of(checkout),
            "llama-index-core": version("llama-index-core"),
        }
        rows = {key: {side: vars(one) for side, one in row.items()} for key, row in results.items()}
        options.json.write_text(json.dumps({**head, "suites": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
