"""Kill, starve and break every operation that writes, then look for what was lost, left over or made unusable.

    python benchmarks/faults/campaign.py [--kills 210] [--seed 0] [--only ingest,sync] [--kills-only] [--keep FOLDER]

Seven operations: `ingest` and `sync` of the hybrid preset on DuckDB and LanceDB, the `first creation` of a storage,
`move` between stores, a durable `ledger`, the `keyword index` alone, and the `embedding cache`. Each runs in a process
forked from one that has imported everything and opened nothing, and meets one fault:

    kill     SIGKILL; after a random time, or, where strace is installed and may attach, at a random system call among
             those that write, sync, rename, make or remove
    EIO      a positioned write, a sync, a renaming or a cut fails, once or from then on: by strace for half of these
             faults; for the others, and without strace, what Python asks for fails (`os.write`, `os.fsync`,
             `os.fdatasync`, `os.replace`, `Path.write_text`), which DuckDB, LanceDB and SQLite do not meet
    ENOSPC   the storage lies on a small tmpfs that is full sooner or later, and has room again afterwards; only as root
    EFBIG    no file may grow beyond a random number of sectors (RLIMIT_FSIZE); the kernel sees to it for every library

Then files are changed, added and deleted, the operation is run again without a fault, and a third process compares what
is there with what should be: every current text in the vector store, the keyword index and the manifest, and no other;
every acknowledged ledger row once; every acknowledged keyword change and cached vector. A storage goes on into the next
fault, so damage adds up.

    lost       current or acknowledged, and not there, or not found by a question
    left over  there, and deleted or replaced; or there twice
    unusable   the same operation without a fault raises or hangs, or the storage does not open
    raw        under EIO, ENOSPC or EFBIG the operation raised another error than one of this package

Prints a table, and ends with 1 unless lost, left over, unusable and raw are all 0. The choices come from --seed; a kill
by time depends on the machine all the same.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import logging
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import duckdb
import lancedb
import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.utils import get_tokenizer

from llama_index_presets import build
from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.embed.cached import CachedEmbedding
from llama_index_presets.errors import PresetsError
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.prices import Pricer, Tokens
from llama_index_presets.retrieve.bm25.index import BM25Index
from llama_index_presets.retrieve.node_sources import all_nodes
from llama_index_presets.store.duckdb.store import DuckDBVectorStore
from llama_index_presets.store.lancedb.store import LanceDBVectorStore
from llama_index_presets.store.move import move

assert duckdb and lancedb

DIM = 16
HANGS_AFTER_S = 90.0
CALLS = (
    "write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,ftruncate,rename,renameat,renameat2,link,linkat,unlink,"
    "unlinkat,mkdir,mkdirat,fallocate,copy_file_range"
)
FAILING = "pwrite64,pwritev,fsync,fdatasync,rename,renameat,renameat2,ftruncate,mkdir"
"""Not `write`: it also wakes threads of LanceDB, and no disk is behind that. Python's own writes fail in Python."""


class TinyEmbedding(BaseEmbedding):
    """A bag of hashed words in 16 dimensions: deterministic, and nothing to load."""

    model_name: str = "tiny"
    dim: int = DIM
    max_tokens: int = 48

    @staticmethod
    def tokenize(text: str) -> list[str]:
        return text.split()

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = np.full(DIM, 1e-3)
        for word in text.lower().split():
            vector[hashlib.sha256(word.strip(".").encode()).digest()[0] % DIM] += 1
        return [float(value) for value in vector / np.linalg.norm(vector)]

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


# -- a process with a fault ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to a process; `kind` none leaves it alone."""

    kind: str = "none"
    after_s: float | None = None
    at_call: int | None = None
    traced: bool = False
    lasting: bool = False
    file_bytes: int = 0


@dataclass(slots=True)
class Outcome:
    """How a process ended: `ok`, `killed`, `failed` or `hung`; what it said on the way."""

    how: str = "killed"
    said: list[Any] = field(default_factory=list)
    value: Any = None
    error: str = ""
    raw: bool = False
    seconds: float = 0.0


