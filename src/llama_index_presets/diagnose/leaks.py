"""Leak test for traces: made-up names planted at every source of text, searched for in what is exported.

Names are made anew for each run, of words that occur nowhere else, so a hit is a leak and not a coincidence. They
are looked for in every byte that reaches a collector on loopback, in clear, escaped, encoded and as plain
(unkeyed) hashes, and in everything that is logged meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import logging
import os
import secrets
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from llama_index.core import Document, MockEmbedding, PromptTemplate, VectorStoreIndex
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from llama_index_presets._extras import require
from llama_index_presets._options import option_names, strict
from llama_index_presets.monitor.traces.attributes import Content
from llama_index_presets.monitor.traces.tracing import trace_to
from llama_index_presets.presets.build import build
from llama_index_presets.presets.engine import PresetEngine

__all__ = [
    "PLACES",
    "Leak",
    "LeakReport",
    "Planted",
    "Receiver",
    "SayingLLM",
    "find_leaks",
    "plain_app",
    "preset_app",
]

# A collector on loopback that keeps what it is sent: for leak tests, benchmarks and a look at what would leave.


class Receiver:
    """An OTLP/HTTP receiver on 127.0.0.1; a context manager.

    Args:
        port: Where it listens; 0 takes a free port.

    Attributes:
        bodies: Each request's body, uncompressed.

    Example:
        >>> with Receiver() as receiver:
        ...     receiver.endpoint.startswith("http://127.0.0.1:"), receiver.bodies
        (True, [])
    """

    def __init__(self, port: int = 0) -> None:
        self.bodies: list[bytes] = []
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._http.daemon_threads = True

    @property
    def endpoint(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def spans(self) -> Iterator[Any]:
        """Give every span received so far, as protobuf messages; bodies of another kind hold none.

        Raises:
            MissingExtraError: The extra ``tracing`` is not installed.
        """
        service = require("opentelemetry.proto.collector.trace.v1.trace_service_pb2", extra="tracing")
        refused = require("google.protobuf.message", extra="tracing").DecodeError
        for body in list(self.bodies):
            try:
                resources = service.ExportTraceServiceRequest.FromString(body).resource_spans
            except refused:
                continue
            for resource in resources:
                for scope in resource.scope_spans:
                    yield from scope.spans

    def __enter__(self) -> Receiver:
        """Begin to listen."""
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True, name="otlp").start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Keep a body and say thanks."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        packed = self.headers.get("Content-Encoding", "")
        self.receiver.bodies.append(
            gzip.decompress(body)
            if packed == "gzip"
            else zlib.decompress(body)
            if packed == "deflate"
            else body
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


PLACES: Final = ("document", "metadata", "query", "answer", "filter", "exception", "template")
"""Where names are planted."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "PHOENIX_COLLECTOR_ENDPOINT")
_HEAD, _TAIL = "bcdfgjklmprstvz", "aeiou"


@dataclass(frozen=True, slots=True)
class Planted:
    """The names of one run, for an application to use.

    Attributes:
        names: Place -> a person's name, different for each of `PLACES`.
        endpoint: The collector that watches; an application with an exporter of its own sends there. While it runs,
            ``OTEL_EXPORTER_OTLP_ENDPOINT`` and ``PHOENIX_COLLECTOR_ENDPOINT`` name it too.
    """

    names: dict[str, str]
    endpoint: str

    def text(self, place: str) -> str:
        """Give a sentence for a place, with its name.

        Example:
            >>> Planted({"query": "Ada Lovelace"}, "").text("query")
            'What was Ada Lovelace treated for?'
        """
        name = self.names[place]
        return {
            "document": f"{name} was treated for botulism with an antitoxin on 12 May.",
            "query": f"What was {name} treated for?",
            "answer": f"{name} was treated for botulism [1].",
            "exception": f"cannot answer for {name}",
            "template": f"Patient: {name}",
        }.get(place, name)


@dataclass(frozen=True, slots=True)
class Leak:
    """A planted name that left.

    Attributes:
        planted: Where it had been planted; one of `PLACES`.
        where: Where it was found: an attribute of a span, other bytes sent, or a log line's logger.
        form: How it was written: ``"clear"``, ``"base64"``, ``"percent"`` or ``"plain hash"``.
    """

    planted: str
    where: str
    form: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"the name planted in the {self.planted} was found in {self.where} ({self.form})"


