"""What cost tracking costs, and whether its numbers are right: ours beside TokenCountingHandler and plain inserts.

    PYTHONPATH=. python benchmarks/cost_tracking.py [--quick] [--only accuracy,time,memory,processes,budget]

Times are medians of the wall time of single calls of a model that answers at once, less the median without any
handler, over rounds in shuffled order; 'no handler' as a subject shows the noise. The accuracy table compares with the
bill of a loopback OpenAI server.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.llms import ChatMessage, ChatResponse, CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from tests.servers.call_shapes import MESSAGES, SHAPES, Models
from tests.servers.openai import OpenAIServer

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.errors import BudgetExceededError
from llama_index_presets.monitor.budgets import Budget

RAW = {
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 900},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }
}
CHAT = [ChatMessage(role="system", content="s" * 200), ChatMessage(role="user", content="word " * 400)]


class InstantLLM(CustomLLM):
    """Answers at once, with the usage of a real answer."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="gpt-4o-mini")

    @classmethod
    def class_name(cls) -> str:
        return "openai_llm"

    @llm_chat_callback()
    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        return ChatResponse(message=ChatMessage(role="assistant", content="The answer is 42."), raw=RAW)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text="42", raw=RAW)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


class InsertingHandler(BaseCallbackHandler):
    """What one would write first: an INSERT into DuckDB at the end of each call."""

    def __init__(self, path: Path) -> None:
        super().__init__([], [])
        self.connection = duckdb.connect(str(path))
        self.connection.execute(
            "CREATE TABLE calls (ended TIMESTAMP, model VARCHAR, prompt INT, completion INT)"
        )
        self.lock = threading.Lock()

    def on_event_start(self, event_type: CBEventType, payload: Any = None, **kwargs: Any) -> str:
        return ""

    def on_event_end(self, event_type: CBEventType, payload: Any = None, **kwargs: Any) -> None:
        with self.lock:
            self.connection.execute("INSERT INTO calls VALUES (now(), ?, ?, ?)", ["gpt-4o-mini", 1000, 100])

    def start_trace(self, trace_id: str | None = None) -> None: ...

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None: ...


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")


def subject(kind: str) -> tuple[InstantLLM, Callable[[], None]]:
    """A model with the handler to be measured, and how to clean up."""
    folder = Path(tempfile.mkdtemp())
    if kind == "ours, callbacks" or kind == "ours, instrument":
        ledger = Ledger(folder / "calls.duckdb")
        handler = CostTrackingHandler(ledger)
        if kind == "ours, instrument":
            handler.instrument()
        listeners = [] if kind == "ours, instrument" else [handler]
        return InstantLLM(callback_manager=CallbackManager(listeners)), lambda: (
            handler.close(),
            ledger.close(),
        )
    made = {
        "no handler": lambda: [],
        "TokenCountingHandler": lambda: [TokenCountingHandler()],
        "synchronous INSERT": lambda: [InsertingHandler(folder / "plain.duckdb")],
    }[kind]()
    return InstantLLM(callback_manager=CallbackManager(made)), lambda: None


KINDS = ("no handler", "TokenCountingHandler", "synchronous INSERT", "ours, callbacks", "ours, instrument")