Say = Callable[[Any], None]


def run(work: Callable[[Say], Any], fault: Fault = Fault()) -> Outcome:
    """Run work in a forked process and meet it with a fault."""
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        here.close()
        _in_child(work, there, fault)
    there.close()
    outcome, began = Outcome(), time.monotonic()
    tracer = _traced(pid, fault)
    deadline = began + HANGS_AFTER_S
    kill_at = None
    here.settimeout(0.01)
    rest = b""
    while True:
        try:
            block = here.recv(65536)
        except TimeoutError:
            block = None
        if block == b"":
            break
        rest += block or b""
        while b"\n" in rest:
            line, _, rest = rest.partition(b"\n")
            message = json.loads(line)
            if message[0] == "begun":
                began = time.monotonic()
                kill_at = None if fault.after_s is None else began + fault.after_s
            elif message[0] == "said":
                outcome.said.append(message[1])
            else:
                outcome.how, outcome.value, outcome.error, outcome.raw = message
        if kill_at is not None and time.monotonic() >= kill_at:
            os.kill(pid, signal.SIGKILL)
            kill_at = None
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            outcome.how, outcome.error = "hung", f"did not end in {HANGS_AFTER_S:.0f} s"
    outcome.seconds = time.monotonic() - began
    os.waitpid(pid, 0)
    if tracer is not None:
        tracer.kill()
        tracer.wait()
    here.close()
    return outcome


def _in_child(work: Callable[[Say], Any], there: socket.socket, fault: Fault) -> None:
    def send(*message: Any) -> None:
        there.sendall(json.dumps(message).encode() + b"\n")

    try:
        if fault.traced:
            os.kill(os.getpid(), signal.SIGSTOP)  # until strace has attached
        elif fault.kind == "EIO":
            _fail_in_python(fault)
        if fault.kind == "EFBIG":
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.file_bytes, fault.file_bytes))
        send("begun")
        send("ok", work(lambda message: send("said", message)), "", False)
    except BaseException as error:  # whatever it is: the parent judges it
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {str(error)[:300]} ({Path(where.filename).name}:{where.lineno})"
        with suppress(OSError):
            send("failed", None, text, not isinstance(error, PresetsError))
    finally:
        os._exit(0)


def _traced(pid: int, fault: Fault) -> subprocess.Popen[bytes] | None:
    """Attach strace to a process that has stopped itself, and let it go on."""
    if not fault.traced:
        return None
    os.waitpid(pid, os.WUNTRACED)
    count = f"when={fault.at_call}{'+' if fault.lasting else ''}"
    what = f"{CALLS}:signal=SIGKILL" if fault.kind == "kill" else f"{FAILING}:error=EIO"
    command = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={CALLS}",
        "-e",
        f"inject={what}:{count}",
    ]
    tracer = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.DEVNULL)
    status = Path(f"/proc/{pid}/status")
    while "TracerPid:\t0" in status.read_text() and tracer.poll() is None:
        time.sleep(0.002)
    os.kill(pid, signal.SIGCONT)
    return tracer


def _fail_in_python(fault: Fault) -> None:
    """Without strace: the n-th write, sync or renaming that Python asks for fails."""
    left = [fault.at_call or 1]

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 or (left[0] < 0 and fault.lasting):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(*arguments, **options)

        return instead

    for name in ("write", "fsync", "fdatasync", "replace", "rename"):
        setattr(os, name, failing(getattr(os, name)))
    for name in ("write_text", "write_bytes", "replace", "rename", "mkdir"):
        setattr(Path, name, failing(getattr(Path, name)))


def _strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    done = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return done.returncode == 0


STRACE = _strace_works()


# -- documents ----------------------------------------------------------------------------------------------------


