"""What tracing costs and what it sends: ours beside stock OpenInference and beside no tracing.

    PYTHONPATH=. python benchmarks/tracing.py [--queries 400] [--quick] [--only time,sent,leaks]

Times are medians over interleaved blocks of the wall time of single questions; the model answers at once, so nearly all
that is seen is bookkeeping. The collector is another process. CPU is that of the whole process, exporter threads
included, a question, less that without tracing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from openinference.instrumentation import TraceConfig
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tests.fakes import ScriptedLLM, WordEmbedding
from tests.servers.otlp import Receiver
from tests.unit.rerank.conftest import save_model
from tools.leaks import Planted, find_leaks, plain_app

from llama_index_presets import CrossEncoderRerank, HybridFusionRetriever, build
from llama_index_presets.monitor.traces.tracing import trace_to

Tracer = Callable[[str], AbstractContextManager[Any]]
MASKED = TraceConfig(
    hide_inputs=True,
    hide_outputs=True,
    hide_input_messages=True,
    hide_output_messages=True,
    hide_input_text=True,
    hide_output_text=True,
    hide_embedding_vectors=True,
    hide_llm_invocation_parameters=True,
)


@contextmanager
def stock(endpoint: str, config: TraceConfig | None = None) -> Iterator[None]:
    """OpenInference's instrumentor, as its documentation shows it."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")))
    instrumentor = LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=provider, config=config or TraceConfig())
    try:
        yield
    finally:
        instrumentor.uninstrument()
        provider.shutdown()


def ours(endpoint: str) -> AbstractContextManager[Any]:
    return trace_to(endpoint, project="benchmark")