def timed(llm: InstantLLM, calls: int, threads: int) -> float:
    """Median wall time of one call, in microseconds."""
    times: list[int] = []

    def work() -> None:
        mine = []
        for _ in range(calls // threads):
            began = time.perf_counter_ns()
            llm.chat(CHAT)
            mine.append(time.perf_counter_ns() - began)
        times.extend(mine)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return statistics.median(times) / 1000


def measure_time(quick: bool) -> None:
    """Each handler's run stands between two runs without any, so that a machine that drifts drifts for both."""
    rows = []
    for threads in (1, 8):
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        added: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(3 if quick else 21):
            before = _run("no handler", threads)
            for kind in random.Random(number).sample(KINDS, len(KINDS)):
                took = _run(kind, threads)
                after = _run("no handler", threads)
                found[kind].append(took)
                added[kind].append(took - (before + after) / 2)
                before = after
        for kind in KINDS:
            low, middle, high = statistics.quantiles(added[kind], n=4)
            rows.append(
                [
                    threads,
                    kind,
                    f"{statistics.median(found[kind]):.1f}",
                    f"{middle:.1f}",
                    f"{low:.1f} to {high:.1f}",
                ]
            )
    table(
        "Added time per call (bar: 30 us with 8 threads)",
        ["threads", "handler", "us a call", "us added", "half of the rounds"],
        rows,
    )


def _run(kind: str, threads: int) -> float:
    llm, clean = subject(kind)
    timed(llm, 40, 1)
    took = timed(llm, 400 if "INSERT" in kind else 1600, threads)
    clean()
    return took


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def _memory(kind: str, calls: int, answer: Any) -> None:
    llm, clean = subject(kind)
    for _ in range(2_000):
        llm.chat([ChatMessage(role="user", content="word " * 400)])
    time.sleep(1.5)
    gc.collect()
    before = rss_mb()
    for number in range(calls):
        llm.chat([ChatMessage(role="user", content=f"{number} " + "word " * 400)])
    time.sleep(1.5)
    gc.collect()
    answer.put(rss_mb() - before)
    clean()


def measure_memory(quick: bool) -> None:
    context, rows = multiprocessing.get_context("spawn"), []
    calls = 20_000 if quick else 100_000
    for kind in ("no handler", "TokenCountingHandler", "ours, callbacks", "ours, instrument"):
        answer = context.Queue()
        worker = context.Process(target=_memory, args=(kind, calls, answer))
        worker.start()
        rows.append([kind, f"{answer.get():.1f}"])
        worker.join()
    table(f"Memory growth over {calls:,} calls (bar: 20 MB)", ["handler", "MB"], rows)


def _write(path: Path, rows: int) -> None:
    with Ledger(path) as ledger:
        for number in range(rows):
            ledger.record(
                kind="llm", provider="openai", model="gpt-4o-mini", prompt_tokens=number, latency_ms=1.0
            )


def measure_processes(quick: bool) -> None:
    context, rows_each = multiprocessing.get_context("spawn"), 2_500 if quick else 25_000
    path = Path(tempfile.mkdtemp()) / "calls.duckdb"
    began = time.perf_counter()
    workers = [context.Process(target=_write, args=(path, rows_each)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    (count, total) = Ledger(path).sql("SELECT count(*), sum(prompt_tokens) FROM llm_calls").fetchone() or (
        0,
        0,
    )
    wanted = (4 * rows_each, 4 * sum(range(rows_each)))
    rows = [[f"{wanted[0]:,}", f"{count:,}", "yes" if (count, total) == wanted else "NO", f"{seconds:.1f}"]]
    table(
        "Four processes, one ledger",
        ["rows written", "rows read back", "sums equal", "s, start-up included"],
        rows,
    )


async def _hammer(server: OpenAIServer) -> int:
    from llama_index.llms.openai import OpenAI

    llm = OpenAI(model="gpt-4o-mini", api_key="k", api_base=server.url, max_retries=0)
    refused = 0

    async def work() -> None:
        nonlocal refused
        for _ in range(10):
            try:
                await llm.achat(MESSAGES)
            except BudgetExceededError:
                refused += 1

    await asyncio.gather(*[work() for _ in range(16)])
    return refused


def measure_budget(quick: bool) -> None:
    price = (1000 * Decimal("0.15") + 100 * Decimal("0.60")) / 1_000_000
    with OpenAIServer() as server, Ledger(Path(tempfile.mkdtemp()) / "calls.duckdb") as ledger:
        handler = CostTrackingHandler(ledger, budgets=[Budget(limit_usd=Decimal("0.01"))]).instrument()
        refused = asyncio.run(_hammer(server))
        handler.close()
        seen = len(server.requests)
    rows = [[160, seen, refused, f"{seen * price:.5f}", "yes" if seen * price <= Decimal("0.01") else "NO"]]
    table(
        "A budget of $0.01, 16 tasks", ["calls tried", "seen by the server", "refused", "USD", "within"], rows
    )


def measure_accuracy(quick: bool) -> None:
    rows, wrong, missing, doubled = [], 0, 0, 0
    with (
        OpenAIServer(cached=900, reasoning=40) as server,
        Ledger(Path(tempfile.mkdtemp()) / "calls.duckdb") as ledger,
    ):
        ours = CostTrackingHandler(ledger).instrument()
        stock = TokenCountingHandler()
        models = Models(server.url, CallbackManager([ours, stock]))
        stock_models = Models(server.url, CallbackManager([stock]))
        for name, call in SHAPES.items():
            served, known = len(server.served), _rows(ledger)
            call(models)
            truth = [
                (one.prompt, one.completion, one.cached, one.reasoning) for one in server.served[served:]
            ]
            got = _rows(ledger)[len(known) :]
            missing, doubled = (
                missing + max(len(truth) - len(got), 0),
                doubled + max(len(got) - len(truth), 0),
            )
            wrong += sorted(got) != sorted(truth)
            stock.reset_counts()
            ours.uninstrument()
            call(stock_models)
            ours.instrument()
            counted = (
                stock.prompt_llm_token_count + stock.total_embedding_token_count,
                stock.completion_llm_token_count,
            )
            rows.append(
                [name, _sums(truth), _sums(got), "yes" if sorted(got) == sorted(truth) else "NO", counted]
            )
        ours.close()
    columns = [
        "shape",
        "server (prompt, completion, cached, reasoning)",
        "ours",
        "equal",
        "TokenCountingHandler (in, out)",
    ]
    table("Accuracy: the server's bill, ours, the stock handler", columns, rows)
    print(f"\n{len(SHAPES)} shapes, {wrong} wrong, {missing} calls missing, {doubled} calls counted twice")


def _rows(ledger: Ledger) -> list[tuple[int, ...]]:
    columns = "prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens"
    kinds = "('llm', 'embedding')"
    return ledger.sql(f"SELECT {columns} FROM llm_calls WHERE kind IN {kinds} ORDER BY timestamp").fetchall()


def _sums(rows: list[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*rows, strict=True)) if rows else ()


MEASURES = {
    "accuracy": measure_accuracy,
    "time": measure_time,
    "memory": measure_memory,
    "processes": measure_processes,
    "budget": measure_budget,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and rows")
    parser.add_argument("--only", default=",".join(MEASURES), help="measures, separated by commas")
    arguments = parser.parse_args()
    for name in arguments.only.split(","):
        MEASURES[name](arguments.quick)


if __name__ == "__main__":
    main()
