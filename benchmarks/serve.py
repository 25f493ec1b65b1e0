"""What the server costs and withstands, beside a bare Starlette application that calls the same engine. Loopback only.

    python benchmarks/serve.py [--seconds 60] [--clients 64] [--requests 400] [--hayhooks PYTHON]

1. overhead: the same engine behind both applications, asked in turn by one client; milliseconds a request. With the
   Python of an environment that has hayhooks (uv venv, uv pip install hayhooks), also a pipeline of the same kind
   behind hayhooks: it takes the time inside the pipeline itself, so that what its server adds can be told.
2. load: so many clients for so many seconds, each a tenant; errors, crossed answers, memory
3. streams: clients that leave in the midst; what stays open, rows a question
4. budget: so many callers of one key at once; dollars beyond the budget
5. kill: kill -9 amid the load of 2; the next start answers, and its jobs and ledger are whole
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from llama_index_presets import build
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.serve.callers.key_file import Caller, KeyFile
from llama_index_presets.serve.config import EngineConfig, ServeConfig
from llama_index_presets.serve.engines import Engines
from llama_index_presets.serve.server import Process

QUESTION = "What is the password?"


class Words(BaseEmbedding):
    """Hashed words, so that no model's time hides the server's."""

    @classmethod
    def class_name(cls) -> str:
        return "HuggingFaceEmbedding"

    def _vector(self, text: str) -> list[float]:
        vector = np.full(64, 1e-3)
        for word in text.lower().split():
            vector[sum(word.strip(".,?!").encode()) % 64] += 1.0
        return [float(value) for value in vector / np.linalg.norm(vector)]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)


class Paid(CustomLLM):
    """Quotes the first passage, priced as gpt-4o-mini; a word every few milliseconds in a stream."""

    pause_s: float = 0.0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="gpt-4o-mini", num_output=64)

    @classmethod
    def class_name(cls) -> str:
        return "openai_llm"

    def _says(self, prompt: str) -> str:
        place = prompt.find("sesame")
        return f"{prompt[place:].split('.')[0]} [1]." if place >= 0 else "Nothing."

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._says(prompt))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def pieces() -> CompletionResponseGen:
            text = ""
            for word in [*["word"] * (200 if self.pause_s else 0), self._says(prompt)]:
                time.sleep(self.pause_s)
                text += f"{word} "
                yield CompletionResponse(text=text, delta=f"{word} ")

        return pieces()


def open_engine(config: EngineConfig, pause_s: float = 0.0) -> PresetEngine:
    return build(config.preset, storage=config.storage, embed_model=Words(), llm=Paid(pause_s=pause_s))


def config_of(folder: Path, **options: Any) -> ServeConfig:
    engines = {"kb": EngineConfig(preset="knowledge-base", storage=str(folder / "kb"))}
    return ServeConfig(engines=engines, port=options.pop("port", 0), **options)


def in_thread(run: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=run, args=arguments, daemon=True)
    thread.start()
    return thread


def until_ready(url: str, path: str = "/readyz") -> None:
    with httpx.Client(base_url=url, timeout=10) as client:
        for _ in range(1_200):
            try:
                if client.get(path).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
    raise SystemExit(f"{url} did not get ready.")


# -- 1. overhead ------------------------------------------------------------------------------------------------------


def bare(engine: PresetEngine) -> Starlette:
    """What one writes without this package's server: a route, a thread, the answer."""

    async def query(request: Request) -> JSONResponse:
        body = await request.json()
        response = await run_in_threadpool(engine.query, body["question"])
        sources = [{"text": hit.node.get_content(), "score": hit.score} for hit in response.source_nodes]
        return JSONResponse({"answer": str(response), "sources": sources, **response.metadata})

    return Starlette(routes=[Route("/query", query, methods=["POST"])])