@dataclass(slots=True)
class LeakReport:
    """What a leak test found.

    Attributes:
        leaks: What was sent, each once; empty is what one hopes for.
        logged: What was written to the application's logs, which stay on the machine but are copied about. LlamaIndex
            itself logs the message of some exceptions.
        spans: Spans that were looked at.
        sent_bytes: Bytes that were looked at. 0 means that nothing was tested: the application sent no traces.
        log_lines: Log records that were looked at.
        raised: Class of the exception that ended the application, or None.
    """

    leaks: list[Leak] = field(default_factory=list)
    logged: list[Leak] = field(default_factory=list)
    spans: int = 0
    sent_bytes: int = 0
    log_lines: int = 0
    raised: str | None = None

    @property
    def clean(self) -> bool:
        """Whether something was sent and no name was in it; what was logged does not count."""
        return not self.leaks and self.sent_bytes > 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "clean": self.clean,
            "leaks": [asdict(leak) for leak in self.leaks],
            "logged": [asdict(leak) for leak in self.logged],
            "spans": self.spans,
            "sent_bytes": self.sent_bytes,
            "log_lines": self.log_lines,
            "raised": self.raised,
        }


@strict()
def find_leaks(
    app: Callable[[Planted], object] | None = None, *, content: Content = "hash", trace: bool = True
) -> LeakReport:
    """Run an application on planted names and look for them in its traces and logs.

    Args:
        app: Called once with the planted names; uses each as what it is called: ingests the document, asks the query,
            filters by the filter, and so on. It may raise: exceptions are one of the places. None runs a small
            LlamaIndex application (`leak_app.plain_app`); `presets.leak_app.preset_app` makes one of a preset.
        content: What `trace_to` is asked for while the application runs.
        trace: Whether to trace with `trace_to`; False tests only the exporters that the application brings along.

    Returns:
        What was found, and how much was looked at.

    Raises:
        MissingExtraError: The extra ``tracing`` is not installed.

    Example:
        >>> report = find_leaks()
        >>> report.clean, report.leaks, report.spans > 10
        (True, [], True)
        >>> leaky = find_leaks(content="text")
        >>> sorted({leak.planted for leak in leaky.leaks})
        ['answer', 'document', 'filter', 'metadata', 'query', 'template']
    """
    if app is None:
        app = plain_app
    report = LeakReport()
    with Receiver() as receiver, _logged() as lines, _sent_to(receiver.endpoint):
        planted = Planted({place: _name() for place in PLACES}, receiver.endpoint)
        with contextlib.ExitStack() as tracing:
            if trace:
                tracing.enter_context(trace_to(receiver.endpoint, project="leak-test", content=content))
            try:
                app(planted)
            except Exception as error:  # the application's own affair, but for what it says on the way out
                report.raised = type(error).__name__
        _search(report, planted, receiver, lines)
    return report


def _name() -> str:
    """A name of two words that nobody has."""

    def word(syllables: int) -> str:
        return "".join(secrets.choice(_HEAD) + secrets.choice(_TAIL) for _ in range(syllables)).capitalize()

    return f"{word(5)} {word(6)}"


@contextlib.contextmanager
def _sent_to(endpoint: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ENDPOINTS}
    os.environ.update(dict.fromkeys(_ENDPOINTS, endpoint))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _logged() -> Iterator[list[tuple[str, str]]]:
    """Every log record of the process meanwhile, at the levels that are on: logger, text with its traceback."""
    lines: list[tuple[str, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.name, self.format(record)))

    keeper = Keep()
    logging.getLogger().addHandler(keeper)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(keeper)


def _search(report: LeakReport, planted: Planted, receiver: Receiver, lines: list[tuple[str, str]]) -> None:
    needles = [needle for place in planted.names for needle in _needles(planted, place)]
    found: dict[Leak, None] = {}
    for span in receiver.spans():
        report.spans += 1
        for where, text in _texts(span):
            found |= {Leak(place, where, form): None for place, form, needle in needles if needle in text}
    shown = {(leak.planted, leak.form) for leak in found}
    for body in list(receiver.bodies):
        report.sent_bytes += len(body)
        low = body.decode("utf-8", "replace").lower()
        for place, form, needle in needles:
            if needle in low and (place, form) not in shown:
                found[Leak(place, "bytes outside the attributes of spans", form)] = None
    report.leaks = list(found)
    report.log_lines = len(lines)
    logged = {
        Leak(place, f"log '{logger}'", form): None
        for logger, text in lines
        for place, form, needle in needles
        if needle in text.lower()
    }
    report.logged = list(logged)


def _texts(span: Any) -> Iterator[tuple[str, str]]:
    """The name, the status and each attribute of a span and of its events, in lower case, with where that is."""
    yield f"the name of a span '{span.name[:40]}'", span.name.lower()
    yield f"the status of span '{span.name[:40]}'", span.status.message.lower()
    for attribute in span.attributes:
        yield f"attribute '{attribute.key}' of span '{span.name[:40]}'", str(attribute.value).lower()
    for event in span.events:
        for attribute in event.attributes:
            where = f"attribute '{attribute.key}' of event '{event.name[:40]}' in span '{span.name[:40]}'"
            yield where, str(attribute.value).lower()


