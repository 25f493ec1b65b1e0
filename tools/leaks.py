"""Leak test of traces: plant made-up names wherever text comes from, run an application, search what it sends.

    PYTHONPATH=. python tools/leaks.py                       # a small LlamaIndex application
    PYTHONPATH=. python tools/leaks.py healthcare            # a preset, offline
    PYTHONPATH=. python tools/leaks.py --app my_app:run      # a function of yours that takes a `Planted`

Names are made anew for each run, of words that occur nowhere else, so a hit is a leak and not a coincidence. The
search covers every byte that reaches a collector on loopback, in clear, escaped, encoded and as plain (unkeyed)
hashes, and everything that is logged meanwhile. Exit code 1: a name was sent, or nothing was.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import importlib
import json
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from llama_index.core import Document, MockEmbedding, PromptTemplate, VectorStoreIndex
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from tests.servers.otlp import Receiver

from llama_index_presets.monitor.traces.attributes import Content
from llama_index_presets.monitor.traces.tracing import trace_to
from llama_index_presets.presets.build import build
from llama_index_presets.presets.engine import PresetEngine

__all__ = [
    "PLACES",
    "Leak",
    "LeakReport",
    "Planted",
    "SayingLLM",
    "find_leaks",
    "plain_app",
    "preset_app",
]

PLACES: Final = ("document", "metadata", "query", "answer", "filter", "exception", "template")
"""Places that a name is planted in."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "PHOENIX_COLLECTOR_ENDPOINT")
_HEAD, _TAIL = "bcdfgjklmprstvz", "aeiou"


@dataclass(frozen=True, slots=True)
class Planted:
    """The names of one run, for an application to use.

    Attributes:
        names: Place -> a person's name, different for each of `PLACES`.
        endpoint: The test's collector; an application with an exporter of its own sends there. While it runs,
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
    """Result of a leak test.

    Attributes:
        leaks: Names that were sent, each once.
        logged: Names in the application's logs, which stay on the machine but get copied. LlamaIndex
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


def find_leaks(
    app: Callable[[Planted], object] | None = None, *, content: Content = "hash", trace: bool = True
) -> LeakReport:
    """Run an application on planted names and look for them in its traces and logs.

    Args:
        app: Called once with the planted names; uses each as its key says: ingests the document, asks the query,
            filters by the filter, and so on. It may raise: exceptions are one of the places. None runs a small
            LlamaIndex application (`plain_app`); `preset_app` makes one of a preset.
        content: What `trace_to` is asked for while the application runs.
        trace: Whether to trace with `trace_to`; False tests only the exporters that the application brings along.

    Returns:
        The names that were sent or logged, and how much was searched.
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
            except Exception as error:  # its message is one of the places that are searched
                report.raised = type(error).__name__
        _search(report, planted, receiver, lines)
    return report


def _name() -> str:
    """A name of two words that occurs nowhere else."""

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


def preset_app(preset: str, **options: Any) -> Callable[[Planted], None]:
    """Make an application for `find_leaks` of a preset.

    It builds the preset offline in a temporary folder, with traces to the test's collector and an LLM that says
    the planted answer.

    Args:
        preset: A row of the matrix.
        **options: What `build` takes, such as `embed_model` or `settings`.

    Raises:
        SettingsError: Later, when it runs, if the preset cannot be built here.
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
        lambda: engine.with_filters(filters).query(question),
        lambda: asyncio.run(_aask(engine, question)),
        lambda: str(engine.stream(question)),
        lambda: engine.as_chat_engine().chat(planted.text("template")),
    ):
        with contextlib.suppress(ValueError):  # what the failing LLM raises
            ask()


async def _aask(engine: PresetEngine, question: str) -> None:
    await engine.aquery(question)


def _named_app(name: str) -> Callable[[Planted], object]:
    """The function of ``module:function``."""
    module, _, function = name.partition(":")
    app: Callable[[Planted], object] = getattr(importlib.import_module(module), function)
    return app


def _print(report: LeakReport) -> None:
    print(f"{report.spans} spans, {report.sent_bytes:,} bytes and {report.log_lines} log lines searched.")
    for leak in report.leaks:
        print(f"  sent: {leak}")
    for leak in report.logged:
        print(f"  logged: {leak}")
    if report.clean:
        print("  No planted name was sent.")
    elif not report.leaks:
        print("  Nothing was sent, so nothing was tested.")


def main(arguments: list[str] | None = None) -> int:
    """Run the test on a preset or an application; 0 where no name was sent."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", nargs="?", help="a row of 'llama-presets list'")
    parser.add_argument("--app", help="module:function, called with the planted names")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    app = _named_app(options.app) if options.app else preset_app(options.preset) if options.preset else None
    report = find_leaks(app)
    if options.json:
        print(json.dumps(report.to_dict()))
    else:
        _print(report)
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