@contextlib.contextmanager
def hayhooks(python: Path | None) -> Iterator[str | None]:
    """Address of the pipeline in benchmarks/hayhooks, served from an environment of its own; None without one."""
    if python is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipelines = Path(__file__).with_name("hayhooks")
    command = [python.with_name("hayhooks"), "run", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [*command, "--pipelines-dir", pipelines],
            env=environment | {"HAYSTACK_TELEMETRY_ENABLED": "False", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until_ready(f"http://127.0.0.1:{port}", "/status")
            yield f"http://127.0.0.1:{port}/passwords/run"
        finally:
            server.terminate()
            server.wait(30)


def overhead(folder: Path, requests: int, python: Path | None) -> dict[str, Any]:
    process = Process(config_of(folder), engines=Engines(open_engine))
    in_thread(process.run)
    until_ready(process.url)
    engine = process.server.engines.all()[0].engine
    engine.ingest(
        [Document(text=f"The password of number {n} is sesame{n}.", id_=f"d{n}") for n in range(50)]
    )
    listening = socket.socket(proto=socket.IPPROTO_TCP)  # else asyncio leaves Nagle's algorithm on: 40 ms
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # a request that comes before the server waits for it
    plain = uvicorn.Server(uvicorn.Config(bare(engine), log_level="error", http="h11", access_log=False))
    in_thread(lambda: asyncio.run(plain.serve(sockets=[listening])))
    port = listening.getsockname()[1]
    with hayhooks(python) as theirs:
        urls = {"ours": f"{process.url}/query", "bare": f"http://127.0.0.1:{port}/query"}
        times, inside = asked_in_turn(urls | ({"hayhooks": theirs} if theirs else {}), requests)
    plain.should_exit = True
    process.stop()
    found = {f"{name}_p50_ms": round(statistics.median(values), 2) for name, values in times.items()}
    found |= {
        f"{name}_p95_ms": round(statistics.quantiles(values, n=20)[-1], 2) for name, values in times.items()
    }
    found["overhead_p50_ms"] = round(found["ours_p50_ms"] - found["bare_p50_ms"], 2)
    found["ratio"] = round(found["ours_p50_ms"] / found["bare_p50_ms"], 3)
    if inside:
        found["hayhooks_inside_p50_ms"] = round(statistics.median(inside), 2)
        added = [whole - part for whole, part in zip(times["hayhooks"], inside, strict=True)]
        found["hayhooks_overhead_p50_ms"] = round(statistics.median(added), 2)
    return found


def asked_in_turn(urls: dict[str, str], requests: int) -> tuple[dict[str, list[float]], list[float]]:
    """Milliseconds of each request, by server, after 20 that do not count; and those inside hayhooks' pipeline."""
    times: dict[str, list[float]] = {name: [] for name in urls}
    inside: list[float] = []
    with contextlib.ExitStack() as opened:
        clients = {name: opened.enter_context(httpx.Client(timeout=30)) for name in urls}
        for number in range(requests + 20):
            names = list(urls)[:: 1 if number % 2 else -1]
            for name in names:
                began = time.perf_counter()
                response = clients[name].post(urls[name], json={"question": QUESTION}).raise_for_status()
                took = (time.perf_counter() - began) * 1000
                if number < 20:
                    continue
                times[name].append(took)
                if name == "hayhooks":
                    inside.append(response.json()["result"]["pipeline_ms"])
    return times, inside


# -- 2. load and 5. kill ----------------------------------------------------------------------------------------------


def child(folder: Path, port: int) -> None:
    """A server in a process of its own."""
    config = config_of(folder, port=port, keys=str(folder / "keys.json"))
    Process(config, engines=Engines(open_engine, sums=folder / "sums")).run()


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--child", str(folder), str(port)]
    process = subprocess.Popen(command)
    until_ready(f"http://127.0.0.1:{port}")
    return process


def rss_mb(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


async def drive(
    url: str, keys: dict[str, str], seconds: float, process: subprocess.Popen[bytes]
) -> dict[str, Any]:
    """Every caller asks for its password again and again, whole and as a stream in turn."""
    ends = time.monotonic() + seconds
    counts = {"answers": 0, "errors": 0, "crossed": 0}
    memory: list[float] = []

    async def ask(name: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            number = 0
            while time.monotonic() < ends:
                number += 1
                path = "/query/stream" if number % 4 == 0 else "/query"
                try:
                    response = await client.post(path, json={"question": QUESTION})
                except httpx.HTTPError:
                    counts["errors"] += 1
                    continue
                right = f"sesame{name} [1]" in response.text
                counts["answers" if response.status_code == 200 and right else "errors"] += 1
                counts["crossed"] += any(
                    f"sesame{other} " in response.text for other in keys if other != name
                )

    async def watch() -> None:
        while time.monotonic() < ends:
            memory.append(rss_mb(process))
            await asyncio.sleep(max(0.5, seconds / 60))

    await asyncio.gather(watch(), *(ask(name, key) for name, key in keys.items()))
    third = max(1, len(memory) // 3)
    return {
        **counts,
        "answers_a_second": round(counts["answers"] / seconds, 1),
        "rss_mb_second_third": round(statistics.mean(memory[third : 2 * third] or memory), 1),
        "rss_mb_last_third": round(statistics.mean(memory[-third:]), 1),
        "rss_mb_most": round(max(memory), 1),
    }


def load_and_kill(folder: Path, clients: int, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    names = [f"t{number}" for number in range(clients)]
    file = KeyFile(folder / "keys.json")
    keys = {name: file.add(Caller(name=name, tenant=name, rate="100000/minute")) for name in names}
    with open_engine(EngineConfig(preset="knowledge-base", storage=str(folder / "kb"))) as engine:
        for name in names:
            documents = [Document(text=f"The password is sesame{name}.", id_=f"{name}.txt")]
            engine.for_tenant(name).ingest(documents, show_progress=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = start(folder, port)
    load = asyncio.run(drive(url, keys, seconds, process))
    load["metrics_open_requests"] = open_requests(url, next(iter(keys.values())))
    headers = {"Authorization": f"Bearer {keys[names[0]]}"}
    texts = [{"id": f"late{n}", "text": f"Late note number {n}."} for n in range(200)]
    place = httpx.post(f"{url}/ingest", json={"documents": texts}, headers=headers).headers["location"]
    killer = in_thread(lambda: (time.sleep(min(3.0, seconds)), os.kill(process.pid, signal.SIGKILL)))
    asyncio.run(drive_until_dead(url, keys))
    killer.join()
    process.wait()
    began = time.monotonic()
    process = start(folder, port)
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        right = "sesame" in client.post("/query", json={"question": QUESTION}).text
        started = round(time.monotonic() - began, 1)
        while (job := client.get(place).json())["status"] not in ("done", "failed"):
            time.sleep(0.1)
        documents = len(client.get("/documents").json()["documents"])
        costs = client.get("/costs", params={"by": "model"}).json()
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    kill = {
        "answers_after": right, "start_s": started, "job": job["status"], "documents": documents,
        "documents_expected": 201, "ledger_calls": costs["total_calls"], "exit_code_of_stop": code,
    }  # fmt: skip
    return load, kill


def open_requests(url: str, key: str) -> float:
    text = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"}).text
    line = next(line for line in text.splitlines() if line.startswith("llama_presets_requests_running "))
    return float(line.split()[1]) - 1  # this request


async def drive_until_dead(url: str, keys: dict[str, str]) -> None:
    async def ask(key: str) -> None:
        async with httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20
        ) as client:
            for _ in range(2_000):
                try:
                    await client.post("/query", json={"question": QUESTION})
                except httpx.HTTPError:
                    return

    await asyncio.gather(*(ask(key) for key in list(keys.values())[:16]))


# -- 3. streams, 4. budget --------------------------------------------------------------------------------------------


def streams(folder: Path, count: int = 40) -> dict[str, Any]:
    process = Process(config_of(folder), engines=Engines(lambda config: open_engine(config, pause_s=0.01)))
    in_thread(process.run)
    until_ready(process.url)
    served = process.server.engines.all()[0]
    served.engine.ingest([Document(text="The password is sesame1.", id_="d")], show_progress=False)

    def leave() -> None:
        body = {"question": QUESTION}
        with (
            httpx.Client(base_url=process.url, timeout=30) as client,
            client.stream("POST", "/query/stream", json=body) as r,
        ):
            for line in r.iter_lines():
                if "word" in line:
                    return

    threads = [in_thread(leave) for _ in range(count)]
    for thread in threads:
        thread.join()
    ends = time.monotonic() + 10
    while process.server.answers.slots.taken and time.monotonic() < ends:
        time.sleep(0.05)
    still = process.server.answers.slots.taken
    rows = served.engine.ledger.sql(
        "SELECT count(*), count(DISTINCT query_id) FROM llm_calls WHERE kind = 'llm'"
    ).fetchall()[0]
    process.stop()
    return {"left": count, "still_open": still, "rows": rows[0], "questions": rows[1]}


def budget(folder: Path, callers: int) -> dict[str, Any]:
    limit = 0.01
    key = KeyFile(folder / "keys.json").add(Caller(name="racer", budget=f"{limit}/day", rate="100000/minute"))
    config = config_of(folder, keys=str(folder / "keys.json"))
    process = Process(config, engines=Engines(open_engine, sums=folder / "sums"))
    in_thread(process.run)
    until_ready(process.url)
    served = process.server.engines.all()[0]
    served.engine.ingest([Document(text="The password is sesame1. " * 20, id_="d")], show_progress=False)
    statuses: list[int] = []

    def ask() -> None:
        with httpx.Client(
            base_url=process.url, headers={"Authorization": f"Bearer {key}"}, timeout=60
        ) as client:
            while (
                client.post("/query", json={"question": QUESTION}).status_code == 200
                and len(statuses) < 5_000
            ):
                statuses.append(200)
            statuses.append(402)

    threads = [in_thread(ask) for _ in range(callers)]
    for thread in threads:
        thread.join()
    spent = float(served.engine.ledger.get_usage_stats(tag="key:racer").total_cost_usd)
    process.stop()
    return {
        "callers": callers, "answered": statuses.count(200), "refused": statuses.count(402), "budget_usd": limit,
        "spent_usd": round(spent, 6), "beyond_usd": round(max(0.0, spent - limit), 6),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--hayhooks", type=Path, metavar="PYTHON")
    parser.add_argument("--overhead-only", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(Path(options.child[0]), int(options.child[1]))
        return
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for part in ("overhead", "streams", "budget", "load"):
            (home / part).mkdir()
        print(
            "overhead",
            json.dumps(overhead(home / "overhead", options.requests, options.hayhooks)),
            flush=True,
        )
        if options.overhead_only:
            return
        print("streams", json.dumps(streams(home / "streams")), flush=True)
        print("budget", json.dumps(budget(home / "budget", options.clients)), flush=True)
        load, kill = load_and_kill(home / "load", options.clients, options.seconds)
        print("load", json.dumps(load), flush=True)
        print("kill", json.dumps(kill), flush=True)


if __name__ == "__main__":
    main()