def dead(endpoint: str) -> AbstractContextManager[Any]:
    """Ours, sent to a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return trace_to(f"http://127.0.0.1:{port}", project="benchmark")


WAYS: dict[str, Tracer] = {
    "none": lambda endpoint: nullcontext(),
    "ours": ours,
    "ours, dead collector": dead,
    "stock OpenInference": stock,
}


def engines(folder: Path, rows: int) -> dict[str, RetrieverQueryEngine]:
    """A simple engine, and one with a hybrid search and a (tiny) cross-encoder."""
    nodes = [TextNode(text=f"The {n % 97} fish of lake {n} is {n * 7} cm long.") for n in range(rows)]
    index = VectorStoreIndex(nodes, embed_model=WordEmbedding())
    hybrid = HybridFusionRetriever.from_index(index, top_k=5, candidates=20)
    torch.set_num_threads(1)  # waiting for threads would hide what is measured
    rerank = CrossEncoderRerank(save_model(folder), top_n=3).warm_up()
    llm = ScriptedLLM()
    return {
        "simple": RetrieverQueryEngine.from_args(index.as_retriever(similarity_top_k=5), llm=llm),
        "hybrid + rerank": RetrieverQueryEngine.from_args(hybrid, llm=llm, node_postprocessors=[rerank]),
    }


def collect(port: Any, stop: Any) -> None:
    """A collector in a process of its own."""
    with Receiver() as receiver:
        port.value = int(receiver.endpoint.rpartition(":")[2])
        while not stop.wait(0.2):
            receiver.bodies.clear()


def measure(engine: RetrieverQueryEngine, endpoint: str, queries: int) -> None:
    block, found = 20, {way: ([], []) for way in WAYS}
    for _ in range(3):
        engine.query("warm up")
    for _ in range(max(1, queries // block)):
        for way, tracer in WAYS.items():
            cpu = time.process_time()
            with tracer(endpoint):
                engine.query("How long is the fish of lake 7?")  # the first one pays for imports
                for number in range(block):
                    began = time.perf_counter()
                    engine.query(f"How long is the fish of lake {number}?")
                    found[way][0].append((time.perf_counter() - began) * 1000)
            found[way][1].append((time.process_time() - cpu) * 1000 / (block + 1))
    none, cpu_none = (statistics.median(values) for values in found["none"])
    full = statistics.median(found["stock OpenInference"][0]) - none
    print("| | median ms | 99 % ms | added ms | of stock's | CPU ms a question |\n|---|---|---|---|---|---|")
    for way, (times, cpus) in found.items():
        median, worst = statistics.median(times), statistics.quantiles(times, n=100)[98]
        added = median - none
        share = f"{added / full:.0%}" if way != "none" else "–"
        cpu = statistics.median(cpus) - (0 if way == "none" else cpu_none)
        print(f"| {way} | {median:.2f} | {worst:.2f} | {added:.2f} | {share} | {cpu:.2f} |")


def timed(queries: int, rows: int) -> None:
    port, stop = multiprocessing.Value("i", 0), multiprocessing.Event()
    process = multiprocessing.Process(target=collect, args=(port, stop), daemon=True)
    process.start()
    while not port.value:
        time.sleep(0.05)
    with tempfile.TemporaryDirectory() as folder:
        for name, engine in engines(Path(folder), rows).items():
            print(f"\n{name}, {rows:,} passages, {queries} questions each, interleaved\n")
            measure(engine, f"http://127.0.0.1:{port.value}", queries)
    stop.set()
    process.join(5)


def sent(tracer: Tracer, work: Callable[[], object]) -> tuple[int, int, int]:
    """Spans, bytes of attributes, bytes on the wire of one piece of work."""
    with Receiver() as receiver:
        with tracer(receiver.endpoint):
            work()
        spans = list(receiver.spans())
        held = sum(item.ByteSize() for span in spans for item in span.attributes)
        return len(spans), held, sum(map(len, receiver.bodies))


def sizes() -> None:
    documents = [Document(text=f"Letter {n}. " + "The fish of the lake is long. " * 40) for n in range(20)]
    embedding = MockEmbedding(embed_dim=384)
    with tempfile.TemporaryDirectory() as folder:
        works: dict[str, Callable[[], object]] = {
            f"question, {name}": lambda engine=engine: engine.query("How long is the fish?")
            for name, engine in engines(Path(folder) / "model", 100).items()
        }
        works["20 documents, VectorStoreIndex"] = lambda: VectorStoreIndex.from_documents(
            documents, embed_model=embedding
        )
        count = iter(range(10))

        def ingest() -> None:
            with build(
                "knowledge-base",
                storage=Path(folder) / f"s{next(count)}",
                embed_model=WordEmbedding(),
                llm=ScriptedLLM(),
                offline=True,
            ) as engine:
                engine.ingest(documents, show_progress=False)

        works["20 documents, knowledge-base"] = ingest
        print("\n| | spans | attributes, bytes | sent, bytes |\n|---|---|---|---|")
        for name, work in works.items():
            for way in ("ours", "stock OpenInference"):
                spans, held, wire = sent(WAYS[way], work)
                print(f"| {name}: {way} | {spans} | {held:,} | {wire:,} |")


def leaks() -> None:
    print("\n| | places of which a name left | spans | bytes |\n|---|---|---|---|")

    def masked(planted: Planted) -> None:
        with stock(planted.endpoint, MASKED):
            plain_app(planted)

    for way, report in (
        ("ours", find_leaks(plain_app)),
        ("stock OpenInference, every masking flag on", find_leaks(masked, trace=False)),
    ):
        places = sorted({leak.planted for leak in report.leaks})
        print(f"| {way} | {', '.join(places) or 'none'} | {report.spans} | {report.sent_bytes:,} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=400, help="questions a way and engine")
    parser.add_argument("--rows", type=int, default=1_000, help="passages")
    parser.add_argument("--quick", action="store_true", help="40 questions on 100 passages")
    parser.add_argument("--only", default="time,sent,leaks")
    chosen = parser.parse_args()
    queries, rows = (40, 100) if chosen.quick else (chosen.queries, chosen.rows)
    if "time" in chosen.only:
        timed(queries, rows)
    if "sent" in chosen.only:
        sizes()
    if "leaks" in chosen.only:
        leaks()


if __name__ == "__main__":
    main()