class Documents:
    """A folder of small files that change; every text has a word of its own."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.folder, self._dice, self._next = folder, dice, 0
        self.words: dict[str, list[str]] = {}
        folder.mkdir(parents=True)
        self.change(new=10)

    def change(self, *, new: int = 1, changed: int = 0, deleted: int = 0) -> None:
        """Write new files, rewrite some, delete some."""
        names = self._dice.sample(sorted(self.words), min(changed + deleted, len(self.words)))
        for name in names[:deleted]:
            (self.folder / name).unlink()
            del self.words[name]
        for name in [*names[deleted:], *(f"d{self._next + i}.txt" for i in range(new))]:
            self._write(name)
        self._next += new

    def _write(self, name: str) -> None:
        words = [f"w{self._dice.randrange(10**9)}" for _ in range(self._dice.choice((1, 1, 2, 5)))]
        text = "\n\n".join(f"Passage {word} speaks of " + "valves and pumps " * 12 + "." for word in words)
        (self.folder / name).write_text(text)
        self.words[name] = words


def engine_on(place: Path, store: str) -> Any:
    """The hybrid preset with every part that writes."""
    cached = CachedEmbedding(TinyEmbedding(), EmbeddingCache(place.parent / "cache"))
    settings = {"pattern": "hybrid", "store": store, "batch_chunks": 4}
    return build("knowledge-base", storage=place, offline=True, settings=settings, embed_model=cached)


def ingest_all(place: Path, store: str, folder: Path, *, sync: bool) -> Callable[[Say], Any]:
    def work(_: Say) -> Any:
        with engine_on(place, store) as engine:
            report = engine.ingest(str(folder), sync=sync, show_progress=False)
            return [failure.error for failure in report.failed]

    return work


def inspect(place: Path, store: str) -> Callable[[Say], Any]:
    """Everything that a storage holds, as its parts see it."""

    def work(_: Say) -> Any:
        with engine_on(place, store) as engine:
            assembly = engine._parts
            nodes = {node.node_id: node.get_content() for node in all_nodes(engine.vector_store)}
            keyword = assembly.retrieval.keyword
            found = {}
            for word in _words_of(nodes.values())[:: max(len(nodes) // 10, 1)]:
                hits = engine.retriever.retrieve(word)
                found[word] = any(word in hit.node.get_content() for hit in hits)
            return {
                "texts": list(nodes.values()),
                "apart": sorted(set(nodes) ^ set(keyword.digests())),
                "documents": [Path(name).name for name in assembly.manifest.hashes()],
                "found": found,
                "calls": len(engine.ledger.sql("SELECT call_id FROM llm_calls").fetchall()),
            }

    return work


def _words_of(texts: Any) -> list[str]:
    return [word for text in texts for word in text.split() if word[0] == "w" and word[1:].isdigit()]


# -- operations ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Verdict:
    """What was wrong after one fault."""

    lost: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.left_over or self.unusable)


class Ingest:
    """Ingest into a storage that lives on; DuckDB and LanceDB by turns."""

    sync = False

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.root, self.dice, self.round = root, dice, 0
        self.begin()

    def begin(self) -> None:
        """Start afresh."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.documents = {
            name: Documents(self.root / name / "docs", self.dice) for name in ("duckdb", "lancedb")
        }

    @property
    def store(self) -> str:
        return ("duckdb", "lancedb")[self.round % 2]

    @property
    def place(self) -> Path:
        return self.root / self.store / "storage"

    def prepare(self) -> None:
        """What happens before the fault."""
        self.round += 1
        documents = self.documents[self.store]
        if not self.place.exists():
            run(ingest_all(self.place, self.store, documents.folder, sync=self.sync))
        self._change(documents)

    def _change(self, documents: Documents) -> None:
        documents.change(new=self.dice.randrange(1, 6), changed=self.dice.randrange(4))

    def operate(self) -> Callable[[Say], Any]:
        return ingest_all(self.place, self.store, self.documents[self.store].folder, sync=self.sync)

    def meanwhile(self, outcome: Outcome) -> None:
        """Between the fault and the next run."""
        if self.dice.random() < 0.7:
            self._change(self.documents[self.store])

    def verify(self, outcome: Outcome) -> Verdict:
        verdict = Verdict()
        again = run(self.operate())
        seen = run(inspect(self.place, self.store)) if again.how == "ok" else again
        if seen.how != "ok" or again.value:
            verdict.unusable.append(seen.error or str(again.value))
            return verdict
        self._compare(seen.value, verdict)
        return verdict

    def _compare(self, seen: dict[str, Any], verdict: Verdict) -> None:
        documents = self.documents[self.store].words
        there, wanted = (
            Counter(_words_of(seen["texts"])),
            {word for words in documents.values() for word in words},
        )
        verdict.lost += [word for word in wanted if not there[word] or not seen["found"].get(word, True)]
        verdict.lost += sorted(set(documents) - set(seen["documents"]))
        verdict.left_over += sorted(set(there) - wanted) + [
            word for word, times in there.items() if times > 1
        ]
        verdict.left_over += sorted(set(seen["documents"]) - set(documents))
        verdict.left_over += [f"only in one of store and keyword index: {name}" for name in seen["apart"]]