def _needles(planted: Planted, place: str) -> Iterator[tuple[str, str, str]]:
    """(place, form, what to look for), all in lower case."""
    name, text = planted.names[place], planted.text(place)
    for word in name.split():
        yield place, "clear", word.lower()
        for skip in range(3):  # base64 reads three bytes at a time, from wherever the name begins
            yield place, "base64", base64.b64encode(b"\0" * skip + word.encode()).decode()[4:-4].lower()
    yield place, "percent", quote(name).lower()
    yield place, "clear", json.dumps(name)[1:-1].lower()
    for whole in {name, name.lower(), text}:
        for digest in (hashlib.sha256, hashlib.sha1, hashlib.md5):
            yield place, "plain hash", digest(whole.encode()).hexdigest()[:16]


# A small LlamaIndex application that brings a planted name to every place that a trace might show.


@strict()
class SayingLLM(CustomLLM):
    """Says one thing to every prompt, or raises it.

    Attributes:
        says: What it says.
        raises: Whether it raises that.
    """

    says: str
    raises: bool = False

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of a model."""
        return LLMMetadata(model_name="saying")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Say it."""
        if self.raises:
            raise ValueError(self.says)
        return CompletionResponse(text=self.says)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Say it word by word."""

        def words() -> CompletionResponseGen:
            said = ""
            for word in self.says.split():
                if self.raises:
                    raise ValueError(self.says)
                said += f"{word} "
                yield CompletionResponse(text=said, delta=f"{word} ")

        return words()


def plain_app(planted: Planted) -> None:
    """Ask a stock query engine: at once, streamed, on the event loop, with a template, and with a model that fails."""
    filters = MetadataFilters(filters=[MetadataFilter(key="doctor", value=planted.names["filter"])])
    document = Document(
        text=planted.text("document"),
        doc_id=f"/patients/{planted.names['document']}.txt",
        metadata={"patient": planted.names["metadata"], "doctor": planted.names["filter"]},
    )
    index = VectorStoreIndex.from_documents([document], embed_model=MockEmbedding(embed_dim=8))
    llm, failing = (
        SayingLLM(says=planted.text("answer")),
        SayingLLM(says=planted.text("exception"), raises=True),
    )
    retriever = index.as_retriever(filters=filters)
    question = planted.text("query")
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm)
    engine.query(question)
    asyncio.run(engine.aquery(question))
    str(RetrieverQueryEngine.from_args(retriever, llm=llm, streaming=True).query(question))
    llm.predict(PromptTemplate("Note: {note}. Reply."), note=planted.text("template"))
    for streaming in (False, True):
        with contextlib.suppress(ValueError):
            str(RetrieverQueryEngine.from_args(retriever, llm=failing, streaming=streaming).query(question))


# A preset as the application under a leak test: the whole way from files to streamed answers, on planted names.


@strict(also=option_names(build))
def preset_app(preset: str, **options: Any) -> Callable[[Planted], None]:
    """Make the application that `find_leaks` runs.

    It builds the preset offline in a temporary folder, with traces to the collector that watches and an LLM that says
    the planted answer.

    Args:
        preset: A row of the matrix.
        **options: What `build` takes, such as `embed_model` or `settings`.

    Raises:
        SettingsError: Later, when it runs, if the preset cannot be built here.

    Example:
        >>> from llama_index_presets.diagnose.leaks import find_leaks
        >>> report = find_leaks(preset_app("healthcare"))
        >>> report.clean, report.spans > 10
        (True, True)
    """

    def app(planted: Planted) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for says, raises in ((planted.text("answer"), False), (planted.text("exception"), True)):
                chosen = {
                    "offline": True,
                    "llm": SayingLLM(says=says, raises=raises),
                    **options,
                    "settings": {
                        "answer_floor": -1.0,
                        **options.get("settings", {}),
                        "trace_endpoint": planted.endpoint,
                    },
                }
                with build(preset, storage=Path(folder) / "index", **chosen) as engine:
                    _ingest(engine, planted, Path(folder) / "documents")
                    _ask(engine, planted)

    return app


def _ingest(engine: PresetEngine, planted: Planted, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{planted.names['document']}.txt").write_text(planted.text("document"), encoding="utf-8")
    (folder / f"{planted.names['document']}.broken.pdf").write_bytes(b"no PDF")
    engine.ingest(folder, show_progress=False)
    metadata = {"patient": planted.names["metadata"], "doctor": planted.names["filter"]}
    engine.ingest([Document(text=planted.text("document"), metadata=metadata)], show_progress=False)


def _ask(engine: PresetEngine, planted: Planted) -> None:
    question = planted.text("query")
    filters = MetadataFilters(filters=[MetadataFilter(key="doctor", value=planted.names["filter"])])
    for ask in (
        lambda: engine.query(question),
        lambda: engine.filtered(filters).query(question),
        lambda: asyncio.run(_aask(engine, question)),
        lambda: str(engine.stream(question)),
        lambda: engine.as_chat_engine().chat(planted.text("template")),
    ):
        with contextlib.suppress(ValueError):  # what the failing LLM raises
            ask()


async def _aask(engine: PresetEngine, question: str) -> None:
    await engine.aquery(question)