class Sync(Ingest):
    """Ingest with `sync`; files are deleted before the fault, and between it and the next run."""

    sync = True

    def _change(self, documents: Documents) -> None:
        documents.change(
            new=self.dice.randrange(1, 5), changed=self.dice.randrange(4), deleted=self.dice.randrange(4)
        )


class FirstCreation(Sync):
    """A storage that is not there yet, each time."""

    def prepare(self) -> None:
        self.round += 1
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.rmtree(self.place.parent / "cache", ignore_errors=True)


class Move:
    """Copy a store into a new one; run again until it is done."""

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.root, self.round = root, 0
        self.begin()

    def begin(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        for store in ("duckdb", "lancedb"):
            filled = run(lambda _, store=store: self._fill(store))
            assert filled.how == "ok", filled.error

    def _open(self, store: str, name: str, **options: Any) -> Any:
        if store == "duckdb":
            return DuckDBVectorStore(self.root / f"{name}.duckdb", fingerprint="tiny;dim=16", **options)
        return LanceDBVectorStore(str(self.root / f"{name}.lance"), fingerprint="tiny;dim=16")

    def _fill(self, store: str) -> None:
        numbers = np.random.default_rng(1).normal(size=(600, DIM))
        nodes = [
            TextNode(id_=f"n{i}", text=f"text {i}", embedding=list(row)) for i, row in enumerate(numbers)
        ]
        source = self._open(store, "source")
        source.add(nodes)
        if hasattr(source, "close"):
            source.close()

    def prepare(self) -> None:
        self.round += 1
        for target in self.root.glob("target.*"):
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    def operate(self) -> Callable[[Say], Any]:
        stores = ("duckdb", "lancedb") if self.round % 2 else ("lancedb", "duckdb")

        def work(_: Say) -> Any:
            old = self._open(stores[0], "source", **({"read_only": True} if stores[0] == "duckdb" else {}))
            new = self._open(stores[1], "target")
            report = move(old, new, batch_nodes=50)
            for store in (old, new):
                if hasattr(store, "close"):
                    store.close()
            return {
                "missing": report.missing,
                "extra": report.extra,
                "different": report.different,
                "ok": report.ok,
            }

        return work

    def meanwhile(self, outcome: Outcome) -> None:
        """Nothing changes."""

    def verify(self, outcome: Outcome) -> Verdict:
        again = run(self.operate())
        if again.how != "ok":
            return Verdict(unusable=[again.error])
        report = again.value
        return Verdict(lost=[*report["missing"], *report["different"]], left_over=[*report["extra"]])


class DurableLedger:
    """Rows that `record` has acknowledged, one process after the other, folded whenever one closes."""

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.root, self.round = root, 0
        self.begin()

    def begin(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        self.rows: set[str] = set()
        self.maybe: set[str] = set()

    def prepare(self) -> None:
        self.round += 1

    def operate(self) -> Callable[[Say], Any]:
        number = self.round

        def work(say: Say) -> Any:
            with Ledger(self.root / "calls.duckdb", durable=True) as ledger:
                for i in range(30):
                    name = f"{number}-{i}"
                    say(["will", name])
                    ledger.record(kind="llm", provider="p", model="m", prompt_tokens=1, session=name)
                    say(["did", name])

        return work

    def meanwhile(self, outcome: Outcome) -> None:
        self.rows |= {name for what, name in outcome.said if what == "did"}
        self.maybe |= {name for what, name in outcome.said if what == "will"} - self.rows

    def verify(self, outcome: Outcome) -> Verdict:
        def work(_: Say) -> Any:
            with Ledger(self.root / "calls.duckdb", durable=True) as ledger:
                ledger.record(kind="llm", provider="p", model="m", prompt_tokens=1, session="again")
            with Ledger(self.root / "calls.duckdb") as ledger:
                return [row[0] for row in ledger.sql("SELECT session FROM llm_calls").fetchall()]

        seen = run(work)
        if seen.how != "ok":
            return Verdict(unusable=[seen.error])
        there = Counter(name for name in seen.value if name != "again")
        twice = [name for name, times in there.items() if times > 1]
        return Verdict(
            lost=sorted(self.rows - set(there)),
            left_over=[*twice, *sorted(set(there) - self.rows - self.maybe)],
        )


class KeywordIndex:
    """Acknowledged changes of a `BM25Index` on disk, with compactions between them."""

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.root, self.dice, self.round = root, dice, 0
        self.begin()

    def begin(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        self.texts: dict[str, str] = {}
        self.pending: dict[str, str | None] = {}

    def prepare(self) -> None:
        self.round += 1
        self.plan = [self._step(i) for i in range(25)]

    def _step(self, number: int) -> dict[str, Any]:
        names = [f"n{self.dice.randrange(60)}" for _ in range(self.dice.choice((1, 3, 400)))]
        kind = self.dice.choice(("put", "put", "drop", "compact"))
        word = f"w{self.round}x{number}"
        return {"kind": kind, "names": sorted(set(names)), "word": word}

    def operate(self) -> Callable[[Say], Any]:
        plan = self.plan

        def work(say: Say) -> Any:
            index = BM25Index(self.root / "keywords")
            for place, step in enumerate(plan):
                say(["will", place])
                if step["kind"] == "put":
                    index.add([TextNode(id_=name, text=f"common {step['word']}") for name in step["names"]])
                elif step["kind"] == "drop":
                    index.delete(step["names"])
                else:
                    index.compact()
                say(["did", place])

        return work

    def meanwhile(self, outcome: Outcome) -> None:
        done = {place for what, place in outcome.said if what == "did"}
        begun = [place for what, place in outcome.said if what == "will" and place not in done]
        for place in sorted(done):
            self.texts = self._after(self.texts, self.plan[place])
        self.other = self._after(self.texts, self.plan[begun[0]]) if begun else self.texts

    @staticmethod
    def _after(texts: dict[str, str], step: dict[str, Any]) -> dict[str, str]:
        if step["kind"] == "compact":
            return texts
        rest = {name: text for name, text in texts.items() if name not in step["names"]}
        return {**rest, **dict.fromkeys(step["names"], step["word"])} if step["kind"] == "put" else rest

    def verify(self, outcome: Outcome) -> Verdict:
        def work(_: Say) -> Any:
            index = BM25Index(self.root / "keywords")
            hits = index.as_retriever(top_k=999).retrieve("common")
            index.add([TextNode(id_="after", text="after")])
            index.delete("after")
            return {hit.node.node_id: hit.node.get_content().split()[1] for hit in hits}

        seen = run(work)
        if seen.how != "ok":
            return Verdict(unusable=[seen.error])
        if seen.value == self.other:
            self.texts = self.other
        lost = [name for name, word in self.texts.items() if seen.value.get(name) != word]
        return Verdict(lost=lost, left_over=sorted(set(seen.value) - set(self.texts)))


class Cache:
    """Acknowledged vectors of an `EmbeddingCache`."""

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.root, self.round = root, 0
        self.begin()

    def begin(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        self.kept: list[int] = []

    def prepare(self) -> None:
        self.round += 1

    def operate(self) -> Callable[[Say], Any]:
        first = self.round * 1000

        def work(say: Say) -> Any:
            heard = _heard()
            cache = EmbeddingCache(self.root / "cache")
            for batch in range(first, first + 40):
                cache.put_many(self._batch(cache, batch))
                if not heard:  # a batch that could not be kept is said in a warning, and is no loss
                    say(batch)
                heard.clear()
            cache.close()

        return work

    @staticmethod
    def _batch(cache: EmbeddingCache, batch: int) -> dict[bytes, np.ndarray]:
        keys = cache.keys("tiny", "passage", [f"{batch}-{i}" for i in range(8)])
        return {key: np.full(DIM, batch + i / 8, np.float32) for i, key in enumerate(keys)}

    def meanwhile(self, outcome: Outcome) -> None:
        self.kept += outcome.said

    def verify(self, outcome: Outcome) -> Verdict:
        kept = self.kept

        def work(_: Say) -> Any:
            cache = EmbeddingCache(self.root / "cache")
            wrong: dict[str, list[str]] = {"lost": [], "left_over": []}
            for batch in kept:
                wanted = self._batch(cache, batch)
                there = cache.get_many(list(wanted))
                wrong["lost"] += [f"{batch}" for key in wanted if key not in there]
                wrong["left_over"] += [
                    f"{batch}" for key in there if not np.array_equal(there[key], wanted[key])
                ]
            cache.put_many(self._batch(cache, -1))
            cache.close()
            return wrong

        seen = run(work)
        return Verdict(**seen.value) if seen.how == "ok" else Verdict(unusable=[seen.error])


def _heard() -> list[str]:
    """Warnings of the package from now on."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logging.disable(logging.NOTSET)
    log = logging.getLogger("llama_index_presets")
    log.propagate = False
    log.addHandler(Ear(logging.WARNING))
    return heard


OPERATIONS: dict[str, Any] = {
    "ingest": Ingest,
    "sync": Sync,
    "first creation": FirstCreation,
    "move": Move,
    "ledger": DurableLedger,
    "keyword index": KeywordIndex,
    "embedding cache": Cache,
}


# -- the campaign -------------------------------------------------------------------------------------------------


class Campaign:
    """Faults over operations, and the table of what came of them."""

    def __init__(self, seed: int, keep: Path | None) -> None:
        self.dice, self.keep = random.Random(seed), keep
        self.table = {name: Counter[str]() for name in OPERATIONS}
        self.seconds: dict[str, float] = {}

    def faults(self, name: str, root: Path, kinds: list[str]) -> None:
        """Meet one operation with some faults, one after the other."""
        operation = OPERATIONS[name](root, self.dice)
        operation.prepare()
        calibration = run(operation.operate())
        assert calibration.how == "ok", f"{name} fails without a fault: {calibration.error}"
        operation.meanwhile(calibration)
        self.seconds[name] = calibration.seconds
        for number, kind in enumerate(kinds):
            operation.prepare()
            fault = self._fault(kind, name)
            with _little_room(root, self.dice) if kind == "ENOSPC" else nullcontext():
                outcome = run(operation.operate(), fault)
            operation.meanwhile(outcome)
            self._judge(name, number, fault, outcome, operation, root)

    def _judge(
        self, name: str, number: int, fault: Fault, outcome: Outcome, operation: Any, root: Path
    ) -> None:
        row = self.table[name]
        row[fault.kind] += 1
        row["hit"] += outcome.how != "ok"
        hung = outcome.how == "hung"
        verdict = Verdict(unusable=["hung under the fault"]) if hung else operation.verify(outcome)
        raw = fault.kind != "kill" and outcome.how == "failed" and outcome.raw
        row["raw"] += raw
        for column in ("lost", "left_over", "unusable"):
            row[column] += bool(getattr(verdict, column))
        if verdict or raw:
            print(
                f"  {name} #{number} {fault}: {str(verdict)[:600] if verdict else ''} {outcome.error}",
                flush=True,
            )
        if verdict:
            if self.keep is not None:
                shutil.copytree(root, self.keep / f"{name.replace(' ', '-')}-{number}", dirs_exist_ok=True)
            operation.begin()

    def _fault(self, kind: str, name: str) -> Fault:
        calls = int(
            10 ** self.dice.uniform(0, 2.3)
        )  # few calls come first in each thread, and most faults with them
        if kind == "kill":
            if STRACE and self.dice.random() < 0.5:
                return Fault(kind="kill", at_call=calls, traced=True)
            return Fault(kind="kill", after_s=self.dice.random() * self.seconds[name])
        if kind == "EIO":
            traced = STRACE and self.dice.random() < 0.5
            return Fault(kind="EIO", at_call=calls, traced=traced, lasting=self.dice.random() < 0.5)
        if kind == "EFBIG":
            return Fault(kind="EFBIG", file_bytes=512 * int(10 ** self.dice.uniform(0, 3)))
        return Fault(kind=kind)

    def show(self) -> bool:
        """Print the table; whether nothing was wrong."""
        kinds = ("kill", "EIO", "ENOSPC", "EFBIG", "hit", "lost", "left_over", "unusable", "raw")
        print("\n| operation | " + " | ".join(kind.replace("_", " ") for kind in kinds) + " |")
        print("|---" * (len(kinds) + 1) + "|")
        total = sum(self.table.values(), Counter())
        for name, row in [*self.table.items(), ("all", total)]:
            print(f"| {name} | " + " | ".join(str(row[kind]) for kind in kinds) + " |")
        return not any(total[kind] for kind in ("lost", "left_over", "unusable", "raw"))


@contextmanager
def _little_room(root: Path, dice: random.Random) -> Iterator[None]:
    """Leave a random rest of the tmpfs free for the length of a block."""
    used = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    _remount(root, used + 4096 * len(list(root.rglob("*"))) + int(10 ** dice.uniform(3.6, 6)))
    try:
        yield
    finally:
        _remount(root, 2**29)


def _remount(root: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(root.parent)], check=True)


@contextmanager
def _folder(*, tmpfs: bool) -> Iterator[Path]:
    """A folder of its own, on a tmpfs where that is asked for and permitted."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        if tmpfs:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", str(folder)], check=True)
        yield folder
    finally:
        if tmpfs:
            subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _may_mount() -> bool:
    with suppress(Exception), _folder(tmpfs=True):
        return True
    return False


def _kinds(kills: int, dice: random.Random, *, mount: bool) -> list[str]:
    """So many kills, and a fifth as many of each other fault, mixed."""
    others = max(kills // 5, 1)
    kinds = ["kill"] * kills + ["EIO"] * others + ["EFBIG"] * others + ["ENOSPC"] * (others if mount else 0)
    dice.shuffle(kinds)
    return kinds


def _warm() -> None:
    """Read what every engine reads once in its process, so that a cycle is short and the faults hit what writes."""
    get_tokenizer()("warm")
    Pricer(None).price("openai", "gpt-4o-mini", Tokens(1, 1, 0, 0), time.time())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=210, help="kills in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(OPERATIONS), help="operations, by commas")
    parser.add_argument("--kills-only", action="store_true", help="no other faults")
    parser.add_argument("--keep", type=Path, help="copy what is wrong into this folder")
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    warnings.filterwarnings("ignore", message="lancedb fork support is experimental")
    names = options.only.split(",")
    _warm()
    campaign, mount = Campaign(options.seed, options.keep), _may_mount()
    print(
        f"strace: {'yes' if STRACE else 'no'}, tmpfs: {'yes' if mount else 'no'}, seed {options.seed}",
        flush=True,
    )
    for name in names:
        began = time.monotonic()
        with _folder(tmpfs=mount) as folder:
            kills = -(-options.kills // len(names))
            kinds = ["kill"] * kills if options.kills_only else _kinds(kills, campaign.dice, mount=mount)
            campaign.faults(name, folder / "root", kinds)
        print(f"{name}: {len(kinds)} faults in {time.monotonic() - began:.0f} s", flush=True)
    return 0 if campaign.show() else 1


if __name__ == "__main__":
    sys.exit(main())
